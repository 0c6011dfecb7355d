"""Where a training run stands, in one file that is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from irshap.errors import UserError
from irshap.runtime.archive import read, write
from irshap.runtime.arrays import Arrays

__all__ = ["Checkpoint"]

_KINDS = ("values", "best_values")


@dataclass
class Checkpoint:
    """A run between two steps.

    Attributes:
        run: a digest of step, model, data and settings: what it may go on with.
        epoch, step: complete epochs, and steps in the one that runs.
        steps: all steps so far.
        sums: of loss and prior over the samples of this epoch, and their number.
        history: metrics of complete epochs.
        best: what early stopping compares with: the least loss so far, None before the first.
        waited: epochs since then.
        values: parameters and states.
        best_values: those of the best epoch, where early stopping wants them.
    """

    run: str
    epoch: int = 0
    step: int = 0
    steps: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    waited: int = 0
    values: Arrays = field(default_factory=dict)
    best_values: Arrays = field(default_factory=dict)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it; what was there before stays until all is written.

        Raises:
            UserError: the folder can't be written, or the disk is full.
        """
        header = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _KINDS}
        write(path, {kind: getattr(self, kind) for kind in _KINDS}, {}, header)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], run: str, shapes: Mapping[str, Sequence[int]]
    ) -> Checkpoint | None:
        """The checkpoint at `path`; None where there is none.

        Args:
            run: the digest that it must have.
            shapes: of the parameters and states that it must hold.

        Raises:
            UserError: it is damaged, or of another run.
        """
        if not Path(path).exists():
            return None
        values, _, header = read(path, _KINDS, "checkpoint")
        if header.get("run") != run:
            raise UserError(
                "is of another run: step, model, data or settings differ",
                where=os.fspath(path),
                mend="give another checkpoint, or remove it",
            )
        known = {f.name: getattr(cls(run), f.name) for f in fields(cls) if f.name not in _KINDS}
        fits = header.keys() == known.keys() and all(map(_alike, map(header.get, known), known.values()))
        for kind, arrays in values.items():
            told = {name: list(a.shape) for name, a in arrays.items()}
            fits &= told == {n: list(s) for n, s in shapes.items()} or (kind == "best_values" and not told)
        if not fits or len(header["sums"]) != 3:
            mend = "give another checkpoint, or remove it"
            raise UserError("is damaged: not what a run keeps", where=os.fspath(path), mend=mend)
        found: dict[str, Any] = {**header, **values}
        return cls(**found)


def _alike(told: Any, first: Any) -> bool:
    """Whether this may be an attribute that starts as `first`."""
    if first is None:
        return told is None or isinstance(told, float)
    return type(told) is type(first) and not (isinstance(told, int) and told < 0)

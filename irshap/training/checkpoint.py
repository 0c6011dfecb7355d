"""Where a training run stands, in one file that is written whole or not at all."""

from __future__ import annotations

import os
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
    def load(cls, path: str | os.PathLike[str], run: str) -> Checkpoint | None:
        """The checkpoint at `path`; None where there is none.

        Raises:
            UserError: it is damaged, or of another run.
        """
        if not Path(path).exists():
            return None
        values, _, header = read(path, _KINDS, "checkpoint")
        found: dict[str, Any] = {**header, **values}
        if found.get("run") != run:
            raise UserError(
                "is of another run: step, model, data or settings differ",
                where=os.fspath(path),
                mend="give another checkpoint, or remove it",
            )
        return cls(**found)

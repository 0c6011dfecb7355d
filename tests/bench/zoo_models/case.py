"""A case of the zoo: a model of a suite, and how it is exported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "BATCHES", "EXPORTERS", "LENGTHS", "REFERENCES", "SAMPLES", "Arrays", "Case", "Inputs", "rows",
    "variants",
]  # fmt: skip

Arrays = Mapping[str, np.ndarray[Any, Any]]

EXPORTERS = ("torchscript", "dynamo")
BATCHES = ("dynamic", "one")
LENGTHS = ("fixed", "dynamic")
SAMPLES, REFERENCES = 3, 2


@dataclass(frozen=True)
class Inputs:
    """A model's inputs: arrays of SAMPLES rows, and of REFERENCES rows for those that take references.

    `lengths` has the axis of each input whose size is left open where the length is dynamic, by name; empty
    for a model whose inputs have one size.  `axes` has the axis that counts samples where it isn't the first,
    and None for an input that is one for all samples.
    """

    samples: Arrays
    references: Arrays
    lengths: Mapping[str, int] = field(default_factory=dict)
    axes: Mapping[str, int | None] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        arrays = {f"samples.{n}": a for n, a in self.samples.items()}
        arrays |= {f"references.{n}": a for n, a in self.references.items()}
        arrays |= {f"axes.{n}": np.array(-1 if a is None else a) for n, a in self.axes.items()}
        np.savez(file, **arrays)

    @staticmethod
    def load(file: Path) -> Inputs:
        found: dict[str, dict[str, Any]] = {"samples": {}, "references": {}, "axes": {}}
        with np.load(file) as arrays:
            for key in arrays.files:
                kind, _, name = key.partition(".")
                found[kind][name] = arrays[key]
        axes = {n: None if a < 0 else int(a) for n, a in found["axes"].items()}
        return Inputs(found["samples"], found["references"], axes=axes)

    def rows(self) -> Iterator[Arrays]:
        """The samples one by one, each as a batch of 1."""
        return rows(self.samples, self.axes)


def rows(arrays: Arrays, axes: Mapping[str, int | None]) -> Iterator[Arrays]:
    """Each row of the arrays as a batch of 1; an array that is one for all as it is."""
    own = {n: axes.get(n, 0) for n in arrays}
    counts = [arrays[n].shape[a] for n, a in own.items() if a is not None]
    for i in range(counts[0] if counts else 1):
        yield {n: a if own[n] is None else np.take(a, [i], own[n]) for n, a in arrays.items()}


@dataclass(frozen=True)
class Case:
    """One file: a model, an exporter, and which of its axes have a name instead of a size."""

    suite: str
    model: str
    exporter: str
    batch: str
    length: str

    @property
    def name(self) -> str:
        return f"{self.suite}/{self.model}/{self.exporter}/batch={self.batch}/length={self.length}"

    @property
    def stem(self) -> str:
        return f"{self.model}_{self.exporter}_{self.batch}_{self.length}"


def variants(suite: str, model: str, sized: bool) -> list[Case]:
    """All cases of a model, the everyday ones first; `sized`: it takes inputs of several lengths."""
    lengths = LENGTHS if sized else LENGTHS[:1]
    return [Case(suite, model, e, b, n) for b, n, e in product(BATCHES, lengths, EXPORTERS)]

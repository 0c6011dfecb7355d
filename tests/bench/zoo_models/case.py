"""A case of the zoo: a model of a suite, and how it is exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["BATCHES", "EXPORTERS", "LENGTHS", "REFERENCES", "SAMPLES", "Case", "Inputs", "variants"]

EXPORTERS = ("torchscript", "dynamo")
BATCHES = ("dynamic", "one")
LENGTHS = ("fixed", "dynamic")
SAMPLES, REFERENCES = 3, 2


@dataclass(frozen=True)
class Inputs:
    """A model's inputs: arrays of SAMPLES rows, and of REFERENCES rows for those that take references.

    `lengths` has the axis of each input whose size is left open where the length is dynamic, by name; empty
    for a model whose inputs have one size.
    """

    samples: Mapping[str, np.ndarray[Any, Any]]
    references: Mapping[str, np.ndarray[Any, Any]]
    lengths: Mapping[str, int]

    def save(self, file: Path) -> None:
        arrays = {f"samples.{n}": a for n, a in self.samples.items()}
        arrays |= {f"references.{n}": a for n, a in self.references.items()}
        np.savez(file, **arrays)

    @staticmethod
    def load(file: Path) -> Inputs:
        found: dict[str, dict[str, Any]] = {"samples": {}, "references": {}}
        with np.load(file) as arrays:
            for key in arrays.files:
                kind, _, name = key.partition(".")
                found[kind][name] = arrays[key]
        return Inputs(found["samples"], found["references"], {})


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

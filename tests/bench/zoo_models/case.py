"""A case of the zoo: a model of a suite, and how it is exported."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "BATCHES", "EXPORTERS", "LENGTHS", "PLAIN", "REFERENCES", "SAMPLES", "Arrays", "Case", "Inputs", "noise",
    "rows", "together", "tokens", "variants",
]  # fmt: skip

Arrays = Mapping[str, np.ndarray[Any, Any]]

EXPORTERS = ("torchscript", "dynamo")
BATCHES = ("dynamic", "one")
LENGTHS = ("fixed", "dynamic")
PLAIN = "plain"
SAMPLES, REFERENCES = 3, 2


@dataclass(frozen=True)
class Inputs:
    """A model's inputs: arrays of SAMPLES rows, and of REFERENCES rows for those that take references.

    `lengths` has the axis of each input whose size is left open where the length is dynamic, by name; empty
    for a model whose inputs have one size.  `axes` has the axis that counts samples where it isn't the first,
    and None for an input that is one for all samples.

    `told` is what irshap is told beyond the file: `batch` "none" (each sample is the whole input, without an
    axis for samples), `output` (the explained one of several), `quantized`; and `plain`, the file whose
    attributions those of this one are compared with, in the same folder.
    """

    samples: Arrays
    references: Arrays
    lengths: Mapping[str, int] = field(default_factory=dict)
    axes: Mapping[str, int | None] = field(default_factory=dict)
    told: Mapping[str, Any] = field(default_factory=dict)

    def save(self, file: Path) -> None:
        arrays = {f"samples.{n}": a for n, a in self.samples.items()}
        arrays |= {f"references.{n}": a for n, a in self.references.items()}
        arrays |= {f"axes.{n}": np.array(-1 if a is None else a) for n, a in self.axes.items()}
        arrays["told."] = np.array(json.dumps(dict(self.told)))
        np.savez(file, **arrays)

    @staticmethod
    def load(file: Path) -> Inputs:
        found: dict[str, dict[str, Any]] = {"samples": {}, "references": {}, "axes": {}, "told": {}}
        with np.load(file) as arrays:
            for key in arrays.files:
                kind, _, name = key.partition(".")
                found[kind][name] = arrays[key]
        axes = {n: None if a < 0 else int(a) for n, a in found["axes"].items()}
        told = json.loads(str(found["told"].get("", "{}")))
        return Inputs(found["samples"], found["references"], axes=axes, told=told)

    def rows(self) -> Iterator[Arrays]:
        """The samples one by one, each as a batch of 1."""
        return rows(self.samples, self.axes)


def rows(arrays: Arrays, axes: Mapping[str, int | None]) -> Iterator[Arrays]:
    """Each row of the arrays as a batch of 1; an array that is one for all as it is."""
    own = {n: axes.get(n, 0) for n in arrays}
    counts = [arrays[n].shape[a] for n, a in own.items() if a is not None]
    for i in range(counts[0] if counts else 1):
        yield {n: a if own[n] is None else np.take(a, [i], own[n]) for n, a in arrays.items()}


def noise(
    name: str, shape: tuple[int, ...], length: int | None = None, seed: int = 1, scale: float = 1.0
) -> Inputs:
    """One input of normal noise; `length`: the axis, counted with samples, whose size may be left open."""
    rng = np.random.default_rng(seed)
    values = (scale * rng.standard_normal((SAMPLES + REFERENCES, *shape))).astype(np.float32)
    return _halves(name, values, length)


def tokens(
    name: str, shape: tuple[int, ...], below: int, length: int | None = None, seed: int = 1, least: int = 0
) -> Inputs:
    """One input of integers below a number."""
    values = np.random.default_rng(seed).integers(least, below, (SAMPLES + REFERENCES, *shape))
    return _halves(name, values, length)


def together(*parts: Inputs, **told: Any) -> Inputs:
    """The inputs of all parts as those of one model."""

    def merged(name: str) -> dict[str, Any]:
        return {n: a for part in parts for n, a in getattr(part, name).items()}

    return Inputs(*map(merged, ("samples", "references", "lengths", "axes")), told)


def _halves(name: str, values: np.ndarray[Any, Any], length: int | None) -> Inputs:
    return Inputs(
        {name: values[:SAMPLES]}, {name: values[SAMPLES:]}, {} if length is None else {name: length}
    )


@dataclass(frozen=True)
class Case:
    """One file: a model, an exporter, which axes have a name instead of a size, and what was made of it.

    `form`: "plain" as the exporter wrote it, or what an optimizer or a quantizer made of that.
    """

    suite: str
    model: str
    exporter: str
    batch: str
    length: str
    form: str = PLAIN

    @property
    def name(self) -> str:
        form = "" if self.form == PLAIN else f"/{self.form}"
        return f"{self.suite}/{self.model}/{self.exporter}/batch={self.batch}/length={self.length}{form}"

    @property
    def stem(self) -> str:
        form = "" if self.form == PLAIN else f"_{self.form}"
        return f"{self.model}_{self.exporter}_{self.batch}_{self.length}{form}"


def variants(
    suite: str,
    model: str,
    sized: bool,
    batches: Sequence[str] = BATCHES,
    exporters: Sequence[str] = EXPORTERS,
) -> list[Case]:
    """All cases of a model, the everyday ones first; `sized`: it takes inputs of several lengths."""
    lengths = LENGTHS if sized else LENGTHS[:1]
    return [Case(suite, model, e, b, n) for b, n, e in product(batches, lengths, exporters)]

"""Makes inputs for a file of which nothing is known.

    python -m zoo_models.guessing FILE.onnx INPUTS.npz [NAME=SIZE ...]

Floats are noise, integers small.  The batch is the first input's first axis, with its name wherever that
stands; other open axes get the first size that ONNX Runtime takes and that outputs depend on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from zoo_models.case import REFERENCES, SAMPLES, Inputs

__all__ = ["guess"]

SIZES = (8, 16, 24, 32, 48, 64, 96, 128, 160, 224, 256, 320, 512, 576, 640, 1024, 4000, 16000, 48000)
SMALLEST_IMAGE = 64
LARGEST = 2**22
"""Elements that all samples have together: two open axes grow faster than one."""

INTEGERS = (10, 2)
"""Integers below this are tried: ids of a vocabulary, or choices."""

RATE = 16000
"""An integer for all samples is mostly a sampling rate."""


def guess(file: Path, sizes: Mapping[str, int]) -> Inputs:
    """Inputs that the model runs on.

    Raises:
        ValueError: none was found; with what ONNX Runtime said last.
    """
    model = onnx.load(file)
    given = {t.name for t in model.graph.initializer}
    declared = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in given}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    last = "it has no input"
    for size, below in product(SIZES, INTEGERS):
        inputs = _inputs(declared, sizes, size, below)
        if sum(a.size for a in inputs.samples.values()) > LARGEST:
            break
        try:
            found = [session.run(None, row) for row in _some(inputs)]
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            last = str(error).splitlines()[0]
            continue
        floats = [pair for pair in zip(*found, strict=True) if pair[0].dtype.kind == "f"]
        if not floats:
            raise ValueError("it has no float output")
        if all(a.size for a, _ in floats) and any(
            a.shape == b.shape and not np.array_equal(a, b) for a, b in floats
        ):
            return inputs
        last = "its outputs don't depend on its inputs, or are empty"
    raise ValueError(last)


def _some(inputs: Inputs) -> Iterator[dict[str, Any]]:
    found = [dict(row) for row in inputs.rows()]
    return iter((found[0], found[-1]))


def _inputs(declared: Mapping[str, Any], sizes: Mapping[str, int], size: int, below: int) -> Inputs:
    generator = np.random.default_rng(0)
    batch = _batch(declared)
    samples: dict[str, Any] = {}
    references: dict[str, Any] = {}
    axes: dict[str, int | None] = {}
    for name, kind in declared.items():
        dims = list(kind.shape.dim)
        places = [i for i, d in enumerate(dims) if batch and d.dim_param == batch]
        places = places or _unnamed(dims, bool(batch))
        axis = places[0] if places else None
        if axis != 0:
            axes[name] = axis

        named = [d.dim_param or f"{name}[{i}]" for i, d in enumerate(dims)]

        def array(
            count: int, dims: Any = dims, axis: Any = axis, kind: Any = kind, named: Any = named
        ) -> Any:
            # pooling leaves nothing of a smaller image, which ONNX Runtime doesn't mind
            default = max(size, SMALLEST_IMAGE) if len(dims) > 3 else size
            shape = [
                count if i == axis else d.dim_value if d.dim_value > 0 else sizes.get(named[i], default)
                for i, d in enumerate(dims)
            ]
            return _random(generator, helper.tensor_dtype_to_np_dtype(kind.elem_type), shape, below)

        samples[name] = array(SAMPLES)
        if axis == 0:
            references[name] = array(REFERENCES)
    return Inputs(samples, references, axes=axes)


def _unnamed(dims: list[Any], named: bool) -> list[int]:
    """Where the batch stands in an input that doesn't name it: `named`, whether another one does."""
    opened = [i for i, d in enumerate(dims) if d.dim_value <= 0]
    if opened[:1] == [0] or (not named and dims and dims[0].dim_value == 1):
        return [0]
    return opened if len(opened) == 1 and not dims[opened[0]].dim_param else []


def _batch(declared: Mapping[str, Any]) -> str:
    """The name of the first axis that comes first."""
    first = (k.shape.dim[0].dim_param for k in declared.values() if len(k.shape.dim))
    return next(filter(lambda name: name not in ("", "?"), first), "")


def _random(generator: Any, dtype: Any, shape: list[int], below: int) -> Any:
    if dtype.kind == "f":
        return generator.standard_normal(shape).astype(dtype)
    if not shape:
        return np.array(RATE, dtype)
    return generator.integers(0, 2 if dtype.kind == "b" else below, shape).astype(dtype)


def main() -> None:
    file, inputs, *sizes = sys.argv[1:]
    pairs = (text.partition("=") for text in sizes)
    try:
        guess(Path(file), {name: int(size) for name, _, size in pairs}).save(Path(inputs))
    except ValueError as error:
        Path(inputs).with_suffix(".error").write_text(str(error))


if __name__ == "__main__":
    main()

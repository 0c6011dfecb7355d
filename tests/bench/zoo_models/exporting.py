"""Exports cases of one model, in a process of its own.

    python -m zoo_models.exporting FOLDER SUITE MODEL STEM ...

Writes STEM.onnx and STEM.npz (inputs) for each case, or STEM.error with what the exporter said.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from zoo_models.case import Case, Inputs
from zoo_models.suites import SUITES

OPSET = 17
"""Of the TorchScript exporter; the dynamo exporter chooses its own."""


def export(case: Case, model: torch.nn.Module, inputs: Inputs, file: Path) -> None:
    """Writes the model as `case` asks."""
    rows = 1 if case.batch == "one" else 2
    names = list(inputs.samples)
    example = tuple(torch.from_numpy(_example(case, inputs, n)[:rows]) for n in names)
    axes = {n: _axes(case, inputs, n) for n in names}
    kwargs: dict[str, Any] = {"input_names": names, "output_names": ["logits"], "external_data": False}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if case.exporter == "torchscript":
            if case.batch == "dynamic":
                axes["logits"] = {0: "batch"}
            torch.onnx.export(
                model, example, str(file), dynamo=False, opset_version=OPSET, dynamic_axes=axes, **kwargs
            )
        else:
            shapes = tuple(axes[n] or None for n in names)
            # the forward of a wrapper takes its inputs as one tuple
            given = (shapes,) if getattr(model, "takes_tuple", False) else shapes
            torch.onnx.export(
                model, example, str(file), dynamo=True, verbose=False, dynamic_shapes=given, **kwargs
            )
    onnx.checker.check_model(str(file))


def _example(case: Case, inputs: Inputs, name: str) -> np.ndarray[Any, Any]:
    """What is traced: with a dynamic length, longer inputs than those that are measured."""
    array, axis = inputs.samples[name], inputs.lengths.get(name)
    if case.length == "fixed" or axis is None:
        return array
    return np.ascontiguousarray(np.concatenate([array, array], axis))


def _axes(case: Case, inputs: Inputs, name: str) -> dict[int, str]:
    axes = {0: "batch"} if case.batch == "dynamic" else {}
    if case.length == "dynamic" and name in inputs.lengths:
        axes[inputs.lengths[name]] = "length"
    return axes


def _plain(error: Exception) -> str:
    """What an exporter says, without colours and advice: of the first cause where there is one."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(error) if cause is error else f"{type(cause).__name__}: {cause}"
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def main() -> None:
    folder, suite, name, *stems = sys.argv[1:]
    torch.set_num_threads(1)
    (Path(folder) / suite).mkdir(parents=True, exist_ok=True)
    model, inputs = SUITES[suite].build(name)
    for case in SUITES[suite].cases(name):
        if case.stem not in stems:
            continue
        file = Path(folder) / suite / f"{case.stem}.onnx"
        try:
            export(case, model, inputs, file)
            inputs.save(file.with_suffix(".npz"))
        except Exception as error:  # whatever an exporter raises is its answer
            file.unlink(missing_ok=True)
            file.with_suffix(".error").write_text(f"{type(error).__name__}: {_plain(error)}")


if __name__ == "__main__":
    main()

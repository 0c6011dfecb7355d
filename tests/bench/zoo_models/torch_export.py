"""A module of torch written as ONNX by one of torch's exporters."""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from zoo_models.case import Case, Inputs

__all__ = ["export"]

OPSET = 17
"""Of the TorchScript exporter; the dynamo exporter chooses its own."""


def export(case: Case, model: torch.nn.Module, inputs: Inputs, file: Path) -> Inputs:
    """Writes the model as `case` asks, and gives the inputs that go with the file."""
    rows = 1 if case.batch == "one" else 2
    names = list(inputs.samples)
    example = tuple(torch.from_numpy(_example(case, inputs, n, rows)) for n in names)
    axes = {n: _axes(case, inputs, n) for n in names}
    outputs = list(getattr(model, "gives", ("logits",)))
    kwargs: dict[str, Any] = {"input_names": names, "output_names": outputs, "external_data": False}
    torch.backends.mha.set_fastpath_enabled(False)  # it is one op, which neither exporter knows
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        warnings.simplefilter("ignore")
        if case.exporter == "torchscript":
            if case.batch == "dynamic":
                axes |= {n: {0: "batch"} for n in outputs}
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
    return inputs


def _example(case: Case, inputs: Inputs, name: str, rows: int) -> np.ndarray[Any, Any]:
    """What is traced: with a dynamic length, longer inputs than those that are measured."""
    array, axis = inputs.samples[name], inputs.lengths.get(name)
    if inputs.axes.get(name, 0) is not None:
        array = array[0] if case.batch == "none" else array[:rows]
    if case.length == "fixed" or axis is None:
        return array
    return np.ascontiguousarray(np.concatenate([array, array], axis))


def _axes(case: Case, inputs: Inputs, name: str) -> dict[int, str]:
    axes = {0: "batch"} if case.batch == "dynamic" else {}
    if case.length == "dynamic" and name in inputs.lengths:
        axes[inputs.lengths[name]] = "length"
    return axes

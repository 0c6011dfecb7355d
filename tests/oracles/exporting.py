"""Exports torch models to ONNX files fit to be committed: checked, in one piece, free of machine paths."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx.reference import ReferenceEvaluator
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel
from torch import nn

OPSET = 17  # of the TorchScript exporter; the dynamo exporter chooses its own


def _clean(model: onnx.ModelProto, properties: Mapping[str, str]) -> None:
    """Drop what quotes the machine (stack traces of the dynamo exporter) and add `properties`."""
    for node in (n for graph in (model.graph, *model.functions) for n in graph.node):
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    for key, text in properties.items():
        model.metadata_props.add(key=key, value=text)


def export(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    path: Path,
    *,
    output: str = "logits",
    exporter: str = "torchscript",
    dynamic: bool = True,
    folded: bool = True,
    properties: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Export `model` with named `inputs`; `dynamic` makes axis 0 of inputs and output symbolic.

    Without `folded` the exporters leave the graph as it is; else they fold batch norms into convolutions.
    """
    names = list(inputs)
    args = tuple(inputs.values())
    buffer = io.BytesIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if exporter == "torchscript":
            axes = {name: {0: "batch"} for name in (*names, output)} if dynamic else None
            torch.onnx.export(
                model, args, buffer, dynamo=False, opset_version=OPSET,
                input_names=names, output_names=[output], dynamic_axes=axes,
                do_constant_folding=folded,
                training=torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE,
            )  # fmt: skip
            proto = onnx.load_from_string(buffer.getvalue())
        elif exporter == "dynamo":
            shapes = tuple({0: torch.export.Dim("batch")} for _ in names) if dynamic else None
            program = torch.onnx.export(
                model, args, dynamo=True, input_names=names, output_names=[output],
                dynamic_shapes=shapes, verbose=False, optimize=folded,
            )  # fmt: skip
            assert program is not None
            proto = program.model_proto
        else:
            raise ValueError(f"unknown exporter {exporter!r}: torchscript or dynamo")
    _clean(proto, properties or {})
    onnx.checker.check_model(proto, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def runs(path: Path) -> bool:
    """Whether ONNX Runtime's CPU provider has a kernel for every node: for float64 it often hasn't."""
    try:
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except NoKernel:
        return False
    return True


def run(path: Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """The first output of an ONNX file in ONNX Runtime, or in ONNX's evaluator where that lacks a kernel."""
    if not runs(path):
        return np.asarray(ReferenceEvaluator(str(path)).run(None, dict(inputs))[0])
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])


def difference(
    path: Path, inputs: Mapping[str, np.ndarray], expected: np.ndarray, *, single: bool = False
) -> float:
    """Largest |ONNX Runtime - expected|; `single` feeds one sample at a time, for files of fixed batch 1."""
    if not single:
        return float(np.abs(run(path, inputs) - expected).max())
    rows: Sequence[np.ndarray] = [
        run(path, {name: array[i : i + 1] for name, array in inputs.items()}) for i in range(len(expected))
    ]
    return float(np.abs(np.concatenate(rows) - expected).max())

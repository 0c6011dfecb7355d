"""Weights of a model in half precision, stored in half: a cast makes them what the program reads."""

from __future__ import annotations

from itertools import count

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from irshap.lowering.files.arrays import array_of
from irshap.lowering.files.protos import nbytes

__all__ = ["half_of", "with_halves"]

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)

_LARGE = 4096
"""Bytes from which on half of them is worth a node."""


def half_of(model: onnx.ModelProto | None) -> int:
    """The element type of the half precision that a model's large weights are in, or 0."""
    found = (
        {t.data_type for t in model.graph.initializer if nbytes(t) >= _LARGE} if model is not None else set()
    )
    return next((kind for kind in _HALVES if kind in found), 0)


def with_halves(model: onnx.ModelProto, kind: int) -> onnx.ModelProto:
    """`model`, in place, with those of its float32 weights in half that lose nothing by it.

    ONNX Runtime folds the casts when it loads the model.
    """
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    taken = {v for node in model.graph.node for v in (*node.input, *node.output)}
    taken |= {t.name for t in model.graph.initializer} | {v.name for v in model.graph.input}
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or nbytes(tensor) < _LARGE:
            continue
        array = array_of(tensor)
        with np.errstate(over="ignore"):
            half = array.astype(dtype)
        if not np.array_equal(half.astype(np.float32), array):
            continue
        name = next(n for i in count() if (n := f"{tensor.name}_half{i or ''}") not in taken)
        taken.add(name)
        casts.append(helper.make_node("Cast", [name], [tensor.name], name, to=TensorProto.FLOAT))
        tensor.CopyFrom(numpy_helper.from_array(half, name))
    if casts:
        rest = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*casts, *rest])
    return model

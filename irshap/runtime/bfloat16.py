"""bfloat16 in and out of ONNX Runtime: numpy has no such type, so it goes in and comes out as its bits."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime

from irshap.runtime.arrays import Array

__all__ = ["BFLOAT16", "run"]

BFLOAT16 = "tensor(bfloat16)"
"""How ONNX Runtime calls the type."""

_CODE = 16
"""Its number among ONNX's element types."""


def run(session: Any, outputs: Sequence[str], feed: Mapping[str, Array]) -> list[Any]:
    """The outputs of a session, whose bfloat16 inputs and outputs are float32 out here."""
    narrow = {v.name for v in (*session.get_inputs(), *session.get_outputs()) if v.type == BFLOAT16}
    if not narrow:
        return list(session.run(outputs, dict(feed)))
    make, make_typed = (
        onnxruntime.OrtValue.ortvalue_from_numpy,
        onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type,
    )
    values = {k: make_typed(_bits(v), _CODE) if k in narrow else make(v) for k, v in feed.items()}
    found = session.run_with_ort_values(list(outputs), values)
    return [_widened(v) if k in narrow else v.numpy() for k, v in zip(outputs, found, strict=True)]


def _bits(array: Array) -> Array:
    """The nearest bfloat16 of each float32, halves to the even one: its upper 16 bits."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    # what is added would carry NaN over into infinity
    return np.where(np.isnan(array), np.uint16(0x7FC0), rounded).reshape(np.shape(array))


def _widened(value: Any) -> Array:
    """A bfloat16 tensor as float32."""
    shape = value.shape()
    content = ctypes.string_at(value.data_ptr(), 2 * int(np.prod(shape)))
    bits = np.frombuffer(content, np.uint16).astype(np.uint32) << 16
    return bits.view(np.float32).reshape(shape)

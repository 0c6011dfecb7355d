"""Tensors whose data is an array of this process: weights are in memory, or mapped from a file, once."""

from __future__ import annotations

from itertools import count
from uuid import uuid4
from weakref import WeakValueDictionary

import numpy as np
from onnx import TensorProto

from irshap.ir.types import Array

__all__ = ["data_of", "held", "hold"]

_PREFIX = f"irshap-{uuid4().hex}-"
"""No model from elsewhere has such a location."""

_NUMBERS = count()
_ARRAYS: WeakValueDictionary[str, Array] = WeakValueDictionary()


def hold(tensor: TensorProto, array: Array) -> None:
    """Makes `tensor`'s data that of `array`, without a copy: for as long as somebody else has that.

    The type and dims of `tensor` are those of the array, whose elements lie one after another.
    """
    key = f"{_PREFIX}{next(_NUMBERS)}"
    _ARRAYS[key] = array
    tensor.ClearField("raw_data")
    tensor.ClearField("external_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=key)


def held(tensor: TensorProto) -> Array | None:
    """The array that is a tensor's data; None where its data is its own, or stands in a file."""
    if tensor.data_location != TensorProto.EXTERNAL or not tensor.external_data:
        return None
    return _ARRAYS.get(tensor.external_data[0].value)


def data_of(tensor: TensorProto) -> bytes | memoryview:
    """A tensor's raw data, of what is held without a copy."""
    array = held(tensor)
    return tensor.raw_data if array is None else array.reshape(-1).view(np.uint8).data

"""The numbers that a model's tensors hold."""

from __future__ import annotations

from math import prod

import numpy as np
import onnx
from onnx import helper, numpy_helper

from irshap.errors import ModelError
from irshap.ir.types import Array, DType
from irshap.lowering.files.held import held
from irshap.lowering.files.protos import first_line

__all__ = ["array_of", "dense", "dtype_of"]

LARGEST_DENSE = 2**28
"""Sparse initializers become dense up to this many elements: a few bytes could ask for any memory."""


def dtype_of(code: int) -> DType:
    """The element type that an ONNX number stands for; ModelError where the IR has none."""
    try:
        return DType.of(np.empty(0, helper.tensor_dtype_to_np_dtype(code)))
    except KeyError:
        names = onnx.TensorProto.DataType
        name = names.Name(code) if code in names.values() else str(code)
        raise ModelError(f"has tensors of the element type {name}, which irshap can't read") from None


def array_of(tensor: onnx.TensorProto) -> Array:
    """A tensor's elements; ModelError where its data isn't what its type and dims say."""
    dtype_of(tensor.data_type)
    if (array := held(tensor)) is not None:
        return array
    try:
        return numpy_helper.to_array(tensor)
    except (TypeError, ValueError) as error:
        where = f"tensor {first_line(ValueError(tensor.name))!r}"
        raise ModelError(
            f"its data doesn't fit its type and dims: {first_line(error)}", where=where
        ) from error


def dense(sparse: onnx.SparseTensorProto) -> Array:
    """A sparse tensor's elements, zeros included; ModelError where there are too many, or indices are off."""
    values, indices = array_of(sparse.values), array_of(sparse.indices)
    where = f"sparse tensor {first_line(ValueError(sparse.values.name))!r}"
    size = prod(sparse.dims)
    if size > LARGEST_DENSE:
        raise ModelError(f"has {size} elements; irshap reads up to {LARGEST_DENSE}", where=where)
    found = np.zeros(tuple(sparse.dims), values.dtype)
    try:
        if indices.ndim == 1:
            found.reshape(-1)[indices] = values
        else:
            found[tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise ModelError(f"its indices don't fit its dims: {first_line(error)}", where=where) from error
    return found

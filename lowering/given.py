"""What a user says of a model before it is lifted: values of inputs, and sizes of open axes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

import numpy as np
import onnx
from onnx import helper, numpy_helper

from irshap.errors import ModelError, near
from irshap.ir.dims import N
from irshap.ir.types import Array
from irshap.lowering.files.protos import first_line

__all__ = ["input_types", "named_pairs", "open_axes", "with_sizes", "with_values"]

_UNNAMED = {"", "-1", "?", "*", "none", "unknown"}
"""What some writers name an axis that they leave open: each its own, whatever others are called."""

_T = TypeVar("_T")


def named_pairs(text: str, what: str, read: Callable[[str], _T]) -> dict[str, _T]:
    """`name=value, ...` as a mapping.

    Raises:
        ModelError: it has another form, or a name twice.
    """
    found: dict[str, _T] = {}
    for pair in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = pair.rpartition("=")
        name = name.strip()
        try:
            if not equals or not name or name in found:
                raise ValueError("it has no name, or one that is given twice")
            found[name] = read(value.strip())
        except ValueError as error:
            raise ModelError(f"{pair!r} doesn't say {what}: {error}", mend="Write NAME=VALUE") from None
    return found


def input_types(model: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    """The types of the inputs that are tensors; an initializer that is listed as one isn't."""
    constants = {t.name for t in model.graph.initializer}
    return {
        v.name: v.type.tensor_type
        for v in model.graph.input
        if v.name not in constants and v.type.HasField("tensor_type")
    }


def open_axes(model: onnx.ModelProto) -> None:
    """Leaves unnamed, in place, the axes that a model marks as open in a way of its own (-1, "?")."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_value < 0 or (dim.HasField("dim_param") and dim.dim_param.strip().lower() in _UNNAMED):
                dim.Clear()


def with_values(model: onnx.ModelProto, values: Mapping[str, str]) -> onnx.ModelProto:
    """The model with inputs of one element as constants.

    Raises:
        ModelError: no such input, one of more elements, or a value that isn't of its type.
    """
    if not values:
        return model
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    types = input_types(fixed)
    for name, text in values.items():
        where = f"input {first_line(ValueError(name))!r}"
        if name not in types:
            raise ModelError("the model has no such input", where=where, mend=near(name, types))
        array = _one_element(types[name], text, where)
        fixed.graph.initializer.append(numpy_helper.from_array(array, name))
    if fixed.ir_version >= 4:  # before that, initializers must be listed as inputs
        kept = [v for v in fixed.graph.input if v.name not in values]
        del fixed.graph.input[:]
        fixed.graph.input.extend(kept)
    return fixed


def _one_element(type: onnx.TypeProto.Tensor, text: str, where: str) -> Array:
    dims = type.shape.dim
    if not type.HasField("shape") or any(d.HasField("dim_value") and d.dim_value != 1 for d in dims):
        raise ModelError(
            "only an input of one element can be set", where=where, mend="Give its samples at run time"
        )
    dtype = helper.tensor_dtype_to_np_dtype(type.elem_type)
    try:
        if dtype == np.bool_:
            value: object = {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        else:
            value = int(text) if dtype.kind in "iu" else float(text)
        return np.full([1] * len(dims), value, dtype)
    except (KeyError, OverflowError, TypeError, ValueError):
        raise ModelError(f"{text!r} is no {dtype}", where=where) from None


def with_sizes(
    model: onnx.ModelProto, sizes: Mapping[str, int], given: Mapping[str, Array], axes: Mapping[str, int]
) -> dict[str, int]:
    """Fixes, in place, open axes of a model's inputs, and every axis of the same name; tells which.

    Args:
        sizes: by an axis' name, or for one without a name by `input[axis]`.
        given: references by input, "" for one array that is for the only input it can be for.  An axis of
            size 1 fixes nothing: it may be broadcast.
        axes: of inputs whose batch isn't their first axis.

    Raises:
        ModelError: no such open axis, or no size.
    """
    types = input_types(model)
    places = {f"{name}[{i}]": dim for name, type in types.items() for i, dim in _open(type)}
    found: dict[str, int] = {}
    for name, size in sizes.items():
        named = [d.dim_param for d in places.values() if name in (d.dim_param, _clean(d.dim_param))]
        if name not in places and not named:
            known = [p.dim_param or place for place, p in places.items()]
            raise ModelError(f"no input has an open axis {name!r}", where="sizes", mend=near(name, known))
        if size < 0:  # none is one: the past of a language model before its first token
            raise ModelError(f"{name}={size} is no size", where="sizes")
        found[named[0] if named else name] = size
    for size_of in _told(types, given, axes):
        for name, size in size_of.items():
            found.setdefault(name, size)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for i, dim in enumerate(value.type.tensor_type.shape.dim):
            name = dim.dim_param or f"{value.name}[{i}]"
            if not dim.HasField("dim_value") and name in found:
                dim.dim_value = found[name]
    return found


def _clean(name: str) -> str:
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _open(type: onnx.TypeProto.Tensor) -> Iterator[tuple[int, onnx.TensorShapeProto.Dimension]]:
    return ((i, d) for i, d in enumerate(type.shape.dim) if not d.HasField("dim_value"))


def _told(
    types: Mapping[str, onnx.TypeProto.Tensor], given: Mapping[str, Array], axes: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """What each array says of open axes; one without a name says what it says of all inputs it can be for."""
    for name, array in given.items():
        if name in types:
            yield _sizes_in(name, types[name], array, axes.get(name, 0)) or {}
        elif not name:
            all_of = (_sizes_in(n, t, array, axes.get(n, 0)) for n, t in types.items())
            fits = [sizes for sizes in all_of if sizes is not None]
            yield dict(set.intersection(*(set(s.items()) for s in fits))) if fits else {}


def _sizes_in(name: str, type: onnx.TypeProto.Tensor, array: Array, batch: int) -> dict[str, int] | None:
    """The sizes of open axes by name, or None where these can't be references for this input."""
    dims = [d for i, d in enumerate(type.shape.dim) if i != batch]
    floats = helper.tensor_dtype_to_np_dtype(type.elem_type).kind == "f"
    if array.ndim != len(dims) + 1 or floats is not (array.dtype.kind == "f"):
        return None
    found: dict[str, int] = {}
    others = [i for i in range(len(dims) + 1) if i != batch]
    for i, dim, size in zip(others, dims, array.shape[1:], strict=True):
        if dim.HasField("dim_value"):
            if dim.dim_value != size:
                return None
        elif size > 1 and dim.dim_param != str(N):
            found.setdefault(dim.dim_param or f"{name}[{i}]", size)
    return found

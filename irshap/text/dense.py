"""Tensors in text: `dense<f32[2], [1.0, 2.0]>` when small, little-endian base64 when large.

Both forms are exact.  A list is printed only when reading it back gives the very same bytes, which a NaN
with an unusual payload, for one, doesn't.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from irshap.ir.types import Array, DType, Tensor, TensorType

__all__ = [
    "LIST_LIMIT",
    "array_from_base64",
    "array_from_list",
    "base64_text",
    "bytes_from_base64",
    "dense_text",
]
__all__ += ["static_shape"]

LIST_LIMIT = 16
"""Tensors of up to this many elements are printed element by element."""

_COMPLEX = (DType.C64, DType.C128)
_NUMPY_SHORTEST = (DType.F16, DType.F32, DType.F64)


def base64_text(data: bytes) -> str:
    """Bytes as a literal."""
    return f'base64"{base64.b64encode(data).decode("ascii")}"'


def bytes_from_base64(text: str) -> bytes:
    """The inverse of what stands between the quotes of `base64_text`; raises ValueError."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"this is no base64: {error}") from None


def dense_text(tensor: Tensor, *, elide: bool = False) -> str:
    """The literal of a tensor; with `elide` a large one shows its type alone."""
    array, kind = tensor.array, tensor.type
    small = array.size <= LIST_LIMIT
    if elide and not small:
        return f"dense<{kind}, elided>"
    if kind.dtype is DType.STR:
        return f"dense<{kind}, [{', '.join(map(_string, array.ravel()))}]>"
    if small and kind.dtype not in _COMPLEX:
        elements = [_element(v, kind.dtype) for v in array.ravel()]
        if _array(elements, kind.dtype).tobytes() == array.tobytes():
            return f"dense<{kind}, [{', '.join(elements)}]>"
    return f"dense<{kind}, {base64_text(_little_endian(array).tobytes())}>"


def _string(value: object) -> str:
    return base64_text(value) if isinstance(value, bytes) else json.dumps(str(value))


def _element(value: Any, dtype: DType) -> str:
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if not _is_real(dtype):
        return str(int(value))
    exact = repr(float(value))
    if dtype in _NUMPY_SHORTEST and math.isfinite(value):
        # the shortest digits of this precision (0.1, not 0.10000000149011612), unless reading them as a
        # double on the way rounds twice and misses.  Exponents as Python has them: numpy's releases differ
        short = float(str(value))
        if float(dtype.numpy.type(short)) == float(value):
            return repr(short)
    return exact


def _is_real(dtype: DType) -> bool:
    return not (dtype.is_integer or dtype in (DType.BOOL, DType.STR, *_COMPLEX))


def _array(elements: Sequence[str], dtype: DType) -> Array:
    with np.errstate(all="ignore"):
        if dtype is DType.BOOL:
            return np.array([{"true": True, "false": False}[e] for e in elements], dtype=bool)
        if _is_real(dtype):
            return np.array([float(e) for e in elements], dtype=np.float64).astype(dtype.numpy)
        values = [int(e) for e in elements]
        wide = np.uint64 if dtype is DType.U64 else np.int64
        return np.array(values, dtype=wide).astype(dtype.numpy)


def array_from_list(elements: Sequence[str], kind: TensorType) -> Array:
    """The array of a list literal (of any type but strings); raises ValueError."""
    if kind.dtype in _COMPLEX:
        raise ValueError(f"a {kind.dtype.value} tensor is written as base64")
    try:
        array = _array(elements, kind.dtype)
    except (KeyError, OverflowError, ValueError) as error:
        raise ValueError(f"this is no list of {kind.dtype.value} elements: {error}") from None
    if kind.dtype.is_integer and [int(v) for v in array] != [int(e) for e in elements]:
        raise ValueError(f"an element doesn't fit into {kind.dtype.value}")
    return array.reshape(static_shape(kind, len(elements)))


def array_from_base64(text: str, kind: TensorType) -> Array:
    """The array of a base64 literal; raises ValueError."""
    data = bytes_from_base64(text)
    if kind.dtype is DType.STR:
        raise ValueError("a tensor of strings is written as a list")
    size, rest = divmod(len(data), kind.dtype.bytes)
    if rest:
        raise ValueError(f"{len(data)} bytes are no whole number of {kind.dtype.value} elements")
    shape = static_shape(kind, size)
    array = _little_endian(np.frombuffer(data, dtype=kind.dtype.numpy))
    narrow = kind.dtype.value in ("i4", "u4", "i2", "u2", "f4e2m1", "bool")
    if narrow and array.astype(np.float32).astype(kind.dtype.numpy).tobytes() != data:
        raise ValueError(f"a byte stands for no {kind.dtype.value} element")
    return array.reshape(shape)


def _little_endian(array: Array) -> Array:
    return array if sys.byteorder == "little" or array.dtype.itemsize == 1 else array.byteswap()


def static_shape(kind: TensorType, size: int) -> tuple[int, ...]:
    """The shape of `kind` when it holds just `size` elements: nothing is allocated for one that doesn't."""
    if kind.shape is None or not all(isinstance(d, int) and d >= 0 for d in kind.shape):
        raise ValueError(f"a tensor's shape is known and static, not {kind}")
    shape = tuple(int(d) for d in kind.shape)
    if math.prod(shape) != size:
        raise ValueError(f"{kind} holds {math.prod(shape)} elements, {size} were given")
    return shape

"""Types of IR values: tensors with symbolic shapes, and the few ONNX types that only pass through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import numpy as np

# isort: split
# numpy comes first: an interrupt while it loads for this extension's sake would turn into an ImportError
import ml_dtypes
import sympy

from irshap.ir.dims import Dim, Shape, as_dim, dim_text, equal, product, same_shape, substitute

__all__ = ["Array", "DType", "ForeignType", "Tensor", "TensorType", "Type", "same_type"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


class DType(Enum):
    """Element types, named as in the text format."""

    F16 = "f16"
    F32 = "f32"
    F64 = "f64"
    BF16 = "bf16"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    BOOL = "bool"
    STR = "str"
    C64 = "c64"
    C128 = "c128"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0 = "f8e8m0"
    I4 = "i4"
    U4 = "u4"
    I2 = "i2"
    U2 = "u2"
    F4E2M1 = "f4e2m1"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy dtype of an array with these elements."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """Whether values of this type can carry a derivative."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether this is a plain integer type (bool excluded)."""
        return self.value[0] in "iu"

    @property
    def bytes(self) -> int:
        """Bytes per element (strings: of a pointer)."""
        return _NUMPY[self].itemsize

    @classmethod
    def of(cls, array: Array) -> DType:
        """The element type of `array`."""
        return _DTYPES[np.dtype(object) if array.dtype.kind in "US" else array.dtype]


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F16: np.dtype(np.float16),
    DType.F32: np.dtype(np.float32),
    DType.F64: np.dtype(np.float64),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.I8: np.dtype(np.int8),
    DType.I16: np.dtype(np.int16),
    DType.I32: np.dtype(np.int32),
    DType.I64: np.dtype(np.int64),
    DType.U8: np.dtype(np.uint8),
    DType.U16: np.dtype(np.uint16),
    DType.U32: np.dtype(np.uint32),
    DType.U64: np.dtype(np.uint64),
    DType.BOOL: np.dtype(np.bool_),
    DType.STR: np.dtype(object),
    DType.C64: np.dtype(np.complex64),
    DType.C128: np.dtype(np.complex128),
    DType.F8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    DType.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    DType.F8E8M0: np.dtype(ml_dtypes.float8_e8m0fnu),
    DType.I4: np.dtype(ml_dtypes.int4),
    DType.U4: np.dtype(ml_dtypes.uint4),
    DType.I2: np.dtype(ml_dtypes.int2),
    DType.U2: np.dtype(ml_dtypes.uint2),
    DType.F4E2M1: np.dtype(ml_dtypes.float4_e2m1fn),
}
_DTYPES = {dtype: key for key, dtype in _NUMPY.items()}
_FLOATS = {DType.F16, DType.F32, DType.F64, DType.BF16}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor's element type and shape; shape None means that not even the rank is known."""

    dtype: DType
    shape: Shape | None

    @property
    def dims(self) -> Shape:
        """The shape of a tensor of known rank."""
        if self.shape is None:
            raise ValueError(f"{self} has no known rank")
        return self.shape

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.dims)

    @property
    def size(self) -> Dim:
        """The number of elements."""
        return product(self.dims)

    @property
    def nbytes(self) -> Dim:
        """Bytes of the dense tensor."""
        return as_dim(self.size * self.dtype.bytes)

    def with_shape(self, shape: Shape) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, tuple(map(as_dim, shape)))

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type."""
        return TensorType(dtype, self.shape)

    def substitute(self, binding: Mapping[sympy.Expr, Dim]) -> TensorType:
        """This type with dimension symbols replaced."""
        if self.shape is None or all(isinstance(d, int) for d in self.shape):
            return self
        return TensorType(self.dtype, tuple([substitute(d, binding) for d in self.shape]))

    def __str__(self) -> str:
        dims = "*" if self.shape is None else ", ".join(map(dim_text, self.shape))
        return f"{self.dtype.value}[{dims}]"


@dataclass(frozen=True, slots=True)
class ForeignType:
    """A sequence, optional, map or sparse tensor: an ONNX type (serialized) that irshap only hands on."""

    kind: str
    serialized: bytes

    def substitute(self, binding: Mapping[sympy.Expr, Dim]) -> ForeignType:
        """Itself: a foreign type has no dimension symbols."""
        return self

    def __str__(self) -> str:
        return f"{self.kind}<{self.serialized.hex()}>"


Type: TypeAlias = TensorType | ForeignType


def same_type(a: Type, b: Type) -> bool:
    """Whether two types are certainly equal."""
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a == b
    if a.shape is None or b.shape is None:
        return a == b
    return a.dtype is b.dtype and same_shape(a.shape, b.shape)


def differ(a: Type, b: Type) -> bool:
    """Whether two types are certainly not equal: a shape that isn't known may be any."""
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return a != b
    if a.dtype is not b.dtype:
        return True
    if a.shape is None or b.shape is None:
        return False
    return len(a.shape) != len(b.shape) or any(equal(*d) is False for d in zip(a.shape, b.shape, strict=True))


_PIECE = 2**20
_SAMPLE = 256


def _same_text(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


class Tensor:
    """An immutable array with value semantics: equal and hashed by dtype, shape and bytes."""

    __slots__ = ("_hash", "array")

    def __init__(self, array: Any) -> None:
        self.array: Array = np.array(array, order="C")
        if self.array.dtype.kind in "US":
            self.array = self.array.astype(object)
        self.array.flags.writeable = False
        self._hash: int | None = None

    @classmethod
    def wrap(cls, array: Array) -> Tensor:
        """Takes over `array` without a copy; the caller gives up writing to it."""
        tensor = cls.__new__(cls)
        tensor.array = np.ascontiguousarray(array).reshape(array.shape)
        tensor.array.flags.writeable = False
        tensor._hash = None
        return tensor

    @property
    def type(self) -> TensorType:
        """dtype and shape."""
        return TensorType(DType.of(self.array), self.array.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensor) or hash(self) != hash(other):
            return False
        a, b = self.array, other.array
        if a.dtype != b.dtype or a.shape != b.shape:
            return False
        if a.dtype == object:
            return all(map(_same_text, a.ravel(), b.ravel()))
        if a.ctypes.data == b.ctypes.data:
            return True
        # piece by piece: weights can be large, and those that differ mostly do so at once
        a, b = a.reshape(-1).view(np.uint8), b.reshape(-1).view(np.uint8)
        pieces = range(0, a.size, _PIECE)
        return all(np.array_equal(a[i : i + _PIECE], b[i : i + _PIECE]) for i in pieces)

    def __hash__(self) -> int:
        if self._hash is None:
            flat = self.array.reshape(-1)
            # some elements stand for all: weights can be large, and equality looks at each
            some = flat[:: max(1, flat.size // _SAMPLE)]
            content = str(some.tolist()) if flat.dtype == object else some.tobytes()
            self._hash = hash((DType.of(self.array), self.array.shape, content))
        return self._hash

    def __repr__(self) -> str:
        return f"Tensor({self.type})"

"""How ONNX arithmetic and activations are lifted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx

from irshap.ir.core import Op, Value
from irshap.ir.types import DType, Tensor
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import arithmetic, cast, elementwise, index, logic, program

__all__: list[str] = []

_PLAIN: dict[str, Callable[[], Op]] = {
    "Abs": arithmetic.Abs,
    "Add": arithmetic.Add,
    "Div": arithmetic.Div,
    "Equal": logic.Equal,
    "Exp": elementwise.Exp,
    "Greater": logic.Greater,
    "Less": logic.Less,
    "Log": elementwise.Log,
    "Mul": arithmetic.Mul,
    "Neg": arithmetic.Neg,
    "Relu": elementwise.Relu,
    "Sigmoid": elementwise.Sigmoid,
    "Softplus": elementwise.Softplus,
    "Sqrt": elementwise.Sqrt,
    "Sub": arithmetic.Sub,
    "Tanh": elementwise.Tanh,
    "Where": arithmetic.Where,
}


@importer(*_PLAIN)
def _plain(n: Import) -> Value:
    return n.one(_PLAIN[n.proto.op_type](), *(n.tensor(i) for i in range(len(n.inputs))))


_FOLDED: dict[str, Op] = {
    "Max": arithmetic.Max(),
    "Mean": arithmetic.Add(),
    "Min": arithmetic.Min(),
    "Sum": arithmetic.Add(),
}


@importer(*_FOLDED)
def _folded(n: Import) -> Value:
    """Several operands, two at a time from the left: the order that rules of two operands depend on."""
    first, *rest = n.given()
    for value in rest:
        first = n.one(_FOLDED[n.proto.op_type], first, value)
    return first / float(len(rest) + 1) if n.proto.op_type == "Mean" else first


@importer("Elu")
def _elu(n: Import) -> Value:
    return n.one(elementwise.Elu(n.attribute("alpha", 1.0)), n.tensor())


@importer("Identity")
def _identity(n: Import) -> Value:
    value = n.inputs[0]
    if value is None:
        raise Unmodeled("its input is missing")
    return value


@importer("Dropout")
def _dropout(n: Import) -> Sequence[Value]:
    """The identity at inference; in training mode it draws random numbers."""
    if n.has(2) and bool(n.static(2)):
        raise Unmodeled("it is in training mode")
    x = n.tensor()
    if len([name for name in n.proto.output if name]) == 1:
        return (x,)
    kept = program.Full(1.0, DType.BOOL if n.opset >= 10 else x.dtype, x.shape)
    return (x, n.one(kept))


@importer("Cast")
def _cast(n: Import) -> Value:
    to = n.attribute("to", 0)
    if to == onnx.TensorProto.STRING:
        raise Unmodeled("it casts to strings")
    return _cast_to(n, DType.of(np.empty(0, onnx.helper.tensor_dtype_to_np_dtype(to))))


@importer("CastLike")
def _cast_like(n: Import) -> Value:
    return _cast_to(n, n.tensor(1).dtype)


def _cast_to(n: Import, dtype: DType) -> Value:
    x = n.tensor()
    if x.dtype not in _CAST_FREELY or dtype not in _CAST_FREELY:
        raise Unmodeled(f"a cast from {x.dtype.value} to {dtype.value} has rounding modes of its own")
    return cast.cast(x, dtype)


_CAST_FREELY = [DType.F16, DType.F32, DType.F64, DType.BOOL, DType.I8, DType.I16, DType.I32, DType.I64]
_CAST_FREELY += [DType.U8, DType.U16, DType.U32, DType.U64, DType.BF16]


@importer("Constant")
def _constant(n: Import) -> Value:
    for name, value in n.attributes.items():
        if name == "value":
            array = onnx.numpy_helper.to_array(value)
            return n.one(program.Constant(Tensor(array)))
        if name in ("value_float", "value_floats"):
            return n.one(program.Constant(Tensor(np.asarray(value, np.float32))))
        if name in ("value_int", "value_ints"):
            return n.one(program.Constant(Tensor(np.asarray(value, np.int64))))
    raise Unmodeled("a constant of this kind")


@importer("ArgMax")
def _argmax(n: Import) -> Value:
    if n.attribute("select_last_index", 0):
        raise Unmodeled("it selects the last of equal elements")
    axis = n.axis(n.attribute("axis", 0))
    return n.one(index.ArgMax((axis,), bool(n.attribute("keepdims", 1))), n.tensor())

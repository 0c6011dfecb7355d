"""What makes up a program rather than computes: constants, shapes, values passed on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import numpy_helper

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, product
from irshap.ir.types import DType, Tensor
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import program

__all__: list[str] = []

lower_alike("Identity", program.Hold)
lower_alike("Identity", program.Tap)


@importer("Identity")
def _read_identity(n: Import) -> Value:
    value = n.inputs[0]
    if value is None:
        raise Unmodeled("its input is missing")
    return value


@importer("Dropout")
def _read_dropout(n: Import) -> Sequence[Value]:
    """The identity at inference; in training mode it draws random numbers, which a training step decides."""
    if not n.trained and n.has(2) and bool(n.static(2)):
        raise Unmodeled("it is in training mode")
    x = y = n.tensor()
    if n.trained:
        ratio = n.scalar(1, float(n.attribute("ratio", 0.5)))
        if not 0 <= ratio < 1:
            raise Unmodeled(f"its ratio is {ratio:g}")
        y = n.one(program.Dropout(ratio, n.proto.output[0]), x)
    if len([name for name in n.proto.output if name]) == 1:
        return (y,)
    kept = program.Full(1.0, DType.BOOL if n.opset >= 10 else x.dtype, x.shape)
    return (y, n.one(kept))


@exporter(program.Dropout)
def _write_dropout(e: Export, op: program.Dropout) -> None:
    e.result("Identity", e.inputs)


@importer("Constant")
def _read_constant(n: Import) -> Value:
    for name, value in n.attributes.items():
        if name == "value":
            array = numpy_helper.to_array(value)
            return n.one(program.Constant(Tensor(array)))
        if name in ("value_float", "value_floats"):
            return n.one(program.Constant(Tensor(np.asarray(value, np.float32))))
        if name in ("value_int", "value_ints"):
            return n.one(program.Constant(Tensor(np.asarray(value, np.int64))))
    raise Unmodeled("a constant of this kind")


@importer("Shape")
def _read_shape(n: Import) -> Value:
    dims = n.tensor().shape
    start, end = n.attribute("start", 0), n.attribute("end", None)
    return _vector(n, dims[slice(start, end)])


@importer("Size")
def _read_size(n: Import) -> Value:
    return n.one(program.Dims((n.tensor().tensor.size,), scalar=True))


def _vector(n: Import, dims: Sequence[Dim]) -> Value:
    """An int64 vector of dimensions: a constant when all are known."""
    if all(isinstance(d, int) for d in dims):
        return n.one(program.Constant(Tensor(np.array(dims, dtype=np.int64))))
    return n.one(program.Dims(tuple(dims)))


@exporter(program.Dims)
def _write_dims(e: Export, op: program.Dims) -> None:
    vector = e.shape(op.values)
    e.result("Squeeze" if op.scalar else "Identity", [vector])


@importer("ConstantOfShape")
def _read_constant_of_shape(n: Import) -> Value:
    dims = tuple(map(as_dim, n.dims(0)))
    proto = n.attributes.get("value")
    fill = np.zeros(1, np.float32) if proto is None else numpy_helper.to_array(proto).ravel()
    size = product(dims)
    if all(isinstance(d, int) for d in dims) and isinstance(size, int) and size <= 64:
        shape_now = [int(d) for d in dims]
        return n.one(program.Constant(Tensor(np.full(shape_now, fill[0], fill.dtype))))
    if fill.dtype.kind not in "fiub" or (fill.dtype.kind in "iu" and int(float(fill[0])) != int(fill[0])):
        raise Unmodeled("its fill value is no plain number")
    return n.one(program.Full(float(fill[0]), DType.of(fill), dims))


@exporter(program.Full)
def _write_full(e: Export, op: program.Full) -> None:
    value = numpy_helper.from_array(np.array([op.value], dtype=op.dtype.numpy))
    e.result("ConstantOfShape", [e.shape(op.shape)], value=value)

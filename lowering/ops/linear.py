"""Matrix products, and batch normalization at inference."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from irshap.ir.core import Value
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.ops.reduce import reduced
from irshap.ops import linear
from irshap.ops.shape import reshape

__all__: list[str] = []

lower_alike("MatMul", linear.MatMul)
lower_alike("BatchNormalization", linear.BatchNorm)


@importer("MatMul")
def _read_matmul(n: Import) -> Value:
    a, b = n.tensor(0), n.tensor(1)
    if a.rank == 0 or b.rank == 0:
        raise Unmodeled("an operand is a scalar")
    left = reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    y = n.one(linear.MatMul(), left, right)
    dims = list(y.shape)
    if b.rank == 1:
        dims.pop(-1)
    if a.rank == 1:
        dims.pop(-1 if b.rank == 1 else -2)
    return reshape(y, dims)


@importer("Gemm")
def _read_gemm(n: Import) -> Value:
    flags = bool(n.attribute("transA", 0)), bool(n.attribute("transB", 0))
    op = linear.Gemm(n.attribute("alpha", 1.0), n.attribute("beta", 1.0), *flags)
    return n.one(op, *n.given())


@exporter(linear.Gemm)
def _write_gemm(e: Export, op: linear.Gemm) -> None:
    flags = {"transA": int(op.trans_a), "transB": int(op.trans_b)}
    e.result("Gemm", e.inputs, alpha=op.alpha, beta=op.beta, **flags)


@importer("BatchNormalization")
def _read_batch_norm(n: Import) -> Sequence[Value]:
    if not n.trained and (n.attribute("training_mode", 0) or len([o for o in n.proto.output if o]) > 1):
        raise Unmodeled("it is in training mode")
    if not n.attribute("spatial", 1):
        raise Unmodeled("it normalizes each element apart (spatial=0)")
    operands = [n.tensor(i) for i in range(5)]
    # a training step says itself what it goes by, and what it hands on
    handed_on = operands[3:]
    if any(n.proto.output[3:]):
        # until opset 13 the statistics of the batch are outputs, too, which nothing reads
        handed_on += n.builder.emit(linear.BatchMoments(), operands[0])
    return (n.one(linear.BatchNorm(n.attribute("epsilon", 1e-5)), *operands), *handed_on)


@exporter(linear.BatchMoments)
def _write_batch_moments(e: Export, op: linear.BatchMoments) -> None:
    axes = [0, *range(2, e.operand().rank)]
    apart = e.shape([e.operand().shape[1], *[1] * (e.operand().rank - 2)])

    mean = partial(reduced, e, "ReduceMean", axes=axes, keepdims=False)
    average = mean(e.inputs[0], into=[e.outputs[0]])
    centered = e.add("Sub", [e.inputs[0], e.add("Reshape", [average, apart])])
    mean(e.add("Mul", [centered, centered]), into=[e.outputs[1]])

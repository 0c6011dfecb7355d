"""samples-last: convolutions by weights that are trained, as products, in a layout that suits these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from irshap.ir.builder import Builder, current, emit, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import same
from irshap.ops.cast import Cast
from irshap.ops.conv import ConvWeights
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.index import GatherElements, ScatterAdd
from irshap.ops.linear import BatchMoments, BatchNorm, Gemm
from irshap.ops.pool import MaxPool
from irshap.ops.program import Constant
from irshap.ops.reduce import Reduction
from irshap.ops.shape import Reshape, reshape, transpose
from irshap.passes.training.halves import Choice, pooled, pools_by_halves
from irshap.passes.training.patches import Convolution, convolved, numbers
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["SamplesLast"]


@dataclass(frozen=True)
class SamplesLast(Pass):
    """Small convolutions by weights that are trained become products over patches, with the samples last.

    ONNX Runtime has blocked convolutions for constant weights only.  Otherwise it goes image by image, and
    the gradient by the weights is a convolution by the whole image.  In the layout [c, ..., n] (Krizhevsky's
    cuda-convnet) the patches of all samples are rows of n that one Gather picks, [c k, s n], and a
    convolution, its adjoint and the gradient by its weights (which shares the patches of its input) are each
    one product.  What lies between stays in that layout: elementwise ops, pooling without overlap,
    reductions, and what flattens for a dense layer, which reads its operand transposed.

    `largest`: how many numbers a sample's patches may be; larger ones would take memory for little.
    """

    largest: int = 131072
    name = "samples-last"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        sweep = _Sweep(self.largest, context)
        with Builder() as b:
            mapping = b.extend(ir.statements, _Plain(sweep), sweep.visit, shared=True)
            return b.rebuild(ir, mapping) if sweep.last else ir


class _Plain(dict[Value, Value]):
    """Where values went, samples first; what exists only in the other layout is made when asked for."""

    def __init__(self, sweep: _Sweep) -> None:
        super().__init__()
        self._sweep = sweep

    def __missing__(self, value: Value) -> Value:
        with current().at(value.node.origin):
            last = self._sweep.last.get(value)
            if last is None:
                made = current().copy(value.node, self)[value.node.results.index(value)]
            else:
                made = transpose(last, (last.rank - 1, *range(last.rank - 1)))
        self[value] = made
        return made


class _Sweep:
    """The walk; `last` are values with the samples on the last axis, `choices` positions of maxima."""

    def __init__(self, largest: int, context: Context) -> None:
        self.largest, self.context = largest, context
        self.last: dict[Value, Value] = {}
        self.choices: dict[Value, Choice] = {}

    def visit(self, node: Node, mapping: Mapping[Value, Value]) -> Sequence[Value | None] | None:
        op = node.op
        if isinstance(op, Convolution):
            return self._convolved(op, node, mapping)
        if isinstance(op, GatherElements | ScatterAdd):
            return self._picked(op, node, mapping)
        if isinstance(op, Reshape):
            return self._reshaped(node, mapping)
        if not any(self._only_last(v, mapping) for v in node.operands):
            return None
        if isinstance(op, Elementwise | ZippedElementwise | Cast):
            return self._elementwise(node, mapping)
        if isinstance(op, BatchNorm | BatchMoments):
            return self._normalized(op, node, mapping)
        if isinstance(op, Gemm):
            return self._product(op, node, mapping)
        if isinstance(op, Reduction):
            return self._reduced(op, node)
        if isinstance(op, MaxPool):
            return self._pooled(op, node, mapping)
        return None

    def _only_last(self, value: Value, mapping: Mapping[Value, Value]) -> bool:
        return value in self.last and value not in mapping

    def _moved(self, value: Value, mapping: Mapping[Value, Value]) -> Value:
        """A value with the samples last."""
        if value not in self.last:
            self.last[value] = transpose(mapping[value], (*range(1, value.rank), 0))
        return self.last[value]

    def _keep(self, node: Node, last: Value) -> tuple[None]:
        self.last[node.results[0]] = last
        return (None,)

    def _convolved(
        self, op: Convolution, node: Node, mapping: Mapping[Value, Value]
    ) -> tuple[Value | None] | None:
        x, w, *bias = node.operands
        other = w if isinstance(op, ConvWeights) else node.results[0]
        kernel = node.results[0].shape[2:] if isinstance(op, ConvWeights) else w.shape[2:]
        known = [*x.shape[1:], *other.shape[1:], *kernel]
        if op.group != 1 or not all(isinstance(d, int) for d in known) or isinstance(w.node.op, Constant):
            return None
        sizes = tuple(map(int, other.shape[2:]))
        if numbers(op, tuple(map(int, kernel)), int(x.shape[1]), sizes) > self.largest:
            return None
        self.context.count("convolutions")
        columns = self._moved(x, mapping)
        if isinstance(op, ConvWeights):
            return (convolved(op, columns, self._moved(w, mapping), (), sizes),)
        return self._keep(node, convolved(op, columns, mapping[w], [mapping[b] for b in bias], sizes))

    def _elementwise(self, node: Node, mapping: Mapping[Value, Value]) -> tuple[None] | None:
        rank = node.results[0].rank
        if len(node.results) > 1 or rank < 2:
            return None
        operands = []
        for value in node.operands:
            if value.rank == 0:
                operands.append(mapping[value])
            elif value.rank == rank:
                operands.append(self._moved(value, mapping))
            else:
                # along the samples it is broadcast
                aligned = (*(1 for _ in range(rank - value.rank)), *value.shape)
                operands.append(reshape(mapping[value], (*aligned[1:], 1)))
        return self._keep(node, emit1(node.op, *operands))

    def _reshaped(self, node: Node, mapping: Mapping[Value, Value]) -> tuple[None] | None:
        (value,) = node.operands
        shape = node.results[0].shape
        if not shape or value.rank == 0 or not same(shape[0], value.shape[0]):
            return None
        if value in self.choices and len(shape) == 3 and same(shape[1], value.shape[1]):
            self.choices[node.results[0]] = self.choices[value]
            return (None,)
        if not self._only_last(value, mapping):
            return None
        return self._keep(node, reshape(self.last[value], (*shape[1:], shape[0])))

    def _normalized(
        self, op: BatchNorm | BatchMoments, node: Node, mapping: Mapping[Value, Value]
    ) -> Sequence[Value | None]:
        """Over [1, c, ..., n]: channels are the second axis, and all others are alike."""
        x, *rest = node.operands
        last = self._moved(x, mapping)
        made = emit(op, reshape(last, (1, *last.shape)), *(mapping[v] for v in rest))
        return made if isinstance(op, BatchMoments) else self._keep(node, reshape(made[0], last.shape))

    def _product(self, op: Gemm, node: Node, mapping: Mapping[Value, Value]) -> tuple[Value]:
        a, b, *c = node.operands
        sides, flags = [], []
        for value, flag in ((a, op.trans_a), (b, op.trans_b)):
            moved = self._only_last(value, mapping)
            sides.append(self.last[value] if moved else mapping[value])
            flags.append(flag != moved)
        how = replace(op, trans_a=flags[0], trans_b=flags[1])
        return (emit1(how, *sides, *(mapping[v] for v in c)),)

    def _reduced(self, op: Reduction, node: Node) -> tuple[Value | None] | None:
        if len(node.operands) != 1 or len(node.results) != 1:
            return None
        last = self.last[node.operands[0]]
        axes = tuple(sorted((a - 1) % last.rank for a in op.axes))
        made = emit1(replace(op, axes=axes), last)  # type: ignore[type-var]
        if 0 in op.axes and not op.keepdims:
            return (made,)
        return self._keep(node, made)

    def _pooled(self, op: MaxPool, node: Node, mapping: Mapping[Value, Value]) -> tuple[None, None] | None:
        (x,) = node.operands
        dims = x.shape[1:]
        if not all(isinstance(d, int) for d in dims) or not pools_by_halves(op, tuple(map(int, dims[1:]))):
            return None
        y, position = node.results
        self.last[y], self.choices[position] = pooled(op, self._moved(x, mapping))
        return (None, None)

    def _picked(
        self, op: GatherElements | ScatterAdd, node: Node, mapping: Mapping[Value, Value]
    ) -> tuple[None] | None:
        x, index = node.operands
        choice = self.choices.get(index)
        if choice is None or op.axis != 2 or x.rank != 3:
            return None
        shape = node.results[0].shape
        last = self._moved(x, mapping)
        made = choice.gathered(last) if isinstance(op, GatherElements) else choice.scattered(last)
        return self._keep(node, reshape(made, (*shape[1:], shape[0])))

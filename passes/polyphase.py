"""polyphase: the adjoint of a strided depthwise convolution, and what follows it, phase by phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod

import numpy as np

from irshap.ir.builder import current, emit1
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, as_dim, divide, same, same_shape
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, Tensor
from irshap.ir.walks import descendants
from irshap.ops.arithmetic import Mul
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.families import Elementwise, ZippedElementwise
from irshap.ops.program import Constant
from irshap.ops.shape import Reshape, concat, reshape, split
from irshap.passes.references.binding import reference_inputs
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Polyphase"]


@dataclass(frozen=True)
class Polyphase(Pass):
    """Takes the result of a strided adjoint apart into its phases, up to where fewer channels are left.

    Along each spatial axis, phase a of the adjoint of a convolution with stride s is a convolution without:

        y[s i + a] = sum over m of w[a + p - s m] g[i + m],

    p being the padding (the polyphase decomposition; Bellanger 1976).  Elementwise ops and pointwise adjoints
    keep phases apart.  So behind a depthwise convolution, where a network has most channels, multipliers are
    computed for each phase; samples and references are split alike before they meet, and phases are put
    together behind the next pointwise adjoint that leaves fewer channels.  With a single reference there is
    one multiplier for each sample, and that is split.

    ONNX Runtime has no blocked kernel for ConvTranspose, and smaller tensors stay in its cache.
    """

    name = "polyphase"
    semantics = Semantics.PRESERVES
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        given = reference_inputs(ir)
        samples = [v for v in ir.inputs if v not in given]
        rowed = descendants(ir.nodes, given)
        pairs = rowed & descendants(ir.nodes, samples)
        whole: set[Value] = set()
        if context.alone:
            # a multiplier is as large as each of what it is made of: it is split itself
            behind = descendants(ir.nodes, [n.results[0] for n in ir.nodes if _is_depthwise(n)])
            pairs, whole = pairs & behind, pairs - behind
        uses = Counter(v for n in ir.nodes for v in n.operands) + Counter(o.value for o in ir.outputs)

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
            strides = _strides_above(node.operands[0], uses) if _narrows(node) else None
            if strides is None:
                return None
            try:
                joined = _Region(mapping, pairs, whole, rowed - pairs - whole, strides).pointwise(node)
            except _NoPhases:
                return None
            context.count("adjoints")
            return (joined,)

        return map_nodes(ir, visit)


def _narrows(node: Node) -> bool:
    """Whether a node is a pointwise adjoint with fewer channels in its result."""
    op = node.op
    if not isinstance(op, ConvTranspose) or len(node.operands) > 2:
        return False
    weights, x, y = (v.shape for v in (node.operands[1], node.operands[0], node.results[0]))
    pointwise = {*op.strides, *weights[2:]} == {1} and not any(map(any, op.pads)) and x[2:] == y[2:]
    return pointwise and isinstance(x[1], int) and isinstance(y[1], int) and y[1] < x[1]


def _strides_above(value: Value, uses: Counter[Value]) -> tuple[int, ...] | None:
    """The strides of a depthwise adjoint that `value` is, but for products that nothing else reads."""
    node = value.node
    if uses[value] > 1:
        return None
    if _is_depthwise(node):
        assert isinstance(node.op, ConvTranspose)
        return node.op.strides if set(node.op.strides) != {1} else None
    if not isinstance(node.op, Reshape | Mul):
        return None
    return next(filter(None, (_strides_above(v, uses) for v in node.operands)), None)


def _is_depthwise(node: Node) -> bool:
    """Whether a node is the adjoint of a depthwise convolution, with constant weights."""
    if not isinstance(node.op, ConvTranspose) or len(node.operands) > 2:
        return False
    channels = {node.op.group, node.results[0].shape[1], node.operands[0].shape[1]}
    constant = isinstance(node.operands[1].node.op, Constant)
    return len(channels) == 1 and constant and set(node.op.dilations) == {1}


class _NoPhases(Exception):
    """A value can't be told from phases alone."""


class _Region:
    """Values of the old graph between a strided adjoint and the pointwise one behind it, phase by phase.

    `pairs` are the values that depend on samples and on references: only these are followed.  Any other is
    split as it is, and so are those in `whole`, which depend on both.  Of `references` f(x) is taken from the
    phases of x, so that it needn't be stored, too.
    """

    def __init__(
        self,
        mapping: Mapping[Value, Value],
        pairs: set[Value],
        whole: set[Value],
        references: set[Value],
        strides: tuple[int, ...],
    ) -> None:
        self.mapping, self.strides = mapping, strides
        self.pairs, self.whole, self.references = pairs, whole, references
        self.count = int(np.prod(strides))
        self.known: dict[Value, list[Value]] = {}

    def pointwise(self, node: Node) -> Value:
        """The result of a pointwise adjoint, put together from those of the phases."""
        assert isinstance(node.op, ConvTranspose)
        self.high: tuple[Dim, ...] = node.op.out
        self.low = tuple(_low(d, s) for d, s in zip(node.op.out, self.strides, strict=True))
        parts = self.phases(node.operands[0])
        op = replace(node.op, out=self.low)
        weights = self.mapping[node.operands[1]]
        return interleaved([emit1(op, part, weights) for part in parts], self.strides)

    def phases(self, value: Value) -> list[Value]:
        """What each phase of the result takes of a value."""
        if value not in self.known:
            with current().at(value.node.origin):
                self.known[value] = self._phases(value)
        return self.known[value]

    def _phases(self, value: Value) -> list[Value]:
        node, rank = value.node, len(self.strides)
        spatial = value.shape[-rank:]
        if all(same(d, 1) for d in spatial):
            return [self.mapping[value]] * self.count
        if not same_shape(spatial, self.high):
            raise _NoPhases
        follows = value in self.references and isinstance(node.op, Elementwise)
        if value not in self.pairs and value.rank == rank + 2 and not follows:
            return phases(self.mapping[value], self.strides)
        if value in self.whole and value.rank > rank:
            *lead, channels = value.shape[:-rank]
            rows = reshape(self.mapping[value], (as_dim(prod(lead)), channels, *spatial))
            return [reshape(v, (*lead, channels, *self.low)) for v in phases(rows, self.strides)]
        if isinstance(node.op, Elementwise | ZippedElementwise):
            operands = zip(*map(self.phases, node.operands), strict=True)
            return [emit1(node.op, *parts) for parts in operands]
        if isinstance(node.op, Reshape) and same_shape(node.operands[0].shape[-rank:], self.high):
            shape = (*value.shape[:-rank], *self.low)
            return [reshape(part, shape) for part in self.phases(node.operands[0])]
        if _is_depthwise(node):
            return self._adjoint(node)
        raise _NoPhases

    def _adjoint(self, node: Node) -> list[Value]:
        """A depthwise strided adjoint as one convolution for each phase."""
        x, weights, op = node.operands[0], node.operands[1].node.op, node.op
        assert isinstance(op, ConvTranspose)
        assert isinstance(weights, Constant)
        if op.strides != self.strides:
            raise _NoPhases
        kernel = weights.value.array
        sizes = zip(x.shape[2:], kernel.shape[2:], self.strides, op.pads, self.low, strict=True)
        axes = [_taps(n, k, s, p[0], low) for n, k, s, p, low in sizes]
        return [self._conv(x, kernel, op.group, phase) for phase in product(*axes)]

    def _conv(self, x: Value, kernel: Array, group: int, phase: Sequence[_Taps]) -> Value:
        picked = np.ascontiguousarray(kernel[np.ix_(range(len(kernel)), [0], *(t.taps for t in phase))])
        weights = emit1(Constant(Tensor.wrap(picked)))
        ones = (1,) * len(phase)
        return emit1(Conv(ones, tuple(t.pads for t in phase), ones, group), self.mapping[x], weights)


@dataclass(frozen=True)
class _Taps:
    """Which weights along an axis a phase has, in the order of a convolution's, and the padding for them."""

    taps: tuple[int, ...]
    pads: tuple[int, int]


def _low(size: Dim, stride: int) -> int:
    if not isinstance(size, int) or size % stride:
        raise _NoPhases
    return size // stride


def _taps(size: Dim, taps: int, stride: int, before: int, low: int) -> list[_Taps]:
    """Tap t adds g[j] to y[s j + t - p]: for phase a to y[s i + a] with i = j - m, m = (a + p - t)/s."""
    found = []
    for phase in range(stride):
        steps = {(phase + before - t) // stride: t for t in range(taps) if (phase + before - t) % stride == 0}
        if not steps or not isinstance(size, int):
            raise _NoPhases
        first = -min(steps)
        after = low - size - first + len(steps) - 1
        if first < 0 or after < 0:
            raise _NoPhases
        found.append(_Taps(tuple(steps[m] for m in sorted(steps)), (first, after)))
    return found


def phases(x: Value, strides: Sequence[int]) -> list[Value]:
    """[n, c, *spatial] -> [n, c, *(spatial / strides)] for each phase, the last axis' counting fastest."""
    parts = [x]
    for axis, stride in _strided(strides):
        parts = [phase for part in parts for phase in _along(part, axis, stride)]
    return parts


def _strided(strides: Sequence[int]) -> list[tuple[int, int]]:
    """The axes with a stride, and it."""
    return [(axis, stride) for axis, stride in enumerate(strides, start=2) if stride > 1]


def _along(x: Value, axis: int, stride: int) -> list[Value]:
    before, size, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
    low = divide(size, stride)
    assert low is not None
    columns = split(reshape(x, (*before, low, stride, *after)), axis + 1, [1] * stride)
    return [reshape(column, (*before, low, *after)) for column in columns]


def interleaved(parts: Sequence[Value], strides: Sequence[int]) -> Value:
    """The inverse of `phases`.

    Joined along a new axis, which ONNX Runtime does faster than DepthToSpace or transpositions.
    """
    parts = list(parts)
    for axis, stride in reversed(_strided(strides)):
        before, low, after = parts[0].shape[:axis], parts[0].shape[axis], parts[0].shape[axis + 1 :]
        columns = [reshape(part, (*before, low, 1, *after)) for part in parts]
        whole = (*before, as_dim(low * stride), *after)
        groups = (columns[i : i + stride] for i in range(0, len(columns), stride))
        parts = [reshape(concat(group, axis + 1), whole) for group in groups]
    return parts[0]

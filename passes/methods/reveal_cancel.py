"""RevealCancel for deeplift: two parts of every difference forward, a multiplier for each backward.

Shrikumar et al. 2017 keep D+ and D- of every tensor apart and give each a multiplier; here they are the sum
and the distance of the two, (D, A) and (s, d) of `irshap.ops.parts`.  Every op has two lines:

    op                                    forward                      backward
    input                                 A = |D|                      score s D + d A
    layer with weights W                  A = |W| |D|                  s = W's + sign(D) |W|'d, d = 0
    linear otherwise, L                   A = |L| A                    s = L's, d = |L|'d
    activation, slopes s+ and s-          A = a A + b D                s = a s + b d, d = b s + a d
                                          a, b = (s+ + s-)/2, (s+ - s-)/2
    max-pooling, Q (rules.md section 3)   A = Q A                      s = Q's, d = Q'd
    target                                                             s = 1, d = 0

The published rules follow from D+ = (D + A)/2, D- = (D - A)/2, m+ = s + d, m- = s - d.  For one, a layer's
1(D>0)(W+'m+ + W-'m-) + 1(D<0)(W-'m+ + W+'m-) + 1(D=0) W'(m+ + m-)/2 is the single line above, as
W+'m+ + W-'m- = W's + |W|'d and W-'m+ + W+'m- = W's - |W|'d.

Completeness needs no threshold: s D + d A of the operands is that of the result, in every line.  This isn't a
rewrite of pullbacks: the slopes need the parts, which go forward, before multipliers go back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sympy

from irshap.attribution.gaps import Gap, refusal
from irshap.ir.builder import emit, emit1
from irshap.ir.core import Graph, Layer, Node, NoLocalRule, Op, Point, Role, Value
from irshap.ir.dims import Dim, N, R, as_dim
from irshap.ir.walks import is_float, upstream, varying_values
from irshap.ops.arithmetic import Abs
from irshap.ops.logic import Sign
from irshap.ops.parts import Multipliers, Parts, Shares, Sharing
from irshap.ops.program import Full
from irshap.ops.shape import zeros_like
from irshap.passes.methods.joint_batch import JointBatch

__all__ = ["shares"]

PAIRS: dict[sympy.Expr, Dim] = {N: as_dim(N * R)}
"""Parts and multipliers have a row for each pair of a sample and a reference."""


Share = tuple[Value, Value]
"""A value of the program, and what it carries in each pair: s D + d A."""


def shares(
    joint: JointBatch,
    graph: Graph,
    *,
    mixed: bool,
    observe: Callable[[Node, list[Share], list[Share]], None] | None = None,
) -> list[tuple[Multipliers, Value]]:
    """The multipliers of each source, and what it gets in each pair: m+ D+ + m- D-.

    `mixed` leaves an activation to Rescale unless the nearest layers with weights above it are all dense.
    `observe` is shown what each op hands to its operands, and what came from its results.

    Raises:
        NotDifferentiable: an op on the way has no rule.
    """
    sources = [o.value for o in graph.outputs_of(Role.SOURCE)]
    target = graph.output(Role.TARGET).value
    varying = varying_values(graph.nodes, sources)
    walk = _Walk(joint, sources, varying, mixed)
    steps = [(node, walk.forward(node)) for node in _path(graph, sources, varying, target)]
    return walk.backward(steps, target, observe)


def _path(graph: Graph, sources: Sequence[Value], varying: set[Value], target: Value) -> list[Node]:
    """The nodes that take a difference from the sources, which are one cut, to the target."""
    reaching = upstream([target], cut=sources)
    return [
        node
        for node in graph.nodes
        if not node.op.stops_change
        and any(v in reaching and v not in sources for v in node.results)
        and any(v in varying and is_float(v) for v in node.operands)
    ]


@dataclass(frozen=True)
class _Linear:
    """An op that is linear in the operands that vary: L, and |L| with operands of its own."""

    op: Op
    at: Point
    absolute: Op
    absolute_operands: tuple[Value, ...]
    signs: Mapping[int, Value]
    """For a layer with weights, the sign of each operand's difference."""

    def pull(self, ms: Sequence[Multipliers | None], i: int) -> Multipliers:
        like = [v for v in self.at.results if is_float(v)]
        known = [zeros_like(v) if m is None else m.mean for m, v in zip(ms, like, strict=True)]
        mean = self.op.adjoints(known, self.at, i)
        if all(m is None or m.spread is None for m in ms):
            return Multipliers(mean, None)
        spreads = [(m and m.spread) or zeros_like(v) for m, v in zip(ms, like, strict=True)]
        at = Point(self.absolute_operands, self.at.results)
        spread = self.absolute.adjoints(spreads, at, i)
        if i in self.signs:
            return Multipliers(mean + self.signs[i] * spread, None)
        return Multipliers(mean, spread)


@dataclass(frozen=True)
class _Shared:
    """An op that isn't linear, in its one operand that varies."""

    sharing: Sharing

    def pull(self, ms: Sequence[Multipliers | None], i: int) -> Multipliers:
        assert ms[0] is not None
        return self.sharing.pull(ms[0])


@dataclass(frozen=True)
class _Lost:
    """An op without a rule, where that is not an error: nothing gets through."""

    at: Point

    def pull(self, ms: Sequence[Multipliers | None], i: int) -> Multipliers:
        return Multipliers(zeros_like(self.at.operands[i]), None)


_Step = _Linear | _Shared | _Lost


class _Walk:
    """Carries parts forward and multipliers back, over all pairs at once."""

    def __init__(self, joint: JointBatch, sources: Sequence[Value], varying: set[Value], mixed: bool) -> None:
        self.joint, self.sources, self.varying, self.mixed = joint, sources, varying, mixed
        self.parts = {v: self._whole(v) for v in sources}
        self.layers: dict[Value, frozenset[Layer]] = {v: frozenset() for v in sources}

    def _difference(self, value: Value) -> Value:
        x, x0 = self.joint.halves(value)
        return x - x0

    def _whole(self, value: Value) -> Parts:
        """A difference whose parts are its positive and its negative elements."""
        total = self._difference(value)
        return Parts(total, emit1(Abs(), total))

    def forward(self, node: Node) -> _Step:
        """Finds the parts of the node's results, and keeps what its reverse needs."""
        step: _Step
        with self.joint.builder.at(node.origin):
            worlds = [[self.joint.halves(v)[half] for v in node.operands] for half in (0, 1)]
            ends = [[self.joint.halves(v)[half] for v in node.results] for half in (0, 1)]
            at, at0 = (Point(tuple(a), tuple(b)) for a, b in zip(worlds, ends, strict=True))
            changing = frozenset(i for i, v in enumerate(node.operands) if v in self.varying)
            given = {i: self.parts[node.operands[i]] for i in changing if is_float(node.operands[i])}
            above = (self.layers[node.operands[i]] for i in given)
            kinds = frozenset({node.op.layer}) if node.op.layer else frozenset[Layer]().union(*above)
            op = node.op.substitute(PAIRS)
            try:
                if op.linear_in(changing):
                    step, parts = self._linear(node, op, at, given)
                elif not isinstance(op, Shares):
                    raise NoLocalRule("RevealCancel has no rule for it")
                else:
                    sharing = op.sharing(at, at0, given, not self.mixed or kinds == {Layer.DENSE})
                    (of,) = given.values()
                    # a maximum comes with its position, which carries nothing
                    parts = [Parts(self._difference(node.results[0]), sharing.size(of))]
                    step = _Shared(sharing)
            except NoLocalRule as error:
                step, parts = self._lost(node, at, error)
        for value, part in zip((v for v in node.results if is_float(v)), parts, strict=True):
            if value not in self.sources:
                self.parts[value], self.layers[value] = part, kinds
        return step

    def _linear(self, node: Node, op: Op, at: Point, given: Mapping[int, Parts]) -> tuple[_Step, list[Parts]]:
        plain, plain_operands = _linear_part(op, at, frozenset(given), absolute=False)
        absolute, absolute_operands = _linear_part(op, at, frozenset(given), absolute=True)
        signs = {}
        if op.layer is not None:
            given = {i: self._whole(node.operands[i]) for i in given}
            signs = {i: emit1(Sign(), part.total) for i, part in given.items()}
        # The total of the parts goes through the same sums as their size, so that a part without a term is 0;
        # the difference of results, x W - r W, would leave it at the rounding of x W.
        totals = [given[i].total if i in given else v for i, v in enumerate(plain_operands)]
        sizes = [given[i].size if i in given else v for i, v in enumerate(absolute_operands)]
        parts = [Parts(*pair) for pair in zip(emit(plain, *totals), emit(absolute, *sizes), strict=True)]
        return _Linear(op, at, absolute, absolute_operands, signs), parts

    def _lost(self, node: Node, at: Point, error: NoLocalRule) -> tuple[_Step, list[Parts]]:
        gap = Gap(node.label, str(error))
        if self.joint.gaps is None:
            raise refusal(gap) from None
        self.joint.gaps.append(gap)
        return _Lost(at), [self._whole(v) for v in node.results if is_float(v)]

    def backward(
        self,
        steps: Sequence[tuple[Node, _Step]],
        target: Value,
        observe: Callable[[Node, list[Share], list[Share]], None] | None,
    ) -> list[tuple[Multipliers, Value]]:
        """The multipliers of the sources, and their scores: s D + d A."""
        seed, _ = self.joint.halves(target)
        found = {target: Multipliers(emit1(Full(1.0, seed.dtype, seed.shape)), None)}
        for node, step in reversed(steps):
            known = [None if v in self.sources else found.get(v) for v in node.results if is_float(v)]
            if not any(known):
                continue
            with self.joint.builder.at(node.origin):
                pulled = [(v, step.pull(known, i)) for i, v in enumerate(node.operands) if v in self.parts]
                if observe is not None:
                    came = zip((v for v in node.results if is_float(v)), known, strict=True)
                    pairs = [[(v, self._score(v, m)) for v, m in side] for side in (pulled, came)]
                    observe(node, *pairs)
                for value, m in pulled:
                    found[value] = _sum(found[value], m) if value in found else m
        unread = (Multipliers(zeros_like(self.parts[v].total), None) for v in self.sources)
        ends = [found.get(v) or nothing for v, nothing in zip(self.sources, unread, strict=True)]
        return [(m, self._score(v, m)) for v, m in zip(self.sources, ends, strict=True)]

    def _score(self, source: Value, m: Multipliers | None) -> Value:
        parts = self.parts[source]
        if m is None:
            return zeros_like(parts.total)
        score = m.mean * parts.total
        return score if m.spread is None else score + m.spread * parts.size


def _linear_part(
    op: Op, at: Point, varying: frozenset[int], *, absolute: bool
) -> tuple[Op, tuple[Value, ...]]:
    part, given = op.linear_part(at.operands, varying, absolute)
    filled = (zeros_like(at.operands[i]) if v is None else v for i, v in enumerate(given))
    return part, tuple(filled)


def _sum(a: Multipliers, b: Multipliers) -> Multipliers:
    spreads = [m.spread for m in (a, b) if m.spread is not None]
    spread = spreads[0] + spreads[1] if len(spreads) == 2 else next(iter(spreads), None)
    return Multipliers(a.mean + b.mean, spread)

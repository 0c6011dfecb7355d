"""piecewise: where a choice or a step depends on one number, two, or a row, what it makes of it is one op."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from irshap.attribution.gaps import references_needed
from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Node, Op, Role, Value
from irshap.ir.dims import same_shape
from irshap.ir.rewrite import live_nodes, map_nodes
from irshap.ir.types import TensorType
from irshap.ir.walks import is_float, varying_values
from irshap.ops.arithmetic import Div
from irshap.ops.by_row import ByRow
from irshap.ops.cast import Cast
from irshap.ops.families import Elementwise, NonDifferentiable, ZippedElementwise
from irshap.ops.piecewise import Piecewise, guards
from irshap.ops.reduce import Expand
from irshap.passes.rules.activations import known_form
from irshap.passes.rules.guards import floored_quotient, masked_softmax, part_of_sum
from irshap.passes.rules.regions import Region, by_row, reads_masked
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["PiecewiseFunctions"]


@dataclass(frozen=True)
class PiecewiseFunctions(Pass):
    """Finds the ops through which differences jump, and makes functions of one number of them.

    A `where` whose condition varies, a step, a truth value or an integer that becomes a float: none has a
    complete rule by itself.  Where all that varies in it comes, element by element, from one float tensor,
    it is a function of one number for each element, whose chord is complete (rules.md section 2); from two,
    the Shapley value of two players is (section 4).  Activation functions that are ops become these.  Another
    function reaches back to the nearest such tensor, else to the nearest two, and for guards against NaN and
    infinity to the farthest, as their own operand may not be finite.

    What isn't element by element, such as the weights of the experts that a router chose, may still be a
    function of the rows of one float tensor: it becomes a function by row.  It reaches back to the nearest
    such tensor that is no choice itself, and not past the last layer with weights.

    All other ops stay as they are.

    A division by max(v, epsilon) has a choice in it, too: it becomes one op, whose rule knows of the guard.
    And so does one of a term by its sum, p / sum p, which models guard by a choice and which others leave to
    chance: its rule knows that a sum may be nearly 0.
    """

    name = "piecewise"
    semantics = Semantics.PRESERVES
    requires = frozenset({"target"})

    def run(self, ir: Graph, context: Context) -> Graph:
        finder = _Finder(ir)
        regions = {node: region for node in ir.nodes if (region := finder.region(node)) is not None}
        quotients = {node: found for node in ir.nodes if (found := finder.quotient(node)) is not None}
        rows = {node: row for node in ir.nodes if (row := finder.by_row(node, regions)) is not None}
        if not regions and not quotients and not rows:
            return ir

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if node in quotients:
                op, *operands = quotients[node]
                context.count(op.mnemonic)
                return (emit1(op, *(mapping[v] for v in operands)),)
            if node in rows:
                region, by_rows = rows[node]
                context.count(by_rows.mnemonic)
                return (emit1(by_rows, *(mapping[v] for v in region.operands)),)
            if node not in regions:
                return None
            if (known := known_form(node) or masked_softmax(node)) is not None:
                op, x = known
                context.count(op.mnemonic)
                return (emit1(op, mapping[x]),)
            context.count(Piecewise.mnemonic)
            return (_emitted(regions[node], mapping),)

        return live_nodes(map_nodes(ir, visit))


class _Finder:
    """Finds the regions of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.place = {node: i for i, node in enumerate(graph.statements)}
        self.sources = {o.value for o in graph.outputs_of(Role.SOURCE)}
        self.varying = varying_values(graph.nodes, {*self.sources, *references_needed(graph)})
        behind = varying_values(graph.nodes, self.sources)
        layers = (n for n in graph.nodes if n.op.layer is not None and not behind.isdisjoint(n.operands))
        self.scores = varying_values(graph.nodes, {v for n in layers for v in n.results})

    def region(self, last: Node) -> Region | None:
        """What ends in `last`, if differences jump there and it is a function of one number, or of two."""
        if not self._jumps(last):
            return None
        found: Region | None = None
        for region in self._regions(last):
            if found is None or len(region.roots) < len(found.roots):
                found = region
            elif len(found.roots) == 1:
                if not guards(found.nodes):
                    break
                # what may not be finite goes inside, and a quotient with both its operands
                if len(region.roots) == 1 or isinstance(found.roots[0].node.op, Div):
                    found = region
        return found

    def by_row(self, last: Node, known: Collection[Node]) -> tuple[Region, ByRow] | None:
        """What ends in `last`, if a float is made of what has no cotangent and is a function of a row."""
        jumps = any(map(self._cut, last.operands)) or reads_masked(last, self.varying)
        single = len(last.results) == 1 and is_float(last.results[0])
        if not (jumps and single) or last in known or last.results[0] in self.sources:
            return None
        return by_row(last, self.varying, self.scores, self.place.__getitem__)

    def quotient(self, node: Node) -> tuple[Op, Value, Value] | None:
        """The division with a guard, or of a term by its sum, that a node is, where both operands vary."""
        if not self.varying.issuperset(node.operands):
            return None
        return floored_quotient(node) or part_of_sum(node)

    def _jumps(self, node: Node) -> bool:
        """Whether a float comes out of what has no cotangent, or of a step."""
        if not all(map(is_float, node.results)) or self.varying.isdisjoint(node.operands):
            return False
        step = isinstance(node.op, NonDifferentiable)
        return _is_pointwise(node) and (step or any(map(self._cut, node.operands)))

    def _cut(self, value: Value) -> bool:
        return value in self.varying and not is_float(value)

    def _regions(self, last: Node) -> Iterator[Region]:
        """The regions that end in `last`, from the smallest on."""
        front, inside = self._varying(last), {last}
        while True:
            if len(front) <= 2 and all(map(is_float, front)):
                roots = tuple(sorted(front, key=lambda v: self.place[v.node]))
                yield Region(roots, sorted(inside, key=self.place.__getitem__))
            # the latest first: none that is left depends on it
            value = max(front, key=lambda v: self.place[v.node])
            if value in self.sources or not _is_pointwise(value.node):
                return
            front.remove(value)
            inside.add(value.node)
            front |= self._varying(value.node)

    def _varying(self, node: Node) -> set[Value]:
        return {v for v in node.operands if v in self.varying}


def _emitted(region: Region, mapping: Mapping[Value, Value]) -> Value:
    """Emits a region as one function of one number, or of two."""
    given = [mapping[v] for v in region.operands]
    for i in range(len(region.roots)):
        if not same_shape(given[i].shape, region.result.shape):
            given[i] = emit1(Expand(region.result.shape), given[i])
    return emit1(Piecewise(region.body([v.type for v in given])), *given)


def _is_pointwise(node: Node) -> bool:
    """Whether each element of its one result depends on one element of each operand."""
    tensors = all(isinstance(v.type, TensorType) and v.type.shape is not None for v in node.operands)
    return tensors and isinstance(node.op, Elementwise | ZippedElementwise | Cast)

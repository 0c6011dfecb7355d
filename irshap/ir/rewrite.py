"""The rewrite driver: a graph node by node, and local rules, applied to a fixpoint.

A rule is a stateless function from a node to the value that replaces it, or to the reason why it doesn't
match.  The decorator names the ops at its root, and the docstring is the equation::

    @rewrite(Neg)
    def neg_of_neg(node, x):
        "-(-x) = x"
        if not isinstance(x.node.op, Neg):
            return NoMatch("the operand is no neg")
        return x.node.operands[0]
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy

from irshap.errors import IRError, IrshapError
from irshap.ir.builder import Builder, Visit, current
from irshap.ir.core import Graph, Node, Op, Value
from irshap.ir.dims import Dim
from irshap.ir.types import same_type
from irshap.ir.walks import live

__all__ = ["Miss", "NoMatch", "Replacement", "Rule", "apply", "live_nodes", "map_bodies", "map_nodes"]
__all__ += ["rewrite"]


@dataclass(frozen=True)
class NoMatch:
    """Why a rule leaves a node alone; false, so that `rule(...) or other(...)` reads well."""

    reason: str

    def __bool__(self) -> bool:
        return False


Replacement: TypeAlias = Value | tuple[Value, ...] | NoMatch


@dataclass(frozen=True)
class Rule:
    """A rewrite rule: `function(node, *operands)` for nodes whose op is one of `ops`."""

    name: str
    ops: tuple[type[Op], ...]
    equation: str
    function: Callable[..., Replacement]

    def __call__(self, node: Node) -> Replacement:
        """Applies the rule to a node; emits into the current builder."""
        return self.function(node, *node.operands)


@dataclass(frozen=True)
class Miss:
    """A rule that looked at a node and left it alone."""

    rule: str
    node: Node
    reason: str


def rewrite(*ops: type[Op]) -> Callable[[Callable[..., Replacement]], Rule]:
    """Makes a rule of a function.

    Args:
        ops: classes of the root op; a base class stands for all of its ops.
    """
    given: tuple[object, ...] = ops
    if not given or not all(isinstance(op, type) and issubclass(op, Op) for op in given):
        raise TypeError("@rewrite names the op classes at the rule's root: @rewrite(Relu)")

    def make(function: Callable[..., Replacement]) -> Rule:
        equation = (function.__doc__ or "").strip()
        if not equation:
            raise TypeError(f"rule {function.__name__} lacks a docstring: its equation")
        return Rule(function.__name__, ops, equation, function)

    return make


def apply(
    graph: Graph, rules: Sequence[Rule], *, budget: int | None = None, misses: list[Miss] | None = None
) -> tuple[Graph, Counter[str]]:
    """Applies `rules` until none matches; returns the graph and how often each fired.

    The graph is swept in topological order, so a rule sees operands that are rewritten already.  For each
    node the first rule that matches wins.  What a rule emits is looked at in the next sweep.  Nodes that no
    output needs are dropped on the way; a graph that no rule matches is returned as it is.

    Args:
        budget: how many times rules may fire in all; by default 1000 and 20 for each node.
        misses: collects the reasons for not matching.

    Raises:
        IRError: the budget is spent: some rules undo each other; or a rule changed a type.
    """
    left = 1000 + 20 * len(graph.nodes) if budget is None else budget
    fired: Counter[str] = Counter()
    by_op: dict[type[Op], list[Rule]] = {}
    swept = live_nodes(graph)
    while True:
        sweep = _Sweep(rules, by_op, left, misses)
        rewritten = sweep.run(swept)
        if not sweep.fired:
            return (swept if fired else graph), fired
        swept = rewritten
        fired += sweep.fired
        left -= sweep.fired.total()


class _Sweep:
    """One pass over the graph."""

    def __init__(
        self, rules: Sequence[Rule], by_op: dict[type[Op], list[Rule]], left: int, misses: list[Miss] | None
    ) -> None:
        self.rules, self.by_op, self.left, self.misses = rules, by_op, left, misses
        self.fired: Counter[str] = Counter()
        self.recent: deque[tuple[str, str]] = deque(maxlen=30)

    def run(self, graph: Graph) -> Graph:
        return live_nodes(map_nodes(graph, self.visit))

    def visit(self, old: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if old.op.is_input:
            return None
        builder = current()
        results = builder.copy(old, mapping, shared=True)
        node = results[0].node
        rules = self.rules_for(type(node.op))
        with builder.at(node.origin) if rules else nullcontext():
            for rule in rules:
                found = self.call(rule, node)
                if isinstance(found, NoMatch):
                    if self.misses is not None:
                        self.misses.append(Miss(rule.name, node, found.reason))
                    continue
                replaced = found if isinstance(found, tuple) else (found,)
                if replaced == results:
                    continue
                self.check(rule, node, replaced)
                self.count(rule, node)
                return replaced
        return results

    def rules_for(self, op: type[Op]) -> list[Rule]:
        if op not in self.by_op:
            self.by_op[op] = [r for r in self.rules if issubclass(op, r.ops)]
        return self.by_op[op]

    def call(self, rule: Rule, node: Node) -> Replacement:
        try:
            return rule(node)
        except IrshapError as error:
            where = f"rule {rule.name} at {node.label}" + (f": {error.where}" if error.where else "")
            raise type(error)(error.what, where=where, mend=error.mend) from error

    def check(self, rule: Rule, node: Node, replaced: tuple[Value, ...]) -> None:
        types = [v.type for v in replaced]
        if len(types) != len(node.types) or not all(map(same_type, types, node.types)):
            before, after = (", ".join(map(str, t)) for t in (node.types, types))
            raise IRError(f"rule {rule.name} made {after} of {before}", where=node.label, mend=rule.equation)

    def count(self, rule: Rule, node: Node) -> None:
        self.fired[rule.name] += 1
        self.recent.append((rule.name, node.label))
        if self.fired.total() > self.left:
            names = sorted({name for name, _ in self.recent})
            raise IRError(
                f"rewriting doesn't come to rest: {', '.join(names)} fired again and again",
                where=self.recent[-1][1],
                mend="no rule may undo what another did",
            )


def map_nodes(
    graph: Graph, visit: Visit | None = None, *, binding: Mapping[sympy.Expr, Dim] | None = None
) -> Graph:
    """`graph` rebuilt node by node, inputs first: each as `visit` has it, or as it is where that gives None.

    Nodes that don't change are shared with `graph`, and if none does this is `graph` itself.

    Args:
        visit: (node, where values before it went) -> its results, emitted into the current builder with the
            node's origin (`irshap.ir.builder.Visit`).
        binding: replaces dimension symbols in what is copied.
    """
    with Builder() as b:
        mapping = b.extend(graph.statements, {}, visit, binding=binding, shared=True)
        kept = b.nodes == graph.nodes and all(mapping[v] is v for v in graph.inputs)
        return (
            graph
            if kept and all(mapping[o.value] is o.value for o in graph.outputs)
            else b.rebuild(graph, mapping)
        )


def map_bodies(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """`graph` with `change` applied to the bodies of its nodes, which keep their inputs and outputs."""
    changed = dict[Node, list[Graph]]()
    for node in graph.nodes:
        bodies = [change(body) for body in node.op.bodies]
        if any(new is not old for new, old in zip(bodies, node.op.bodies, strict=True)):
            changed[node] = bodies

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if node not in changed:
            return None
        op = node.op.with_bodies(changed[node])
        names = tuple(v.name for v in node.results)
        return current().emit(op, *(mapping[v] for v in node.operands), types=node.types, names=names)

    return map_nodes(graph, visit) if changed else graph


def live_nodes(graph: Graph, extra: Iterable[Value] = ()) -> Graph:
    """`graph` without the nodes that no output (and no value of `extra`) needs; inputs stay."""
    nodes = live(graph.nodes, (*(o.value for o in graph.outputs), *extra))
    return graph if len(nodes) == len(graph.nodes) else replace(graph, nodes=tuple(nodes))

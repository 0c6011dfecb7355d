"""The only way to make a graph: emits nodes, infers their types at once, and never emits one twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from dataclasses import replace
from typing import TypeAlias

import sympy

from irshap.errors import IRError
from irshap.ir.core import Graph, Node, Op, Output, Source, TypeMismatch, Value
from irshap.ir.dims import Dim
from irshap.ir.types import TensorType, Type

__all__ = ["Builder", "Visit", "current", "emit", "emit1", "inferred_types"]

_CURRENT: ContextVar[Builder] = ContextVar("builder")

Visit: TypeAlias = "Callable[[Node, Mapping[Value, Value]], Sequence[Value | None] | None]"
"""(old node, where values before it went) -> its results, emitted into the current builder.

None: the node is copied as it is.  None for one of its results: it is made when somebody asks, if ever.
"""


def current() -> Builder:
    """The builder of the innermost `with builder:`; the rules of ops emit into it."""
    return _CURRENT.get()


def emit(op: Op, *operands: Value) -> tuple[Value, ...]:
    """Emits into the current builder."""
    return current().emit(op, *operands)


def emit1(op: Op, *operands: Value) -> Value:
    """Emits an op with one result."""
    (result,) = emit(op, *operands)
    return result


def inferred_types(op: Op, operands: Sequence[Type]) -> tuple[Type, ...]:
    """`op.infer`; a wrong number of operands or attributes out of range are type mismatches, too.

    Raises:
        TypeMismatch: the operands don't fit the op.
    """
    try:
        return op.infer(*operands)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # rules unpack and index operands freely: what they stumble over is a misfit, not a crash
        raise TypeMismatch(f"operands and attributes don't fit together: {error}") from error


class Builder:
    """Collects nodes.  Equal statements are emitted once (common subexpressions share by construction).

    Used as a context manager it becomes the target of arithmetic on values and of `emit`.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._inputs: list[Value] = []
        self._known: dict[tuple[object, ...], Node] = {}
        self._origin: tuple[str, ...] = ()
        self._tokens: list[tuple[Token[Builder], tuple[str, ...]]] = []

    @property
    def nodes(self) -> tuple[Node, ...]:
        """What was emitted so far, in order."""
        return tuple(self._nodes)

    def __enter__(self) -> Builder:
        self._tokens.append((_CURRENT.set(self), self._origin))
        return self

    def __exit__(self, *exc: object) -> None:
        token, self._origin = self._tokens.pop()
        _CURRENT.reset(token)

    def at(self, origin: tuple[str, ...]) -> AbstractContextManager[Builder]:
        """Sets the origin given to nodes emitted from now on.

        As `with builder.at(origin):` for the block only, and this builder is then the current one.
        """
        before, self._origin = self._origin, origin
        return self._restoring(before)

    @contextmanager
    def _restoring(self, origin: tuple[str, ...]) -> Iterator[Builder]:
        try:
            with self:
                yield self
        finally:
            self._origin = origin

    def emit(
        self,
        op: Op,
        *operands: Value,
        types: tuple[Type, ...] | None = None,
        origin: tuple[str, ...] | None = None,
        names: tuple[str | None, ...] = (),
    ) -> tuple[Value, ...]:
        """Emits `op(operands)` and returns its results.

        Args:
            types: the result types of an op that can't infer them (inputs, opaque nodes); ignored otherwise.

        Raises:
            IRError: the operands don't fit the op.
        """
        key = (op, types if op.types_given else None, *map(id, operands))
        if (node := self._known.get(key)) is not None:
            return node.results
        origin = self._origin if origin is None else origin
        if not op.types_given:
            types = self._inferred(op, operands, origin)
        elif types is None:
            raise IRError(f"{op.mnemonic} needs its result types")
        return self._add(key, Node(op, operands, types, origin, names))

    def _inferred(self, op: Op, operands: Sequence[Value], origin: tuple[str, ...]) -> tuple[Type, ...]:
        try:
            found = op.infer(*[v.type for v in operands])
            for kind in found:
                if isinstance(kind, TensorType) and _is_negative(kind):
                    raise TypeMismatch(f"its result would be {kind}")
        except TypeMismatch as error:
            listed = ", ".join(str(v.type) for v in operands)
            where = ", ".join(origin or self._origin)
            raise IRError(f"{op.mnemonic}({listed}): {error}", where=where) from None
        return found

    def _add(self, key: tuple[object, ...], node: Node) -> tuple[Value, ...]:
        self._known[key] = node
        if node.op.is_input:
            self._inputs.extend(node.results)
        else:
            self._nodes.append(node)
        return node.results

    def copy(
        self,
        node: Node,
        mapping: Mapping[Value, Value],
        binding: Mapping[sympy.Expr, Dim] | None = None,
        *,
        shared: bool = False,
    ) -> tuple[Value, ...]:
        """Emits `node` with its operands mapped and, if asked, its dimension symbols replaced.

        `shared`: the node itself where that changes nothing, as what takes the place of its graph may.
        """
        operands = tuple([mapping[v] for v in node.operands])
        names = tuple([v.name for v in node.results])
        if binding:
            op, types = node.op.substitute(binding), tuple(t.substitute(binding) for t in node.types)
            return self.emit(op, *operands, types=types, origin=node.origin, names=names)
        for new, old in zip(operands, node.operands, strict=True):
            if new.type is not old.type:
                return self.emit(node.op, *operands, types=node.types, origin=node.origin, names=names)
        # the same op on the same types: inferred once
        key = (node.op, node.types if node.op.types_given else None, *map(id, operands))
        if (known := self._known.get(key)) is not None:
            return known.results
        same = shared and operands == node.operands
        return self._add(key, node if same else Node(node.op, operands, node.types, node.origin, names))

    def extend(
        self,
        nodes: Iterable[Node],
        mapping: dict[Value, Value],
        visit: Visit | None = None,
        *,
        binding: Mapping[sympy.Expr, Dim] | None = None,
        shared: bool = False,
    ) -> dict[Value, Value]:
        """Emits nodes in order, each as `visit` has it, with its origin for what that emits.

        Args:
            nodes: of inputs, too, where these aren't in `mapping`.
            mapping: where values went; the nodes' are added, those that it has already stay.
            visit: what to emit instead of a node; by default all are copied.
            binding: replaces dimension symbols in what is copied.
            shared: nodes that don't change are emitted themselves, not copied.
        """
        with self:
            for node in nodes:
                for value in node.results:
                    if value not in mapping:
                        break
                else:
                    if node.results:
                        continue
                results: Sequence[Value | None] | None = None
                if visit is not None:
                    self._origin = node.origin
                    results = visit(node, mapping)
                if results is None:
                    results = self.copy(node, mapping, binding, shared=shared)
                for old, new in zip(node.results, results, strict=True):
                    if new is not None:
                        mapping[old] = new
        return mapping

    def graft(self, graph: Graph, mapping: dict[Value, Value] | None = None) -> dict[Value, Value]:
        """Emits a whole graph; returns where each of its values went.  `mapping` may preset values."""
        return self.extend(graph.statements, {} if mapping is None else mapping)

    def build(
        self,
        name: str,
        outputs: Sequence[Output],
        properties: Iterable[str] = (),
        *,
        like: Graph | None = None,
    ) -> Graph:
        """The finished graph.  `like` gives its source and the order of inputs that an older graph had."""
        inputs, source = self._inputs, Source()
        if like is not None:
            order, source = {v.name: i for i, v in enumerate(like.inputs)}, like.source
            inputs = sorted(inputs, key=lambda v: order.get(v.name, len(order)))
        return Graph(name, tuple(inputs), tuple(self._nodes), tuple(outputs), frozenset(properties), source)

    def rebuild(self, graph: Graph, mapping: Mapping[Value, Value]) -> Graph:
        """`graph` after a rewrite: same name, outputs mapped, same properties."""
        outputs = [replace(o, value=mapping[o.value]) for o in graph.outputs]
        return self.build(graph.name, outputs, graph.properties, like=graph)


def _is_negative(kind: TensorType) -> bool:
    return any(isinstance(d, int) and d < 0 for d in kind.shape or ())

"""Checks that a graph is what the IR promises; a violation is a fault of the pass that made the graph."""

from __future__ import annotations

from irshap.errors import IRError, near
from irshap.ir.builder import inferred_types
from irshap.ir.core import Graph, Node, TypeMismatch, Value
from irshap.ir.types import TensorType, same_type
from irshap.pipeline.base import FACTS, PROPERTIES
from irshap.text.printer import Printer

__all__ = ["verify", "verify_properties"]


def verify(graph: Graph) -> None:
    """Checks single assignment, topological order, types, names and properties.

    Raises:
        IRError: names the node, and shows its statement.
    """
    _Verifier(graph).run()


def verify_properties(graph: Graph) -> None:
    """Checks that a graph has the properties that it says it has.

    Raises:
        IRError: names the property, and what speaks against it.
    """
    for name in sorted(graph.properties):
        if name not in PROPERTIES:
            raise IRError(
                f"unknown property {name!r}", where=f"graph @{graph.name}", mend=near(name, PROPERTIES)
            )
        if (why := PROPERTIES[name](graph)) is not None:
            raise IRError(f"the graph isn't {name}: {why}", where=f"graph @{graph.name}")


class _Verifier:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.defined: set[Value] = set()

    def run(self) -> None:
        graph = self.graph
        self.inputs()
        seen: set[Node] = set()
        for node in graph.nodes:
            if node in seen:
                raise self.fault("this node stands in the graph twice", node)
            seen.add(node)
            self.node(node)
            self.defined.update(node.results)
        self.outputs()
        verify_properties(graph)

    def fault(self, what: str, node: Node) -> IRError:
        return IRError(f"{what}, in: {Printer(self.graph, elide=True).statement(node)}", where=node.label)

    def inputs(self) -> None:
        names: set[str] = set()
        for value in self.graph.inputs:
            node = value.node
            if not node.op.is_input or node.results != (value,) or node.operands:
                raise self.fault("an input of the graph is the one result of an input node", node)
            name = getattr(node.op, "name", None)
            if name in names:
                raise self.fault(f"two inputs are called {name!r}", node)
            if value.name != name:
                raise self.fault(f"the value of input {name!r} is called {value.name!r}", node)
            names.add(str(name))
            self.types(node)
        self.defined.update(self.graph.inputs)

    def node(self, node: Node) -> None:
        if node.op.is_input:
            raise self.fault("an input stands among the nodes", node)
        for position, operand in enumerate(node.operands):
            if operand not in self.defined:
                raise self.fault(f"operand {position} is not defined above", node)
        if not node.results:
            raise self.fault("a node has a result", node)
        for position, value in enumerate(node.results):
            if value.node is not node or value.index != position or value.type != node.types[position]:
                raise self.fault(f"result {position} is not this node's own", node)
        self.types(node)
        for body in node.op.bodies:
            verify(body)
        try:
            if node.op.types_given:
                node.op.require_fit(len(node.operands), len(node.results))
                return
            inferred = inferred_types(node.op, [v.type for v in node.operands])
        except TypeMismatch as error:
            raise self.fault(str(error), node) from None
        if len(inferred) != len(node.types) or not all(map(same_type, inferred, node.types)):
            listed = ", ".join(map(str, inferred))
            raise self.fault(f"its types are inferred as {listed}", node)

    def types(self, node: Node) -> None:
        """Dimensions can't be negative."""
        for kind in node.types:
            dims = kind.shape or () if isinstance(kind, TensorType) else ()
            if any(isinstance(d, int) and d < 0 for d in dims):
                raise self.fault(f"{kind} has a negative dimension", node)

    def outputs(self) -> None:
        names: set[str] = set()
        for output in self.graph.outputs:
            where = f"output {output.name!r}"
            if output.value not in self.defined:
                raise IRError("its value is not defined in the graph", where=where)
            if not output.name or output.name in names:
                raise IRError("outputs need names, each another", where=where)
            names.add(output.name)
            fact = FACTS.get(output.role)
            if fact is not None and fact not in self.graph.properties:
                raise IRError(f"its role is {output.role.value}, and the graph isn't {fact!r}", where=where)

"""Values, nodes and graphs: single assignment, immutable, in topological order.

A value is the result of exactly one node; graph inputs are results of `Input` nodes.  Nothing here is
ever changed: a pass builds a new graph through a `Builder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING

from irshap.dims import Shape
from irshap.types import DType, TensorType, Type

if TYPE_CHECKING:
    from irshap.ops.base import Op

__all__ = ["Graph", "Node", "Output", "Role", "Source", "Value"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Value:
    """The `index`-th result of `node`.  Compared by identity; arithmetic emits into the current builder."""

    node: Node
    index: int
    type: Type
    name: str | None = None

    @property
    def tensor(self) -> TensorType:
        """The type of a value that must be a tensor."""
        if not isinstance(self.type, TensorType):
            raise TypeError(f"%{self.name} is a {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> Shape:
        """The shape of a tensor of known rank."""
        return self.tensor.dims

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.tensor.rank

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.tensor.dtype

    def __add__(self, other: Value | float) -> Value:
        return _arithmetic("Add", self, other)

    def __radd__(self, other: float) -> Value:
        return _arithmetic("Add", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return _arithmetic("Sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return _arithmetic("Sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return _arithmetic("Mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return _arithmetic("Mul", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return _arithmetic("Div", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return _arithmetic("Div", other, self)

    def __neg__(self) -> Value:
        return _arithmetic("Neg", self)

    def __repr__(self) -> str:
        return f"%{self.name or '_'}: {self.type}"


def _arithmetic(name: str, *operands: Value | float) -> Value:
    from irshap.ops import arithmetic

    result: Value = arithmetic.apply(name, *operands)
    return result


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Node:
    """One statement: `results = op(operands)`.

    `origin` holds the names of the ONNX nodes that it stems from, for errors, cost rows and lowered names.
    """

    op: Op
    operands: tuple[Value, ...]
    types: tuple[Type, ...]
    origin: tuple[str, ...] = ()
    names: tuple[str | None, ...] = ()
    results: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = self.names or (None,) * len(self.types)
        results = tuple(Value(self, i, t, n) for i, (t, n) in enumerate(zip(self.types, names, strict=True)))
        object.__setattr__(self, "results", results)

    @property
    def label(self) -> str:
        """How an error or a cost row calls this node."""
        kind = self.op.title
        return f"{', '.join(self.origin)} ({kind})" if self.origin else kind

    def __repr__(self) -> str:
        return f"Node({self.label})"


class Role(Enum):
    """What an output of a graph is for.

    `source`, `target` and `adjoint` are facts between passes: the tensors that are attributed, one row for
    each explained (sample, class) pair; the explained number of each row; its derivative by each source.
    `probe` is a value that a check looks at.
    """

    MODEL = "model"
    SOURCE = "source"
    TARGET = "target"
    TARGET_INDEX = "target_index"
    ADJOINT = "adjoint"
    ATTRIBUTION = "attribution"
    BASE = "base"
    COMPLETENESS = "completeness"
    PROBE = "probe"


@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """A named output.

    `of` names the attributed tensor that a source or attribution belongs to, or the source that an adjoint
    belongs to.  Where it is an integer input, the source is what is read in there (an embedding lookup).
    """

    name: str
    value: Value
    role: Role = Role.MODEL
    of: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """What the ONNX model says of itself beyond its graph: passes hand it on, `lower` writes it back.

    `opset` is the model's (0: made without one), `producer` and `doc` are texts of its own, `metadata` its
    key-value pairs.  `batch` tells why lifting left the model's batch as it was, "" where it is symbolic.
    `aliases` are tensors that lifting found to be another one (through an Identity, say), with its name.
    """

    opset: int = 0
    producer: str = ""
    doc: str = ""
    batch: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A whole program.

    `properties` are the facts that passes have established (`canonical`, `target`, ...), checked by the
    pass manager.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    properties: frozenset[str] = frozenset()
    source: Source = Source()

    def output(self, role: Role) -> Output:
        """The only output with this role."""
        (found,) = (o for o in self.outputs if o.role is role)
        return found

    def outputs_of(self, role: Role) -> tuple[Output, ...]:
        """All outputs with this role, in order."""
        return tuple(o for o in self.outputs if o.role is role)

    def input(self, name: str) -> Value:
        """The input called `name`."""
        (found,) = (v for v in self.inputs if v.name == name)
        return found

    def values(self) -> Iterator[Value]:
        """Every value, inputs first, in topological order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results

    def walk(self) -> Iterator[Node]:
        """Every node, and those in the bodies of nodes before these."""
        for node in self.nodes:
            for body in node.op.bodies:
                yield from body.walk()
            yield node

    def with_properties(self, *added: str, without: tuple[str, ...] = ()) -> Graph:
        """This graph with other properties."""
        return replace(self, properties=(self.properties - set(without)) | set(added))

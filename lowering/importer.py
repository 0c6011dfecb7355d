"""What an importer sees of an ONNX node, and the registry of importers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
from onnx import NodeProto, helper

from irshap.ir.builder import Builder
from irshap.ir.core import Op, Value
from irshap.ir.dims import Dim
from irshap.ir.types import Array
from irshap.lowering.shape_arithmetic import Facts
from irshap.ops.program import Constant

__all__ = [
    "IMPORTERS",
    "LARGEST_MADE",
    "NO_RULE",
    "Failing",
    "Import",
    "Importer",
    "Unmodeled",
    "importer",
    "kind_of",
]

LARGEST_MADE = 2**20
"""Constants that importers make have at most as many elements: a few bytes could ask for any memory."""

NO_RULE = {
    "com.microsoft.nchwc": "it is in the blocked layout of one kind of CPU, which ONNX Runtime writes with "
    "ORT_ENABLE_ALL: save the optimized model with ORT_ENABLE_EXTENDED",
    "com.ms.internal.nhwc": "it is in a layout that ONNX Runtime keeps for one device: save the model before",
}
"""Why ops of a domain can't be lifted, where there is more to say than that irshap has no rule."""

CALLED = 20
"""The opset of standard ops by which importers say what others mean."""


def kind_of(node: NodeProto) -> str:
    """The op of a node; one of another domain than ONNX's own has that in front."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


class Unmodeled(Exception):
    """Why a node can't be lifted to an op with rules; it becomes an opaque node that remembers this."""


class Failing(Unmodeled):
    """Why a node fails whatever it is given: a model that needs it can't be run."""


class Import:
    """One ONNX node on its way in.

    An importer may put others in the place of `inputs`; if it then raises `Unmodeled`, the opaque node has
    them.  `batched`: whether N is the batch; `rebatched`: whether it was 1 in the shapes of the model.
    """

    def __init__(
        self,
        proto: NodeProto,
        inputs: Sequence[Value | None],
        opset: int,
        builder: Builder,
        batch: tuple[bool, bool],
        facts: Facts,
        *,
        trained: bool = False,
    ) -> None:
        self.proto, self.opset, self.builder, self.facts = proto, opset, builder, facts
        self.batched, self.rebatched = batch
        self.trained = trained
        self.inputs: list[Value | None] = list(inputs)
        self.fails = False
        self.attributes: dict[str, Any] = {a.name: helper.get_attribute_value(a) for a in proto.attribute}

    def attribute(self, name: str, default: Any) -> Any:
        """An attribute's value, strings decoded; a default is a float32 number as attributes are."""
        value = self.attributes.get(
            name, float(np.float32(default)) if isinstance(default, float) else default
        )
        return value.decode() if isinstance(value, bytes) else value

    def has(self, i: int) -> bool:
        """Whether the optional input i is given."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def tensor(self, i: int = 0) -> Value:
        """Input i, which must be a tensor of known rank."""
        value = self.inputs[i] if i < len(self.inputs) else None
        if value is None:
            raise Unmodeled(f"its input {i} is missing")
        if getattr(value.type, "shape", None) is None:
            raise Unmodeled(f"the rank of its input {i} is unknown")
        return value

    def given(self) -> list[Value]:
        """All inputs that are given."""
        return [self.tensor(i) for i in range(len(self.inputs)) if self.has(i)]

    def dims(self, i: int) -> list[Dim]:
        """Input i as a list of dimensions: a constant, or shape arithmetic that lifting has done."""
        found = self.partly(i)
        if any(d is None for d in found):
            raise Unmodeled(f"its input {i} is only known at run time")
        return [d for d in found if d is not None]

    def partly(self, i: int) -> list[Dim | None]:
        """Input i as a list of dimensions, None for those that lifting doesn't know."""
        elements = self.facts.of(self.tensor(i))
        if elements is None:
            raise Unmodeled(f"its input {i} is only known at run time")
        return list(elements.ravel())

    def ints(self, i: int) -> list[int]:
        """Input i as plain integers."""
        found = self.dims(i)
        if not all(isinstance(d, (int, np.integer)) for d in found):
            raise Unmodeled(f"its input {i} depends on run-time dimensions")
        return [int(d) for d in found if isinstance(d, (int, np.integer))]

    def static(self, i: int) -> Array:
        """Input i as a constant array."""
        value = self.tensor(i)
        found = (
            value.node.op.value.array if isinstance(value.node.op, Constant) else self.facts.numbers(value)
        )
        if found is None:
            raise Unmodeled(f"its input {i} is not a constant")
        return found

    def scalar(self, i: int, default: float) -> float:
        """Optional input i as a number."""
        return float(self.static(i).reshape(())) if self.has(i) else default

    def axis(self, value: int, rank: int | None = None) -> int:
        """A possibly negative axis, counted from the front."""
        rank = self.tensor(0).rank if rank is None else rank
        if not -rank <= value < max(rank, 1):
            raise Unmodeled(f"axis {value} is not one of {rank}")
        return value % rank if rank else 0

    def call(self, kind: str, *inputs: Value | None, opset: int = CALLED, **attributes: Any) -> Value:
        """What a standard op with one result gives for these inputs."""
        node = helper.make_node(kind, [""] * len(inputs), [""], **attributes)
        batch = (self.batched, self.rebatched)
        found = IMPORTERS[kind](Import(node, inputs, opset, self.builder, batch, self.facts))
        return found if isinstance(found, Value) else found[0]

    def emit(self, op: Op, *operands: Value) -> tuple[Value, ...]:
        """Emits an IR op."""
        return self.builder.emit(op, *operands)

    def one(self, op: Op, *operands: Value) -> Value:
        """Emits an IR op with one result."""
        (result,) = self.builder.emit(op, *operands)
        return result


Importer: TypeAlias = Callable[[Import], "Value | Sequence[Value]"]

IMPORTERS: dict[str, Importer] = {}
"""For each ONNX op, how it is lifted (those of the default domain of any opset from 7 on)."""

_F = TypeVar("_F", bound=Importer)


def importer(*kinds: str) -> Callable[[_F], _F]:
    """Registers how ONNX ops of these kinds are lifted."""

    def register(function: _F) -> _F:
        for kind in kinds:
            if kind in IMPORTERS:
                raise TypeError(f"{kind} has two importers")
            IMPORTERS[kind] = function
        return function

    return register

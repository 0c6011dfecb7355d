"""Tensors and nodes of a lowered model as ONNX Runtime sees them, their order, and layouts of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from irshap.ir.core import Node
from irshap.ir.dims import Dim
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.linear import Gemm, MatMul

__all__ = ["BLOCKED", "Schedule", "Slot", "Step", "order", "packs"]

BLOCKED = "blocked"
"""The layout of a convolution's weights with blocks of channels, which replaces the original in the graph."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor of the lowered model.

    `shape` is what ONNX Runtime knows of it while it plans: two tensors with the same may share a buffer.
    Where it doesn't know all, it may know a part of `dims`, as channels.
    """

    name: str
    size: Dim
    shape: tuple[object, ...] | None
    constant: bool = False
    outside: bool = False
    """Whether it belongs to the caller: an input, or an output once it is made."""
    dims: tuple[Dim, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """An ONNX node: its op type, slots, and bytes that its kernel needs only while it runs.

    The operands of a loop are also what its `body` reads from outside.  `added` is an operand that a
    convolution in blocks adds its result to, in place if nothing reads that again.
    """

    kind: str
    operands: tuple[int, ...]
    results: tuple[int, ...]
    node: Node | None
    scratch: Dim = 0
    body: Schedule | None = None
    added: int | None = None


@dataclass(frozen=True, eq=False)
class Schedule:
    """Slots and steps, in order of execution.

    `loaded` are steps that a load computes, since nothing in them varies; `constants` are the initializers.
    A loop's body shares the slots of the schedule around it; those below `first` aren't the body's own, and
    `captured` are those of them that it reads.
    """

    slots: list[Slot]
    steps: list[Step]
    loaded: list[Step]
    constants: list[int] = field(default_factory=list)
    first: int = 0
    captured: tuple[int, ...] = ()

    def walk(self) -> Iterator[Schedule]:
        """This schedule and those of the bodies in it."""
        yield self
        for step in self.steps:
            if step.body is not None:
                yield from step.body.walk()


def order(steps: Sequence[Step]) -> list[Step]:
    """Steps as ONNX Runtime orders them; they come in the order of the file."""
    made = {slot: i for i, step in enumerate(steps) for slot in step.results}
    before = [sorted({made[s] for s in step.operands if s in made}) for step in steps]
    read = {i for operands in before for i in operands}
    stack = [(i, False) for i in range(len(steps)) if i not in read]
    seen: set[int] = set()
    result: list[Step] = []
    while stack:
        i, done = stack.pop()
        if done:
            result.append(steps[i])
        elif i not in seen:
            seen.add(i)
            stack.append((i, True))
            stack += [(j, False) for j in before[i] if j not in seen]
    return result


def packs(step: Step, slots: list[Slot]) -> Mapping[int, str]:
    """The constant operands that ONNX Runtime keeps in a layout of its own for this step, and which layout.

    Steps that agree in both share the copy.  Once every reader of a constant has its copy, the original goes.
    """
    node = step.node
    if node is None or len(step.operands) < 2:
        return {}
    found: dict[int, str] = {}
    second = step.operands[1]
    if isinstance(node.op, ConvTranspose):
        found[second] = f"ConvTranspose{node.op.group}"
    elif isinstance(node.op, Conv):
        found[second] = BLOCKED if _is_blocked(node) else ""
    elif isinstance(node.op, Gemm):
        found[second] = f"{step.kind}{node.op.trans_b}"
    elif isinstance(node.op, MatMul) and step.kind == "MatMul" and node.operands[1].rank == 2:
        found[second] = "MatMul"
    return {i: layout for i, layout in found.items() if layout and slots[i].constant}


def _is_blocked(node: Node) -> bool:
    """Whether a convolution runs in the layout with blocks of 16 channels (nchwc_transformer.cc)."""
    assert isinstance(node.op, Conv)
    w = node.operands[1].tensor
    if w.rank != 4 or w.dtype.value != "f32":
        return False
    out, inner = w.dims[:2]
    group = node.op.group
    # channels of a result are padded, unless there are groups
    if not isinstance(out, int) or not isinstance(inner, int) or (group > 1 and out % 16):
        return False
    if group == 1:
        return inner < 16 or inner % 4 == 0
    return (inner == 1 and out == group) or (inner % 16 == 0 and (out // group) % 16 == 0)

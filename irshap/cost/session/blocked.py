"""Steps in the layout with blocks of channels, and copies to and from it (nchwc_transformer.cc).

A convolution whose weights are constants runs on blocks of 16 channels.  What is made of its result without
mixing channels stays in that layout; a `ReorderOutput` stands where anything else reads it, a `ReorderInput`
before a convolution or a pooling that reads something else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from irshap.cost.session.steps import BLOCKED, Slot, Step, order, packs
from irshap.ir.dims import as_dim, product
from irshap.ir.types import DType
from irshap.ops.conv import Conv

__all__ = ["in_blocks"]

BLOCK = 16


def in_blocks(steps: Sequence[Step], slots: list[Slot]) -> list[Step]:
    """The steps that ONNX Runtime makes of `steps`, in the order of its graph; new slots are appended."""
    return _Blocks(steps, slots).run()


class _Blocks:
    def __init__(self, steps: Sequence[Step], slots: list[Slot]) -> None:
        self.steps, self.slots = steps, slots
        self.readers = Counter(slot for step in steps for slot in step.operands)
        self.left = self.readers.copy()
        """How often each slot is read by steps that aren't in blocks."""
        self.blocked: dict[int, int] = {}
        """The slot in blocks of a slot that a step in blocks has made."""
        self.reordered: dict[int, int] = {}
        """The same of a slot that was made in the usual layout."""
        self.made: list[Step] = []
        self.maker: dict[int, int] = {}
        self.rules: dict[str, Callable[[Step], bool]] = {
            **dict.fromkeys(("Conv", "FusedConv"), self._conv),
            **dict.fromkeys(("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool"), self._pool),
            **dict.fromkeys(("Relu", "Sigmoid", "Tanh"), self._activation),
            "Add": self._sum,
            "Mul": self._elementwise,
            "BatchNormalization": self._normalization,
            "Concat": self._concat,
        }

    def run(self) -> list[Step]:
        gone = set()
        for step in order(self.steps):
            rule = self.rules.get(step.kind)
            if rule is not None and rule(step):
                gone.add(step.results)
        kept = [step for step in self.steps if step.results not in gone]
        ends = [
            Step("ReorderOutput", (inner,), (slot,), None)
            for slot, inner in self.blocked.items()
            if self.left[slot] or self.slots[slot].outside
        ]
        return [*kept, *self.made, *ends]

    def _conv(self, step: Step) -> bool:
        if packs(step, self.slots).get(step.operands[1]) != BLOCKED:
            return False
        assert step.node is not None and isinstance(step.node.op, Conv)
        inner = step.node.operands[1].tensor.dims[1]
        few = step.node.op.group == 1 and isinstance(inner, int) and inner < BLOCK
        x = step.operands[0] if few else self._input(step.operands[0])
        self._make(step, (x, *step.operands[1:]))
        return True

    def _pool(self, step: Step) -> bool:
        if len(step.results) > 1 or (self._channels(step.results[0]) or 1) % BLOCK:
            return False
        self._make(step, (self._input(step.operands[0]),))
        return True

    def _activation(self, step: Step) -> bool:
        (x,) = step.operands
        if x not in self.blocked:
            return False
        inner = self._input(x)
        before = self.made[self.maker[inner]]
        if (
            self.readers[x] == 1
            and not self.slots[x].outside
            and before.kind in ("Conv", "BatchNormalization")
        ):
            # the convolution before it takes it in: a normalization is one by then
            made = replace(before, kind="FusedConv", results=(self._result(step),))
            self.made[self.maker[inner]] = made
            self.maker[made.results[0]] = self.maker[inner]
            return True
        self._make(step, (inner,))
        return True

    def _elementwise(self, step: Step) -> bool:
        if not self._alike(step):
            return False
        self._make(step, tuple(map(self._input, step.operands)))
        return True

    def _sum(self, step: Step) -> bool:
        if not self._alike(step):
            return False
        inner = tuple(map(self._input, step.operands))
        for x, own, other in zip(step.operands, inner, reversed(inner), strict=True):
            before = self.made[self.maker[own]]
            alone = self.readers[x] == 1 and not self.slots[x].outside
            if alone and before.kind == "Conv" and before.added is None:
                # the convolution adds its result to the other operand
                made = replace(before, results=(self._result(step),), added=other)
                self.made[self.maker[own]] = replace(made, operands=(*before.operands, other))
                self.maker[made.results[0]] = self.maker[own]
                return True
        self._make(step, inner)
        return True

    def _alike(self, step: Step) -> bool:
        """Whether all operands stand in blocks, and their shapes are known to be equal."""
        shapes = {self.slots[i].shape for i in step.operands}
        return None not in shapes and len(shapes) == 1 and all(i in self.blocked for i in step.operands)

    def _normalization(self, step: Step) -> bool:
        if step.operands[0] not in self.blocked:
            return False
        self._make(step, (self._input(step.operands[0]), *step.operands[1:]))
        return True

    def _concat(self, step: Step) -> bool:
        if any(i not in self.blocked or (self._channels(i) or 1) % BLOCK for i in step.operands):
            return False
        self._make(step, tuple(map(self._input, step.operands)))
        return True

    def _channels(self, slot: int) -> int | None:
        """Channels of images; None for anything else."""
        dims = self.slots[slot].dims
        return dims[1] if len(dims) == 4 and isinstance(dims[1], int) else None

    def _input(self, slot: int) -> int:
        """`slot` in blocks, reordered if no step has made it so."""
        if slot in self.blocked:
            self.left[slot] -= 1
            return self.blocked[slot]
        if slot not in self.reordered:
            self.reordered[slot] = self._new(slot)
            self.made.append(Step("ReorderInput", (slot,), (self.reordered[slot],), None))
        return self.reordered[slot]

    def _make(self, step: Step, operands: tuple[int, ...]) -> None:
        result = self._result(step)
        self.maker[result] = len(self.made)
        self.made.append(replace(step, operands=operands, results=(result,)))

    def _result(self, step: Step) -> int:
        (slot,) = step.results
        self.blocked[slot] = self._new(slot)
        return self.blocked[slot]

    def _new(self, slot: int) -> int:
        """A slot for `slot` in blocks: with room for whole ones of channels."""
        old = self.slots[slot]
        size, shape, channels = old.size, old.shape, self._channels(slot)
        if channels and (short := -channels % BLOCK):
            # only float32 stands in blocks
            size = as_dim(product((old.dims[0], channels + short, *old.dims[2:])) * DType.F32.bytes)
            shape = shape and (*shape[:2], channels + short, *shape[3:])
        name = f"{old.name}_blocked"
        self.slots.append(replace(old, name=name, size=size, shape=shape, outside=False))
        return len(self.slots) - 1

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
from irshap.ir.types import TensorType
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
            **dict.fromkeys(("Add", "Mul"), self._elementwise),
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
        if self.slots[step.results[0]].shape is None:
            # Adjoints have copies, too.  With them the counts are ONNX Runtime's, but the simulated arena
            # takes a region too many for DenseNet201 @naive, and why isn't known (docs/cost.md): left out.
            return False
        assert step.node is not None and isinstance(step.node.op, Conv)
        inner = step.node.operands[1].tensor.dims[1]
        few = step.node.op.group == 1 and isinstance(inner, int) and inner < BLOCK
        x = step.operands[0] if few else self._input(step.operands[0])
        self._make(step, (x, *step.operands[1:]))
        self._pad(step)
        return True

    def _pad(self, step: Step) -> None:
        """Makes room for whole blocks of channels in a convolution's result."""
        assert step.node is not None
        kind = step.node.types[0]
        assert isinstance(kind, TensorType)
        n, out, *spatial = kind.dims
        if isinstance(out, int) and out % BLOCK:
            size = product((n, -(-out // BLOCK) * BLOCK, *spatial)) * kind.dtype.bytes
            slot = self.blocked[step.results[0]]
            self.slots[slot] = replace(self.slots[slot], size=as_dim(size), shape=None)

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
        shapes = {self.slots[i].shape for i in step.operands}
        if None in shapes or len(shapes) > 1 or any(i not in self.blocked for i in step.operands):
            return False
        self._make(step, tuple(map(self._input, step.operands)))
        return True

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
        shape = self.slots[slot].shape
        if shape is None or len(shape) != 5 or not isinstance(shape[2], int):
            return None
        return shape[2]

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
        self.slots.append(replace(self.slots[slot], name=f"{self.slots[slot].name}_blocked", outside=False))
        return len(self.slots) - 1

"""Max-pooling without overlap, with the samples on the last axis: the larger of two halves, axis by axis.

Of equal elements the first one wins, row by row, as in `MaxPool`: within a row, then among rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import as_dim
from irshap.ops.arithmetic import maximum, where
from irshap.ops.cast import cast
from irshap.ops.logic import GreaterOrEqual
from irshap.ops.pool import MaxPool
from irshap.ops.shape import concat, reshape, split

__all__ = ["Choice", "pooled", "pools_by_halves"]


@dataclass(frozen=True)
class _Stage:
    """What is chosen along one axis: [before, size, 1, behind], of [before, size, 2, behind]."""

    first: Value
    before: tuple[int, ...]
    size: int
    behind: tuple[int, ...]

    def gathered(self, v: Value) -> Value:
        a, b = _halves(v, self.before, self.size, self.behind)
        return reshape(where(self.first, a, b), (*self.before, self.size, *self.behind, v.shape[-1]))

    def scattered(self, v: Value) -> Value:
        chosen = reshape(v, self.first.shape)
        first = chosen * cast(self.first, v.dtype)
        both = concat([first, chosen - first], 2)
        return reshape(both, (*self.before, 2 * self.size, *self.behind, v.shape[-1]))


@dataclass(frozen=True)
class Choice:
    """Which element each window of a max-pooling chose; maps [c, ..., n]."""

    stages: tuple[_Stage, ...]

    def gathered(self, v: Value) -> Value:
        """What stands where the largest elements do."""
        for stage in self.stages:
            v = stage.gathered(v)
        return v

    def scattered(self, v: Value) -> Value:
        """v set to where the largest elements are, among zeros."""
        for stage in reversed(self.stages):
            v = stage.scattered(v)
        return v


def pools_by_halves(op: MaxPool, spatial: tuple[int, ...]) -> bool:
    """Whether its windows are of 1 or 2 elements along each axis, and cover a tensor without overlap."""
    plain = op.strides == op.kernel and not any(map(any, op.pads)) and set(op.dilations) == {1}
    return plain and all(k in (1, 2) and size % k == 0 for k, size in zip(op.kernel, spatial, strict=True))


def pooled(op: MaxPool, x: Value) -> tuple[Value, Choice]:
    """The largest elements of x [c, ..., n], and which these are."""
    stages = []
    for axis in reversed(range(len(op.kernel))):
        if op.kernel[axis] == 1:
            continue
        *dims, n = x.shape
        known = tuple(map(int, dims))
        before, size, behind = known[: 1 + axis], known[1 + axis] // 2, known[2 + axis :]
        a, b = _halves(x, before, size, behind)
        stages.append(_Stage(emit1(GreaterOrEqual(), a, b), before, size, behind))
        x = reshape(maximum(a, b), (*before, size, *behind, n))
    return x, Choice(tuple(stages))


def _halves(v: Value, before: tuple[int, ...], size: int, behind: tuple[int, ...]) -> tuple[Value, ...]:
    n = v.shape[-1]
    apart = reshape(v, (prod(before), size, 2, as_dim(prod(behind) * n)))
    return split(apart, 2, (1, 1))

"""summary: what a caller looks at of attributions, in the file: the largest, sums, maps, a heat map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from irshap.attribution.groups import groups_by_name, groups_of_cells, members
from irshap.attribution.outputs import own_names
from irshap.contract import free, summary
from irshap.errors import UserError
from irshap.ir.builder import Builder, emit, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import product
from irshap.ir.types import Array, DType
from irshap.ops.activations import Clip
from irshap.ops.arithmetic import Abs, least, maximum
from irshap.ops.cast import cast
from irshap.ops.extremum import ReduceMax
from irshap.ops.index import GatherElements
from irshap.ops.linear import matmul
from irshap.ops.logic import Round
from irshap.ops.program import constant
from irshap.ops.reduce import ReduceSum
from irshap.ops.resample import Resize
from irshap.ops.shape import reshape
from irshap.ops.top_k import TopK
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Summary"]

_MOST = 256 * 2**20
"""Bytes of the matrix that sums cells by group."""

_LONGEST = 2**14
"""Pixels of a side of a heat map."""


@dataclass(frozen=True)
class Summary(Pass):
    """Outputs that sum attributions up, so that a server's answer is small; none by default.

    Of attributions a of `x`, [N, ...] or [N, K, ...] for K classes, for each sample and class by itself:

    `top`: the `top` elements of largest |a|, the first of equals first: `x_top_values` with their sign, and
    `x_top_indices`, int64, their places in the flattened sample.
    `sum`: a summed over these axes of x (1: the channels of [N, C, H, W]): `x_sums`.
    `groups`: a summed over the cells of each group, `x_group_sums` [N, groups], in the order of the groups'
    numbers, which are given to `compile`.
    `normalize`: a over its largest |a|, or over the sum of |a|; 0 where all are: `x_normalized`.
    `heatmap`: a picture [N, height, width] of uint8 of this size, with (0,0) of a's own: a summed over
    channels (the axis of at most 4), resized linearly, over its largest |a|, from -1 as 1 over 0 as 128 to 1
    as 255: `x_heatmap`.  `keep`: whether a itself stays an output.
    """

    top: int = 0
    sum: tuple[int, ...] = ()
    groups: bool = False
    normalize: Literal["none", "max", "sum"] = "none"
    heatmap: tuple[int, int] | None = None
    keep: bool = True
    name = "summary"
    semantics = Semantics.EXTENDS
    requires = frozenset({"decided"})

    def __post_init__(self) -> None:
        if not self.keep:
            object.__setattr__(self, "semantics", Semantics.REPLACES)

    def run(self, ir: Graph, context: Context) -> Graph:
        if self == Summary(keep=False):
            raise UserError(
                "nothing is left of attributions", where="summary", mend="say what to keep: top=5"
            )
        given = ir.outputs_of(Role.ATTRIBUTION)
        classes = max((o.value.rank for role in _TOLD for o in ir.outputs_of(role)), default=1) - 1
        taken = own_names(ir) | {o.name for o in ir.outputs}
        with Builder() as b:
            where = b.graft(ir)
            groups = groups_by_name(context.groups, [str(o.of) for o in given]) if self.groups else {}
            made = []
            for output in given:
                of = str(output.of)
                for kind, value in self._of(where[output.value], 1 + classes, of, groups.get(of)).items():
                    made.append(Output(free(summary(of, kind), taken), value, Role.SUMMARY, of))
            mapped = [replace(o, value=where[o.value]) for o in ir.outputs]
            kept = [o for o in mapped if self.keep or o.role is not Role.ATTRIBUTION]
            return b.build(ir.name, [*kept, *made], ir.properties, like=ir)

    def _of(self, a: Value, rows: int, of: str, groups: Array | None) -> dict[str, Value]:
        """What is asked for of attributions whose first `rows` axes are samples and classes, by kind."""
        found: dict[str, Value] = {}
        flat = reshape(a, (*a.shape[:rows], product(a.shape[rows:])))
        if self.top:
            _require_top(self.top, flat.shape[-1], of)
            _, places = emit(TopK(rows, self.top), emit1(Abs(), flat))
            found["top_values"] = emit1(GatherElements(rows), flat, places)
            found["top_indices"] = places
        if self.sum:
            axes = _own_axes(self.sum, a.rank - rows, of)
            found["sums"] = emit1(ReduceSum(tuple(rows - 1 + axis for axis in axes), keepdims=False), a)
        if groups is not None:
            found["group_sums"] = _group_sums(a, rows, _fitting(groups, a, rows, of))
        if self.normalize != "none":
            found["normalized"] = _normalized(a, rows, largest=self.normalize == "max")
        if self.heatmap is not None:
            found["heatmap"] = _heatmap(a, rows, self.heatmap, of)
        return found


_TOLD = (Role.TARGET_INDEX, Role.VALUES)


def _require_top(top: int, size: object, of: str) -> None:
    if top < 0 or (isinstance(size, int) and top > size):
        what = f"no top {top} of {size} attributions of {of!r}"
        raise UserError(what, where="summary", mend=f"use top=1 to top={size}")


def _own_axes(axes: Sequence[int], count: int, of: str) -> list[int]:
    """Axes of the sample, counted as in the input: 1 is the first behind the batch."""
    found = sorted({axis + count + 1 if axis < 0 else axis for axis in axes})
    if not all(1 <= axis <= count for axis in found):
        mend = f"it has the axes 1 to {count}" if count else "it has none"
        raise UserError(f"{of!r} can't be summed over {list(axes)}", where="summary", mend=mend)
    return found


def _group_sums(a: Value, rows: int, groups: Array) -> Value:
    """[N, groups], or [N, K, groups]."""
    inside = members(groups)
    head = a.shape[:rows]
    matrix = reshape(a, (product(head), inside.shape[0]))
    return reshape(matmul(matrix, constant(inside, a.dtype)), (*head, inside.shape[1]))


def _fitting(groups: Array, a: Value, rows: int, of: str) -> Array:
    """The group of each cell, unless their matrix would be too large."""
    whole = groups_of_cells(groups, a.shape[rows:], of)
    count = np.unique(whole).size
    if whole.size * count * a.dtype.bytes > _MOST:
        what = f"{count} groups of {whole.size} cells are too many"
        raise UserError(what, where="summary", mend="give fewer groups")
    return whole


def _normalized(a: Value, rows: int, *, largest: bool) -> Value:
    """a / max |a| or a / sum |a|, by sample and class; 0 where all are."""
    axes = tuple(range(rows, a.rank))
    size = emit1(ReduceMax(axes, True) if largest else ReduceSum(axes, True), emit1(Abs(), a))
    return a / maximum(size, least(a.dtype))


def _heatmap(a: Value, rows: int, size: tuple[int, int], of: str) -> Value:
    """uint8 pictures: 128 + 127 a / max |a|."""
    shape = a.shape[rows:]
    if len(shape) == 3:
        channels = [i for i in (0, 2) if isinstance(d := shape[i], int) and d <= 4] or [0]
        a = emit1(ReduceSum((rows + channels[0],), keepdims=False), a)
    elif len(shape) != 2:
        what = f"{of!r} has no heat map: its samples have {len(shape)} axes"
        raise UserError(
            what, where="summary", mend="it takes pictures [N, C, H, W], [N, H, W, C] or [N, H, W]"
        )
    head, own = a.shape[:rows], a.shape[rows:]
    if size != (0, 0) and not all(0 < side <= _LONGEST for side in size):
        mend = f"give height and width from 1 to {_LONGEST}, or (0,0) for the map's own"
        raise UserError(f"no heat map has the size {size}", where="summary", mend=mend)
    wanted = own if size == (0, 0) else size
    flat = reshape(a, (product(head), 1, *own))
    resized = reshape(emit1(Resize("linear", (product(head), 1, *wanted)), flat), (*head, *wanted))
    scaled = _normalized(resized, rows, largest=True) * 127.0 + 128.0
    return cast(emit1(Clip(1.0, 255.0), emit1(Round(), scaled)), DType.U8)

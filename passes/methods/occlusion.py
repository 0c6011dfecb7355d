"""occlusion: what the target loses when a patch of the input is replaced by a constant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap import contract
from irshap.errors import TargetError
from irshap.ir.core import Value
from irshap.ir.types import Array
from irshap.ops.linear import matmul
from irshap.ops.program import constant
from irshap.ops.shape import reshape, transpose
from irshap.passes.methods.base import Sum
from irshap.passes.methods.masks import Masked, MaskMethod
from irshap.pipeline.base import Context

__all__ = ["Occlusion"]


@dataclass(frozen=True)
class Occlusion(MaskMethod):
    """Mean over the patches that cover a cell of (T(x) - T(x with the patch replaced)) / |patch|.

    After Zeiler and Fergus 2014; the mean and the division are DeepExplain's (Ancona et al. 2018).

    `window`: the size of a patch along each axis behind the samples', such as (3,16,16); fewer numbers are
    for the last axes, and along those in front a patch is whole: (16,16) covers all channels.  Without any, a
    patch is one cell.  `step`: how far patches are apart, for the same axes; without any, as far as they are
    long, so that they tile the axis.  Cells near an end that no patch reaches get 0; compiling counts them,
    and the metadata `irshap.uncovered` tells how many.  `value`: what stands in a patch's place.

    Of a token the whole embedding is replaced, and window and step count tokens.  `chunk`: the most patches
    at a time; 0: all.
    """

    window: tuple[int, ...] = ()
    step: tuple[int, ...] = ()
    name = "occlusion"
    sums_to = Sum.NOTHING

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(size > 0 for size in (*self.window, *self.step)):
            raise ValueError(f"window is {self.window} and step {self.step}: sizes must be positive")
        if len(self.step) not in (0, len(self.window)):
            raise ValueError(f"step is {self.step}, and window {self.window}: both are for the same axes")

    def masks(self, of: Masked) -> Sequence[Array]:
        places = self._places(of)
        grid = np.indices([len(p) for p in places]).reshape(len(places), -1)
        return [p[i] for p, i in zip(places, grid, strict=True)]

    def score(self, of: Masked, t: Value, masked: Value, context: Context) -> Value:
        places = self._places(of)
        patch = np.prod([p[0].sum() for p in places])
        lost = (reshape(t, (t.shape[0], 1)) - masked) / float(patch)
        heat = reshape(lost, (t.shape[0], *map(len, places)))
        for cover in places:
            # the mean over places along one axis; that axis goes to the end, so that all come back in order
            share = constant(cover / np.maximum(cover.sum(axis=0), 1), t.dtype)
            heat = matmul(transpose(heat, [0, *range(2, heat.rank), 1]), share)
        covered = np.prod([p.any(axis=0).sum() for p in places])
        if left := int(np.prod(of.shape) - covered):
            context.count("uncovered", left)
            text = f"{of.name}: {left} of {np.prod(of.shape)} cells"
            known = context.metadata.get(contract.Metadata.UNCOVERED)
            context.metadata[contract.Metadata.UNCOVERED] = f"{known}; {text}" if known else text
        return heat

    def _places(self, of: Masked) -> list[Array]:
        """What patches cover along each axis, [places, size]."""
        cells, inner = of.shape[: of.cells], of.shape[of.cells :]
        front = len(cells) - len(self.window)
        if front < 0:
            raise TargetError(
                f"window is {self.window}, and {of.name!r} has {len(cells)} axes behind that of the samples",
                mend="Give a size for each, or for the last ones; or attribute one input (wrt)",
            )
        windows = (*cells[:front], *self.window) if self.window else (1,) * len(cells)
        steps = (*cells[:front], *self.step) if self.step else windows
        along = [(d, min(d, w), s) for d, w, s in zip(cells, windows, steps, strict=True)]
        return [_covered(*axis) for axis in (*along, *((d, d, d) for d in inner))]

    @classmethod
    def cases(cls) -> Iterable[Occlusion]:
        yield cls()
        yield cls(window=(2,), step=(1,), value=0.5, chunk=3)
        yield cls(window=(3,), chunk=0)


def _covered(size: int, window: int, step: int) -> Array:
    """What patches cover along an axis, [places, size]."""
    starts = np.arange(0, size - window + 1, step)[:, None]
    cells = np.arange(size)
    return (starts <= cells) & (cells < starts + window)

"""Which elements a dropout keeps, from seeds: integers alone, so that every runtime draws the same."""

from __future__ import annotations

import numpy as np

from irshap.errors import ModelError
from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, same, symbols_of
from irshap.ir.types import DType
from irshap.ops.arithmetic import where
from irshap.ops.generate import Arange
from irshap.ops.logic import Less, Mod
from irshap.ops.program import constant
from irshap.ops.shape import reshape

__all__ = ["dropped"]

_RANGE = 2**31
"""Numbers stay below it, and squares in int64."""

_MIDDLE = 2**15
_FACTORS = (1_103_515_245, 1_812_433_253, 747_796_405, 1_276_711_357)
"""Odd and large, for seeds, keys, positions and places."""


def dropped(x: Value, ratio: float, seeds: Value, place: int) -> Value:
    """x with each element 0 with the probability `ratio`, else divided by 1 - ratio (Srivastava et al. 2014).

    Element i of a sample is kept by a hash of the sample's seed, `place` and i, as counter-based generators
    draw (Salmon et al. 2011): what a sample drops doesn't depend on its batch.

    Args:
        x: with the samples on an axis of their own.
        seeds: of the samples, int64 [N].
        place: which dropout of the network it is.

    Raises:
        ModelError: no axis of x counts the samples.
    """
    if not ratio:
        return x
    axes = [a for a, d in enumerate(x.shape) if N in symbols_of([d])]
    if len(axes) != 1 or not same(x.shape[axes[0]], N):
        what = f"a dropout of {x.type} can't draw for each sample: no axis counts them alone"
        raise ModelError(what, mend="Use dropout=none")
    (batch,) = axes
    of_seed, of_key, _, of_place = _FACTORS
    start = _below((_below(seeds) + _number(place * of_place % _RANGE)) * _number(of_seed))
    first = _hashed(start, _below(start + _number(of_key)), rounds=4)
    second = _hashed(_below(first + start), first, rounds=4)
    counted = _along(first, batch, x.rank)
    for axis, size in enumerate(x.shape):
        if axis != batch:
            counted = counted + _along(_positions(size, axis), axis, x.rank)
    counted = _below(counted)
    # what counts is spread evenly, which squares alone aren't
    drawn = _below(_hashed(counted, _along(second, batch, x.rank), rounds=3) + counted)
    drops = emit1(Less(), drawn, _number(round(ratio * _RANGE)))
    zero, scale = (constant(v, x.dtype) for v in (0.0, 1.0 / (1.0 - ratio)))
    return x * where(drops, zero, scale)


def _number(value: int) -> Value:
    return constant(value, DType.I64)


def _below(x: Value) -> Value:
    return emit1(Mod(False), x, _number(_RANGE))


def _hashed(x: Value, key: Value, rounds: int) -> Value:
    """The middle digits of squares, to which x and the key are added in turn (Widynski 2020)."""
    found = x
    for i in range(rounds):
        found = _below((found * found + (key if i % 2 else x)) / _number(_MIDDLE))
    return found


def _positions(size: Dim, axis: int) -> Value:
    """Numbers for the positions on an axis, other ones on each."""
    factor = pow(_FACTORS[2], 2 * axis + 1, _RANGE)
    if isinstance(size, int):
        return constant(np.arange(size) * factor % _RANGE, DType.I64)
    return _below(emit1(Arange(0, 1, size)) * _number(factor))


def _along(x: Value, axis: int, rank: int) -> Value:
    """A vector on one axis of so many."""
    return reshape(x, tuple(x.shape[0] if a == axis else 1 for a in range(rank)))

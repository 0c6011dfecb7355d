"""Chords of functions made of linear pieces: no NaN and no digits lost, wherever sample and reference lie."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from secants import secant

from irshap.ir.builder import Builder
from irshap.ir.core import Point
from irshap.ir.types import Array, Tensor
from irshap.ops.activations import Clip, HardSigmoid, LeakyRelu
from irshap.ops.apart import Even, Odd, smallest
from irshap.ops.arithmetic import Abs
from irshap.ops.elementwise import Relu
from irshap.ops.gated import HardSwish
from irshap.ops.program import Constant

CLIPS = [(0.0, 6.0), (-1.0, 1.0), (-1.0, 0.0), (0.1, 0.7), (-0.7, -0.1), (0.5, None), (None, 0.3), (2.0, 1.0)]
OPS: list[tuple[Any, list[float], float, float]] = [
    # op, its kinks, its steepest slope, and the size of what it adds to x inside
    *((Clip(*bounds), [b for b in bounds if b is not None], 1.0, 0.0) for bounds in CLIPS),
    (Abs(), [0.0], 1.0, 0.0),
    (Relu(), [0.0], 1.0, 0.0),
    (LeakyRelu(0.125), [0.0], 1.0, 0.0),
    (LeakyRelu(-0.5), [0.0], 1.0, 0.0),
    (LeakyRelu(1.5), [0.0], 1.5, 0.0),
    (HardSigmoid(0.25, 0.5), [-2.0, 2.0], 0.25, 4.0),
    (HardSigmoid(-0.5, 0.25), [-1.5, 0.5], 0.5, 2.0),
    (HardSwish(), [-3.0, 3.0], 1.5, 6.0),
]


def numbers(kinks: list[float], dtype: Any) -> Array:
    """Those where something may go wrong: around kinks and powers of two, at 0, very small, very large."""
    limits = np.finfo(dtype)
    near = np.array([0.0, 1.0, 2.0, -1.0, 0.75, 3.0, *kinks], dtype)
    found = [near]
    for toward in (dtype(np.inf), dtype(-np.inf)):
        at = near
        for _ in range(5):
            at = np.nextafter(at, toward)
            found.append(at)
    tiny = np.array([limits.tiny, limits.smallest_subnormal, smallest(dtype), limits.eps, 1e-20], dtype)
    large = np.array([1e9, limits.max / 4, 2.0**60], dtype)
    scattered = np.random.default_rng(4).standard_normal(24).astype(dtype) * 4
    some = np.unique(np.concatenate([*found, tiny, -tiny, large, -large, scattered]))
    return np.append(some, dtype(-0.0))


@pytest.mark.parametrize(("op", "kinks", "steepest", "inside"), OPS, ids=[str(o[0]) for o in OPS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alone", [False, True])
def test_complete_to_few_units_in_the_last_place(
    op: Any, kinks: list[float], steepest: float, inside: float, dtype: Any, alone: bool
) -> None:
    mp.prec = 300
    x, r = np.array([*product(numbers(kinks, dtype), repeat=2)], dtype).T.copy()
    (m,) = secant(op, (x, r), alone=alone)
    assert np.isfinite(m).all()
    assert (np.abs(m) <= steepest * (1 + 8 * np.finfo(dtype).eps)).all()
    y, y0 = (op.evaluate(v)[0] for v in (x, r))
    gaps = [
        float(abs(mpf(float(s)) * (mpf(float(a)) - mpf(float(b))) - (mpf(float(u)) - mpf(float(v)))))
        for s, a, b, u, v in zip(m, x, r, y, y0, strict=True)
    ]
    # what is rounded is x, r, and what is added to them
    size = steepest * np.maximum.reduce([np.abs(x), np.abs(r), np.full_like(x, inside)])
    least = smallest(dtype)
    worst = np.argmax(gaps - 12 * np.finfo(dtype).eps * size)
    assert gaps[worst] <= 12 * np.finfo(dtype).eps * float(size[worst]) + 2 * least, (
        x[worst],
        r[worst],
        m[worst],
    )


@pytest.mark.parametrize(("op", "kinks", "steepest", "inside"), OPS, ids=[str(o[0]) for o in OPS])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("alone", [False, True])
def test_the_derivative_where_both_meet(
    op: Any, kinks: list[float], steepest: float, inside: float, dtype: Any, alone: bool
) -> None:
    x = numbers(kinks, dtype)
    # next to a kink that isn't a round number, one side's slope is as good as the other's
    round_kinks = [k for k in kinks if (k * 8).is_integer() and not inside]
    at_kink = np.isin(x, np.array(round_kinks, dtype))
    apart = [np.abs(x - dtype(k)) > 8 * np.finfo(dtype).eps * max(1.0, abs(k), inside) for k in kinks]
    x = x[at_kink | np.logical_and.reduce(apart)]
    (m,) = secant(op, (x, x.copy()), alone=alone)
    np.testing.assert_allclose(m, derivative(op, x), rtol=0, atol=8 * np.finfo(dtype).eps)


def derivative(op: Any, x: Array) -> Array:
    with Builder() as builder:
        at = builder.emit(Constant(Tensor(x)))[0]
        ones = builder.emit(Constant(Tensor(np.ones_like(x))))[0]
        (slope,) = op.derivative([ones], Point((at,), builder.emit(op, at)), [0])
    values: dict[Any, Array] = {}

    def value(v: Any) -> Array:
        if v not in values:
            values.update(zip(v.node.results, v.node.op.evaluate(*map(value, v.node.operands)), strict=True))
        return values[v]

    return np.broadcast_to(value(slope), x.shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_even_and_odd_never_meet(dtype: Any) -> None:
    """Of all mantissas of float32, and of a million of float64, around a power of two and at both ends."""
    bits = np.dtype(f"u{dtype().itemsize}")
    width = np.finfo(dtype).nmant
    mantissas = np.arange(1 << 20, dtype=bits) << (width - 20)
    low = np.arange(1 << 12, dtype=bits)
    exponents = np.array([1, 2, 100, 127], bits) if dtype is np.float32 else np.array([1, 2, 999, 1023], bits)
    every = np.concatenate(
        [(e << bits.type(width)) + m for e in exponents for m in (mantissas, low, (1 << width) - 1 - low)]
    )
    x = np.concatenate([every.view(dtype), -every.view(dtype), np.zeros(1, dtype)])
    even, odd = Even().numpy(x), Odd(False).numpy(x)
    held = np.abs(even) >= smallest(dtype)
    assert (even.view(bits)[held] % 2 == 0).all()
    assert (np.abs(odd) >= smallest(dtype)).all()
    assert (odd.view(bits) % 2 == 1).all()
    units = np.spacing(np.abs(x))
    assert (np.abs(even - x)[held] <= 2 * units[held]).all()
    assert (np.abs(odd - x)[held] <= 4 * units[held]).all()

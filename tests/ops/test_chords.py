"""Secants against 50 digits, against their parts, and where naive formulas divide 0 by 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mpmath import mp, mpf
from secants import secant

from irshap.ir.builder import emit1
from irshap.ir.types import Array
from irshap.ops.activations import Celu, Clip, HardSigmoid, LeakyRelu, Selu
from irshap.ops.arithmetic import Abs
from irshap.ops.elementwise import Elu, Exp, Log, Relu, Sigmoid, Softplus, Sqrt, Tanh
from irshap.ops.gated import Erf, Gelu, HardSwish, Mish, Softsign, Swish
from irshap.ops.norm import GroupNorm, InstanceNorm, LayerNorm, RMSNorm
from irshap.ops.pool import MaxPool
from irshap.ops.power import Power, Reciprocal
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.response import LpNormalization
from irshap.ops.shape import reshape
from irshap.ops.softmax import LogSoftmax, Softmax
from irshap.ops.trigonometry import Acos, Acosh, Asin, Asinh, Atan, Atanh, Cos, Cosh, Sin, Sinh, Tan

pytestmark = pytest.mark.slow

mp.dps = 50


# ---- one variable: 50 digits -----------------------------------------------------------------------------

WIDE = (-30.0, -4.0, -1.0, -0.1, 0.0, 0.3, 2.0, 9.0, 40.0)
MIDDLE = (-3.0, -1.0, -0.2, 0.0, 0.5, 2.0, 4.0)
ABOVE = (1e-3, 0.1, 0.7, 1.0, 3.0, 50.0)
UNIT = (-0.9, -0.5, -0.01, 0.0, 0.2, 0.8)
_SIXTH = mpf(float(np.float32(1 / 6)))


def sigmoid(x: Any) -> Any:
    return 1 / (1 + mp.exp(-x))


def clip(x: Any) -> Any:
    return max(mpf(0), min(mpf(1), x))


def elu(x: Any, alpha: float = 1.0) -> Any:
    return x if x > 0 else alpha * mp.expm1(x)


def gelu_tanh(x: Any) -> Any:
    return x * (1 + mp.tanh(mp.sqrt(2 / mp.pi) * (x + mpf("0.044715") * x**3))) / 2


TRUTH: list[tuple[Any, Callable[[Any], Any], tuple[float, ...]]] = [
    (Acos(), mp.acos, UNIT),
    (Acosh(), mp.acosh, tuple(1.25 + v for v in ABOVE)),
    (Asin(), mp.asin, UNIT),
    (Asinh(), mp.asinh, WIDE),
    (Atan(), mp.atan, WIDE),
    (Atanh(), mp.atanh, UNIT),
    (Celu(0.5), lambda x: elu(x * 2) / 2, WIDE),
    (Cos(), mp.cos, WIDE),
    (Cosh(), mp.cosh, MIDDLE),
    (Elu(0.75), lambda x: elu(x, 0.75), WIDE),
    (Erf(), mp.erf, MIDDLE),
    (Exp(), mp.exp, WIDE),
    (Gelu(False), lambda x: x * mp.ncdf(x), MIDDLE),
    (Gelu(True), gelu_tanh, MIDDLE),
    (HardSigmoid(0.25, 0.5), lambda x: clip(x / 4 + mpf(0.5)), WIDE),
    (HardSwish(), lambda x: x * clip(x * _SIXTH + mpf(0.5)), WIDE),
    (LeakyRelu(0.125), lambda x: x if x > 0 else x / 8, WIDE),
    (Log(), mp.log, ABOVE),
    (Mish(), lambda x: x * mp.tanh(mp.log1p(mp.exp(x))), WIDE),
    *((Power(p), lambda x, p=p: x ** mpf(p), ABOVE) for p in (0.5, -0.5, 2.5, -1.5, 0.1, 7.0, -3.0)),
    *((Power(p), lambda x, p=p: x ** int(p), WIDE) for p in (2.0, 3.0, 4.0, 17.0)),
    (Reciprocal(), lambda x: 1 / x, ABOVE),
    (Relu(), lambda x: max(mpf(0), x), WIDE),
    (Selu(1.5, 1.25), lambda x: elu(x, 1.5) * mpf(1.25), WIDE),
    (Sigmoid(), sigmoid, WIDE),
    (Sin(), mp.sin, WIDE),
    (Sinh(), mp.sinh, MIDDLE),
    (Softplus(), lambda x: mp.log1p(mp.exp(x)), WIDE),
    (Softsign(), lambda x: x / (1 + abs(x)), WIDE),
    (Sqrt(), mp.sqrt, ABOVE),
    (Swish(1.5), lambda x: x * sigmoid(x * mpf(1.5)), WIDE),
    (Tan(), mp.tan, UNIT),
    (Tanh(), mp.tanh, WIDE),
]
LOOSER = {"erf": 20.0, "gelu": 20.0, "swish": 40.0, "swish in float64": 3e4}
"""Chords with the rounding of y over a small difference: the general one, and those that are cheap."""
STEPS = (1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 3e-2, 0.1)


@pytest.mark.parametrize(("op", "truth", "points"), TRUTH, ids=[str(t[0]) for t in TRUTH])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 4e-15), (np.float32, 2e-6)])
def test_chord_against_50_digits(
    op: Any, truth: Callable[[Any], Any], points: tuple[float, ...], dtype: Any, tolerance: float
) -> None:
    pairs = [(a, b) for a in points for b in points]
    pairs += [(a, a + (1 if a <= 0 else -1) * step * (abs(a) or 0.1)) for a in points for step in STEPS]
    both = np.array(pairs, dtype).T
    x, r = both[:, both[0] != both[1]]
    (found,) = secant(op, (x, r))
    ends = [(truth(mpf(float(a))), truth(mpf(float(b)))) for a, b in zip(x, r, strict=True)]
    exact = np.array(
        [float((y - y0) / (mpf(float(a)) - mpf(float(b)))) for (y, y0), a, b in zip(ends, x, r, strict=True)]
    )
    # an error counts against the rounding of y too
    size = np.maximum(np.abs(exact), [max(1.0, abs(float(y)), abs(float(y0))) for y, y0 in ends])
    size *= LOOSER.get(f"{op.mnemonic} in {x.dtype}", LOOSER.get(op.mnemonic, 1.0))
    worst = np.argmax(np.abs(found - exact) / size)
    assert abs(found - exact)[worst] <= tolerance * size[worst], (
        x[worst],
        r[worst],
        found[worst],
        exact[worst],
    )


# ---- several variables: the same by parts ----------------------------------------------------------------


def mean(x: Any, axes: tuple[int, ...]) -> Any:
    return emit1(ReduceMean(axes, keepdims=True), x)


def total(x: Any) -> Any:
    return emit1(ReduceSum((1,), keepdims=True), x)


def log_softmax(x: Any) -> Any:
    return x - emit1(Log(), total(emit1(Exp(), x)))


def standardized(x: Any, axes: tuple[int, ...], *, centered: bool = True) -> Any:
    a = x - mean(x, axes) if centered else x
    return a / emit1(Sqrt(), mean(emit1(Power(2.0), a), axes) + 0.25)


def grouped(x: Any) -> Any:
    return reshape(standardized(reshape(x, (3, 2, 9)), (2,)), x.shape)


def gelu(x: Any, inner: Any) -> Any:
    return x * ((inner + 1.0) * 0.5)


def tanh_of_cubic(x: Any) -> Any:
    return emit1(Tanh(), (emit1(Power(3.0), x) * 0.044715 + x) * float(mp.sqrt(2 / mp.pi)))


ROWS, IMAGES = (3, 5), (3, 6, 3)
PARTS: list[tuple[Any, Callable[[Any], Any], tuple[int, ...]]] = [
    (Gelu(False), lambda x: gelu(x, emit1(Erf(), x / 2**0.5)), ROWS),
    (Gelu(True), lambda x: gelu(x, tanh_of_cubic(x)), ROWS),
    (GroupNorm(2, 0.25), grouped, IMAGES),
    (HardSwish(), lambda x: x * emit1(HardSigmoid(float(_SIXTH), 0.5), x), ROWS),
    (InstanceNorm(0.25), lambda x: standardized(x, (2,)), IMAGES),
    (LayerNorm(1, 0.25), lambda x: standardized(x, (1, 2)), IMAGES),
    (LogSoftmax(1), log_softmax, ROWS),
    (LpNormalization(1, 1), lambda x: x / total(emit1(Abs(), x)), ROWS),
    (LpNormalization(1, 2), lambda x: x / emit1(Sqrt(), total(x * x)), ROWS),
    (Mish(), lambda x: x * emit1(Tanh(), emit1(Softplus(), x)), ROWS),
    (RMSNorm(2, 0.25), lambda x: standardized(x, (2,), centered=False), IMAGES),
    (Softmax(1), lambda x: emit1(Exp(), log_softmax(x)), ROWS),
    (Swish(1.0), lambda x: x * emit1(Sigmoid(), x), ROWS),
]


@pytest.mark.parametrize(("op", "parts", "shape"), PARTS, ids=[str(p[0]) for p in PARTS])
def test_same_by_parts(op: Any, parts: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(11)
    x, r, ct = rng.standard_normal((3, *shape))
    parameters = parameters_of(op, shape)
    (whole,) = secant(op, (x, r), *((p, p) for p in parameters), ct=ct)
    (pieces,) = secant(parts, (x, r), ct=ct)
    np.testing.assert_allclose(whole, pieces, rtol=1e-7 if isinstance(op, Swish) else 1e-12, atol=1e-12)


def parameters_of(op: Any, shape: tuple[int, ...], dtype: Any = np.float64) -> list[Array]:
    """A scale of ones and a bias of zeros, for an op that has them."""
    size = shape[op.axis :] if isinstance(op, LayerNorm | RMSNorm) else shape[1:2]
    norms = (GroupNorm, InstanceNorm, LayerNorm, RMSNorm)
    return [np.ones(size, dtype), np.zeros(size, dtype)][: op.centered + 1] if isinstance(op, norms) else []


# ---- where formulas could divide 0 by 0 ------------------------------------------------------------------

MASK = -np.inf
DEGENERATE: list[tuple[Any, list[list[float]], list[list[float]]]] = [
    (Abs(), [[0, 0, -1]], [[0, 1, -1]]),
    (Clip(0.0, 6.0), [[0, 6, 7, 3]], [[0, 6, 6, 3]]),
    (InstanceNorm(2.0**-17), [[5, 5, 5], [1, 2, 3]], [[5, 5, 5], [0, 0, 0]]),
    (LayerNorm(2, 2.0**-17), [[5, 5, 5], [1, 2, 3]], [[0, 0, 0], [7, 7, 7]]),
    (LogSoftmax(2), [[1, MASK, 200], [-200, 0, 200]], [[200, MASK, 1], [-200, 0, 200]]),
    (LpNormalization(2, 1), [[0, 0, 0], [1, -2, 2]], [[1, 2, 2], [0, 0, 0]]),
    (LpNormalization(2, 2), [[0, 0, 0], [1, -2, 2]], [[0, 0, 0], [0, 0, 0]]),
    (LpNormalization(2, 2), [[3, 0, 4], [1, -2, 2]], [[0, 0, 0], [1, -2, 2]]),
    (Power(0.5), [[0, 0, 4]], [[0, 1, 4]]),
    (Power(0.75), [[0, 0, 4]], [[0, 1, 4]]),
    (Power(3.0), [[0, 0, -4]], [[0, 1, 4]]),
    (RMSNorm(2, 2.0**-17), [[5, 5, 5], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]),
    (Relu(), [[0, 0, -1]], [[0, 1, -1]]),
    (Sigmoid(), [[0, 200, -200]], [[0, -200, -200]]),
    (Softmax(2), [[1, MASK, 200], [-200, 0, 200]], [[200, MASK, 1], [-200, 0, 200]]),
    (MaxPool((3,), (1,), ((1, 1),), (1,)), [[0, 0, 1, 1], [1, 2, 2, 1]], [[0, 0, 1, 1], [1, 1, 2, 2]]),
    (
        MaxPool((3,), (1,), ((1, 1),), (1,)),
        [[0, 1e-30, 0, 9], [0, 0, 0, 0]],
        [[0, 0, 1e-30, 9], [9, 9, 0, -9]],
    ),
    (Softmax(2), [[1, 1, 1], [0, MASK, MASK]], [[1, 1, 1], [0, MASK, MASK]]),
    (Softplus(), [[0, 200, -200]], [[0, -200, -200]]),
    (Softsign(), [[0, 0, -1]], [[0, 1, 1]]),
    (Sqrt(), [[0, 0, 4]], [[0, 1, 4]]),
    (Tanh(), [[0, 200, -200]], [[0, -200, -200]]),
]


@pytest.mark.parametrize(("op", "x", "r"), DEGENERATE)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_degenerate(
    op: Any, x: list[list[float]], r: list[list[float]], dtype: Any, tolerance: float
) -> None:
    worlds = np.array(x, dtype)[None], np.array(r, dtype)[None]
    parameters = parameters_of(op, worlds[0].shape, dtype)
    ct = np.random.default_rng(2).standard_normal(worlds[0].shape).astype(dtype)
    (m,) = secant(op, worlds, *((p, p) for p in parameters), ct=ct)
    assert np.isfinite(m).all()
    y, y0 = (op.evaluate(w, *parameters)[0] for w in worlds)
    same = worlds[0] == worlds[1]
    d = np.where(same, 0, worlds[0] - np.where(same, 0, worlds[1]))
    gap = np.where(y == y0, 0, y - np.where(y == y0, 0, y0)) * ct
    assert abs((m * d).sum() - gap.sum()) <= tolerance * max(1.0, np.abs(m * d).sum())

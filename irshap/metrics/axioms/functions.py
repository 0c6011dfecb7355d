"""The small functions that axioms are tried on, and a method at work on them.  All in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

from irshap.compiler.compile import compile
from irshap.metrics.forward import Forward
from irshap.passes.methods.base import Method
from irshap.runtime.arrays import Array

__all__ = ["BIASED", "SATURATED", "SCALING", "SMOOTH", "Function", "Tried", "function", "weights"]


@dataclass(frozen=True, eq=False)
class Function:
    """f: R^n -> R, as people write it and as a model x [N, n] -> y [N, 1]."""

    formula: str
    model: onnx.ModelProto

    def __call__(self, x: Array) -> Array:
        """f of each sample, [N]."""
        return Forward(self.model)({"x": x})[:, 0]


def function(formula: str, width: int, body: str, **constants: Any) -> Function:
    """The function of `width` numbers with this body, in ONNX's own text."""
    head = f"(double[N, {width}] x) => (double[N, 1] y)"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> f {head} {{ {body} }}')
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return Function(formula, model)


def weights(seed: int, *shape: int) -> Array:
    """Fixed weights: standard normal ones of numpy's default_rng(seed)."""
    return np.random.default_rng(seed).standard_normal(shape)


_LAYERS = {"w": weights(11, 3, 8), "b": weights(12, 8), "v": weights(13, 8, 1)}
SATURATED = function("1 - relu(1 - x)", 1, "a = Sub(one, x) b = Relu(a) y = Sub(one, b)", one=1.0)
BIASED = function("v . relu(W x + b)", 3, "a = Gemm(x, w, b) h = Relu(a) y = MatMul(h, v)", **_LAYERS)
SMOOTH = function("v . tanh(W x + b)", 3, "a = Gemm(x, w, b) h = Tanh(a) y = MatMul(h, v)", **_LAYERS)
SCALING = function(
    "v . relu(W x)", 3, "a = MatMul(x, w) h = Relu(a) y = MatMul(h, v)", w=_LAYERS["w"], v=_LAYERS["v"]
)


class Tried:
    """A method that explains functions, each with draws of its own where it draws: they are no part of f.

    Args:
        method: with its options, but for those that go with a model: groups of cells, whose references are
            whose, and their weights.
    """

    def __init__(self, method: Any) -> None:
        plain = {name: False for name in ("weights", "per_sample", "groups") if hasattr(method, name)}
        self.method: Method = replace(method, **plain)
        self.draws = hasattr(method, "seed")
        self._draw = 0

    def __call__(self, f: Function, x: Array, references: Array | None = None) -> Array:
        """A of each sample, [N, n], against zeros or other references [R, n].

        Raises:
            IrshapError: the method doesn't explain such a function.
        """
        method: Any = self.method
        if self.draws:
            method = replace(method, seed=method.seed + self._draw)
            self._draw += 1
        given = np.zeros((1, x.shape[1])) if references is None else references
        compiled = compile(f.model, given if method.points.references else None, method=method, target=0)
        return np.asarray(compiled.explainer()(x).values)

    def finer(self) -> Tried | None:
        """The method with 8 times the steps or 100 times the draws, where it approximates by such."""
        method: Any = self.method
        for name, factor, most in (("steps", 8, 10_000), ("samples", 100, 100_000)):
            if hasattr(method, name):
                # these samples are small: a loop over few points at a time would take longest
                at_once = {"chunk": 0 if method.chunk == 0 else 1000} if hasattr(method, "chunk") else {}
                return Tried(replace(method, **{name: min(factor * getattr(method, name), most)}, **at_once))
        return None

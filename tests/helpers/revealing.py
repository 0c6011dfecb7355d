"""What the tests of RevealCancel share: small float64 models, and the oracle beside the compiled program."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
import two_world_reveal
from onnx import numpy_helper
from two_world import explain
from two_world_scalar import curve_of

from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array

COMPLETE = 1e-10
RULES = ("reveal-cancel", "mixed")
PIPELINES = (None, "@naive")
Arrays = Mapping[str, Array]


def net(text: str, **constants: Any) -> onnx.ModelProto:
    """A float64 model: `inputs => outputs { body }`."""
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\nagraph {text}')
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def normal(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape)


def attribute(model: Any, sample: Arrays, references: Any, **options: Any) -> dict[str, Array]:
    """The compiled program's outputs, evaluated in numpy (ONNX Runtime has no float64 convolution)."""
    compiled = flat.compile(model, references, emit="completeness_error", **options)
    return evaluate(compiled.graph, sample)


def check(
    model: onnx.ModelProto,
    sample: Arrays,
    references: Arrays,
    rules: Sequence[str] = RULES,
    close: float = 1e-12,
    complete: float = COMPLETE,
) -> None:
    """Equal to the oracle and complete, under each rule, in the naive form and in the optimized one."""
    for rule, passes in itertools.product(rules, PIPELINES):
        wanted = explain(model, sample, references, rule=rule)
        found = attribute(model, sample, references, rule=rule, passes=passes)
        assert np.abs(found["completeness_error"]).max() <= complete
        for name, values in wanted.values.items():
            scale = np.abs(values).max()
            np.testing.assert_allclose(found[f"{name}_attributions"], values, rtol=0, atol=close * scale)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oracle with the slope's limit where a part is 0, instead of 0 / 1e-7 (docs/methods.md)."""

    def backward(site: Any, parts: Any, results: Any, g: Any) -> Any:
        curve, r = curve_of(site.call, site.x), site.r[0]

        def slope(part: Array, other: Array, y: Array) -> Array:
            nothing = np.abs(part) < 1e-12
            limit = (curve.slope(r) + curve.slope(r + other)) / 2
            return np.where(nothing, limit, y / np.where(nothing, 1.0, part))

        (p, n), (up, down) = parts[0], results[0]
        pair = g[0][0] * slope(p, n, up), g[0][1] * slope(n, p, down)
        return [pair, *[None] * (len(site.x) - 1)]

    changed = dict.fromkeys(two_world_reveal.ELEMENTWISE, (two_world_reveal.reveal, backward))
    monkeypatch.setattr(two_world_reveal, "PART_RULES", {**two_world_reveal.PART_RULES, **changed})


def singled(model: onnx.ModelProto) -> onnx.ModelProto:
    """The float32 form of a float64 model."""
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float64:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float32), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return model


RESIDUAL = """(double[N, 2, 9, 9] x) => (double[N, 3] y)
{ c = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(x, w1, b1)
  n = BatchNormalization(c, scale, shift, mean, var)
  a = Relu(n)
  p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]>(a)
  d = Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(p, w2)
  e = Relu(d)
  s = Add(e, p)
  v = AveragePool<kernel_shape = [2, 2], pads = [0, 0, 1, 1]>(s)
  t = Concat<axis = 1>(s, v)
  q = GlobalAveragePool(t)
  f = Flatten(q)
  h = Gemm<transB = 1, alpha = -0.5>(f, w3, b3)
  k = Tanh(h)
  y = Gemm(k, w4) }"""


def residual() -> onnx.ModelProto:
    return net(
        RESIDUAL,
        w1=normal(1, 4, 2, 3, 3),
        b1=normal(2, 4),
        scale=np.array([1.0, -0.7, 0.4, 1.3]),
        shift=normal(3, 4),
        mean=normal(4, 4),
        var=np.array([0.5, 1.0, 2.0, 0.3]),
        w2=normal(5, 4, 4, 3, 3) / 3,
        w3=normal(6, 5, 8),
        b3=normal(7, 5),
        w4=normal(8, 5, 3),
    )

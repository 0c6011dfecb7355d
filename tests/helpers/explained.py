"""One explanation for each kind of input, which tests of pictures and pages share."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx.parser
from exactness import case
from onnx import numpy_helper

import irshap
from irshap import demo

TABLE = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,5] x) => (float[N,2] y)
<float[5,2] w = {1,-2,3,0.5,2,1,-1,0.3,0.7,0.1}> { h = MatMul(x, w) y = Tanh(h) }"""
LETTERS = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,20,4] x) => (float[N,1] y) { f = Flatten<axis=1>(x) h = MatMul(f, w) y = Tanh(h) }"""
RNG = np.random.default_rng(0)
ROWS = (RNG.normal(size=(30, 5)) * 0.4).astype(np.float32)
HOT = np.eye(4, dtype=np.float32)[RNG.integers(0, 4, (3, 20))]
FEATURES = ["age", "height", "weight", "income", "rooms"]
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@cache
def table(method: str = "deeplift") -> irshap.Explanation:
    references = None if method == "gradient" else ROWS[:4]
    names = {"features": FEATURES, "classes": ["no", "yes"]}
    model = onnx.parser.parse_model(TABLE)
    return irshap.compile(model, references, target=0, method=method, names=names).explainer()(ROWS)


@cache
def digits(target: Any = "top-3", wrt: str = "") -> irshap.Explanation:
    asked = irshap.Target(target, wrt=wrt)
    compiled = irshap.compile(
        demo.model_path(), demo.references_path(), target=asked, names={"classes": DIGITS}
    )
    return compiled.explainer()(demo.digits()[0][:2])


@cache
def letters() -> irshap.Explanation:
    model = onnx.parser.parse_model(LETTERS)
    weights = (np.random.default_rng(1).normal(size=(80, 1)) * 0.2).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    references = irshap.make_references(HOT, "dinucleotide-shuffle", 3)
    return irshap.compile(model, references, target=0).explainer()(HOT)


@cache
def text() -> irshap.Explanation:
    given, words = case("text_torchscript"), {"tokens": [f"w{i}" for i in range(300)]}
    return irshap.compile(given.path, given.references, names=words).explainer()(given.inputs)


@cache
def two() -> irshap.Explanation:
    given = case("two_inputs")
    return irshap.compile(given.path, given.references).explainer()(given.inputs)

"""Constants that grow are refused by their types, before anything is computed."""

from __future__ import annotations

import re
import resource
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import irshap
from irshap.cli.programs import parse_program
from irshap.compiler.model import Model
from irshap.errors import ModelError
from irshap.lowering import lift
from irshap.lowering.files.load import infer_shapes
from irshap.lowering.lift import Lift
from irshap.passes.canonicalize import Canonicalize
from irshap.pipeline.base import Context
from irshap.text import print_graph

HUGE = 2**40
CONSTANTS = {
    "c": np.ones(64, np.float32),
    "w": np.ones((4, 3), np.float32),
    "far": np.array([HUGE]),
    "wide": np.array([HUGE, 64]),
    "ends": np.array([HUGE, 0]),
    "pair": np.array([0, 1], np.float32),
    "table": np.zeros((64, 64), np.int64),
    "start": np.array(0),
    "stop": np.array(HUGE),
    "step": np.array(1),
}
DOUBLED = "Concat<axis=0>(v, v)"
GROWING = {
    "joined": [DOUBLED] * 37,
    "many": [DOUBLED] * 18 + ["Neg(v)"] * 20,
    "tiled": ["Tile(v, far)"],
    "expanded": ["Expand(v, wide)"],
    "filled": ["ConstantOfShape(wide)"],
    "counted": ["Range(start, stop, step)", "Cast<to=1>(v)"],
    "one-hot": ["OneHot(start, far, pair)"],
    "padded": ["Pad(v, ends)"],
    "resized": ['Resize<mode="nearest">(v, , , far)'],
    "gathered": [f"Gather<axis={axis}>(v, table)" for axis in range(8)],
    "multiplied": [*[DOUBLED] * 12, 'Einsum<equation="i,j->ij">(v, v)'],
}
"""What v becomes, one after another."""


def model(statements: Sequence[str], batch: str = "N") -> onnx.ModelProto:
    made, now = [], "c"
    for i, text in enumerate(statements):
        made.append(f"v{i + 1} = " + re.sub(r"\bv\b", now, text))
        now = f"v{i + 1}"
    made += [f"t = ReduceMax<keepdims=0>({now})", "h = MatMul(x, w)", "y = Add(h, t)"]
    text = f"g (float[{batch},4] x) => (float[{batch},3] y) {{ {' '.join(made)} }}"
    graph = onnx.parser.parse_graph(text)
    graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in CONSTANTS.items())
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("batch", ["N", "1"])
def test_refused_by_its_types(name: str, batch: str) -> None:
    """Whether the model is run beforehand, to see what its batch of 1 is, or not."""
    given = model(GROWING[name], batch)
    tracemalloc.start()
    try:
        with pytest.raises(
            ModelError, match=r"has a result of .*, over the limit of 1\.0 GiB.*--constants SIZE"
        ):
            lift(given)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


MULTIPLIED = "big = Mul(side, side)"
PRODUCTS = {
    "filled": "v1 = ConstantOfShape<value=int64[1] {1}>(big) v2 = Add(v1, v1)",
    "expanded": "v1 = Expand(one, big) v2 = Mul(v1, v1)",
    "tiled": "v1 = Tile(side, big) v2 = Add(v1, v1)",
    "counted": "s = Squeeze(big) v1 = Range(start, s, step) v2 = Sub(v1, v1)",
    "flattened": "v0 = ConstantOfShape<value=int64[1] {1}>(big) v1 = Reshape(v0, minus) v2 = Add(v1, v1)",
    "reshaped": "v1 = Reshape(z, big) v2 = Add(v1, v1)",
    "added": "a = Add(big, big) v0 = ConstantOfShape<value=int64[1] {1}>(a) v1 = Add(v0, v0) "
    "v2 = Slice(v1, one, two)",
}
"""Vectors of 2^38 elements whose length is a product of small numbers, in arithmetic on integers."""


@pytest.mark.parametrize("name", PRODUCTS)
def test_shape_inference_lists_no_vectors(name: str) -> None:
    """It is asked where an op is unknown, before types can tell; what it runs out of may end the process."""
    text = f"g (int64[A] z) => (int64[B] v2) {{ {MULTIPLIED} {PRODUCTS[name]} }}"
    graph = onnx.parser.parse_graph(text)
    numbers = {"side": [2**19], "one": [1], "two": [2], "minus": [-1], "start": 0, "step": 1}
    graph.initializer.extend(numpy_helper.from_array(np.array(v), n) for n, v in numbers.items())
    given = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    # in C++, where tracemalloc doesn't see: a limit of the process, which a listed vector breaks at once
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 2**30, before[1]))
    try:
        assert infer_shapes(given).graph.output[0].name == "v2"
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def test_the_limit_can_be_set() -> None:
    text = [DOUBLED] * 10  # 510 KiB in all
    given, references = model(text), np.zeros((1, 4), np.float32)
    compiled = irshap.compile(Model(given, constants="600KiB"), references)
    assert "lift{constants=614400}" in compiled.pipeline
    with pytest.raises(ModelError, match=r"v10 \(concat\): has a result of 0\.2 MiB; .* 0\.5 MiB"):
        irshap.compile(Model(given, constants="500KiB"), references)


def test_weights_may_be_cast_and_turned() -> None:
    """What is given may be there in a few forms, whatever the limit."""
    text = "g (float[N,64] x) => (float[N,64] y) { f = Cast<to=1>(q) t = Transpose(f) y = MatMul(x, t) }"
    parsed = onnx.parser.parse_graph(text)
    parsed.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.int8), "q"))
    given = helper.make_model(parsed, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    graph = Lift(constants=1).run(given, Context())
    assert graph.nodes
    with pytest.raises(ModelError, match="over the limit"):
        Lift(constants=1).run(model([DOUBLED] * 12), Context())


def test_folding_takes_no_more_room_than_the_operands() -> None:
    """The same operand twice is there once."""
    graph = lift(model([DOUBLED] * 13))
    folded = Canonicalize().run(graph, Context())
    assert max(int(v.tensor.nbytes) for v in folded.values() if v.node.op.mnemonic == "constant") <= 2**16


def test_programs_as_text() -> None:
    graph = Lift(constants=2**62).run(model(GROWING["tiled"]), Context())
    with pytest.raises(ModelError, match="over the limit"):
        parse_program(print_graph(graph))

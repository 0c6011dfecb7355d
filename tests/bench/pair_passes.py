"""How many passes over pairs of samples and references the multiplier of an op takes in @default.

    python tests/bench/pair_passes.py [NAME ...]

Counts the nodes of the explained program whose result, or an operand, has a number for each pair and element,
reshapes left out: what an op adds to three layers with weights and a ReLU.  The product with the
cotangent and sums are counted; what has a number for each row, or for samples or references alone, isn't.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

import irshap.compiler.catalog  # noqa: F401  registers all passes
from irshap.cost import stages
from irshap.ir.core import Graph, Value
from irshap.ir.dims import N, R, product, substitute
from irshap.ir.types import TensorType
from irshap.ops.shape import Reshape
from irshap.pipeline.named import PIPELINES

ELEMENTS = 24
MANY = 1000
"""N and R, where sizes are compared: only what has both counts as pairs."""

OPS = {
    "ReLU": "y = Relu(x)",
    "SiLU": "s = Sigmoid(x) y = Mul(x, s)",
    "GELU": "y = Gelu(x)",
    "GELU with tanh": 'y = Gelu<approximate = "tanh">(x)',
    "sigmoid": "y = Sigmoid(x)",
    "tanh": "y = Tanh(x)",
    "erf": "y = Erf(x)",
    "softmax": "y = Softmax<axis = -1>(x)",
    "log-softmax": "y = LogSoftmax<axis = -1>(x)",
    "layer normalization": "y = LayerNormalization<axis = -1>(x, scale, bias)",
    "x x'": "t = Transpose<perm = [0, 2, 1]>(x) q = MatMul(x, t) y = MatMul(q, x)",
}


def passes(body: str) -> int:
    """The nodes over pairs in the explanation of a model that computes y from x, and weighs its elements."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> net (float[N, 4, 6] i) => (float[N, 3] z) '
        f"{{ x = MatMul(i, u) {body} f = Flatten(y) g = Gemm(f, v) h = Relu(g) z = Gemm(h, w) }}"
    )
    rng = np.random.default_rng(0)
    shapes = {"scale": (6,), "bias": (6,), "u": (6, 6), "v": (ELEMENTS, ELEMENTS), "w": (ELEMENTS, 3)}
    for name, shape in shapes.items():
        model.graph.initializer.append(
            numpy_helper.from_array(rng.standard_normal(shape, dtype=np.float32), name)
        )
    text = PIPELINES["default"].replace("@method", PIPELINES["method"])
    graph: Graph = stages(model, text[: text.index(",stream")])[-1].graph
    computing = (node for node in graph.nodes if not isinstance(node.op, Reshape))
    return sum(over_pairs(node.operands, node.results) for node in computing)


def over_pairs(operands: tuple[Value, ...], results: tuple[Value, ...]) -> bool:
    return any(_size(v) >= MANY**2 * ELEMENTS for v in (*operands, *results))


def _size(value: Value) -> int:
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        return 0
    size = substitute(product(value.shape), {N: MANY, R: MANY})
    return size if isinstance(size, int) else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", default=OPS)
    plain = passes("y = Identity(x)")
    print("| op | passes over pairs |\n| --- | --- |")
    for name in parser.parse_args().names:
        print(f"| {name} | {passes(OPS[name]) - plain} |")


if __name__ == "__main__":
    main()

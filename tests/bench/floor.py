"""What keeps an explanation from the time of inference: a lower bound from ONNX Runtime's own kernels.

    python tests/bench/floor.py --nets FOLDER [--references 10] [--runs 7] [--threads 1] [NAME ...]

The bound adds up the inference of 1 and of R samples, which is what layers and their adjoints take at least,
and the elementwise nodes of @default on pairs of samples and references, at the highest rate that such nodes
reach on tensors of any size.  Nothing else is counted: no pooling, no layouts, no node for itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from op_profile import Runs, options, random_inputs

import irshap.compiler.catalog  # noqa: F401  registers all passes
from irshap.cost import Phase, cost, evaluate, stages
from irshap.ir.dims import N, R
from irshap.ops.families import Elementwise, ZippedElementwise

SIZES = [2**k for k in range(16, 23)]
CHAIN = (("Sub", "r"), ("Mul", "y"), ("Add", "r"), ("Div", "x"))
"""Ops with their second operand; the first is the result of the one before."""
LINKS = 8
"""How often the chain is repeated."""


def rate(size: int, runs: int, threads: int) -> float:
    """Elements in a second, over a chain of elementwise nodes on tensors of this size."""
    inputs = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, size]) for n in ("x", "y")]
    nodes, before = [], "x"
    for i in range(LINKS * len(CHAIN)):
        kind, second = CHAIN[i % len(CHAIN)]
        nodes.append(helper.make_node(kind, [before, second], [f"d{i}"]))
        before = f"d{i}"
    result = helper.make_tensor_value_info(before, onnx.TensorProto.FLOAT, [1, size])
    stored = numpy_helper.from_array(np.linspace(1, 2, size, dtype=np.float32)[None], "r")
    graph = helper.make_graph(nodes, "chain", inputs, [result], [stored])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.onnx"
        onnx.save(model, file)
        x = np.linspace(3, 4, size, dtype=np.float32)[None]
        chain = Runs(file, {"x": x, "y": x}, threads=threads)
        for _ in range(runs):
            chain.run()
    return len(nodes) * size / min(chain.seconds)


def elements(network: Path, count: int) -> int:
    """The numbers that elementwise nodes give for one sample and `count` references."""
    last = stages(network, "@default", expected=count, exact=True)[-1]
    found = cost(last.graph, stored=last.stored).nodes
    kinds = Elementwise | ZippedElementwise
    pairs = [n for n in found if n.phase is Phase.EXPLANATION and isinstance(n.node.op, kinds)]
    return sum(evaluate(n.flops, {N: 1, R: count}) // n.node.op.cost for n in pairs)


def main() -> None:
    given = options(__doc__).parse_args()
    rates = {size: rate(size, given.runs, given.threads) for size in SIZES}
    fastest = max(rates, key=lambda size: rates[size])
    print(
        f"Elementwise nodes: at most {rates[fastest] / 1e9:.1f} G numbers a second (tensors of {fastest}).\n"
    )
    print("| network | elementwise, G numbers | bound, by inference |\n| --- | --- | --- |")
    for name in given.names:
        network = given.nets / f"{name}_torchscript.onnx"
        inputs = random_inputs(network, 1, given.references)
        systems = [Runs(network, {"image": x}, threads=given.threads) for x in inputs]
        for _ in range(given.runs):
            for system in systems:
                system.run()
        inference = sum(min(system.seconds) for system in systems)
        count = elements(network, given.references)
        print(f"| {name} | {count / 1e9:.2f} | {1 + count / rates[fastest] / inference:.2f} |", flush=True)


if __name__ == "__main__":
    main()

"""Which of ONNX Runtime's kernels are faster on two threads, and from what size on.

    python tests/bench/threads.py [--runs 60] [KIND ...]

Microseconds of a node in a chain of one kind, with one thread → with two (and the ratio), for tensors of so
many numbers, in planes of 56 x 56; then of a node with a product and an absolute value, which share their
work, before it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper
from op_profile import session_of

LINKS = 12
"""Nodes of the kind in a chain."""

SIDE = 56
CHANNELS = (8, 32, 128, 256)
BETWEEN = 256
"""Channels of the tensors between which nodes that share their work stand."""

Nodes = list[onnx.NodeProto]


def one(kind: str, *more: str) -> Callable[[str, str], Nodes]:
    """A node of a kind that reads x, and `more`."""
    return lambda x, y: [helper.make_node(kind, [x, *more], [y])]


def split(x: str, y: str) -> Nodes:
    """Split and Concat of two halves, which each move all."""
    halves = [f"{y}_0", f"{y}_1"]
    return [helper.make_node("Split", [x], halves, axis=1), helper.make_node("Concat", halves, [y], axis=1)]


def scatter(x: str, y: str) -> Nodes:
    """Adds x at its own places."""
    return [helper.make_node("ScatterElements", [x, "places", x], [y], axis=3, reduction="add")]


def pool(x: str, y: str) -> Nodes:
    """Windows of 3 x 3."""
    return [helper.make_node("MaxPool", [x], [y], kernel_shape=[3, 3], pads=[1, 1, 1, 1])]


KINDS: dict[str, Callable[[str, str], Nodes]] = {
    "Add": one("Add", "tensor"),
    "Add of channels": one("Add", "channel"),
    "Mul": one("Mul", "tensor"),
    "Div": one("Div", "tensor"),
    "Abs": one("Abs"),
    "Relu": one("Relu"),
    "Clip": one("Clip", "low", "high"),
    "Sigmoid": one("Sigmoid"),
    "Tanh": one("Tanh"),
    "Max": one("Max", "tensor"),
    "Where": lambda x, y: [helper.make_node("Where", ["choice", x, "tensor"], [y])],
    "BatchNormalization": one("BatchNormalization", *["vector"] * 4),
    "Split, Concat": split,
    "ScatterElements": scatter,
    "MaxPool": pool,
}


def model(kind: str, channels: int, *, between: bool) -> bytes:
    """LINKS nodes of a kind one after another, or each with a product and an absolute value before it."""
    shape = (1, channels, SIDE, SIDE)
    rng = np.random.default_rng(0)
    places = np.broadcast_to(np.arange(SIDE), shape)
    arrays = {
        "tensor": rng.uniform(1, 2, shape).astype(np.float32),
        "channel": rng.uniform(1, 2, (channels, 1, 1)).astype(np.float32),
        "vector": np.ones(channels, np.float32),
        "low": np.float32(0),
        "high": np.float32(6),
        "choice": rng.random(shape) < 0.5,
        "places": np.ascontiguousarray(places),
    }
    nodes, x = Nodes(), "x"
    for i in range(LINKS):
        if between:
            nodes += [
                helper.make_node("Mul", [x, "tensor"], [f"m{i}"]),
                helper.make_node("Abs", [f"m{i}"], [f"a{i}"]),
            ]
            x = f"a{i}"
        nodes += KINDS[kind](x, f"y{i}")
        x = f"y{i}"
    read = {name for node in nodes for name in node.input}
    given = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items() if name in read]
    takes, gives = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", x))
    graph = helper.make_graph(nodes, "chain", [takes], [gives], given)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(made.SerializeToString())


def microseconds(content: bytes, channels: int, threads: int, runs: int) -> float:
    """For each of the chain's links, in the fastest run."""
    session = session_of(content, threads)
    feeds = {"x": np.random.default_rng(1).standard_normal((1, channels, SIDE, SIDE)).astype(np.float32)}
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        session.run(None, feeds)
        seconds.append(time.perf_counter() - start)
    return min(seconds) / LINKS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", default=[*KINDS])
    parser.add_argument("--runs", type=int, default=60)
    given = parser.parse_args()
    sizes = [f"{c * SIDE * SIDE // 1000} K" for c in CHANNELS]
    print("| kind of node | " + " | ".join(sizes) + f" | {sizes[-1]}, between |")
    print("| --- |" + " --- |" * (len(sizes) + 1))
    for kind in given.kinds:
        cells = []
        for channels, between in [*((c, False) for c in CHANNELS), (BETWEEN, True)]:
            content = model(kind, channels, between=between)
            single, double = (microseconds(content, channels, n, given.runs) for n in (1, 2))
            cells.append(f"{single:.0f} → {double:.0f} ({single / double:.2f})")
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

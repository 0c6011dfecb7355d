"""What keeps an explanation from the time of inference: a lower bound from ONNX Runtime's own kernels.

    python tests/bench/floor.py --nets FOLDER [--references 10] [--runs 7] [--threads 0] [NAME ...]

The bound for the nodes that @default gives:

- layers and their adjoints take what the layers of inferring 1 and R samples take;
- every other node takes its numbers at the highest rate that any node of its kind reaches in that program;
- what is stored comes from memory, at what this takes beyond the same numbers from a cache.

Nothing else takes time: no node by itself, no kernel slower on another's shape, no thread that waits.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from op_profile import LAYOUT, Runs, fastest, options, random_inputs

import irshap

LAYERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")
VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
LARGE = 2**16
"""Numbers of a node that is large enough to show the rate of its kind."""

STORED, LINKS = 2**20, 48
"""Numbers in a stored tensor, and how many of them: together more than any cache holds."""


@dataclass(frozen=True)
class Bound:
    """Times by that of plain inference of 1 and R samples; `measured` in the run that gave the others."""

    layers: float
    elementwise: float
    moved: float
    cold: float
    measured: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.layers + self.elementwise + self.moved + self.cold


def cold(runs: int, threads: int) -> float:
    """Seconds that a byte takes from memory beyond one from a cache, in a chain of subtractions."""
    seconds = []
    arrays = [np.full((1, STORED), i, np.float32) for i in range(LINKS)]
    for several in (True, False):
        stored = {f"r{i}": a for i, a in enumerate(arrays if several else arrays[:1])}
        names = [f"r{i if several else 0}" for i in range(LINKS)]
        nodes = [helper.make_node("Sub", [f"d{i}", r], [f"d{i + 1}"]) for i, r in enumerate(names)]
        given, result = (
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, STORED])
            for name in ("d0", f"d{LINKS}")
        )
        weights = [numpy_helper.from_array(a, name) for name, a in stored.items()]
        graph = helper.make_graph(nodes, "chain", [given], [result], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "chain.onnx"
            onnx.save(model, file)
            chain = Runs(file, {"d0": arrays[0]}, threads=threads)
            for _ in range(runs):
                chain.run()
        seconds.append(min(chain.seconds))
    return (seconds[0] - seconds[1]) / (4 * STORED * LINKS)


def bound(network: Path, count: int, runs: int, threads: int, byte: float) -> Bound:
    """The bound of one network; `byte`: what `cold` has found."""
    sample, references = random_inputs(network, 1, count)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explained.onnx"
        compiled = irshap.compile(network, references)
        stored = sum(int(p.statistics.get("stored_bytes", 0)) for p in compiled.report.passes)
        compiled.save(file)
        del compiled
        given = ((network, sample), (network, references), (file, sample))
        # the profiler takes its time from each node, so that what is measured runs without it
        systems, profiled = (
            [Runs(model, {"image": x}, place, threads) for model, x in given]
            for place in (None, Path(folder) / "profile")
        )
        for _ in range(runs):
            for system in (*systems, *profiled):
                system.run()
        events = [fastest(Path(system.session.end_profiling()))[0] for system in profiled]
    inference = sum(min(system.seconds) for system in systems[:2])
    layers = sum(e["dur"] for found in events[:2] for e in found if e["args"]["op_name"] in LAYERS)
    least = at_best(e for e in events[2] if e["args"]["op_name"] not in (*LAYERS, *VIEWS))
    moved = sum(s for kind, s in least.items() if kind in (*LAYOUT, "Transpose", "Concat", "Split", "Slice"))
    return Bound(
        layers=layers * 1e-6 / inference,
        elementwise=(least.total() - moved) / inference,
        moved=moved / inference,
        cold=stored * byte / inference,
        measured=min(systems[2].seconds) / inference,
    )


def at_best(events: Iterable[dict[str, Any]]) -> Counter[str]:
    """Seconds of each kind of node, each at the highest rate that one of its kind reaches."""
    found = defaultdict[str, list[tuple[int, float]]](list)
    for event in events:
        found[event["args"]["op_name"]].append((_numbers(event), max(event["dur"], 1) * 1e-6))
    least: Counter[str] = Counter()
    for kind, nodes in found.items():
        large = [node for node in nodes if node[0] >= LARGE] or [max(nodes)]
        rate = max(numbers / seconds for numbers, seconds in large)
        least[kind] = sum(numbers for numbers, _ in nodes) / rate
    return least


def _numbers(event: dict[str, Any]) -> int:
    """The numbers of the largest tensor that a node reads or writes."""
    types = (*event["args"]["input_type_shape"], *event["args"]["output_type_shape"])
    return max((int(np.prod(shape)) for tensor in types for shape in tensor.values()), default=1)


def main() -> None:
    given = options(__doc__).parse_args()
    byte = cold(given.runs, given.threads)
    print(f"A byte from memory takes {byte * 1e9:.3f} ns more than one from a cache.\n")
    print("| network | layers | elementwise | copies | from memory | bound | measured |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name in given.names:
        network = given.nets / f"{name}_torchscript.onnx"
        found = bound(network, given.references, given.runs, given.threads, byte)
        numbers = (found.layers, found.elementwise, found.moved, found.cold, found.total, found.measured)
        print(f"| {name} | {' | '.join(f'{n:.2f}' for n in numbers)} |", flush=True)


if __name__ == "__main__":
    main()

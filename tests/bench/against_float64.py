"""How far float32 attributions are from those of the same network in float64, pipeline by pipeline.

    python tests/bench/against_float64.py NETWORK.onnx ... [--references 1] [--without PASS ...]

Half of each sample's pixels are the first reference's, where quotients of differences have most to lose.  For
each pipeline it prints the largest difference to the float64 attributions (`widen` behind `lift`, run by the
evaluator), and of `@default` to `@naive`, all by the largest float64 attribution.  `moved` is what float64
attributions do when the sample moves by a unit in the last place of float32, up or down by chance:
what no float32 program can be asked to be better than.  --without names passes to leave out of
@default, to see which one loses digits.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import irshap
from irshap.ir.evaluator import evaluate
from irshap.pipeline.named import PIPELINES

Array = np.ndarray[Any, Any]


def inputs(count: int, size: int) -> tuple[Array, Array]:
    """A sample, and references: half of its pixels are the first one's."""
    rng = np.random.default_rng(0)
    references = rng.standard_normal((count, 3, size, size), dtype=np.float32)
    x = rng.standard_normal((1, 3, size, size), dtype=np.float32)
    return np.where(rng.random(x.shape) < 0.5, references[:1], x), references


def single(model: Path, references: Array, x: Array, passes: str) -> Array:
    """The attributions in float32."""
    found = irshap.compile(model, references, passes=passes).explainer()(x).values
    return np.asarray(found, np.float64)


class Truth:
    """The attributions in float64; compiled once, since nothing else depends on the sample."""

    def __init__(self, model: Path, references: Array) -> None:
        passes = PIPELINES["naive"].replace("lift,", "lift,widen,").replace("@method", "deeplift")
        self.graph = irshap.compile(model, references, passes=passes).graph

    def __call__(self, x: Array) -> Array:
        feeds = {str(v.name): x.astype(np.float64) for v in self.graph.inputs}
        found = evaluate(self.graph, feeds)
        return np.asarray(next(a for n, a in found.items() if n.endswith("_attributions")))


def tell(network: str, scale: float, what: str, found: Array, wanted: Array) -> None:
    """Prints the largest difference."""
    print(f"{network:20} {what:44} {np.abs(found - wanted).max() / scale:.1e}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--without", nargs="*", default=[])
    arguments = parser.parse_args()
    x, references = inputs(arguments.references, arguments.size)
    # one unit in the last place, up or down by chance
    up = np.random.default_rng(1).random(x.shape) < 0.5
    moved = np.where(up, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf)))
    for network in arguments.networks:
        truth = Truth(network, references)
        exact = truth(x)
        told = partial(tell, network.stem.removesuffix("_torchscript"), np.abs(exact).max())

        naive = single(network, references, x, "@naive")
        told("@naive", naive, exact)
        default = single(network, references, x, "@default")
        told("@default", default, exact)
        told("@default against @naive", default, naive)
        for name in arguments.without:
            found = single(network, references, x, f"@default{{without={name}}}")
            told(f"@default without {name}", found, exact)
            told(f"@default without {name}, against @naive", found, naive)
        told("moved by a unit in the last place", truth(moved), exact)


if __name__ == "__main__":
    main()

"""A recurrent network over long sequences: time, memory and completeness, beside SHAP and Captum.

    python tests/bench/long_sequences.py [--kind LSTM] [--layers 2] [--hidden 128] [--steps 200] [--samples 8]
                                         [--references 10] [--peers]

Times are the least of several runs, by that of inferring the samples and then the references.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import torch

import irshap

WIDTH, CLASSES = 16, 3


class Network(torch.nn.Module):
    """A recurrent layer, and a dense one on its last output."""

    def __init__(self, given: argparse.Namespace) -> None:
        super().__init__()
        kind = getattr(torch.nn, given.kind)
        self.layers = kind(WIDTH, given.hidden, given.layers, batch_first=True)
        self.dense = torch.nn.Linear(given.hidden, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dense(self.layers(x)[0][:, -1])


def least(run: Callable[[], object], runs: int = 5) -> float:
    """Seconds of the fastest run."""
    run()
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def peers(network: Network, x: Any, r: Any, target: int) -> None:
    """What SHAP and Captum say of the same network."""
    from captum.attr import DeepLiftShap
    from shap import DeepExplainer

    class Single(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return network(x)[:, target : target + 1]

    samples, references = torch.from_numpy(x), torch.from_numpy(r)
    difference = (network(samples)[:, target] - network(references)[:, target].mean()).detach().numpy()
    for name, explain in (
        ("shap", lambda: DeepExplainer(Single(), references).shap_values(samples, check_additivity=False)),
        ("captum", lambda: DeepLiftShap(Single()).attribute(samples, references).detach().numpy()),
    ):
        start = time.perf_counter()
        try:
            found = np.asarray(explain()).reshape(len(x), -1).sum(1)
        except Exception as error:  # whatever a peer raises is its result
            print(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            continue
        off = np.abs(found - difference).max() / np.abs(difference).max()
        print(f"{name}: error {off:.1e}, {time.perf_counter() - start:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kind", default="LSTM", choices=("LSTM", "GRU", "RNN"))
    for name, value in {"layers": 2, "hidden": 128, "steps": 200, "samples": 8, "references": 10}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peers", action="store_true")
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    network = Network(given).eval()
    generator = np.random.default_rng(0)
    x, r = (
        generator.standard_normal((n, given.steps, WIDTH)).astype(np.float32)
        for n in (given.samples, given.references)
    )
    buffer = io.BytesIO()
    torch.onnx.export(
        network, (torch.from_numpy(x),), buffer, dynamo=False,
        input_names=["x"], output_names=["y"], dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
    )  # fmt: skip
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    original = onnxruntime.InferenceSession(buffer.getvalue(), options)
    pairs = np.repeat(r, given.samples, 0)
    infer = least(lambda: original.run(None, {"x": x})) + least(lambda: original.run(None, {"x": pairs}))
    for passes in ("@default", "@naive"):
        start = time.perf_counter()
        compiled = irshap.compile(buffer.getvalue(), r, passes=passes, target=irshap.Target("0"))
        took = time.perf_counter() - start
        content = compiled.model.SerializeToString()
        session = onnxruntime.InferenceSession(content, options)
        names = [o.name for o in session.get_outputs()]
        found = dict(zip(names, session.run(None, {"x": x}), strict=True))
        difference = found["y"][:, 0] - found["base_values"]
        off = np.abs(found["x_attributions"].sum((1, 2)) - difference).max() / np.abs(difference).max()
        seconds = least(lambda s=session: s.run(None, {"x": x}))
        print(
            f"{passes}: error {off:.1e}, {seconds / infer:.2f} x (inference of {given.samples} and of "
            f"{len(pairs)}), file {len(content) / 2**20:.1f} MiB, compiled in {took:.1f} s"
        )
    if given.peers:
        peers(network, x, r, 0)


if __name__ == "__main__":
    main()

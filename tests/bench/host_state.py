"""Whether times of two programs can be compared on this machine now: what changes while nothing runs beside.

    python tests/bench/host_state.py --nets FOLDER [--references 20] [--rounds 40] [NAME ...]

A virtual machine shares its host's cache and memory with others that it doesn't see.  An explanation is
mostly passes over pairs, which memory serves; plain inference is mostly products, which it doesn't wait for.
So the ratio of both depends on the host.  Rounds take a copy of memory, inference of 1 and of R samples, and
the explanation in turn; the table has the quarter of the rounds with the fastest copies, and that with the
slowest.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from architectures import images
from op_profile import SETTLE, Runs

import irshap

COPIED = 64 << 20
"""Bytes: more than a cache holds."""


def measured(network: Path, count: int, rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each in every round."""
    references, sample = images(count, 0), images(1, 1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "explained.onnx")
        irshap.compile(network, references).save(file)
        feeds = {"inference of 1": (network, sample), "inference of R": (network, references)}
        feeds["explanation"] = (file, sample)
        sessions = {kind: Runs(model, {"image": x}) for kind, (model, x) in feeds.items()}
        source = np.ones(COPIED // 4, np.float32)
        target, copies = np.empty_like(source), list[float]()
        for _ in range(rounds + 1):
            time.sleep(SETTLE)
            start = time.perf_counter()
            np.copyto(target, source)
            copies.append(time.perf_counter() - start)
            for session in sessions.values():
                session.run()
    seconds = {"copy": copies, **{kind: session.seconds for kind, session in sessions.items()}}
    return {kind: np.array(found[1:]) for kind, found in seconds.items()}


def row(name: str, seconds: dict[str, np.ndarray], rounds: np.ndarray) -> str:
    """Medians over some rounds."""
    ms = {kind: float(np.median(found[rounds])) * 1e3 for kind, found in seconds.items()}
    plain = seconds["inference of 1"] + seconds["inference of R"]
    ratio = float(np.median((seconds["explanation"] / plain)[rounds]))
    speed = COPIED / ms["copy"] / 1e6
    cells = [f"{ms[kind]:.1f}" for kind in ("inference of 1", "inference of R", "explanation")]
    return f"| {name} | {speed:.1f} | " + " | ".join(cells) + f" | {ratio:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", default=["efficientnet_b0", "resnet50"])
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    heads = ["rounds", "copy, GB/s", "inference of 1, ms", "of R", "explanation", "by inference"]
    print("| " + " | ".join(heads) + " |\n|---|" + "---:|" * (len(heads) - 1))
    for name in given.names:
        seconds = measured(given.nets / f"{name}_torchscript.onnx", given.references, given.rounds)
        order, quarter = np.argsort(seconds["copy"]), max(1, given.rounds // 4)
        print(row(f"{name}, fastest copies", seconds, order[:quarter]))
        print(row(f"{name}, slowest copies", seconds, order[-quarter:]), flush=True)


if __name__ == "__main__":
    main()

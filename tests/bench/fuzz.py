"""Random models by the thousand: python tests/bench/fuzz.py --count 10000 --jobs 2 [--thorough]

Each must come out with exact attributions or be refused with a reason. Faults are cut down to few nodes and
listed; the exit code is 1 if there is one. `--seed N` runs one seed alone and prints its model.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

for folder in ("helpers", "oracles"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from fuzz_check import Outcome, check, smallest  # noqa: E402
from fuzz_graphs import generate  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int)
    parser.add_argument(
        "--thorough", action="store_true", help="compare with tests/oracles/two_world.py, too"
    )
    given = parser.parse_args()
    if given.seed is not None:
        return show(given.seed, given.thorough)
    start, outcomes = time.perf_counter(), []
    seeds = range(given.start, given.start + given.count)
    with ProcessPoolExecutor(given.jobs, initializer=warnings.simplefilter, initargs=("ignore",)) as pool:
        for outcome in pool.map(partial(check, thorough=given.thorough), seeds, chunksize=20):
            outcomes.append(outcome)
            if outcome.fault:
                print(f"seed {outcome.seed}: {outcome.kind}: {outcome.detail[:300]}", flush=True)
            if len(outcomes) % 500 == 0:
                print(f"{len(outcomes)} in {time.perf_counter() - start:.0f} s", flush=True)
    report(outcomes, given.thorough)
    return int(any(o.fault for o in outcomes))


def report(outcomes: list[Outcome], thorough: bool) -> None:
    print(dict(Counter(o.kind for o in outcomes)))
    unexpected = [o for o in outcomes if o.detail.startswith("unexpected: ")]
    print(f"{len(unexpected)} refusals of models in which every op should have a rule")
    for outcome in unexpected[:20]:
        print(f"  seed {outcome.seed}: {outcome.detail[:200]}")
    for outcome in [o for o in outcomes if o.fault][:20]:
        size, least = smallest(outcome.seed, thorough=thorough)
        print(f"  seed {outcome.seed} with {size} moves: {least.kind}: {least.detail[:500]}")


def show(seed: int, thorough: bool) -> int:
    import onnx

    size, outcome = smallest(seed, thorough=thorough)
    case = generate(seed, size)
    if case is not None:
        print(onnx.printer.to_text(case.model))
        print(f"arguments: {case.arguments}")
    print(f"with {size} moves: {outcome.kind} {outcome.detail}")
    return int(outcome.fault)


if __name__ == "__main__":
    sys.exit(main())

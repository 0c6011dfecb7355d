"""How the Ray engine scales, and what a node costs that is killed half-way.

    python tests/bench/ray_scale.py [--seconds 20] [--pairs 2]

The cluster stands on this machine: a head without cores, for the driver, and nodes of one core each.  One
node and two explain the same rows in turns; seconds are those of `explain_dataset`, from the first look at
the model to the last line of the manifest, with the start of all actors.  Needs two cores that nothing else
uses, and irshap[parquet,ray].
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from dataset_speed import data, explained
from ray.cluster_utils import Cluster

from irshap.datasets import explain_dataset

STORE = 80_000_000
FEATURES = 30


class Bench:
    """A cluster, and one job that runs on it again and again."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.folder, self.model = folder, explained(folder, FEATURES, (64, 32))
        probe = explain_dataset(self.model, data(folder, 60_000, FEATURES), folder / "probe", workers=1)
        self.rows = int(seconds * probe.rows / probe.seconds)
        self.x = data(folder, self.rows, FEATURES)
        # enough shards that the last ones don't decide
        self.options = {"shard_rows": max(32, self.rows // 100 // 32 * 32), "batch": 32}
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        ray.init(self.cluster.address, logging_level="ERROR", log_to_driver=False)

    def nodes(self, count: int) -> None:
        """As many nodes as this."""
        there = list(self.cluster.worker_nodes)
        for node in there[count:]:
            self.cluster.remove_node(node)
        for _ in range(count - len(there)):
            self.cluster.add_node(num_cpus=1, object_store_memory=STORE)
        while ray.cluster_resources().get("CPU", 0) != count:
            time.sleep(0.1)

    def run(self, name: str, engine: str = "ray", **options: Any) -> float:
        """Seconds of a run into a folder of this name."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        report = explain_dataset(
            self.model, self.x, self.folder / name, engine=engine, **self.options, **options
        )
        return report.seconds

    def killing(self) -> Callable[[int, int | None], None]:
        """A progress that kills a node when half of the rows are finished."""
        left = [next(iter(self.cluster.worker_nodes))]

        def progress(done: int, total: int | None) -> None:
            if left and 2 * done >= self.rows:
                self.cluster.remove_node(left.pop(), allow_graceful=False)

        return progress

    def same(self, a: str, b: str) -> bool:
        """Whether two folders have the same files, byte by byte."""
        found = [{p.name: p.read_bytes() for p in (self.folder / name).iterdir()} for name in (a, b)]
        return found[0] == found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pairs", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), asked.seconds)
        print(f"{bench.rows} rows of {FEATURES} features, R = 100; ray {ray.__version__}\n")
        print("| run | seconds | rows a second | by one node |")
        print("| --- | --- | --- | --- |")

        def line(name: str, seconds: float, one: float) -> None:
            rate, times = bench.rows / seconds, one / seconds
            print(f"| {name} | {seconds:.1f} | {rate:.0f} | {times:.2f} |", flush=True)

        ratios, ones = [], []
        for _ in range(asked.pairs):
            bench.nodes(1)
            ones.append(bench.run("one"))
            line("1 node", ones[-1], ones[-1])
            bench.nodes(2)
            two = bench.run("two")
            line("2 nodes", two, ones[-1])
            ratios.append(ones[-1] / two)
        one = float(np.median(ones))
        line("2 nodes, one killed half-way", bench.run("killed", progress=bench.killing()), one)
        line("local, one session", bench.run("local", "local", workers=1), one)
        equal = all(bench.same("local", name) for name in ("one", "two", "killed"))
        print(f"2 nodes are {np.median(ratios):.2f} x as fast as one (of {asked.pairs} pairs)")
        print(f"all folders are {'equal' if equal else 'NOT equal'} byte by byte")
        ray.shutdown()
        bench.cluster.shutdown()


if __name__ == "__main__":
    main()

"""What a folder of very many shards costs its driver, beside explaining them.

    python tests/bench/many_shards.py [--counts 10000,100000]

For each count, in a process of its own: the memory that records of so many shards take beyond that of a few,
while they are held and at the peak of the end; seconds to read them where a run goes on, and to write the
manifest in the end.  The records are those of a real shard of five columns in .npy, with other numbers.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dataset_speed import data, explained

from irshap.datasets import explain_dataset
from irshap.datasets.manifest import Manifest

ROWS = 64


def held() -> float:
    """MiB that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def line(count: int) -> str:
    """The table's line of this count."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, rows = explained(folder, 30, (64, 32)), data(folder, ROWS, 30)
        explain_dataset(model, rows, folder / "out", format="npy")
        few = Manifest.read(folder / "out")
        assert few is not None
        record = {**few.shards[0], "stop": 0}
        begun = Manifest(folder / "out", few.header, {}, False)
        begun._write()
        with (folder / "out" / "_journal.jsonl").open("w") as journal:
            for shard in range(count):
                told = {**record, "shard": shard, "start": shard * ROWS, "stop": (shard + 1) * ROWS}
                journal.write(json.dumps(told, sort_keys=True) + "\n")
        before, clock = held(), time.perf_counter()
        many = Manifest.read(folder / "out")
        read, memory = time.perf_counter() - clock, held() - before
        assert many is not None and len(many.shards) == count
        clock = time.perf_counter()
        many.finish()
        written = time.perf_counter() - clock
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
        size = (folder / "out" / "_manifest.json").stat().st_size / 1e6
    return f"| {count:,} | {size:.0f} | {memory:.0f} | {peak:.0f} | {read:.1f} | {written:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--counts", default="10000,100000")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(line(asked.one))
        return
    print("| shards | manifest MB | held MiB | at the end MiB | s to read | s to write |")
    print("|---:|---:|---:|---:|---:|---:|", flush=True)
    for count in map(int, asked.counts.split(",")):
        subprocess.run([sys.executable, __file__, "--one", str(count)], check=True)


if __name__ == "__main__":
    main()

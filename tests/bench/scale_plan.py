"""What 100 million images and a billion rows would take on named machines: hours, money, the first limit.

    python tests/bench/scale_plan.py RESNET50.onnx [--references 20] [--images 100e6] [--rows 1e9]
        [--price NAME=DOLLARS ...] [--prices-of DATE] [--rate ROWS_A_SECOND] [--storage GB_A_SECOND]
        [--write docs/scale.md]

Nothing is run on these machines.  Images: the cost model's time of one explanation on the device (a roofline:
at best), for every GPU or core of the machine.  Rows (30 features, 100 references, the MLP of
dataset_speed.py): the rate of `explain_dataset` here, measured unless --rate gives it, for each core of the
machine, which has two processors a core.  What is read and written is what the formats take: images as uint8
224 x 224 x 3 and their attributions summed over channels as float16, rows and their attributions as float32.
Prices are arguments: those by default are lists' of the date that stands in the table, and weren't asked for
again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dataset_speed import data, explained

from irshap.cli import main as cli
from irshap.datasets import explain_dataset
from irshap.datasets.plan import SHARD_ROWS, cores, shard_rows_of

__all__ = ["Job", "Machine", "main", "row"]

BEGIN, END = "<!-- plan -->", "<!-- end of the plan -->"
HOUR = 3600.0
GIGABIT = 1e9 / 8


@dataclass(frozen=True)
class Machine:
    """A machine: its device for `irshap cost`, how many of them, dollars an hour, bytes/s of network."""

    name: str
    device: str
    count: int
    price: float
    network: float


# Amazon EC2's pages of instance types (devices, cores, baseline network); Linux on demand, us-east-1.
PRICES_OF = "2024-06"
MACHINES = (
    Machine("c7i.16xlarge", "cpu:32x128GiB", 1, 2.856, 25 * GIGABIT),
    Machine("g4dn.xlarge", "T4", 1, 0.526, 5 * GIGABIT),
    Machine("g5.xlarge", "A10", 1, 1.006, 2.5 * GIGABIT),
    Machine("p4d.24xlarge", "A100-40GB", 8, 32.77, 400 * GIGABIT),
    Machine("p5.48xlarge", "H100", 8, 98.32, 3200 * GIGABIT),
)


@dataclass(frozen=True)
class Job:
    """So many rows, of so many bytes read and written each."""

    rows: float
    read: int
    written: int


RECORD = 960
"""Bytes of a shard's record in the manifest, of five columns in .npy."""

IMAGES, ROWS = (224 * 224 * 3, 224 * 224 * 2 + 32), (30 * 4, 30 * 4 + 32)
"""Bytes of one, read and written, beside attributions four numbers of 8 bytes."""


def row(job: Job, machine: Machine, rate: float, storage: float) -> list[str]:
    """Time and money of one machine, how many end within a day, and what keeps more of them from helping.

    Args:
        rate: rows a second that the machine computes.
        storage: bytes a second that the shared storage gives and takes.
    """
    moved = job.read + job.written
    carried = machine.network / moved
    real = min(rate, carried)
    hours = job.rows / real / HOUR
    most = storage / moved / real  # machines that keep the storage busy
    first = "its network" if carried < rate else "computing"
    return [
        machine.name,
        f"{rate:,.0f}",
        f"{hours:,.1f}",
        f"{hours * machine.price:,.0f}",
        first,
        f"{hours / 24:,.2f}",
        f"{most:,.0f}" if most >= 1 else "less than 1",
    ]


HEAD = ["machine", "rows/s at best", "hours of one", "dollars", "first limit of one", "machines for one day"]
HEAD += ["machines that fill the storage"]


def table(rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(HEAD)} |"
    yield "|---|---:|---:|---:|---|---:|---:|"
    yield from (f"| {' | '.join(r)} |" for r in rows)


def manifests(jobs: dict[str, tuple[Job, tuple[int, ...]]]) -> Iterator[str]:
    """How large the manifest of each job gets, that one driver holds."""
    yield "| manifest of all | rows a shard | shards | GB |"
    yield "|---|---:|---:|---:|"
    for name, (job, shape) in jobs.items():
        for size in sorted({shard_rows_of([shape], 1, None), SHARD_ROWS}):
            shards = job.rows / size
            yield f"| {name} | {size:,} | {shards:,.0f} | {shards * RECORD / 1e9:,.2f} |"


def estimated(model: str, references: int, device: str) -> float:
    """Seconds of one explanation, by the cost model."""
    command = ["cost", model, "--references", str(references), "--device", device, "--json"]
    with redirect_stdout(StringIO()) as told:
        assert cli(command) == 0
    return float(json.loads(told.getvalue())["programs"][-1]["seconds_estimate"])


def measured(rows: int = 200_000) -> float:
    """Rows a second and core of `explain_dataset` here."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model, x = explained(folder, 30, (64, 32)), data(folder, rows, 30)
        begin = time.perf_counter()
        explain_dataset(model, x, folder / "out", format="npy")
        return rows / (time.perf_counter() - begin) / cores()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="an image model, [N, 3, 224, 224]")
    parser.add_argument("--references", type=int, default=20)
    parser.add_argument("--images", type=float, default=100e6)
    parser.add_argument("--rows", type=float, default=1e9)
    parser.add_argument("--price", action="append", default=[], metavar="NAME=DOLLARS", help="an hour's")
    parser.add_argument("--prices-of", default=PRICES_OF, help="the date of these prices")
    parser.add_argument("--rate", type=float, help="rows a second of one core; by default measured")
    parser.add_argument("--storage", type=float, default=10.0, help="of the shared storage, GB/s")
    parser.add_argument("--write", type=Path)
    asked = parser.parse_args()
    prices = {name: float(value) for name, _, value in (p.partition("=") for p in asked.price)}
    rate, storage = asked.rate or measured(), asked.storage * 1e9
    images, rows = Job(asked.images, *IMAGES), Job(asked.rows, *ROWS)
    found: dict[str, list[list[str]]] = {"images": [], "rows": []}
    for machine in MACHINES:
        price = prices.get(machine.name, machine.price)
        priced = Machine(machine.name, machine.device, machine.count, price, machine.network)
        each = machine.count / estimated(asked.model, asked.references, machine.device)
        found["images"].append(row(images, priced, each, storage))
        if machine.device.startswith("cpu:"):
            threads = int(machine.device.split(":")[1].split("x")[0])
            found["rows"].append(row(rows, priced, rate * threads, storage))
    lines = [
        f"Written by `python tests/bench/scale_plan.py`; prices an hour as of {asked.prices_of}, on demand.",
        "",
        f"{asked.images:,.0f} images, {Path(asked.model).stem.removesuffix('_torchscript')} with "
        f"{asked.references} references: {images.rows * images.read / 1e12:,.1f} TB read, "
        f"{images.rows * images.written / 1e12:,.1f} TB written (sums over channels, float16).",
        "",
        *table(found["images"]),
        "",
        f"{asked.rows:,.0f} rows of 30 features, an MLP with 100 references, at {rate:,.0f} rows a second "
        f"and core: {rows.rows * rows.read / 1e12:,.2f} TB read, {rows.rows * rows.written / 1e12:,.2f} TB "
        "written.",
        "",
        *table(found["rows"]),
        "",
        f"The last column: how many such machines read and write as much as a storage of {asked.storage:g} "
        "GB/s does; more of them don't help.",
        "",
        *manifests({"images": (images, (224, 224)), "rows": (rows, (30,))}),
    ]
    print("\n".join(lines))
    if asked.write:
        before, rest = asked.write.read_text(encoding="utf-8").split(BEGIN)
        text = "\n".join(lines)
        asked.write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()

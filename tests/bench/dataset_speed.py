"""How quick data sets are explained: against a bare loop of ONNX Runtime, in memory, and as predicted.

    python tests/bench/dataset_speed.py loop [parquet] [npy] [--rows N] [--pairs N] [--keep F] [--write F]
    python tests/bench/dataset_speed.py memory [--many 1000000] [--few 10000]
    python tests/bench/dataset_speed.py predicted [--rows 60000] [--features 1800]
    python tests/bench/dataset_speed.py batches

The model is a small MLP with R = 100 references bound.  The loop has a session with one thread for each core
and the same batches, reads the same .npy, and keeps what it gets in memory; sessions are made within its
time, as within that of `explain_dataset`, which also plans, checks, writes and syncs.  It runs before and
behind each of these.  With --keep, pairs are added to those of earlier calls.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
from onnx import numpy_helper

import irshap
from irshap.datasets import explain_dataset
from irshap.datasets.plan import cores
from irshap.runtime.arrays import Array

R = 100
BEGIN, END = "<!-- loop -->", "<!-- end of the loop -->"


def network(features: int, hidden: tuple[int, ...]) -> tuple[onnx.ModelProto, Array]:
    """The MLP, and its references."""
    rng, sizes = np.random.default_rng(0), (features, *hidden, 2)
    lines, tensors, last = [], [], "x"
    for i, (a, b) in enumerate(pairwise(sizes)):
        weights = (rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32)
        tensors += [
            numpy_helper.from_array(weights, f"w{i}"),
            numpy_helper.from_array(np.zeros(b, np.float32), f"b{i}"),
        ]
        lines.append(f"m{i} = MatMul({last}, w{i}) z{i} = Add(m{i}, b{i})")
        last = f"z{i}"
        if i < len(sizes) - 2:
            lines.append(f"r{i} = Relu(z{i})")
            last = f"r{i}"
    ends = f"(float[N,{features}] x) => (float[N,2] {last})"
    text = f'<ir_version: 8, opset_import: ["": 17]> g {ends} {{ {" ".join(lines)} }}'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.extend(tensors)
    return model, rng.normal(size=(R, features)).astype(np.float32)


def explained(folder: Path, features: int, hidden: tuple[int, ...]) -> Path:
    """The MLP, explained."""
    path = folder / f"explained_{features}.onnx"
    irshap.compile(*network(features, hidden)).save(path)
    return path


def data(folder: Path, rows: int, features: int) -> Path:
    """Rows, written in parts."""
    path = folder / f"{rows}_{features}.npy"
    array = np.lib.format.open_memmap(path, "w+", np.float32, (rows, features))
    for start in range(0, rows, 50000):
        part = np.random.default_rng(start).normal(size=array[start : start + 50000].shape)
        array[start : start + 50000] = part
    array.flush()
    return path


def bare(model: Path, x: Path, batch: int) -> float:
    """Seconds of the loop."""
    begin = time.perf_counter()
    rows = np.load(x, mmap_mode="r")
    sessions = [irshap.Explainer(model, threads=1)._session for _ in range(cores())]
    names = [v.name for v in sessions[0].get_outputs()]

    def work(at: int) -> list[Any]:
        found = []
        for start in range(at * batch, len(rows), batch * len(sessions)):
            found.append(sessions[at].run(names, {"x": rows[start : start + batch]}))
        return found

    with ThreadPoolExecutor(len(sessions)) as pool:
        list(pool.map(work, range(len(sessions))))
    return time.perf_counter() - begin


def ours(model: Path, x: Path, folder: Path, **options: Any) -> Any:
    """What `explain_dataset` says of itself."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    return explain_dataset(model, x, folder / "out", max_error=1e-3, **options)


def loop(
    folder: Path, rows: int, pairs: int, formats: list[str], keep: Path | None, write: Path | None
) -> None:
    model, x = explained(folder, 30, (64, 32)), data(folder, rows, 30)
    batch = ours(model, data(folder, 1000, 30), folder).plan.batch
    ratios: dict[str, list[float]] = json.loads(keep.read_text()) if keep and keep.exists() else {}
    for _ in range(pairs):
        seconds = bare(model, x, batch)
        for format in formats:
            own = ours(model, x, folder, format=format).seconds
            again = bare(model, x, batch)  # before and behind: a shared machine is now slower, now quicker
            ratios.setdefault(format, []).append((seconds + again) / 2 / own)
            seconds = again
            print(
                f"  {format}: {rows / own:.0f} rows a second, {ratios[format][-1]:.3f} x the loop's",
                flush=True,
            )
        if keep is not None:
            keep.write_text(json.dumps(ratios))
    lines = [f"Written by `python tests/bench/dataset_speed.py loop --rows {rows}`, batches of {batch}:", ""]
    lines += ["| results | pairs | x the rows a second of the loop | single ones |", "|---|---:|---:|---|"]
    for format, found in ratios.items():
        cells = f"{len(found)} | {np.median(found):.3f} | {min(found):.2f} to {max(found):.2f}"
        lines.append(f"| {format} | {cells} |")
    print("\n".join(lines))
    if write is not None:
        before, rest = write.read_text(encoding="utf-8").split(BEGIN)
        text = "\n".join(lines)
        write.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def memory(folder: Path, many: int, few: int) -> None:
    model, peaks = explained(folder, 30, (64, 32)), {}
    for rows in (few, many):
        x = data(folder, rows, 30)
        shutil.rmtree(folder / "out", ignore_errors=True)
        command = [sys.executable, __file__, "one", str(model), str(x), str(folder / "out")]
        peaks[rows] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"{rows} rows: {peaks[rows] / 1024:.1f} MiB at most", flush=True)
    print(f"{peaks[many] / peaks[few]:.3f} x")


def predicted(folder: Path, rows: int, features: int) -> None:
    model, x = explained(folder, features, (128, 64)), data(folder, rows, features)
    report = ours(model, x, folder)
    real = report.seconds
    told = f"{report.predicted:.1f} s predicted, {real:.1f} s, {real / report.predicted:.2f} x"
    print(f"{rows} x {features}: {told}")


def batches(folder: Path) -> None:
    """Rows a second by batch and by how cores are used."""
    for features, hidden in ((30, (64, 32)), (1800, (128, 64))):
        model = explained(folder, features, hidden)
        x = np.random.default_rng(1).normal(size=(1024, features)).astype(np.float32)
        for batch in (1, 4, 8, 32, 128, 512):
            told = {}
            for name, count, threads in (("one session", 1, cores()), ("sessions", cores(), 1)):
                sessions = [irshap.Explainer(model, threads=threads) for _ in range(count)]
                told[name] = _rate(sessions, x[:batch])
            print(
                f"{features} features, batch {batch}:", *(f"{n} {r:.0f}" for n, r in told.items()), flush=True
            )


def _rate(sessions: list[irshap.Explainer], x: Any, seconds: float = 0.7) -> float:
    begin = time.perf_counter()

    def work(session: irshap.Explainer) -> int:
        done = 0
        while time.perf_counter() - begin < seconds:
            session.results({"x": x})
            done += len(x)
        return done

    with ThreadPoolExecutor(len(sessions)) as pool:
        return sum(pool.map(work, sessions)) / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["loop", "memory", "predicted", "batches", "one"])
    parser.add_argument("paths", nargs="*")
    for name, number in (("rows", 400000), ("pairs", 5), ("many", 10**6), ("few", 10**4), ("features", 1800)):
        parser.add_argument(f"--{name}", type=int, default=number)
    for name in ("keep", "write"):
        parser.add_argument(f"--{name}", type=Path)
    asked = parser.parse_args()
    if asked.what == "one":
        explain_dataset(*asked.paths)
        # getrusage's would be at least that of the process which started this one
        status = Path("/proc/self/status").read_text()
        print(status.split("VmHWM:")[1].split()[0])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if asked.what == "loop":
            formats = asked.paths or ["parquet", "npy"]
            loop(folder, asked.rows, asked.pairs, formats, asked.keep, asked.write)
        elif asked.what == "memory":
            memory(folder, asked.many, asked.few)
        elif asked.what == "predicted":
            predicted(folder, asked.rows, asked.features)
        else:
            batches(folder)


if __name__ == "__main__":
    main()

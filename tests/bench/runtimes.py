"""Which runtime runs which explained file, and how far it is from ONNX Runtime on a CPU: docs/runtimes.md.

    python tests/bench/runtimes.py --nets FOLDER [--page docs/runtimes.md] [--rows ROWS.jsonl] [NETWORK ...]

FOLDER holds resnet18_torchscript.onnx and efficientnet_b0_torchscript.onnx, as tests/bench/networks.py writes
them.  Needs OpenVINO, Node.js with onnxruntime-node and onnxruntime-web (NODE_PATH or ./node_modules),
chromium, torch and transformers; what is missing is left out.  Each cell runs in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from browser import Chromium
from runtime_page import page

import irshap
from irshap import demo
from irshap.engines import ENGINES, Engine, distances, own_results
from irshap.errors import IrshapError

RUNTIMES: dict[str, type[Engine]] = {**ENGINES, Chromium.name: Chromium}
PROFILES: tuple[str, ...] = ("cpu", "cuda", "openvino", "web", "any")
NETWORKS = ("digits", "textcnn", "bert", "resnet18", "efficientnet_b0")
LARGE = ("resnet18", "efficientnet_b0")
SLOW = {"reference"}
"""Runtimes that take minutes for a large network: they run one sample, of the file that is for them."""
PATIENCE = 900

Arrays = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Subject:
    """A network with references, and what is explained: by the input's name."""

    model: Any
    references: Arrays
    samples: Arrays

    def feeds(self) -> Iterator[tuple[str, Arrays]]:
        """One sample, three, and one of which a part is as in the first reference."""
        yield "1", {name: array[:1] for name, array in self.samples.items()}
        yield "3", {name: array[:3] for name, array in self.samples.items()}
        yield "part", {name: _partly(a[:1], self.references[name]) for name, a in self.samples.items()}


def _partly(sample: np.ndarray[Any, Any], references: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A sample whose first half, along its last axis and the one before, is the first reference's."""
    made = sample.copy()
    place = (0, ..., *(slice(0, (size + 1) // 2) for size in sample.shape[1:][-2:]))
    made[place] = references[0][place[1:]]
    return made


def subject(name: str, nets: Path | None, folder: Path) -> Subject:
    rng = np.random.default_rng(3)
    if name == "digits":
        images, _ = demo.digits()
        references = np.load(demo.references_path())[:5]
        return Subject(demo.model_path(), {"image": references}, {"image": images[:3]})
    if name in LARGE:
        from architectures import images as noise

        if nets is None:
            raise SystemExit(f"{name} needs --nets FOLDER")
        path = nets / f"{name}_torchscript.onnx"
        return Subject(path, {"image": noise(2, 0)}, {"image": clearest(path, noise(12, 1), 3)})
    from runtime_nets import LENGTH, WORDS, export

    tokens = rng.integers(0, WORDS, (8, LENGTH))
    return Subject(export(name, folder), {"tokens": tokens[:5]}, {"tokens": tokens[5:]})


def clearest(model: Path, images: np.ndarray[Any, Any], count: int) -> np.ndarray[Any, Any]:
    """The images whose windows of max-pooling are decided most clearly, by their closest call.

    Where two elements of a window are equal up to rounding, runtimes that round otherwise choose another one,
    and its share of the attributions goes there: that would be measured, and nothing else.
    """
    proto = onnx.load(str(model))
    pools = [node for node in proto.graph.node if node.op_type == "MaxPool"]
    if not pools:
        return images[:count]
    proto.graph.output.extend(onnx.ValueInfoProto(name=node.input[0]) for node in pools)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [node.input[0] for node in pools]
    closest = []
    for image in images:
        found = session.run(names, {session.get_inputs()[0].name: image[None]})
        closest.append(min(map(_closest, pools, found)))
    return images[np.sort(np.argsort(closest)[-count:])]


def _closest(pool: onnx.NodeProto, x: np.ndarray[Any, Any]) -> float:
    """The least distance of a window's two largest elements, by the largest; those below it don't matter."""
    told = {a.name: list(a.ints) for a in pool.attribute}
    (height, width), stride, pads = told["kernel_shape"], told["strides"], told["pads"]
    padded = np.pad(x[0], [(0, 0), (pads[0], pads[2]), (pads[1], pads[3])], constant_values=-np.inf)
    view = np.lib.stride_tricks.sliding_window_view(padded, (height, width), (1, 2))
    flat = np.sort(view[:, :: stride[0], :: stride[1]].reshape(-1, height * width), axis=1)
    flat = flat[flat[:, -1] > 0]  # behind a ReLU, zeros are equal everywhere
    return float((flat[:, -1] - flat[:, -2]).min() / np.abs(x).max())


def named(arrays: Arrays, model: Path) -> Arrays:
    """The only input's array, by the name that the model has for it."""
    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (array,) = arrays.values()
    return {session.get_inputs()[0].name: array}


def incomplete(found: Mapping[str, Any]) -> float:
    """|f(x) - base - sum| by |f(x) - base|, of the worst sample."""
    attributions = next(v for k, v in found.items() if k.endswith("_attributions")).astype(np.float64)
    first = next(iter(found.values()))
    target = np.take_along_axis(first, found["target_index"][:, None], 1)[:, 0].astype(np.float64)
    gap = target - found["base_values"]
    with np.errstate(invalid="ignore"):
        left = np.abs(gap - attributions.reshape(len(gap), -1).sum(1)) / np.abs(gap)
    return float(left.max())


def write_each(path: Path, listed: Sequence[Arrays]) -> None:
    np.savez(path, **{f"{i}/{name}": a for i, arrays in enumerate(listed) for name, a in arrays.items()})


def read_each(path: Path) -> list[Arrays]:
    listed: dict[int, Arrays] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            i, _, name = key.partition("/")
            listed.setdefault(int(i), {})[name] = arrays[key]
    return [*listed.values()]


def cell(runtime: str, file: Path, feeds: list[Arrays], folder: Path) -> dict[str, Any]:
    """What a runtime makes of a file, in a process of its own: arrays, or why not."""
    given, made = folder / "feeds.npz", folder / "found.npz"
    write_each(given, feeds)
    made.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--cell", runtime, str(file), str(given), str(made)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return {"refused": f"more than {PATIENCE} s"}
    if not made.exists():
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"refused": lines[-1].removeprefix(f"{file}: ")[:300]}
    return {"found": read_each(made)}


def run_cell(runtime: str, file: str, given: str, made: str) -> None:
    try:
        found = RUNTIMES[runtime]().run(Path(file), read_each(Path(given)))
    except IrshapError as error:
        raise SystemExit(str(error).replace("\n", " ")) from None
    write_each(Path(made), found)


def installed() -> dict[str, str]:
    found = {}
    for name, engine in RUNTIMES.items():
        try:
            found[name] = engine().version()
        except IrshapError as error:
            print(f"left out: {error}", flush=True)
    return found


def measure(name: str, nets: Path | None, runtimes: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """A row for each profile and runtime."""
    given = subject(name, nets, folder)
    references = next(iter(given.references.values()))
    right: list[Arrays] = []
    for batch, devices in (("auto", PROFILES), ("1", ("any",))):
        # devices of which the same file is made are one row
        forms: dict[bytes, list[str]] = {}
        for device in devices:
            made = irshap.compile(irshap.Model(given.model, batch=batch), references, device=device)
            forms.setdefault(bytes(made), []).append(device)
        for content, alike in forms.items():
            profile, file = " ".join(alike), folder / "explained.onnx"
            file.write_bytes(content)
            kinds, feeds = zip(*((kind, named(f, file)) for kind, f in given.feeds()), strict=True)
            right = right or own_results(file, feeds)
            if batch == "1":
                few = [i for i, kind in enumerate(kinds) if kind != "3"]
                kinds, feeds = (tuple(each[i] for i in few) for each in (kinds, feeds))
            wanted = [r for k, r in zip(("1", "3", "part"), right, strict=True) if k in kinds]
            for runtime in ("onnxruntime", *runtimes):
                slow = name in LARGE and runtime in SLOW
                if slow and (batch, "any" in alike) != ("auto", True):
                    continue
                count = 1 if slow else len(kinds)
                row: dict[str, Any] = {"network": name, "profile": profile, "batch": batch}
                row["runtime"] = runtime
                if runtime == "onnxruntime":
                    told: dict[str, Any] = {"found": own_results(file, feeds)}
                else:
                    told = cell(runtime, file, list(feeds[:count]), folder)
                if "refused" in told:
                    yield row | told
                    continue
                for kind, found, expected in zip(kinds, told["found"], wanted, strict=False):
                    worst = distances(found, expected)[0]
                    row[kind] = {
                        "far": worst.relative if math.isfinite(worst.relative) else None,
                        "output": worst.name,
                        "incomplete": incomplete(found),
                    }
                yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--nets", type=Path)
    parser.add_argument("--rows", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--cell", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        run_cell(*options.cell)
        return
    versions = {"onnxruntime": onnxruntime.__version__, **installed()}
    rows = []
    if options.rows and options.rows.exists():
        rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    for name in options.names or NETWORKS:
        if any(row["network"] == name for row in rows):
            continue
        with tempfile.TemporaryDirectory(prefix="irshap-") as folder:
            made = []
            for row in measure(name, options.nets, [v for v in versions if v != "onnxruntime"], Path(folder)):
                print(json.dumps(row), flush=True)
                made.append(row)
        rows += made
        if options.rows:
            with options.rows.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in made)
    if options.page:
        options.page.write_text(page(rows, versions))


if __name__ == "__main__":
    main()

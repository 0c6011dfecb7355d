"""OpenVINO beside ONNX Runtime: one explanation's time in turns, each with the file that is for it.

    python tests/bench/openvino_speed.py --nets FOLDER --files FOLDER [--references 10] [--seconds 60] NAME

Writes the files first, if they are not there: `--for cpu` and `--for openvino --batch 1`.
Prints the median of OpenVINO's times by ONNX Runtime's, and how far the attributions are apart.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from architectures import images

import irshap

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}


def written(name: str, nets: Path, folder: Path, count: int) -> tuple[Path, Path]:
    found = []
    for device, batch in (("cpu", "auto"), ("openvino", 1)):
        path = folder / f"{name}_{count}_{device}.onnx"
        if not path.exists():
            model = irshap.Model(nets / f"{name}_torchscript.onnx", batch=batch)
            irshap.compile(model, images(count, 0), device=device).save(path)
        found.append(path)
    return found[0], found[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("--nets", type=Path, required=True)
    parser.add_argument("--files", type=Path, required=True)
    parser.add_argument("--references", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    ours, theirs = written(options.name, options.nets, options.files, options.references)
    if not options.seconds:
        return
    session = onnxruntime.InferenceSession(str(ours), providers=["CPUExecutionProvider"])
    compiled = openvino.Core().compile_model(str(theirs), "CPU", SETTINGS)
    feed = {session.get_inputs()[0].name: images(1, 1)}
    names = [o.name for o in session.get_outputs()]
    place = next(i for i, name in enumerate(names) if name.endswith("_attributions"))
    wanted, found = session.run(None, feed)[place], compiled(feed)[place]
    print(f"apart by {np.abs(found - wanted).max() / np.abs(wanted).max():.0e} of the largest")
    ratios, end = [], time.monotonic() + options.seconds
    while time.monotonic() < end:
        start = time.perf_counter()
        session.run(None, feed)
        middle = time.perf_counter()
        compiled(feed)
        ratios.append((time.perf_counter() - middle) / (middle - start))
        taken = middle - start
    told = f"{statistics.median(ratios):.2f} of ONNX Runtime's {taken:.2f} s"
    print(f"{options.name}: {told}, {len(ratios)} pairs")


if __name__ == "__main__":
    main()

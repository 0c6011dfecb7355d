"""What a guard against 0/0 costs in ONNX Runtime: share / (x - r), its divisor guarded in several ways.

    python tests/bench/guards.py [--references 2] [--threads 2] [--seconds 20]

Prints each form's time by that of the sum which `@default` has; the forms take turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx.parser
from op_profile import session_of

PLANES = "64,112,112"
FORMS = {
    "sum": "d = Sub(x, r) e = Add(d, tiny) y = Div(s, e)",
    "none": "d = Sub(x, r) y = Div(s, d)",
    "choice": "d = Sub(x, r) c = Equal(d, zero) e = Where(c, tiny, d) y = Div(s, e)",
    "choice by operands": "c = Equal(x, r) d = Sub(x, r) e = Where(c, tiny, d) y = Div(s, e)",
    "cast": "d = Sub(x, r) c = Equal(d, zero) f = Cast<to = 1>(c) e = Add(d, f) y = Div(s, e)",
    "size": "d = Sub(x, r) a = Abs(d) e = Clip(a, tiny) y = Div(s, e)",
}
"""`size` takes a share without its sign."""


def model(form: str) -> bytes:
    numbers = "float tiny = {1.1754945e-38}, float zero = {0.0}"
    given = f"float[R,{PLANES}] s, float[1,{PLANES}] x, float[R,{PLANES}] r"
    text = f"({given}) => (float[R,{PLANES}] y) <{numbers}> {{ {FORMS[form]} }}"
    made = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> g {text}')
    return bytes(made.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--references", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    shape = [int(size) for size in PLANES.split(",")]
    rows = {"s": options.references, "x": 1, "r": options.references}
    feed = {name: rng.normal(size=(count, *shape)).astype(np.float32) for name, count in rows.items()}
    sessions = {form: session_of(model(form), options.threads) for form in FORMS}
    times: dict[str, list[float]] = {form: [] for form in FORMS}
    for each in sessions.values():
        each.run(None, feed)
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        for form, each in sessions.items():
            start = time.perf_counter()
            each.run(None, feed)
            times[form].append(time.perf_counter() - start)
    for form, found in times.items():
        ratio = statistics.median(a / b for a, b in zip(found, times["sum"], strict=True))
        print(f"{form:20} {ratio:.2f}")


if __name__ == "__main__":
    main()

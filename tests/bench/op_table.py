"""Writes docs/completeness.md: for each op its rule, and how complete and how right that is, as measured.

    PYTHONPATH=tests/helpers:tests/ops python tests/bench/op_table.py

Every number is the worst over the op's samples, over each operand that varies alone and all together, and
over references elsewhere, equal, half equal and 1e-9 to 1e-3 away; it is relative to the summed terms.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from contract import DIFFERENTIABLE, Case, feeds_of, in_precision, run
from test_contract import (
    Maps,
    choices,
    cotangents,
    dot,
    floats_of,
    maps,
    promised,
    references,
)

from irshap.ir.core import Op
from irshap.ir.types import Array
from irshap.ops import OPS
from irshap.ops.composite import Composite
from irshap.ops.families import Bilinear, Elementwise, Linear, NonDifferentiable
from irshap.ops.parts import Shares
from irshap.ops.quantized import StraightThrough

TARGET = Path(__file__).parents[2] / "docs" / "completeness.md"
HEAD = """# Op by op: the rule, and its measured completeness

Written by `tests/bench/op_table.py`.  A rule is complete when sum m (x - x0) = ct (y - y0).  The columns give
the worst relative gap over all samples of the contract test: each operand varying alone and all together,
references elsewhere, equal, half equal and 1e-9 to 1e-3 away.  *Gradient* is the gap between the transposed
Jacobian and central differences, whose own error is about 1e-9.  *RevealCancel*: whether the op has a form
for `rule=reveal-cancel`.

| op | rule | float64 | float32 | gradient | RevealCancel |
| --- | --- | --- | --- | --- | --- |
"""
NOT_A_RULE = ("dropout", "hold", "pullback", "tap", "input", "constant", "opaque", "dims", "full")


def kind(cls: type[Op]) -> str:
    """The rule of an op, in a few words."""
    for family, words in (
        (NonDifferentiable, "refused"),
        (Linear, "adjoint"),
        (Bilinear, "adjoint at midpoints"),
        (Composite, "from its parts"),
        (Elementwise, "chord"),
        (StraightThrough, "of what it steps around"),
    ):
        if issubclass(cls, family):
            return words
    return "its own secant"


def gap(case: Case, found: Maps, arrays: Any, other: dict[int, Array]) -> float | None:
    """|sum m (x - x0) - ct (y - y0)|, relative to the terms; None where the op itself overflows."""
    world0 = [other.get(k, a) for k, a in enumerate(arrays)]
    y, y0 = floats_of(case.explained(arrays)), floats_of(case.explained(world0))
    if not all(np.isfinite(v).all() for v in (*y, *y0)):
        return None
    cts = cotangents(case, arrays)
    m = run(found.secant, feeds_of(x=arrays, ct=cts) | {f"r{k}": a for k, a in other.items()}, case.binding)
    wide = [[a.astype(np.float64) for a in side] for side in (y, y0)]
    expected, _ = dot(cts, [a - b for a, b in zip(*wide, strict=True)])
    delta = [arrays[k].astype(np.float64) - a for k, a in other.items()]
    got, _ = dot([m[f"m{k}"] for k in other], delta)
    scale = sum(dot([np.abs(u) for u in cts], [np.abs(v) for v in side])[0] for side in wide)
    return abs(expected - got) / scale if scale else 0.0


def slope_gap(case: Case, found: Maps, wrt: tuple[int, ...]) -> float:
    """|<J'u, v> - <u, Jv>|, with Jv by central differences, relative to the terms."""
    arrays, rng, h = case.sample.operands, np.random.default_rng(3), 1e-6
    direction = {k: rng.standard_normal(arrays[k].shape) for k in wrt}
    ends = [
        floats_of(
            case.explained([a + s * direction[k] if k in direction else a for k, a in enumerate(arrays)])
        )
        for s in (h, -h)
    ]
    cts = cotangents(case, arrays)
    expected, scale = dot(cts, [(a.astype(np.float64) - b) / (2 * h) for a, b in zip(*ends, strict=True)])
    pulled = run(found.derivative, feeds_of(x=arrays, ct=cts), case.binding)
    got, size = dot([pulled[f"m{k}"] for k in wrt], [direction[k] for k in wrt])
    return abs(expected - got) / (scale + size) if scale + size else 0.0


def measured() -> dict[str, dict[str, float]]:
    """The worst gaps of each op."""
    worst: dict[str, dict[str, float]] = {}
    for i, parameter in enumerate(DIFFERENTIABLE):
        case: Case = parameter.values[0]
        row = worst.setdefault(case.op.mnemonic, {})
        for wrt in choices(case):
            if not promised(case, wrt):
                continue
            for precision in ("f64", "f32"):
                found = maps(i, wrt, precision)
                exact, arrays = in_precision(case, precision)
                assert found is not None
                for _, other in references(case, wrt):
                    rounded = {k: a.astype(arrays[k].dtype) for k, a in other.items()}
                    value = gap(exact, found, arrays, rounded)
                    wide = all(arrays[k].dtype == np.float64 for k in wrt)
                    column = precision if wide else "f32"
                    row[column] = max(row.get(column, 0.0), value or 0.0)
            found = maps(i, wrt, "f64")
            assert found is not None
            if all(case.sample.operands[k].dtype == np.float64 for k in wrt):
                row["slope"] = max(row.get("slope", 0.0), slope_gap(case, found, wrt))
    return worst


def main() -> None:
    worst = measured()
    lines = []
    for name, cls in sorted(OPS.items()):
        if name in NOT_A_RULE:
            continue
        row = worst.get(name, {})
        numbers = [f"{row[key]:.0e}" if key in row else "" for key in ("f64", "f32", "slope")]
        reveals = cls.nonnegative or issubclass(cls, Shares) or cls.linear_part is not Op.linear_part
        reveal = "" if not row else "yes" if reveals else "refused"
        lines.append(f"| {name} | {kind(cls)} | {' | '.join(numbers)} | {reveal} |")
    TARGET.write_text(HEAD + "\n".join(lines) + "\n")
    largest = max(row.get("f64", 0.0) for row in worst.values())
    ruled = sum(map(bool, worst.values()))
    print(f"{len(lines)} ops, {ruled} with a rule; largest gap in float64 {largest:.1e}: {TARGET.name}")
    sys.exit(largest > 1e-10)


if __name__ == "__main__":
    main()

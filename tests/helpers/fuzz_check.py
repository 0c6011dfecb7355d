"""What must hold for a random model: exact attributions under every pipeline, or a refusal with a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flat
import numpy as np
from fuzz_graphs import Case, generate

from irshap.contract import Metadata
from irshap.errors import UserError
from irshap.ir.evaluator import evaluate
from irshap.pipeline.named import PIPELINES

__all__ = ["Outcome", "check", "check_case", "smallest"]

COMPLETE, EQUAL = 1e-9, 1e-9
"""Allowed in float64, relative to the sum of |attributions|."""
SINGLE = 2e-3
"""Allowed in float32, relative to the sum of |attributions| and the outputs: values up to 200 cancel."""


@dataclass(frozen=True)
class Outcome:
    """How a seed ended: "exact", "refused", "skipped" (no model), or with a fault: "wrong", "crashed"."""

    seed: int
    kind: str
    detail: str = ""

    @property
    def fault(self) -> bool:
        return self.kind in ("wrong", "crashed")


class Wrong(Exception):
    """Attributions that aren't what they must be."""


def check(seed: int, size: int | None = None, *, thorough: bool = False) -> Outcome:
    """Generates, compiles, runs and compares.  `thorough` also asks the oracle and takes differences."""
    try:
        case = generate(seed, size)
    except Exception as error:
        return Outcome(seed, "crashed", f"the generator: {type(error).__name__}: {error}")
    if case is None:
        return Outcome(seed, "skipped")
    try:
        return Outcome(seed, *check_case(case, thorough))
    except Wrong as error:
        return Outcome(seed, "wrong", str(error))
    except Exception as error:  # whatever it is, it is a fault that the report names
        return Outcome(seed, "crashed", f"{type(error).__name__}: {error}"[:2000])


def smallest(seed: int, *, thorough: bool = False) -> tuple[int, Outcome]:
    """The least number of moves after which the seed's model fails."""
    for size in range(1, 13):
        outcome = check(seed, size, thorough=thorough)
        if outcome.fault:
            return size, outcome
    return 12, check(seed, thorough=thorough)


def check_case(case: Case, thorough: bool) -> tuple[str, str]:
    """The kind of outcome and its detail; raises Wrong, or whatever irshap raises that is no refusal."""
    try:
        compiled = flat.compile(case.model, case.references, **case.arguments)
    except UserError as refusal:
        if not str(refusal.what).strip():
            raise Wrong("refused without a reason") from refusal
        return "refused", f"{'' if case.jumps else 'unexpected: '}{refusal}"
    raw = compiled.explainer()(case.inputs).raw
    naive, default = (_in_float64(case, name) for name in ("naive", "default"))
    scale = _size(naive)
    lost = any(p.key == Metadata.GAPS for p in compiled.model.metadata_props)
    for name, found in (("naive", naive), ("default", default)):
        if not lost and not np.all(
            np.abs(found["completeness_error"]) <= COMPLETE * (scale + _rounding(found))
        ):
            worst = np.abs(found["completeness_error"]).max()
            raise Wrong(f"{name} misses f(x) - base by {worst:.3g} of {scale.max():.3g} in float64")
    size = (scale + _rounding(naive)).max()
    for name in (n for n in naive if n.endswith("_attributions")):
        difference = np.abs(naive[name] - default[name]).max(initial=0.0)
        if not difference <= EQUAL * size:
            raise Wrong(f"{name}: naive and default differ by {difference:.3g} of {scale.max():.3g}")
        if not np.isfinite(raw[name]).all():
            raise Wrong(f"{name} isn't finite in float32")
    if not lost:
        _check_sums_in_float32(raw, case)
    if thorough and not case.arguments:
        _compare_with_oracle(case, default, scale)
    return "exact", ""


def _in_float64(case: Case, name: str) -> dict[str, Any]:
    weights = case.arguments.get("weights")
    options = {k: v for k, v in case.arguments.items() if k != "weights"}
    passes = PIPELINES[name].replace("lift,", "lift,widen,").removesuffix(",lower")
    # models this small need no loop over references; like this they get one, behind what goes together
    passes = passes.replace("stream{", "stream{chunk=1, together=2, ")
    text = flat.pipeline_text(
        passes=passes, emit="completeness_error", weighted=weights is not None, **options
    )
    graph = flat.run_passes(text, case.model, case.references, weights)
    feeds = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in case.inputs.items()}
    return evaluate(graph, feeds)


def _check_sums_in_float32(raw: dict[str, Any], case: Case) -> None:
    index, scale = raw["target_index"], _size(raw)
    rows = raw[case.model.graph.output[0].name].reshape(len(index), -1).astype(np.float64)
    prediction = np.take_along_axis(rows, index.reshape(len(index), -1), axis=1).reshape(index.shape)
    parts = [a for n, a in raw.items() if n.endswith("_attributions")]
    total = sum(p.sum(axis=tuple(range(index.ndim, p.ndim)), dtype=np.float64) for p in parts)
    error = np.abs(prediction - raw["base_values"] - total)
    allowed = SINGLE * (scale + np.abs(prediction) + np.abs(raw["base_values"]))
    if any("Normalization" in kind for kind in case.kinds):
        # a constant row comes out as its own rounding, times eps^(-1/2) of the norm (rules.md section 6)
        allowed = allowed + np.finfo(np.float32).eps / np.sqrt(1e-5)
    if not np.all(error <= allowed):
        raise Wrong(f"float32 misses f(x) - base by {error.max():.3g} of {scale.max():.3g}")


def _size(raw: dict[str, Any]) -> Any:
    """The sum of |attributions| of each sample, and of each class where there are several."""
    axes = raw["target_index"].ndim
    parts = [np.abs(a) for n, a in raw.items() if n.endswith("_attributions")]
    return sum(p.sum(axis=tuple(range(axes, p.ndim))) for p in parts)


def _rounding(raw: dict[str, Any]) -> Any:
    """The outputs round, too, however small their difference."""
    return np.abs(raw["base_values"]) * 1e-3


def _compare_with_oracle(case: Case, found: dict[str, Any], scale: Any) -> None:
    from onnx.reference.op_run import RuntimeImplementationError
    from two_world import Refused, explain

    lookups = [n.output[0] for n in case.model.graph.node if n.op_type == "Gather" and "ids" in n.input]
    floats = [n for n in case.inputs if n != "ids"]
    try:
        if lookups:
            # the oracle attributes either to inputs or to values inside
            return
        expected = explain(case.model, case.inputs, case.references).values
    except (Refused, RuntimeImplementationError):
        return
    for name in floats:
        if f"{name}_attributions" not in found:
            continue
        difference = np.abs(expected[name] - found[f"{name}_attributions"]).max(initial=0.0)
        if not difference <= 1e-6 * max(scale.max(), 1e-6):
            raise Wrong(f"{name}: differs from the oracle by {difference:.3g} of {scale.max():.3g}")

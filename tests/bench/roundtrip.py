"""Lift and lower without passes, on every model that the onnx wheel ships and ONNX Runtime runs on a CPU.

    python tests/bench/roundtrip.py [--batch keep,auto] [--kind light,node,...] [--match TEXT] [--json FILE]

The reference is ONNX Runtime on the original model; the lowered one must give the same outputs for the same
inputs: element types, shapes, and numbers within a few units in the last place.  Each model ends as passed,
skipped (with the reason why there is nothing to compare) or failed.  Exits with 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from irshap.ir.core import Graph
from irshap.ir.dims import equal
from irshap.ir.types import TensorType
from irshap.lowering import lift, lower
from irshap.lowering.files.load import inline_functions
from irshap.lowering.files.protos import first_line, on_outline
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.lowering.lift import _Lifter, _Wanted
from irshap.ops.program import Opaque

# ONNX Runtime then also runs opsets that it calls under development, as far as it knows their ops.
os.environ["ALLOW_RELEASED_ONNX_OPSET_ONLY"] = "0"

KINDS = ("light", "node", "simple", "pytorch-operator", "pytorch-converted")
BATCHES = ("keep", "auto")
OLDEST_OPSET = 7
DEVIATING = {
    "test_attention_4d_with_past_and_present_qk_matmul_bias_[34]d_mask_causal": "ONNX Runtime's scores of "
    "masked keys are the lowest number, those of the standard -inf",
}
"""Models for which ONNX Runtime is no reference, and why."""

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"

# Largest error, relative to an output's largest magnitude: lifting may split an op in two (Sum into Adds),
# and ONNX Runtime may then fuse other kernels.
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "float16": 2e-3, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Case:
    """A model and the inputs to run it on."""

    name: str
    kind: str
    load: Callable[[], onnx.ModelProto]
    feeds: Callable[[onnx.ModelProto], list[dict[str, Any]]]
    shipped: Path | None = None
    """The first output for the first inputs, as the wheel has it."""


@dataclass(frozen=True)
class Result:
    """What became of one case: "passed", "skipped" or "failed", and why."""

    name: str
    kind: str
    batch: str
    outcome: str
    reason: str = ""
    exact: bool = False
    modeled: int = 0
    opaque: int = 0
    seconds: float = 0.0


class Skip(Exception):
    """Why there is nothing to compare."""


def cases(kinds: Sequence[str] = KINDS) -> Iterator[Case]:
    """All cases of these kinds."""
    for kind in kinds:
        yield from _light() if kind == "light" else _backend(kind)


def _light() -> Iterator[Case]:
    for path in sorted((DATA / "light").glob("*.onnx")):
        shipped = path.with_name(f"{path.stem}_output_0.pb")
        yield Case(path.stem, "light", lambda path=path: onnx.load(path), _ramp, shipped)


def _ramp(model: onnx.ModelProto) -> list[dict[str, Any]]:
    """The inputs that the wheel's *_output_0.pb belong to."""
    known = {t.name for t in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in known:
            shape = [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
            size = int(np.prod(shape))
            feeds[value.name] = (np.arange(size).reshape(shape) / size).astype(np.float32)
    return [feeds]


def _backend(kind: str) -> Iterator[Case]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the node tests overflows on purpose
        found = load_model_tests(kind=kind)
    for test in sorted(found, key=lambda t: t.name):
        if test.model is not None:

            def feeds(model: onnx.ModelProto, test: Any = test) -> list[dict[str, Any]]:
                names = [v.name for v in model.graph.input]
                sets = [[_plain(item) for item in inputs] for inputs, _ in test.data_sets]
                return [dict(zip(names, inputs, strict=False)) for inputs in sets]

            yield Case(test.name, kind, lambda test=test: test.model, feeds)
        else:
            folder = Path(test.model_dir)
            yield Case(
                test.name,
                kind,
                lambda folder=folder: onnx.load(folder / "model.onnx"),
                lambda model, folder=folder: [
                    _read_feeds(model, d) for d in sorted(folder.glob("test_data_set*"))
                ],
            )


def _plain(item: Any) -> Any:
    if isinstance(item, onnx.TensorProto):
        return numpy_helper.to_array(item)
    return np.asarray(item) if isinstance(item, np.generic) else item


def _read_feeds(model: onnx.ModelProto, folder: Path) -> dict[str, Any]:
    feeds: dict[str, Any] = {}
    for i, value in enumerate(model.graph.input):
        path = folder / f"input_{i}.pb"
        if not path.exists():
            continue
        if value.type.HasField("sequence_type"):
            sequence = onnx.SequenceProto.FromString(path.read_bytes())
            feeds[value.name] = numpy_helper.to_list(sequence)
        elif value.type.HasField("optional_type"):
            feeds[value.name] = numpy_helper.to_optional(onnx.OptionalProto.FromString(path.read_bytes()))
        else:
            feeds[value.name] = numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes()))
    return feeds


def check(case: Case, batches: Sequence[str] = BATCHES, opset: int = 0) -> list[Result]:
    """Round trips of one case, one for each way to treat the batch, written at `opset` or above."""
    try:
        model, sets, expected = _reference(case)
    except Skip as skip:
        return [Result(case.name, case.kind, batch, "skipped", str(skip)) for batch in batches]
    results = []
    for batch in batches:
        start = time.perf_counter()
        try:
            reason, facts = _round_trip(case, model, sets, expected, batch, opset)
        except Exception as error:  # whatever goes wrong is the result
            reason, facts = f"{type(error).__name__}: {first_line(error)}", {}
        outcome = "failed" if reason else "passed"
        if re.search(r'Identity, "", -1\).* Error No Op', reason):
            # this ONNX Runtime runs a few ops of the opset, but not the one that gives a tensor another name
            outcome = "skipped"
        taken = round(time.perf_counter() - start, 4)
        results.append(Result(case.name, case.kind, batch, outcome, reason, seconds=taken, **facts))
    return results


def _reference(case: Case) -> tuple[onnx.ModelProto, list[dict[str, Any]], list[list[Any]]]:
    if why := next((why for name, why in DEVIATING.items() if re.fullmatch(name, case.name)), ""):
        raise Skip(why)
    model = case.load()
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=OLDEST_OPSET)
    if opset < OLDEST_OPSET:
        raise Skip(f"opset {opset} is older than {OLDEST_OPSET}")
    try:
        session = _session(model)
        sets = case.feeds(model)
        return model, sets, [session.run(feeds) for feeds in sets]
    except RuntimeRefusal as error:
        raise Skip(f"ONNX Runtime doesn't run the original: {error}") from error


def _session(model: onnx.ModelProto) -> Session:
    """A session, also of a model stamped with an IR version that this ONNX Runtime refuses for that alone."""
    try:
        return Session(model)
    except RuntimeRefusal as error:
        found = re.search(r"max supported IR version: (\d+)", str(error))
        if found is None:
            raise
        model.ir_version = int(found[1])
        return Session(model)


def _round_trip(
    case: Case,
    model: onnx.ModelProto,
    sets: list[dict[str, Any]],
    expected: list[list[Any]],
    batch: str,
    opset: int,
) -> tuple[str, dict[str, Any]]:
    """Why the round trip isn't faithful, or "", and facts about it."""
    graph = lift(model, batch=batch)
    lowered = lower(graph, opset=opset)
    opaque = sum(isinstance(n.op, Opaque) for n in graph.nodes)
    facts = {"opaque": opaque, "modeled": len(graph.nodes) - opaque}
    for before, after in (
        (model.graph.input, lowered.graph.input),
        (model.graph.output, lowered.graph.output),
    ):
        constants = {t.name for t in model.graph.initializer}
        wanted = [v.name for v in before if before is not model.graph.input or v.name not in constants]
        if [v.name for v in after][: len(wanted)] != wanted:
            return f"names {[v.name for v in after]} instead of {wanted}", facts
    if reason := _contradiction(model, graph):
        return reason, facts
    if _fully_valid(model):
        onnx.checker.check_model(lowered, full_check=True)
    session = _session(lowered)
    exact = True
    for feeds, wanted_values in zip(sets, expected, strict=True):
        found = session.run({k: v for k, v in feeds.items() if k in session.inputs})
        for name, a, b in zip(session.outputs, wanted_values, found, strict=True):
            if difference(a, b, tolerant=False):
                exact = False
                if reason := difference(a, b):
                    if _is_random(model, feeds) and not difference(a, b, numbers=False):
                        continue
                    return f"output {name!r}: {reason}", facts
        if case.shipped is not None and feeds is sets[0]:
            # made by another runtime: its own tests allow as much
            shipped = numpy_helper.to_array(onnx.TensorProto.FromString(case.shipped.read_bytes()))
            if found[0].shape != shipped.shape or not np.allclose(found[0], shipped, rtol=1e-3, atol=1e-4):
                return "isn't the output that the wheel ships", facts
    return "", {**facts, "exact": exact}


def _contradiction(model: onnx.ModelProto, graph: Graph) -> str:
    """Where the IR's types and onnx's shape inference say different things of a tensor; "" if nowhere."""
    # with values propagated, as irshap doesn't ask of models that it doesn't know
    propagated = partial(onnx.shape_inference.infer_shapes, data_prop=True)
    inferred = on_outline(propagated, inline_functions(model)).graph
    lifter = _Lifter(model, model, _Wanted())
    declared = {v.name: lifter._type(v.type) for v in inferred.value_info}
    for value in graph.values():
        kind = declared.get(value.name or "")
        if isinstance(kind, TensorType) and isinstance(value.type, TensorType) and _differ(kind, value.type):
            return f"{value!r} is {kind} by onnx"
    return ""


def _differ(a: TensorType, b: TensorType) -> bool:
    if a.dtype is not b.dtype:
        return True
    if a.shape is None or b.shape is None:
        return False
    return len(a.shape) != len(b.shape) or any(
        equal(x, y) is False for x, y in zip(a.shape, b.shape, strict=True)
    )


def _fully_valid(model: onnx.ModelProto) -> bool:
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception:  # shape inference raises errors of several kinds
        return False
    return True


def _is_random(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> bool:
    """Whether the original disagrees with itself: it draws random numbers without a seed."""
    first, second = (Session(model).run(feeds) for _ in range(2))
    return any(difference(a, b) for a, b in zip(first, second, strict=True))


def difference(a: Any, b: Any, *, numbers: bool = True, tolerant: bool = True) -> str:
    """How two values of an output differ in kind, element type, shape or numbers; "" if they don't."""
    if isinstance(a, (list, tuple)):
        if not isinstance(b, (list, tuple)) or len(a) != len(b):
            return "a sequence of another length"
        return next((d for x, y in zip(a, b, strict=True) if (d := difference(x, y))), "")
    if a is None or b is None or isinstance(a, dict):
        return "" if type(a) is type(b) and a == b else "another value"
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype:
        return f"{b.dtype} instead of {a.dtype}"
    if a.shape != b.shape:
        return f"shape {b.shape} instead of {a.shape}"
    if not numbers or a.tobytes() == b.tobytes():
        return ""
    tolerance = TOLERANCE.get(a.dtype.name)
    if a.dtype.kind in "OUS" or tolerance is None or not tolerant:
        same = a == b
        return "" if np.all(same | ((a != a) & (b != b))) else "other elements"
    wide, other = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(wide)
    scale = float(np.abs(wide[finite]).max(initial=0.0))
    near = np.allclose(other, wide, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    return "" if near else f"differs by {float(np.nanmax(np.abs(wide - other))):.3g} of {scale:.3g}"


def chosen(case: Case, fraction: float) -> bool:
    """Whether a case belongs to a fixed fraction of all; the light models always do."""
    return case.kind == "light" or zlib.crc32(case.name.encode()) / 2**32 < fraction


def table(results: Sequence[Result]) -> str:
    """Counts for each kind and batch, then each reason with its count."""
    lines = [
        f"{'kind':18} {'batch':5} {'passed':>7} {'exact':>7} {'skipped':>8} {'failed':>7} {'seconds':>8}"
    ]
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.kind, result.batch), []).append(result)
        groups.setdefault(("total", result.batch), []).append(result)
    for (kind, batch), group in sorted(groups.items(), key=lambda item: (item[0][0] == "total", item[0])):
        count = Counter(r.outcome for r in group)
        exact, seconds = sum(r.exact for r in group), sum(r.seconds for r in group)
        numbers = f"{count['passed']:7} {exact:7} {count['skipped']:8} {count['failed']:7} {seconds:8.1f}"
        lines.append(f"{kind:18} {batch:5} {numbers}")
    for outcome in ("skipped", "failed"):
        reasons = Counter(r.reason for r in results if r.outcome == outcome)
        for reason, count in reasons.most_common():
            example = next(r.name for r in results if r.reason == reason)
            lines.append(f"{outcome} {count:4}  {reason}  [{example}]")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", default=",".join(BATCHES))
    parser.add_argument("--kind", default=",".join(KINDS))
    parser.add_argument("--opset", type=int, default=0, help="write this opset or above")
    parser.add_argument("--match", default="", help="only cases whose name contains this")
    parser.add_argument("--json", type=Path, help="also write every result there")
    options = parser.parse_args()
    results: list[Result] = []
    for case in cases(options.kind.split(",")):
        if options.match in case.name:
            results += check(case, options.batch.split(","), options.opset)
            if sys.stderr.isatty():
                print(f"\r{len(results)} {case.name[:60]:60}", end="", file=sys.stderr, flush=True)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    return int(any(r.outcome == "failed" for r in results))


if __name__ == "__main__":
    sys.exit(main())

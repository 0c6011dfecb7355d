"""Measures one file, in a process of its own: python -m zoo_models.measure FILE.onnx INPUTS.npz

Prints one JSON object.  What irshap gives is compared with the original model as ONNX Runtime runs it: f of
the samples, and f of the references with each held input at the sample's value.
"""

from __future__ import annotations

import gc
import json
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

import irshap
from irshap import contract
from irshap.errors import UserError
from zoo_models.case import Arrays, Inputs, rows

__all__ = ["EXACT", "PREDICTION", "measure"]

Row = dict[str, Any]

EXACT = 1e-3
"""The completeness error, relative to the largest |f(x) - base|, up to which a model counts as complete."""

PREDICTION = {2: 2e-3, 4: 1e-4, 8: 1e-4}
"""How far the compiled file's prediction may be from the original's, relative to the largest number in it, by
the bytes of an element: ONNX Runtime computes float16 with other roundings where it fuses otherwise.  Or
twice as far as its own optimizations move the original's."""

ROUNDING = 32
"""A difference of so many units in the last place of f says nothing of completeness."""

LARGE = 2**21
"""Elements of a sample from which on samples are run one by one."""

STEPS = 1.25 / 255
"""Twice so much, relatively, a prediction in steps of 8 bits may be off where activations are rounded."""

SLIGHT, TURNS = 1e-5, 3
"""How much, relatively and how often, inputs are changed to see what rounding activations does."""

RUNS, LEAST = 3, 0.2
"""Each time is the least of so many runs, and of runs for so many seconds."""

METHOD = "deeplift{emit=completeness_error}"


class Original:
    """A model as ONNX Runtime runs it, sample by sample where it takes no more at once.

    Numbers are compared with those of nodes as they are, or of optimized ones, whichever are nearer: ONNX
    Runtime's folding of constants alone moves BiT's predictions by 3e-3 (`rounding` in its row), and what
    lifting folds and ONNX Runtime fuses in the explained file moves with one or the other.
    """

    def __init__(self, file: Path, inputs: Inputs, *, optimized: bool = False) -> None:
        self.session, self.axes = _session(file, optimized), inputs.axes
        self.whole = inputs.told.get("batch") == "none"
        self.outputs = [v.name for v in self.session.get_outputs()]
        self.one = (
            self.whole
            or inputs.told.get("alone", False)
            or _are_large(inputs)
            or any(
                self.axes.get(v.name, 0) == 0 and v.shape and v.shape[0] == 1
                for v in self.session.get_inputs()
            )
        )

    def run(self, feeds: Arrays) -> dict[str, Any]:
        """Its outputs, for any number of samples; of maps from classes to numbers, the numbers."""
        if not self.one:
            try:
                found = self.session.run(None, dict(feeds))
                return dict(zip(self.outputs, map(_numbers, found), strict=True))
            except Exception:  # an inner shape may be fixed to a batch of 1
                self.one = True
        single = [self._alone(row) for row in rows(feeds, self.axes)]
        parts = [map(_numbers, self.session.run(None, row)) for row in single]
        joined = np.stack if self.whole else _joined
        return dict(zip(self.outputs, map(joined, zip(*parts, strict=True)), strict=True))

    def _alone(self, row: Arrays) -> dict[str, Any]:
        """A batch of 1 as the model takes it: without that axis where its whole input is one sample."""
        if not self.whole:
            return dict(row)
        return {n: a if self.axes.get(n, 0) is None else a[0] for n, a in row.items()}


def _numbers(output: Any) -> Any:
    if isinstance(output, list) and output and isinstance(output[0], dict):
        return np.array([list(each.values()) for each in output])
    return output


def _joined(parts: Sequence[Any]) -> Any:
    """What single samples give, together: on an axis of their own where a sample has none."""
    first = np.shape(parts[0])
    return np.concatenate(parts) if first and first[0] == 1 else np.stack(parts)


def measure(file: Path, inputs: Inputs) -> Row:
    """The row of a file: `result` and its numbers.

    complete: attributions sum to f(x) - base; reported: with what completeness_error says they do (models
    that round activations); inexact: they don't; wrong: the compiled file's own predictions are off; refused:
    with a reason; crashed; unusable: ONNX Runtime doesn't run the original on these inputs.
    """
    row: Row = {"nodes": len(onnx.load(file, load_external_data=False).graph.node)}
    try:
        original = Original(file, inputs)
        y = original.run(inputs.samples)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        return row | {"result": "unusable", "message": _line(error)}
    if not all(np.isfinite(a).all() for a in y.values() if a.dtype.kind == "f"):
        return row | {"result": "unusable", "message": "its outputs aren't finite"}
    start = time.perf_counter()
    try:
        compiled, references = _compiled(file, inputs)
    except UserError as error:
        return row | {"result": "refused", "kind": type(error).__name__, "message": str(error)}
    except Exception as error:  # anything but a refusal is irshap's fault
        return row | {"result": "crashed"} | _fault(error)
    row["compile_seconds"] = round(time.perf_counter() - start, 2)
    row["explained_nodes"] = len(compiled.model.graph.node)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explained.onnx"
        try:
            compiled.save(path)
            metadata = {p.key: p.value for p in compiled.model.metadata_props}
            # who serves the file hasn't compiled it in the same process; graphs hold themselves in circles
            del compiled
            gc.collect()
            explained = _session(path)
            # of layers on rounded numbers ONNX Runtime makes kernels that round some the other way
            rounds = inputs.told.get("quantized", False)
            found = _explained(_session(path, optimized=False) if rounds else explained, inputs)
        except Exception as error:
            return row | {"result": "crashed"} | _fault(error)
        # a tensor behind maps from classes to numbers is none of the model's outputs
        output = metadata[contract.Metadata.EXPLAINED_OUTPUT] or next(
            name for name, array in y.items() if array.dtype.kind == "f"
        )
        served = Original(file, inputs, optimized=True)
        optimized = served.run(inputs.samples)
        rounding = _off(_flat(optimized[output]), _flat(y[output]))
        compared = (original, y)
        if rounds:
            rounding = max(rounding, STEPS, _moved(original, inputs, output, y))
        else:
            runs = [compared, (served, optimized)]
            compared = min(runs, key=lambda run: _off(_flat(found[output]), _flat(run[1][output])))
        row |= _compared(*compared, output, found, inputs, references, rounding)
        if "plain" in inputs.told:
            row |= _beside_plain(file.with_name(inputs.told["plain"]), inputs, found)
        row |= _times(served, explained, inputs, references)
    return row


def _compiled(file: Path, inputs: Inputs) -> tuple[Any, dict[str, Any]]:
    """The compiled model, and the references that it took: held inputs take none.

    Where a refusal says to give an input's value (a sampling rate that chooses a branch), it is given.
    """
    given: dict[str, object] = {}
    references, told = dict(inputs.references), inputs.told
    options: dict[str, Any] = {"method": METHOD}
    if "output" in told:
        options["target"] = irshap.Target(output=told["output"])
    if "quantized" in told:
        options["quantized"] = told["quantized"]
    while True:
        try:
            model = irshap.Model(file, set=given, batch=told.get("batch", "auto"))
            return irshap.compile(model, references or None, **options), references
        except irshap.errors.ReferencesError as error:
            held = [n for n in references if f"input {n!r} takes no references" in str(error)]
            if not held:
                raise
            references = {n: a for n, a in references.items() if n not in held}
        except UserError as error:
            hint = re.search(r"set (\w+)=VALUE", str(error))
            if hint is None or hint[1] in given:
                raise
            given[hint[1]] = inputs.samples[hint[1]].reshape(-1)[0].item()


def _explained(session: Any, inputs: Inputs) -> dict[str, Any]:
    """What the compiled file gives for the samples: at once, or one by one where each is a video."""
    names = [v.name for v in session.get_outputs()]
    calls = inputs.rows() if _are_large(inputs) else [inputs.samples]
    found = [session.run(None, _taken(session, feeds)) for feeds in calls]
    if len(found) == 1:
        return dict(zip(names, map(_numbers, found[0]), strict=True))
    return {n: np.concatenate(parts) for n, *parts in zip(names, *found, strict=True)}


def _are_large(inputs: Inputs) -> bool:
    return sum(np.size(a) for a in next(inputs.rows()).values()) >= LARGE


def _taken(session: Any, feeds: Arrays) -> dict[str, Any]:
    names = {v.name for v in session.get_inputs()}
    return {n: a for n, a in feeds.items() if n in names}


def _off(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def _compared(
    original: Original,
    y: Arrays,
    output: str,
    found: Arrays,
    inputs: Inputs,
    references: Arrays,
    rounding: float,
) -> Row:
    flat = _flat(y[output])
    index = found[contract.TARGET_INDEX]
    fx = np.take_along_axis(flat, index[:, None], 1)[:, 0]
    attributed = {name: a for o, a in found.items() if (name := contract.attributed(o)) is not None}
    each = zip(index.tolist(), inputs.rows(), strict=True)
    base = np.array([_base(original, output, c, attributed, row, references) for c, row in each])
    total = sum(_flat(a).sum(1) for a in attributed.values())
    scale = float(np.abs(fx - base).max())
    own = np.asarray(found[contract.BASE_VALUES], np.float64)
    largest = max(float(np.abs(flat).max()), 1e-30)
    left, gap = fx - base - total, {}
    if reported := inputs.told.get("quantized", False):
        # a rounding that turns over is none of the attributions' affair, but one of predictions
        left = np.take_along_axis(_flat(found[output]), index[:, None], 1)[:, 0] - own - total
        gap = {"gap": float(np.abs(left).max() / scale)}
        left = left - found[contract.COMPLETENESS_ERROR]
    numbers = gap | {
        "error": float(np.abs(left).max() / scale),
        "base_off": float(np.abs(own - base).max() / scale),
        "prediction_off": _off(_flat(found[output]), flat),
        "rounding": rounding,
        "difference": scale,
        "held": sorted(set(inputs.samples) - set(attributed)),
    }
    # near ties may turn over by a rounding
    allowed = max(PREDICTION[y[output].dtype.itemsize], 2 * rounding)
    best = fx >= flat.max(1) - allowed * largest
    within = numbers["prediction_off"] <= allowed
    if reported:
        within &= numbers["base_off"] * scale <= allowed * largest
    if not (within and best.all()):
        return {"result": "wrong", **numbers}
    if scale <= ROUNDING * np.finfo(y[output].dtype).eps * float(np.abs(fx).max()):
        return {"result": "unusable", "message": "f(x) - base is no more than the rounding of f", **numbers}
    good = "reported" if reported else "complete"
    return {"result": good if numbers["error"] <= EXACT else "inexact", **numbers}


def _moved(original: Original, inputs: Inputs, output: str, y: Arrays) -> float:
    """How far a prediction moves with the roundings that a slight change of inputs turns over."""
    rng = np.random.default_rng(0)
    moved = 0.0
    for _ in range(TURNS):
        noisy = {
            n: (a * (1 + SLIGHT * rng.standard_normal(a.shape))).astype(a.dtype) if a.dtype.kind == "f" else a
            for n, a in inputs.samples.items()
        }
        moved = max(moved, _off(_flat(original.run(noisy)[output]), _flat(y[output])))
    return moved


def _beside_plain(file: Path, inputs: Inputs, found: Arrays) -> Row:
    """How far attributions are from those of the plain file, relative to the largest of an input's."""
    told = {k: v for k, v in inputs.told.items() if k not in ("quantized", "plain")}
    compiled, _ = _compiled(file, replace(inputs, told=told))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "explained.onnx"
        compiled.save(path)
        session = _session(path)
        given = session.run(None, _taken(session, inputs.samples))
    names = [v.name for v in session.get_outputs()]
    expected = {n: a for n, a in zip(names, given, strict=True) if contract.attributed(n) is not None}
    same = found[contract.TARGET_INDEX] == given[names.index(contract.TARGET_INDEX)]
    mine = [a for n, a in found.items() if contract.attributed(n) is not None]
    other = {"other_classes": int(np.sum(~same))}  # which are explained instead
    if not same.any():
        return other
    return other | {
        "beside_plain": max(map(_off, (a[same] for a in mine), (b[same] for b in expected.values())))
    }


def _base(
    original: Original, output: str, target: int, attributed: Arrays, row: Arrays, references: Arrays
) -> float:
    """The mean over references of the explained number; what isn't attributed is the sample's."""
    feeds = _beside(row, {n: references[n] for n in attributed}, original.axes)
    return float(_flat(original.run(feeds)[output])[:, target].mean())


def _beside(row: Arrays, references: Arrays, axes: Mapping[str, int | None]) -> dict[str, Any]:
    """Inputs for as many rows as there are references: theirs, and else the sample's."""
    count = len(next(iter(references.values()), [()]))
    feeds = dict(row)
    for name, array in row.items():
        if (axis := axes.get(name, 0)) is not None:
            feeds[name] = references[name] if name in references else np.repeat(array, count, axis)
    return feeds


def _times(original: Original, explained: Any, inputs: Inputs, references: Arrays) -> Row:
    """Seconds of an explanation of one sample, and by what inferring 1 and R samples takes.

    The processor's seconds: sessions have one thread, and what else the machine runs doesn't count.
    """
    one = next(inputs.rows())
    many = _beside(one, references, inputs.axes)
    ours = _least(lambda: explained.run(None, _taken(explained, one)))
    theirs = _least(lambda: original.run(one)) + _least(lambda: original.run(many))
    return {"seconds": ours, "by_inference": ours / theirs}


def _least(run: Callable[[], Any]) -> float:
    seconds: list[float] = []
    while len(seconds) < RUNS or sum(seconds) < LEAST:
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def _flat(array: Any) -> Any:
    return np.asarray(array, np.float64).reshape(len(array), -1)


def _session(file: Path, optimized: bool = True) -> Any:
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip().splitlines()[0][:400]


def _fault(error: BaseException) -> Row:
    """A fault's class and message, and where it came from: of the first cause where there is one."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    ours = ("irshap", "passes", "lowering")
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if set(Path(f.filename).parts) & set(ours)]
    at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return {"kind": type(cause).__name__, "message": _line(cause), "at": at, "told": str(error)[:400]}


def main() -> None:
    file, inputs = map(Path, sys.argv[1:])
    print(json.dumps(measure(file, Inputs.load(inputs))))


if __name__ == "__main__":
    main()

"""Do attributions sum to f(x) - base?  And if not: which op loses it, or which pass, or is it rounding?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from irshap.attribution.gaps import Gap, from_text
from irshap.compiler.compile import CompiledModel, bound, compile
from irshap.compiler.model import Model
from irshap.compiler.references import References, read_groups
from irshap.contract import Metadata, Names, metadata_of
from irshap.errors import ModelError, UserError
from irshap.ir.core import Graph, Role
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array, TensorType
from irshap.metrics.account import Loss, account
from irshap.ops.program import Input, batch_from_shape
from irshap.passes.methods.base import METHODS, Method, Sum
from irshap.passes.methods.deeplift import DeepLift
from irshap.passes.widen import Widen
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.manager import PassManager
from irshap.pipeline.text import parse_pipeline
from irshap.runtime.arrays import as_arrays, conform, unknown_names
from irshap.runtime.labels import fitting
from irshap.runtime.reading import TOLERANCES, yardstick
from irshap.runtime.samples import require_finite_results, require_own

__all__ = ["Completeness", "Loss", "check_completeness"]

_LISTED = 5


@dataclass(frozen=True)
class Completeness:
    """What `check_completeness` found; arrays are float64, [N] or with several classes at once [N, K].

    Attributes:
        target_index: the explained classes; None where a sum is explained.
        prediction, base_values: f(x), and its mean over the references.
        total: the sums of attributions.
        error: prediction - base_values - total.
        allowed: tolerance * max(|f(x) - base|, |f(x)| / 1000), and rounding of the sum itself.
        tolerance: the one used.
        runtime: what ran the explained model.
        gaps: ops whose difference was left out on request (on_incomplete="residual").
        held: what keeps the sample's value in both worlds unasked (`Target.context`): the base is then f of
            the references under the sample's masks.
        losses: where it failed, the ops that lose most in float64, worst first; empty if none does.
        cause: where it failed, one sentence on why.
    """

    target_index: Array | None
    prediction: Array
    base_values: Array
    total: Array
    error: Array
    allowed: Array
    tolerance: float
    runtime: str
    gaps: tuple[Gap, ...] = ()
    held: str = ""
    losses: tuple[Loss, ...] = ()
    cause: str = ""
    compiled: CompiledModel | None = field(default=None, repr=False)

    @property
    def within(self) -> Array:
        """For each sample whether its error is allowed; NaN never is."""
        return np.less_equal(np.abs(self.error), self.allowed)

    @property
    def ok(self) -> bool:
        """Whether all samples' errors are allowed."""
        return bool(self.within.all())

    @property
    def worst(self) -> tuple[int, ...]:
        """The position of the sample (and class) that exceeds what is allowed by most."""
        excess = np.abs(self.error) / np.maximum(self.allowed, np.finfo(float).tiny)
        excess = np.where(np.isnan(excess), np.inf, excess)
        return tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), excess.shape))


def check_completeness(
    model: Any, references: Any, inputs: Any, *, tolerance: float | None = None, **arguments: Any
) -> Completeness:
    """Compiles a model, runs it, and compares the sums of attributions with f(x) - base.

    Args:
        model: as for `compile`.
        references: as for `compile`; with `per_sample` those of each sample, [N, R, ...] by input.
        inputs: samples, as for an `Explainer`.
        tolerance: what an error may be, relative to max(|f(x) - base|, |f(x)| / 1000); None: 1e-4 in float32,
            1e-9 in float64, 2e-2 in float16.
        arguments: others of `compile`.

    Raises:
        UserError: as `compile` and `Explainer`.
    """
    given = References.of(references)
    at_run_time = given.per_sample and References(weights=given.weights, per_sample=True)
    compiled = compile(model, at_run_time or given, **arguments)
    _require_sum(compiled)
    features = _features(compiled)
    given = given.in_order(features)
    raw, feeds, runtime = _run(compiled, inputs, given.arrays if given.per_sample else {}, features)
    found = _compare(compiled, raw, tolerance, runtime)
    if found.ok:
        return found
    row = found.worst[0]
    rows = _rows(compiled.graph)
    sample = {n: np.take(a, [row], rows[n]) if n in rows else a for n, a in feeds.items()}
    groups = read_groups(arguments.get("groups"))
    if given.per_sample:
        given = replace(given, samples=None)
    return _explained(found, Model.of(model, given.arrays), given, sample, groups)


def _features(compiled: CompiledModel) -> Mapping[str, Sequence[str]]:
    """What the features of each attributed tensor are called, as the file says it."""
    names = Names.from_text(metadata_of(compiled.lowered).get(Metadata.NAMES, ""))
    attributed = [str(o.of) for o in compiled.graph.outputs_of(Role.ATTRIBUTION)]
    return fitting(names, dict.fromkeys(attributed), None).features


def _require_sum(compiled: CompiledModel) -> None:
    """Refuses methods whose attributions add up to nothing in particular."""
    for method in (p for p in parse_pipeline(compiled.pipeline) if isinstance(p, Method)):
        if method.sums_to is Sum.NOTHING:
            summing = sorted(cls.name for cls in METHODS.values() if cls.sums_to is not Sum.NOTHING)
            raise UserError(
                f"attributions of {method.name} don't sum to f(x) - base: there is nothing to check",
                mend=f"take one that sums: {', '.join(summing)}",
            )


def _rows(graph: Graph) -> dict[str, int]:
    """The inputs with a row for each sample, and on which axis."""
    axes = {
        str(v.name): batch_from_shape(v.type.shape or ())
        for v in graph.inputs
        if isinstance(v.type, TensorType)
    }
    return {name: axis for name, axis in axes.items() if axis is not None}


def _run(
    compiled: CompiledModel,
    inputs: Any,
    own: Mapping[str, Array],
    features: Mapping[str, Sequence[str]],
) -> tuple[dict[str, Array], dict[str, Array], str]:
    feeds = _feeds(compiled.graph, inputs, own, features)
    try:
        return compiled.explainer()(feeds).raw, feeds, "ONNX Runtime"
    except ModelError as error:
        if "NOT_IMPLEMENTED" not in str(error):
            raise
    # no float64 convolution on the CPU, for example
    found = evaluate(compiled.graph, feeds)
    attributions = [found[o.name] for o in compiled.graph.outputs_of(Role.ATTRIBUTION)]
    require_finite_results(feeds, _rows(compiled.graph), attributions)
    return found, feeds, "irshap's evaluator"


def _feeds(
    graph: Graph, inputs: Any, own: Mapping[str, Array], features: Mapping[str, Sequence[str]]
) -> dict[str, Array]:
    types = {str(v.name): v.tensor for v in graph.inputs}
    brought = {
        str(v.node.op.of): str(v.name)
        for v in graph.inputs
        if isinstance(v.node.op, Input) and v.node.op.kind == "references"
    }
    names = [name for name in types if name not in brought.values()]
    given = as_arrays(inputs, names, UserError, "input", features)
    if own:
        unknown_names(own.keys() - {""}, list(brought), UserError, "references")
        given |= {brought[name or next(iter(brought))]: array for name, array in own.items()}
    unknown_names(given, list(types), UserError, "input")
    if missing := [name for name in types if name not in given]:
        mend = "give an array [N, ...] for each"
        raise UserError(f"no value for input {', '.join(map(repr, missing))}", mend=mend)
    feeds = {}
    for name, kind in types.items():
        shape = None if kind.shape is None else [d if isinstance(d, int) else str(d) for d in kind.shape]
        if own and shape is not None and name in brought.values():
            require_own(given[name], len(shape), f"input {name!r}")
        feeds[name] = conform(given[name], kind.dtype.numpy, shape, UserError, f"input {name!r}")
    counts = {n: feeds[n].shape[axis] for n, axis in _rows(graph).items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        listed = ", ".join(f"{n}: {c}" for n, c in counts.items())
        mend = "give arrays of the same number of samples"
        raise UserError(f"the inputs need samples, and equally many ({listed})", mend=mend)
    return feeds


def _compare(
    compiled: CompiledModel, raw: Mapping[str, Array], tolerance: float | None, runtime: str
) -> Completeness:
    graph = compiled.graph
    metadata = metadata_of(compiled.lowered)
    explained = metadata[Metadata.EXPLAINED_OUTPUT]
    dtype = _explained_array(graph, raw, explained).dtype
    if tolerance is None:
        tolerance = TOLERANCES[dtype.itemsize]
    precision = float(np.finfo(dtype).eps)
    index = next((raw[o.name] for o in graph.outputs_of(Role.TARGET_INDEX)), None)
    prediction, base, total, size = sums(graph, raw, explained)
    error = prediction - base - total
    # adding up attributions that cancel rounds by itself
    allowed = tolerance * yardstick(prediction, base) + 4 * precision * (
        size + np.abs(prediction) + np.abs(base)
    )
    gaps = tuple(from_text(metadata.get(Metadata.GAPS, "")))
    held = metadata.get(Metadata.HELD, "")
    return Completeness(
        index, prediction, base, total, error, allowed, tolerance, runtime, gaps, held, compiled=compiled
    )


def _explained_array(graph: Graph, raw: Mapping[str, Array], explained: str) -> Array:
    """The explained numbers, or the output that they are picked from."""
    told = [o.name for o in graph.outputs_of(Role.VALUES)]
    return raw[told[0] if told else explained]


def sums(graph: Graph, raw: Mapping[str, Array], explained: str) -> tuple[Array, Array, Array, Array]:
    """f(x), base (0 where they sum to f(x)), the sum of attributions and that of their sizes, in float64."""
    prediction = _explained_array(graph, raw, explained).astype(np.float64)
    if not graph.outputs_of(Role.VALUES):
        index = raw[graph.output(Role.TARGET_INDEX).name]
        kind = next(o.value.tensor for o in graph.outputs_of(Role.MODEL) if o.name == explained)
        rows = np.moveaxis(prediction, batch_from_shape(kind.dims) or 0, 0).reshape(len(index), -1)
        prediction = np.take_along_axis(rows, index.reshape(len(index), -1), axis=1).reshape(index.shape)
    given = [raw[o.name].astype(np.float64) for o in graph.outputs_of(Role.BASE)]
    base = given[0] if given else np.zeros(prediction.shape)
    parts = [raw[o.name].astype(np.float64) for o in graph.outputs_of(Role.ATTRIBUTION)]
    axes = [tuple(range(prediction.ndim, p.ndim)) for p in parts]
    total: Any = sum(p.sum(axis=a) for p, a in zip(parts, axes, strict=True))
    size: Any = sum(np.abs(p).sum(axis=a) for p, a in zip(parts, axes, strict=True))
    return prediction, base, np.asarray(total), np.asarray(size)


def _explained(
    found: Completeness,
    model: Model,
    references: References,
    sample: Mapping[str, Array],
    groups: Mapping[str, Array],
) -> Completeness:
    """The same with what it is that loses."""
    if found.gaps:
        listed = ", ".join(g.where for g in found.gaps)
        return replace(found, cause=f"on request, attributions leave out what these ops do: {listed}")
    assert found.compiled is not None
    methods = [p for p in parse_pipeline(found.compiled.pipeline) if isinstance(p, Method)]
    if rest := next((m.remainder for m in methods if m.remainder), ""):
        return replace(found, cause=f"{methods[0].name} sums up but for {rest}")
    wide = _Widened(model, references, sample, groups, found.compiled.pipeline)
    losses = wide.losses()
    if losses:
        cause = f"the rule of {losses[0].where} doesn't share out the whole difference"
        return replace(found, losses=losses, cause=cause)
    if culprit := wide.first_bad_pass():
        return replace(
            found, cause=f"in float64 every op's rule is complete, but not the graph after {culprit}"
        )
    return replace(
        found, cause="in float64 attributions sum up: the error is rounding in the model's precision"
    )


class _Widened(Instrument):
    """The same compilation in float64, pass by pass."""

    def __init__(
        self,
        model: Model,
        references: References,
        sample: Mapping[str, Array],
        groups: Mapping[str, Array],
        pipeline: str,
    ) -> None:
        lift, *rest = parse_pipeline(pipeline)
        passes = [lift, Widen(), *(p for p in rest if p.gives == "graph")]
        self.graphs: list[tuple[Pass, Graph]] = []
        self.context = Context(groups=groups)
        PassManager(passes, [bound(references, self.context, passes), self]).run(model.source, self.context)
        self.explained = self.context.metadata[Metadata.EXPLAINED_OUTPUT]
        self.sample = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in sample.items()}

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        self.graphs.append((instance, made))

    def feeds(self, graph: Graph) -> dict[str, Array]:
        """Arrays for the inputs of a form of the program: the sample's, and references where not bound."""
        found: dict[str, Array] = {}
        shapes = ((v.shape, self.sample[str(v.name)].shape) for v in graph.inputs if v.name in self.sample)
        sizes = {dim: size for dims, shape in shapes for dim, size in zip(dims, shape, strict=True)}
        for value in graph.inputs:
            op, name = value.node.op, str(value.name)
            assert isinstance(op, Input)
            given = {"references": self.context.references.get(str(op.of)), "weights": self.context.weights}
            array = given.get(op.kind)
            array = self.sample.get(name) if array is None else array
            assert array is not None
            if array.ndim > value.rank:  # the only sample's own references, as what all share
                (array,) = array
            # references of size 1 on an open axis stand for its size
            whole = [sizes.get(d, n) if n == 1 else n for d, n in zip(value.shape, array.shape, strict=True)]
            found[name] = np.broadcast_to(array, whole).astype(value.dtype.numpy)
        return found

    def losses(self) -> tuple[Loss, ...]:
        """The ops that lose more than rounding, worst first."""
        rule = next((p.rule for p, _ in self.graphs if isinstance(p, DeepLift)), None)
        if rule is None:
            return ()  # the account is of chords
        before = [p.name for p, _ in self.graphs].index("autodiff") - 1
        found = account(self.graphs[before][1], self.feeds, rule)
        scale = max((loss.flow for loss in found), default=0.0)
        return tuple([loss for loss in found if not loss.gap <= 1e-9 * scale][:_LISTED])

    def first_bad_pass(self) -> str:
        """The first pass after which attributions don't sum up in float64, or ""."""
        for instance, graph in self.graphs:
            if graph.outputs_of(Role.ATTRIBUTION) and not self._sums_up(graph):
                return instance.name
        return ""

    def _sums_up(self, graph: Graph) -> bool:
        raw = evaluate(graph, self.feeds(graph))
        prediction, base, total, size = sums(graph, raw, self.explained)
        return bool(np.all(np.abs(prediction - base - total) <= 1e-9 * (size + np.abs(prediction - base))))

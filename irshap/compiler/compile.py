"""The compiler as a function: a model and references in, a compiled model out."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from irshap import __version__
from irshap.attribution.gaps import references_needed
from irshap.attribution.sources import model_inputs
from irshap.compiler.references import check_references, check_weights
from irshap.cost.choose import Choice, choose
from irshap.cost.devices import parse_size
from irshap.errors import PipelineError, near
from irshap.ir.core import Graph, Role
from irshap.ir.types import Array, TensorType
from irshap.ir.walks import ancestors
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.manager import PassManager, Report, Verify
from irshap.pipeline.named import DEVICES, METHODS
from irshap.pipeline.strategies import with_strategy
from irshap.pipeline.text import format_pipeline, known_passes, parse_pipeline

if TYPE_CHECKING:
    import onnx

    from irshap.runtime.explainer import Explainer

__all__ = ["CompiledModel", "Progress", "compile", "pipeline_text", "run_passes"]


class Progress(Protocol):
    """Is told how far a compilation is."""

    def starts(self, index: int, total: int, name: str) -> None:
        """The pass `name`, the `index`-th (from 0) of `total`, starts."""


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """An explained model.

    Attributes:
        model: the ONNX model (`onnx.ModelProto`).  It has the source model's inputs and outputs, then for
            each attributed tensor `x` the output `x_attributions` (shape of x; with K classes at once
            [N, K, ...]), `base_values` (the target's mean over the references; [N] or [N, K]; in the unit of
            the explained output, as are the attributions), `target_index` (int64 [N] or [N, K]), and on
            request `completeness_error`.
        graph: the last form of the program in irshap's IR.
        report: what each pass did.
        pipeline: the canonical text of the passes that made it.
        choice: the strategy that a memory limit led to, and what each was predicted to take.
    """

    model: onnx.ModelProto
    graph: Graph
    report: Report
    pipeline: str
    choice: Choice | None = None

    def save(self, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
        """Writes the model to `path`: all of it or nothing, the same bytes for the same compilation.

        Args:
            external_data: whether weights, and what is stored of the references, go to `<path>.data`, from
                where ONNX Runtime maps them: a chunk at a time is then all that must be in memory.  They do
                in any case when the model exceeds what one ONNX file can hold (2 GiB).  None: as the memory
                limit asks for.

        Raises:
            UserError: the folder doesn't exist or can't be written, or the disk is full.
        """
        from irshap.lowering.files.save import MAX_PROTO, save_model

        if external_data is None:
            external_data = self.choice is not None and self.choice.external
        save_model(self.model, path, external_over=0 if external_data else MAX_PROTO)

    def explainer(self, providers: Sequence[Any] | None = None) -> Explainer:
        """An `Explainer` of this model."""
        from irshap.runtime.explainer import Explainer

        return Explainer(self, providers)

    def __repr__(self) -> str:
        outputs = ", ".join(o.name for o in self.model.graph.output)
        return f"CompiledModel({self.pipeline!r}, outputs: {outputs})"


def compile(
    model: str | os.PathLike[str] | bytes | onnx.ModelProto,
    references: Any = None,
    *,
    target: str | int = "argmax",
    method: str = "deeplift",
    rule: str = "rescale",
    device: str = "cpu",
    fp16: bool | None = None,
    strategy: str = "auto",
    memory_limit: int | str | None = None,
    passes: str | None = None,
    wrt: str | None = None,
    output: str | None = None,
    context_inputs: Collection[str] = (),
    weights: Any = None,
    emit: str | Collection[str] = (),
    on_incomplete: str = "error",
    verify: Verify = "none",
    print_after: Collection[str] | Literal["all"] = (),
    time_passes: bool = False,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compiles an ONNX model into one that also returns its attributions.

    Args:
        model: a path, the bytes of a model, or an `onnx.ModelProto`; float16, float32 or float64.
        references: the samples that each sample is compared with: an array [R, ...] whose other axes are
            those of the input, or for several inputs a mapping from their names to arrays of the same R.  Or
            the path of a .npy or .npz file.  Floats of another width are converted; integers, NaN and
            infinity are refused.  Not for method="gradient".
        target: what is explained for each sample: "argmax" (the class that the model predicts), a class index
            (negative: from the end), "top-5" or any other number of classes, "all", or "input": the compiled
            model gets an int64 input `target` [N].
        method: "deeplift" (DeepLIFT, Shrikumar et al. 2017; averaged over references it estimates Shapley
            values: DeepSHAP, Lundberg and Lee 2017; the compiled form follows ONNXExplainer, Zhao et al.
            2023), or "gradient", the derivative of the target.
        rule: how "deeplift" shares a difference at an op that isn't linear: "rescale", "reveal-cancel"
            (positive and negative contributions apart) or "mixed" (reveal-cancel after dense layers, rescale
            elsewhere).
        device: what the compiled model is to be fast on, "cpu" or "cuda"; it runs on both.
        fp16: whether attributions are computed in float16 where that does little harm (see the pass fp16);
            the model's own outputs stay exact.  None: where the pipeline has that pass.
        strategy: where what follows from the references is kept: "fold" stores it in the model and takes all
            references at once, "stream" stores it and takes them in chunks, "recompute" stores the references
            alone.  "auto": the pipeline's own, or the first that stays within `memory_limit`.
        memory_limit: bytes, or a text such as "8GiB", that a process may take which runs the model with one
            sample, beside the pages of mapped files; the peak is predicted (docs/cost.md).  None: no limit.
        passes: the text of a pipeline (see irshap.pipeline.text) instead of the method's own.  The other
            arguments fill in options that it leaves at their defaults; one that contradicts it is refused.
        wrt: the tensors to attribute to, inputs or interior ones, separated by commas; None: every float
            input, and every integer input that an embedding lookup reads: one number for each token.
            Interior tensors must be a cut: together they carry all that the target knows of their inputs.
        output: the name of the explained output; None: the first float output.  One with several axes after
            the batch is read as flattened.
        context_inputs: inputs and interior tensors that keep the sample's value where the sample is compared
            with a reference, and are not attributed.
        weights: a weight for each reference [R], not negative; scaled to sum to 1.  None: equal weights.
        emit: further outputs: "completeness_error" is f(x) - base - sum of attributions, for each sample.
        on_incomplete: an op on the way that has no complete local rule is an "error", or "residual": what its
            derivative doesn't explain is left out, and seen in the output `completeness_error`; the metadata
            entry `irshap.attribution.gaps` names the ops.
        verify: what is checked after each pass: "none", "types" or "numeric" (see PassManager).
        print_after: names of passes after which the IR is printed to standard error, or "all".
        time_passes: whether a table of the passes' times is printed to standard error.
        progress: is told how far it is.

    Raises:
        ModelError: the model can't be read, or not compiled.
        ReferencesError: references or weights that don't fit the model.
        TargetError: no such class, output or tensor.
        NotDifferentiable: the target depends on the attributed tensor through an op without a local rule.
        PipelineError: `passes` doesn't parse, doesn't fit together, or contradicts another argument.
        PassError: a pass failed, which is a fault of irshap; it says how to report it.
    """
    text = pipeline_text(
        passes=passes,
        method=method,
        rule=rule,
        device=device,
        fp16=fp16,
        target=target,
        wrt=wrt,
        output=output,
        context_inputs=context_inputs,
        weighted=weights is not None,
        emit=emit,
        on_incomplete=on_incomplete,
    )
    choice = None
    if strategy != "auto":
        text = format_pipeline(with_strategy(parse_pipeline(text), strategy))
    elif memory_limit is not None:
        choice = choose(model, text, references, parse_size(str(memory_limit)))
        text = choice.pipeline
    manager = PassManager.from_text(text, verify=verify, print_after=print_after, time_passes=time_passes)
    first, last = manager.passes[0], manager.passes[-1]
    if (first.takes, last.gives) != ("model", "model"):
        raise PipelineError(
            "compiling starts and ends with a model", where="pipeline", mend="begin with lift, end with lower"
        )
    graphs: list[Graph] = []

    def keep(instance: Pass, graph: Graph) -> None:
        graphs[:] = [graph]

    compiled = run_passes(manager, model, references, weights, progress=progress, seen=keep)
    return CompiledModel(compiled, graphs[-1], manager.report, manager.text, choice)


def run_passes(
    manager: PassManager,
    model: Any,
    references: Any,
    weights: Any,
    *,
    context: Context | None = None,
    progress: Progress | None = None,
    seen: Callable[[Pass, Graph], None] | None = None,
) -> Any:
    """Runs a pipeline on a model, with references and weights checked as soon as it is known what needs them.

    Args:
        context: gets the checked references and weights.
        seen: is shown the graph after each pass that gives one.
    """
    context = Context() if context is None else context
    context.metadata["irshap.version"] = __version__
    binder = _Binder(references, weights, context, manager.passes)

    def before(index: int, instance: Pass) -> None:
        if progress is not None:
            progress.starts(index, len(manager.passes), instance.name)

    def after(index: int, instance: Pass, ir: Any) -> None:
        if isinstance(ir, Graph):
            binder.look(instance, ir)
            if seen is not None:
                seen(instance, ir)

    return manager.run(model, context, before=before, after=after)


_PLACES: dict[str, tuple[str, str]] = {
    "target": ("target", "target"),
    "output": ("target", "output"),
    "wrt": ("target", "wrt"),
    "context_inputs": ("target", "context"),
    "rule": ("deeplift", "rule"),
    "weights": ("deeplift", "weights"),
    "emit": ("deeplift", "emit"),
    "on_incomplete": ("deeplift", "on_incomplete"),
}
"""Which option of which pass an argument of `compile` sets."""


def pipeline_text(
    *,
    passes: str | None = None,
    method: str = "deeplift",
    rule: str = "rescale",
    device: str = "cpu",
    fp16: bool | None = None,
    target: str | int = "argmax",
    wrt: str | None = None,
    output: str | None = None,
    context_inputs: Collection[str] = (),
    weighted: bool = False,
    emit: str | Collection[str] = (),
    on_incomplete: str = "error",
) -> str:
    """The canonical text of the pipeline that these arguments of `compile` describe.

    Raises:
        PipelineError: an unknown method or device, or an argument that contradicts `passes`.
    """
    if method not in METHODS:
        raise PipelineError(f"no method is called {method!r}", mend=near(method, METHODS))
    if device not in DEVICES:
        raise PipelineError(f"no device is called {device!r}", mend=near(device, DEVICES))
    if passes is not None and device != "cpu":
        raise PipelineError(
            f"device {device!r} contradicts the given passes", mend="leave one of the two out"
        )
    pipeline = parse_pipeline(METHODS[method][device] if passes is None else passes)
    if passes is not None and method != "deeplift" and method not in {p.name for p in pipeline}:
        raise PipelineError(
            f"method {method!r} contradicts the given passes", mend="leave one of the two out"
        )
    wanted = {
        "target": str(target),
        "output": output or "",
        "wrt": wrt or "",
        "context_inputs": _joined(context_inputs),
        "rule": rule,
        "weights": weighted,
        "emit": _joined(emit),
        "on_incomplete": on_incomplete,
    }
    for argument, value in wanted.items():
        pipeline = _with_option(pipeline, argument, value)
    return format_pipeline(_with_fp16(pipeline, fp16, given=passes is not None))


def _with_fp16(pipeline: Sequence[Pass], wanted: bool | None, *, given: bool) -> Sequence[Pass]:
    """The pipeline with the pass fp16 before `lower`, or without it, as asked."""
    others = [p for p in pipeline if p.name != "fp16"]
    if wanted is None or wanted == (len(others) < len(pipeline)):
        return pipeline
    if wanted:
        return [*others[:-1], known_passes()["fp16"](), *others[-1:]]
    if given:
        raise PipelineError("fp16=False contradicts the given passes", mend="leave one of the two out")
    return others


def _joined(names: str | Collection[str]) -> str:
    return names if isinstance(names, str) else ",".join(names)


def _with_option(pipeline: Sequence[Pass], argument: str, value: Any) -> tuple[Pass, ...]:
    name, option = _PLACES[argument]
    found = [p for p in pipeline if p.name == name]
    if not found:
        # Arguments at their defaults ask for nothing, so they need no pass that could do it.
        if value in ("", False, "argmax", "rescale", "error"):
            return tuple(pipeline)
        raise PipelineError(
            f"{argument} needs the pass {name}, which the pipeline doesn't have", where="pipeline"
        )
    result = []
    for instance in pipeline:
        if instance.name == name:
            default = next(f.default for f in fields(instance) if f.name == option)
            given = getattr(instance, option)
            if value not in (default, given) and given != default:
                what = f"{argument}={value!r} contradicts {option}={given!r} of pass {name}"
                raise PipelineError(what, where="pipeline", mend="leave one of the two out")
            instance = replace(instance, **{option: value}) if given == default else instance
        result.append(instance)
    return tuple(result)


class _Binder:
    """Checks references and weights as soon as the pipeline knows what is attributed, and hands them on."""

    def __init__(self, references: Any, weights: Any, context: Context, passes: Sequence[Pass]) -> None:
        self.references, self.weights, self.context = references, weights, context
        self.bound = any(p.binds_references for p in passes)
        for what, value in (("references", references), ("weights", weights)):
            if value is not None and not self.bound:
                raise PipelineError(
                    f"{what} are given, but the pipeline has no pass that would bind them",
                    where="pipeline",
                    mend="leave them out",
                )
        self.done = False

    def look(self, instance: Pass, graph: Graph) -> None:
        metadata = self.context.metadata
        if self.context.source is not None and "irshap.model_sha256" not in metadata:
            metadata["irshap.model_sha256"] = _model_digest(self.context.source)
        if instance.name == "target":
            explained = getattr(instance, "output", "") or _first_float_output(graph)
            metadata["irshap.explained_output"] = explained
        if self.bound and not self.done and graph.outputs_of(Role.SOURCE):
            self.done = True
            inputs = {str(v.name): v.tensor for v in references_needed(graph)}
            others = [v for v in model_inputs(graph) if v.name not in inputs]
            used = ancestors([graph.output(Role.TARGET).value])
            held, unused = ([str(v.name) for v in others if (v in used) is read] for read in (True, False))
            arrays = check_references(self.references, inputs, list(inputs), held, unused)
            count = next((len(array) for array in arrays.values()), 0)
            self.context.references = arrays
            self.context.weights = check_weights(self.weights, count)
            metadata["irshap.references"] = str(count)
            metadata["irshap.references_sha256"] = _digest(arrays, self.context.weights)


def _first_float_output(graph: Graph) -> str:
    outputs = graph.outputs_of(Role.MODEL)
    return next(
        (o.name for o in outputs if isinstance(o.value.type, TensorType) and o.value.dtype.is_float), ""
    )


def _model_digest(model: onnx.ModelProto) -> str:
    from irshap.lowering.files.protos import is_outlined, outline

    # In parts, because one message ends at 2 GiB.
    digest = sha256(outline(model).SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        if is_outlined(tensor):
            digest.update(tensor.raw_data)
    return digest.hexdigest()


def _digest(arrays: Mapping[str, Array], weights: Array | None) -> str:
    digest = sha256()
    named = dict(sorted(arrays.items())) | ({} if weights is None else {"": weights})
    for name, array in named.items():
        digest.update(f"{name}\0{array.dtype}{list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

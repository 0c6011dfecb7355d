"""The compiler as a function: a model and references in, a compiled model out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np
import onnx

from irshap.attribution.gaps import references_needed
from irshap.attribution.sources import model_inputs
from irshap.compiler.arguments import known_names
from irshap.compiler.compiled import CompiledModel
from irshap.compiler.exports import fitted_names, refuse_arrays
from irshap.compiler.model import Model
from irshap.compiler.references import References, check_references, check_weights, read_groups
from irshap.compiler.request import requested
from irshap.contract import ONLY, VERSION, Metadata, Names
from irshap.cost.choose import choose
from irshap.cost.limits import expected
from irshap.cost.session import Settings
from irshap.errors import PipelineError, ReferencesError
from irshap.ir.core import Graph, Role
from irshap.ir.dims import N
from irshap.ir.types import Array, TensorType
from irshap.ir.walks import ancestors
from irshap.lowering.files.held import data_of
from irshap.lowering.files.protos import is_outlined, outline
from irshap.ops.program import batch_from_shape
from irshap.passes.methods.base import Method
from irshap.passes.methods.deeplift import DeepLift
from irshap.passes.summary import Summary
from irshap.passes.target import Target
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument, KeepGraph
from irshap.pipeline.manager import PassManager
from irshap.pipeline.strategies import STRATEGIES, slot_of
from irshap.runtime.labels import fitting
from irshap.runtime.sizes import parse_size

__all__ = ["CompiledModel", "bound", "compile"]


@known_names({"method": DeepLift, "target": Target, "references": References, "model": Model})
def compile(
    model: Any,
    references: Any = None,
    *,
    target: str | int | Sequence[int] | Target = "argmax",
    method: str | Method = "deeplift",
    groups: Any = None,
    device: str = "cpu",
    fp16: bool | None = None,
    quantized: bool = False,
    passes: str | None = None,
    strategy: str = "auto",
    memory_limit: int | str | None = None,
    session: str = "default",
    instruments: Sequence[Instrument] = (),
    names: Any = None,
    summary: str | Summary | None = None,
) -> CompiledModel:
    """Compiles an ONNX model into one that also returns its attributions.

    Args:
        model: a path, the bytes of a model, or an `onnx.ModelProto`; float16, bfloat16, float32 or float64.
            A session of ONNX Runtime and what torch's exporter returns are read; a torch module and a
            scikit-learn estimator are exported by running them on references.  `Model(...)` fixes inputs and
            sizes, or says where the batch is.
        references: the samples that each sample is compared with: an array [R, ...] whose other axes are
            those of the input, or for several inputs a mapping from their names to arrays of the same R.  Or
            the path of a .npy or .npz file.  Floats of another width are converted; integers, NaN and
            infinity are refused.  `References(samples, weights)` weights them.  With
            `References(per_sample=True)` every sample brings its own at run time, by inputs
            `<input>_references` [N, R, ...].  Not for methods that look at the sample alone, such as
            "gradient".
        target: what is explained for each sample: "argmax" (the class that the model predicts), a class index
            (negative: from the end), a list of them ([3, 7]), "top-5" or any other number of classes, "all",
            or "input": the compiled model gets an int64 input `target` [N]; "sum[...]" or "mean[...]", a
            region of the output by an index after the batch; or "weights": an input `target_weights` of the
            output's shape.
            `Target(...)` says also which output, or outputs, are explained, which tensors are attributed
            (wrt), and which keep the sample's value (context).
        method: the attribution method, as text such as "deeplift" (DeepLIFT, Shrikumar et al. 2017; averaged
            over references it estimates Shapley values: DeepSHAP, Lundberg and Lee 2017; the compiled form
            follows ONNXExplainer, Zhao et al. 2023), "deeplift{rule=mixed}" or "epsilon-lrp{epsilon=1e-3}",
            or as its dataclass: `DeepLift(rule="mixed")`.  `irshap methods` lists them all.
        groups: for methods that replace parts of a sample ("exact-shapley", "feature-ablation", ...), which
            cells go together: an array of integers of the input's shape without the batch, or broadcast to
            it; for several inputs a mapping from their names to arrays, in which equal numbers are one group.
            Or the path of a .npy or .npz file.  None: each cell, or token, by itself.
        device: what the compiled model is for: "cpu" or "cuda" (ONNX Runtime on these; it runs on both),
            "openvino", "web" (ONNX Runtime in a browser), or "any", the most portable form.
        fp16: whether attributions are computed in float16 where that does little harm (see the pass fp16);
            the model's own outputs stay exact.  None: where the pipeline has that pass.
        quantized: whether activations that the model rounds to integers are explained as the clips that these
            steps go around (see the pass quantized); otherwise such a model is refused.  Predictions stay the
            quantized model's, and what rounding contributes is in the output completeness_error.
        passes: the text of a pipeline (see irshap.pipeline.text) instead of the method's own; `@method` in it
            is the method.  The other arguments fill in options that it leaves at their defaults; one that
            contradicts it is refused.
        strategy: where what follows from the references is kept: "fold" stores it in the model and takes all
            references at once, "stream" stores it and takes them in chunks, "compact" takes them two by two
            and stores less, "recompute" stores the references alone.  "auto": the pipeline's own, or the
            first that stays within `memory_limit`.
        memory_limit: bytes, or a text such as "8GiB", that a process of Python may take which runs the model
            with one sample at a time, beside the pages of mapped files; the peak is predicted (docs/cost.md).
            None: no limit.
        session: whose memory the limit is for: "default" is an `onnxruntime.InferenceSession` without
            options, "explainer" the one that `Explainer` makes, which takes less.
        names: what people call features, classes and tokens, stored in the file: `Names(...)`, or a mapping
            such as `{"features": ["age", "height"], "classes": ["no", "yes"], "tokens": [...]}`, for several
            attributed inputs by input.  Explanations have them.
        summary: further outputs that sum attributions up, as text such as "top=5,heatmap=(224,224)", or as a
            `Summary`: the largest, sums over axes or `groups`, normalized maps, pictures of uint8.
        instruments: what watches the passes, such as VerifyNumeric() of irshap.checks.instruments.

    Raises:
        ModelError: the model can't be read, or not compiled.
        ReferencesError: references or weights that don't fit the model.
        TargetError: no such class, output or tensor.
        NotDifferentiable: the target depends on the attributed tensor through an op without a local rule.
        PipelineError: `passes` doesn't parse, doesn't fit together, or contradicts another argument.
        PassError: a pass failed, which is a fault of irshap; it says how to report it.
    """
    _require_instruments(instruments)
    _require_truth(fp16=fp16, quantized=quantized)
    refuse_arrays(model)
    given = References.of(references)
    if given.per_sample and given.samples is not None:
        mend = "leave them out here; they are inputs of what is compiled: explainer(x, x_references=...)"
        raise ReferencesError("what each sample brings at run time is given when compiling", mend=mend)
    called = Names.of(names)
    fitted = fitted_names(model.source if isinstance(model, Model) else model)
    features = {ONLY: fitted} if fitted else {}
    # columns may be inputs of their own, and then none is a feature's
    inputs = given.columns.get(ONLY, ())
    given = given.in_order({n: t for n, t in called.features.items() if n not in inputs} or features)
    read = Model.of(model, given.arrays)
    asked = requested(
        target=target,
        method=method,
        device=device,
        fp16=fp16,
        quantized=quantized,
        passes=passes,
        strategy=strategy,
        weighted=given.weights is not None,
        per_sample=given.per_sample,
        grouped=groups is not None,
        reading=read.reading,
        batch=read.fixed_batch,
        summary=summary,
    )
    if (asked[0].takes, asked[-1].gives) != ("model", "model"):
        mend = "begin with lift, end with lower; a named pipeline takes more: @default{before=(lower, PASS)}"
        raise PipelineError("compiling starts and ends with a model", where="pipeline", mend=mend)
    limit = None if memory_limit is None else parse_size(str(memory_limit))
    Settings.of(session)
    context = Context(groups=read_groups(groups), keeps_graph=True)
    last = KeepGraph()
    naming = _Naming(called, features or given.columns)
    manager = PassManager(asked, [bound(given, context, asked), naming, *instruments, last])
    choice = None
    if limit is None:
        made = manager.run(read.source, context)
    else:
        start = manager.run(read.source, context, stop=slot_of(asked))
        allowed = tuple(STRATEGIES) if strategy == "auto" else (strategy,)
        choice = choose(start, asked, given.count, limit, session, allowed)
        made, manager = manager.resumed(choice.passes, start, context)
    _note_memory(made, last.graph, read.fixed_batch or 1, external=choice is not None and choice.external)
    return CompiledModel(made, last.graph, manager.report, manager.text, choice)


def _note_memory(made: onnx.ModelProto, graph: Graph, samples: int, *, external: bool) -> None:
    """Writes into the metadata what running the model is predicted to take, where that is known."""
    peak = expected(graph, samples, external=external)
    if peak is not None:
        told = {"peak": peak, "samples": samples, "session": "default"}
        made.metadata_props.add(key=Metadata.MEMORY, value=json.dumps(told))


def _require_instruments(given: Any) -> None:
    mend = "give a list of those in irshap.checks.instruments, such as [VerifyTypes()]"
    if not isinstance(given, Iterable):
        raise PipelineError(f"instruments={given!r} is no list", mend=mend)
    if strange := [i for i in given if not isinstance(i, Instrument)]:
        raise PipelineError(f"{strange[0]!r} is no instrument", mend=mend)


def _require_truth(**given: object) -> None:
    for name, value in given.items():
        if value is not None and not isinstance(value, bool | np.bool_):
            raise PipelineError(f"{name}={value!r} is neither True nor False", mend="give one of them")


class _Naming(Instrument):
    """Writes names down, and refuses those that fit nothing, as soon as it is known what is attributed.

    Args:
        names: what was given.
        columns: what the features of tables are called by input, where nothing else is said and they fit.
    """

    def __init__(self, names: Names, columns: Mapping[str, tuple[str, ...]]) -> None:
        self._names, self._columns = names, columns

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        if isinstance(instance, Target) and isinstance(made, Graph):
            tensors = [v for v in model_inputs(made) if isinstance(v.type, TensorType)]
            inputs = {str(v.name): _last_size(v.tensor) for v in tensors if v.dtype.is_float}
            # what tokens are looked up to has another last axis than they
            sizes = {name: inputs.get(name) for name in (str(o.of) for o in made.outputs_of(Role.SOURCE))}
            names = self._names
            if not names.features:
                only = self._columns.get(ONLY, ()) if len(sizes) == 1 else ()
                tables = {name: self._columns.get(name, only) for name in sizes}
                found = {name: texts for name, texts in tables.items() if texts and sizes[name] == len(texts)}
                names = replace(names, features=found)
            fitting(names, sizes, None)
            if text := names.to_text():
                context.metadata[Metadata.NAMES] = text


def _last_size(kind: TensorType) -> int | None:
    last = kind.shape[-1] if kind.shape is not None and len(kind.shape) > 1 else None
    return last if isinstance(last, int) else None


def bound(references: References, context: Context, passes: Sequence[Pass]) -> Instrument:
    """The instrument that checks references as soon as it is known what they are for, and hands them on.

    Raises:
        PipelineError: references or weights are given, and no pass would bind them.
    """
    binds = any(p.binds_references for p in passes)
    for what, value in (("references", references.samples), ("weights", references.weights)):
        if value is not None and not binds:
            raise PipelineError(
                f"{what} are given, but the pipeline has no pass that would bind them",
                where="pipeline",
                mend="leave them out",
            )
    context.metadata[Metadata.VERSION] = VERSION
    context.given = references.arrays
    return _Binding(references, binds)


class _Binding(Instrument):
    def __init__(self, references: References, binds: bool) -> None:
        self._references, self._open = references, binds

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        metadata = context.metadata
        if not isinstance(made, Graph):
            return
        if context.source is not None and Metadata.MODEL_SHA256 not in metadata:
            metadata[Metadata.MODEL_SHA256] = _model_digest(context.source)
        if isinstance(instance, Target):
            metadata[Metadata.EXPLAINED_OUTPUT] = instance.output or _first_float_output(made)
        if self._open and made.outputs_of(Role.SOURCE):
            self._open = False
            self._check(made, context)

    def _check(self, graph: Graph, context: Context) -> None:
        inputs = {str(v.name): _rows_first(v.tensor) for v in references_needed(graph)}
        others = [v for v in model_inputs(graph) if v.name not in inputs]
        used = ancestors([graph.output(Role.TARGET).value])
        held, unused = ([str(v.name) for v in others if (v in used) is read] for read in (True, False))
        arrays = check_references(self._references, inputs, list(inputs), held, unused)
        count = next((len(array) for array in arrays.values()), 0)
        context.references = arrays
        context.weights = check_weights(self._references.weights, count)
        context.metadata[Metadata.REFERENCES] = str(count)
        context.metadata[Metadata.REFERENCES_SHA256] = _digest(arrays, context.weights)


def _rows_first(kind: TensorType) -> TensorType:
    """The type with the batch on the first axis, as references have it."""
    axis = batch_from_shape(kind.shape or ()) or 0
    return kind if not axis else kind.with_shape((N, *(d for i, d in enumerate(kind.dims) if i != axis)))


def _first_float_output(graph: Graph) -> str:
    outputs = graph.outputs_of(Role.MODEL)
    return next(
        (o.name for o in outputs if isinstance(o.value.type, TensorType) and o.value.dtype.is_float), ""
    )


def _model_digest(model: onnx.ModelProto) -> str:
    # In parts, because one message ends at 2 GiB.
    digest = sha256(outline(model).SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        if is_outlined(tensor):
            digest.update(data_of(tensor))
    return digest.hexdigest()


def _digest(arrays: Mapping[str, Array], weights: Array | None) -> str:
    digest = sha256()
    named = dict(sorted(arrays.items())) | ({} if weights is None else {"": weights})
    for name, array in named.items():
        digest.update(f"{name}\0{array.dtype}{list(array.shape)}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()

"""A model in, one training step as an ONNX file out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from glob import escape
from typing import Any

import onnx

from irshap.compiler.catalog import PassManager
from irshap.compiler.model import Model
from irshap.compiler.references import read_groups
from irshap.compiler.request import as_method, as_target
from irshap.contract import VERSION, Metadata, Training, metadata_of
from irshap.errors import PipelineError
from irshap.ir.core import Graph
from irshap.lowering.files.load import inline_functions
from irshap.lowering.files.save import save_model
from irshap.lowering.lift import Lift
from irshap.lowering.parameters import untrained_initializers
from irshap.passes.methods.base import Method
from irshap.passes.target import Target
from irshap.passes.training.log_probabilities import NAME, LogProbabilities
from irshap.passes.training.loss import Loss
from irshap.passes.training.prior import Prior
from irshap.passes.training.step import Step
from irshap.passes.training.trainable import IDLE, Trainable, UnreadParameters
from irshap.pipeline.base import Context, Pass, Points
from irshap.pipeline.instrument import Instrument, KeepGraph
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.report import Report
from irshap.pipeline.text import format_pipeline, parse_pipeline

__all__ = ["TrainingStep", "evaluation", "passes_of", "train_step"]


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """A training step as one ONNX model.

    Attributes:
        model: inputs are the model's own, `labels` and what else a loss or prior needs, `learning_rate`, the
            parameters by their names, and the optimizer's state.  Outputs are `loss`, `prior`, and for every
            parameter and state what it becomes, `<name>_next`, or `<name>_gradient`.
        graph: the last form of the program in irshap's IR.
        report: what each pass did.
        pipeline: the canonical text of the passes that made it.
        untrained: where "*" asked for all, why each other float initializer isn't trained, by name.
    """

    model: onnx.ModelProto
    graph: Graph
    report: Report
    pipeline: str
    untrained: Mapping[str, str] = field(default_factory=dict)

    @property
    def idle_dropouts(self) -> int:
        """How many dropouts of the model drop nothing."""
        return sum(run.statistics.get(IDLE, 0) for run in self.report.passes)

    @property
    def training(self) -> Training:
        """What the model's inputs and outputs are for."""
        return Training.of(self.model)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the step to `path`: all of it or nothing, the same bytes for the same compilation.

        Raises:
            UserError: the folder doesn't exist or can't be written, or the disk is full.
        """
        save_model(self.model, path)


def train_step(
    model: Any,
    *,
    loss: str | Loss = "cross-entropy",
    output: str = "",
    prior: str | Prior | None = None,
    method: str | Method | None = None,
    target: str | int | Target | None = None,
    optimizer: str | Step = "sgd",
    parameters: str | Sequence[str] = "*",
    batch_norm: str = "frozen",
    dropout: str = "none",
    groups: Any = None,
    instruments: Sequence[Instrument] = (),
) -> TrainingStep:
    """Compiles one step of training a model, with a prior on its attributions, into one ONNX model.

    Args:
        model: a path, the bytes of a model, an `onnx.ModelProto`, or `Model(...)`; float32 or float64, with a
            dynamic batch axis.
        loss: "cross-entropy", "binary-cross-entropy", "mse", "hinge" or "cox", or the pass: `Loss(...)`.
        output: the output that the loss is of; "": the first float output.
        prior: "sparse", "total-variation", "right-reasons" or "group-lasso", or the pass: `Prior(...)`; None
            trains without attributions.
        method: whose attributions the prior is on; by default "x-gradient", for right-reasons "gradient".
            For "deeplift" and "integrated-gradients" references are an input `<input>_references` [R, ...],
            for "expected-gradients" each sample brings its own, [N, R, ...], with the place between both
            where the gradient is taken, `<input>_places` [N, R].  Points of a path are taken all at once,
            unless a `chunk` other than the method's default is asked for: then in a loop.
        target: what is attributed; by default the label's class where labels are classes, the sum of the
            output elsewhere, and for right-reasons the sum of all log-probabilities.
        optimizer: "sgd", "adamw", "gradients" (parameters aren't changed), or the pass: `Step(...)`.
        parameters: the initializers that are trained: names with wildcards, "!" before those that aren't.  By
            default all float tensors with an axis that the loss depends on, but for statistics of batch
            normalizations.
        batch_norm: "frozen" goes by the model's statistics, "batch" by those of each batch, while the running
            ones are handed on.
        dropout: "none", dropouts drop nothing, "seeded", what an input `dropout_seeds` [N] draws for each
            sample by a hash.
        groups: for group-lasso, which elements of an input go together: as in `irshap.compile`.
        instruments: what watches the passes.

    Raises:
        ModelError: the model can't be read, or has no such parameter.
        NotDifferentiable: an op on the way has no derivative, or none of its derivative.
        PipelineError: arguments that contradict each other.
    """
    how = _as_pass(Loss, "loss", loss)
    if isinstance(how, Loss) and output:
        how = replace(how, output=output)
    wanted = None if prior is None else _as_pass(Prior, "prior", prior)
    read = Model.of(model, {})
    listed = parameters if isinstance(parameters, str) else ", ".join(parameters)
    if batch_norm not in ("frozen", "batch"):
        raise PipelineError(f"batch_norm={batch_norm!r} is unknown", mend="use frozen or batch")
    if dropout not in ("none", "seeded"):
        raise PipelineError(f"dropout={dropout!r} is unknown", mend="use none or seeded")
    trainable = Trainable(batch_norm=batch_norm, dropout=dropout)  # type: ignore[arg-type]
    lift = replace(read.reading, parameters=listed, statistics=batch_norm == "batch")
    given: list[Pass] = [lift, trainable, how]
    if optimizer != "gradients":
        given.append(_as_pass(Step, "optimizer", optimizer))
    if wanted is None:
        if method is not None or target is not None:
            raise PipelineError("a method or a target is for a prior, and there is none", mend="give prior=")
        passes: Sequence[Pass] = parse_pipeline(PIPELINES["train"])
    else:
        passes, explained = _with_prior(wanted, how, method, target, trainable)
        given += [wanted, explained]
    chosen = [_asked(p, given) for p in passes if optimizer != "gradients" or not isinstance(p, Step)]
    last = KeepGraph()

    unread: list[str] = []
    while True:
        context = Context(groups=read_groups(groups))
        context.metadata[Metadata.VERSION] = VERSION
        # read back, so that a dataclass is checked as its text is
        manager = PassManager(parse_pipeline(format_pipeline(chosen)), [*instruments, last])
        try:
            made = manager.run(read.source, context)
            break
        except UnreadParameters as error:
            if listed != "*":
                raise
            # only now is it known which of all the loss doesn't depend on
            unread += error.names
            lift = replace(lift, parameters=", ".join(["*", *(f"!{_literally(n)}" for n in unread)]))
            chosen = [lift if isinstance(p, Lift) else p for p in chosen]
    handed = {**Training.of(made).parameters, **Training.of(made).states}
    untrained: Mapping[str, str] = {}
    if listed == "*":
        untrained = untrained_initializers(inline_functions(context.source), handed)
    return TrainingStep(made, last.graph, manager.report, manager.text, untrained)


def _literally(name: str) -> str:
    """The pattern that fits this name, without what ends a pattern: a comma is one of "+,-"."""
    return re.sub(r"\s", r"[\g<0>]", escape(name)).replace(",", "[+--]")


def passes_of(step: onnx.ModelProto) -> tuple[Pass, ...]:
    """The passes that made a training step.

    Raises:
        ModelError: `step` is no training step.
    """
    Training.of(step)
    return parse_pipeline(metadata_of(step)[Metadata.PIPELINE])


def evaluation(step: onnx.ModelProto, model: Any) -> onnx.ModelProto:
    """A program that gives a model's outputs and its loss, with the parameters of a step as inputs.

    Raises:
        ModelError: `step` is no training step.
    """
    given = [p for p in passes_of(step) if isinstance(p, Lift | Trainable | Loss)]
    given = [
        replace(p, batch_norm="running", dropout="none") if isinstance(p, Trainable) else p for p in given
    ]
    manager = PassManager([_asked(p, given) for p in parse_pipeline(PIPELINES["train-evaluate"])])
    result: onnx.ModelProto = manager.run(Model.of(model, {}).source, Context())
    return result


def _with_prior(
    prior: Prior, loss: Loss, method: Any, target: Any, trainable: Trainable
) -> tuple[list[Pass], Target]:
    """The passes with a prior, and the target."""
    right = prior.kind == "right-reasons"
    how = as_method(method or ("gradient" if right else "x-gradient"))
    defaults = {f.name: f.default for f in fields(how)}
    if "places" in defaults:
        how = replace(how, places=True, per_sample=True, chunk=0)  # type: ignore[call-arg]
    elif "chunk" in defaults and how.chunk == defaults["chunk"]:  # type: ignore[attr-defined]
        # one that is asked for is a loop, and so is its derivative; otherwise all points at once
        how = replace(how, chunk=0)  # type: ignore[call-arg]
    if how.points not in (Points.SAMPLE, Points.SAMPLE_AND_REFERENCE, Points.PATH):
        raise PipelineError(
            f"there is no prior on attributions by {how.name}, which nothing differentiates",
            mend="use gradient, input-x-gradient, x-gradient, integrated-gradients, expected-gradients, "
            "or deeplift",
        )
    if trainable.dropout == "seeded" and how.points is not Points.SAMPLE:
        raise PipelineError(
            f"{how.name} runs other rows than samples, for which nothing is drawn that drops them",
            mend="use dropout=none, or a method that looks at the sample alone, such as x-gradient",
        )
    if trainable.batch_norm == "batch" and how.points is not Points.SAMPLE:
        raise PipelineError(
            f"{how.name} runs other rows than samples, which batch statistics would mix with these",
            mend="use batch_norm=frozen, or a method that looks at the sample alone, such as x-gradient",
        )
    text = PIPELINES["train-prior"]
    if how.points is Points.SAMPLE:
        text = text.replace(",eliminate-split-tile,broadcast-target,", ",")
    passes = list(parse_pipeline(text, {"method": how}))
    explained = Target("input") if loss.kind in _CLASSES else Target("sum")
    if target is not None:
        explained = as_target(target)
    elif right:
        explained = Target("sum", output=NAME)
        at = next(i for i, p in enumerate(passes) if isinstance(p, Target))
        passes.insert(at, LogProbabilities(loss.output))
    if explained.target == "weights" or (explained.target == "input" and loss.kind not in _CLASSES):
        raise PipelineError(
            f"target={explained.target} needs an input beside the labels, which a training step doesn't have",
            mend="attribute a class by its index, or a sum: target=sum[...]",
        )
    if loss.output and not explained.output:
        explained = replace(explained, output=loss.output)
    return passes, explained


_CLASSES = ("cross-entropy", "hinge")


def _asked(instance: Pass, given: Sequence[Pass]) -> Pass:
    """A pass of a pipeline as it was asked for."""
    return next((p for p in given if type(p) is type(instance)), instance)


def _as_pass(kind: Any, what: str, given: Any) -> Any:
    """A loss, prior or optimizer from its name, or as it is."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, str):
        raise PipelineError(f"{what}={given!r} is neither a name nor a {kind.__name__}")
    first = fields(kind)[0].name

    name, _, rest = given.partition("{")
    options = f"{first}={name.strip()}" + (f",{rest.rstrip().removesuffix('}')}" if rest else "")
    (found,) = parse_pipeline(f"{kind.name}{{{options}}}")
    return found

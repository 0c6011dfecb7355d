"""`irshap train-step` and `irshap train`: training with a prior on attributions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from irshap.cli.output import echo_json, require_apart, require_folder, size_text
from irshap.errors import UserError, printable

if TYPE_CHECKING:
    from irshap.training import TrainingStep

__all__ = ["train_command", "train_step_command"]

_F = TypeVar("_F", bound=Callable[..., Any])

LOSSES = ("cross-entropy", "binary-cross-entropy", "mse", "hinge", "cox")
PRIORS = ("sparse", "total-variation", "right-reasons", "group-lasso")
OPTIMIZERS = ("sgd", "adamw", "gradients")
"""As irshap.passes.training has them, which is imported when it is needed."""

_NAMED = 5
"""Initializers that a line names."""

_STEP = (
    click.option("--loss", type=click.Choice(LOSSES), default="cross-entropy", show_default=True),
    click.option(
        "--output-name", metavar="NAME", help="The output that the loss is of.  [default: the first]"
    ),
    click.option(
        "--parameters",
        default="*",
        show_default=True,
        metavar="NAMES",
        help="Initializers to train, comma-separated, with wildcards, ! before those that aren't; * is every "
        "float tensor with an axis that the loss depends on.",
    ),
    click.option(
        "--prior", type=click.Choice(PRIORS), help="What attributions should be like.  [default: none]"
    ),
    click.option(
        "--method",
        help="Whose attributions: gradient, input-x-gradient, x-gradient, deeplift, integrated-gradients or "
        "expected-gradients.  [default: x-gradient; gradient for right-reasons]",
    ),
    click.option("--target", help="The class that is attributed.  [default: the label's]"),
    click.option(
        "--axes", metavar="2,3", help="Of total-variation; axis 0 counts samples.  [default: from 2 on]"
    ),
    click.option("--groups", metavar="G.npy", help="Of group-lasso: integers by feature."),
    click.option("--optimizer", type=click.Choice(OPTIMIZERS), default="sgd", show_default=True),
    click.option("--momentum", type=float, default=0.0, show_default=True, help="Of sgd."),
    click.option("--nesterov", is_flag=True, help="Of sgd."),
    click.option("--weight-decay", type=float, default=0.0, show_default=True),
    click.option(
        "--batch-norm",
        type=click.Choice(["frozen", "batch"]),
        default="frozen",
        show_default=True,
        help="Normalize by the model's statistics, or by those of each batch.",
    ),
    click.option(
        "--dropout",
        type=click.Choice(["none", "seeded"]),
        default="none",
        show_default=True,
        help="Drop nothing, or what seeds draw for each sample.",
    ),
)


def _stepping(command: _F) -> _F:
    for option in reversed(_STEP):
        command = option(command)
    return command


@click.command("train-step")
@click.argument("model")
@click.option("--output", "-o", required=True, metavar="STEP.onnx", help="The training step to write.")
@_stepping
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def train_step_command(model: str, output: str, as_json: bool, **options: Any) -> None:
    """Compile one step of training MODEL into one ONNX file.

    It takes the model's inputs, labels, the learning rate and the parameters, and gives loss, prior and for
    each parameter NAME_next (or NAME_gradient).
    """
    require_folder(output)
    require_apart(output, model)
    step = _step(model, **options)
    step.save(output)
    report = {
        "output": output,
        "bytes": Path(output).stat().st_size,
        "nodes": len(step.model.graph.node),
        "inputs": {str(v.name): str(v.type) for v in step.graph.inputs},
        "outputs": {o.name: str(o.value.type) for o in step.graph.outputs},
        "parameters": dict(step.training.parameters),
        "untrained": dict(step.untrained),
        **step.report.to_dict(),
    }
    if as_json:
        echo_json(report)
        return
    click.echo(f"{output}: {size_text(report['bytes'])}, {report['nodes']} nodes")
    for kind in ("inputs", "outputs"):
        for name, type in report[kind].items():
            click.echo(printable(f"  {kind[:-1]:<8} {name} : {type}"))
    _tell_left_out(step)
    click.echo(f"  passes   {step.pipeline}")


def _tell_left_out(step: TrainingStep) -> None:
    """What isn't trained, a line for each reason, and what does nothing."""
    by_reason: dict[str, list[str]] = {}
    for name, why in step.untrained.items():
        by_reason.setdefault(why, []).append(name)
    for why, names in by_reason.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        click.echo(printable(f"  not trained: {', '.join(names[:_NAMED])}{more}: {why}"))
    if step.idle_dropouts:
        click.echo(f"  dropouts that drop nothing: {step.idle_dropouts} (--dropout seeded)")


@click.command("train")
@click.argument("model")
@click.argument("data")
@click.option("--output", "-o", required=True, metavar="OUT.onnx", help="The trained model to write.")
@click.option("--labels", metavar="L", help="Labels: .npy, or a name in DATA.  [default: labels]")
@click.option("--validation", metavar="V", help="Data that is only looked at after each epoch, as DATA.")
@click.option("--validation-labels", metavar="L", help="Its labels, as --labels.")
@_stepping
@click.option("--prior-weight", type=float, default=1.0, show_default=True)
@click.option("--learning-rate", type=float, default=0.01, show_default=True)
@click.option("--epochs", type=int, default=10, show_default=True)
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option(
    "--references",
    type=int,
    default=1,
    show_default=True,
    help="A sample's in a step, for expected-gradients.",
)
@click.option(
    "--patience", type=int, default=0, show_default=True, help="Epochs without a smaller loss; 0: never stop."
)
@click.option("--checkpoint", metavar="RUN.npz", help="Where the run is kept, and resumed from.")
@click.option(
    "--checkpoint-every", type=int, default=0, show_default=True, metavar="STEPS", help="Also within epochs."
)
@click.option("--threads", type=int, default=1, show_default=True, help="1 repeats to the bit.")
def train_command(
    model: str,
    data: str,
    output: str,
    labels: str | None,
    validation: str | None,
    validation_labels: str | None,
    checkpoint: str | None,
    **options: Any,
) -> None:
    """Train MODEL on DATA (.npz by name, .npy or .parquet), and write it with its new weights.

    DATA has the model's inputs, and what the loss and the prior need: labels, events, sample_weights,
    INPUT_mask, INPUT_references.
    """
    from irshap.training import Settings, Trainer

    require_folder(output)
    if checkpoint is not None:
        require_folder(checkpoint)
    read = {"DATA": data, "--labels": labels, "--validation": validation, "--checkpoint": checkpoint}
    require_apart(output, inputs={**read, "--validation-labels": validation_labels})
    names = ("prior_weight", "learning_rate", "epochs", "batch_size", "seed", "references", "patience")
    settings = Settings(**{n: options.pop(n) for n in (*names, "checkpoint_every", "threads")})
    if options["optimizer"] == "gradients":
        raise UserError("gradients alone train nothing", mend="use sgd or adamw")
    step = _step(model, **options)
    _tell_left_out(step)
    trainer = Trainer(step, model, settings, checkpoint=checkpoint)

    def tell(epoch: int, metrics: dict[str, float]) -> None:
        told = ", ".join(f"{name.replace('_', ' ')} {value:.6g}" for name, value in metrics.items())
        click.echo(f"epoch {epoch}: {told}")

    history = trainer.fit(
        data,
        _labels(labels),
        validation=validation,
        validation_labels=_labels(validation_labels if validation_labels is not None else labels),
        progress=tell,
    )
    trainer.save(output)
    click.echo(f"{output}: {size_text(Path(output).stat().st_size)}, after {len(history)} epochs")


def _labels(given: str | None) -> Any:
    """A file, or the name of an array in the data."""
    if given is None or Path(given).suffix not in (".npy", ".npz"):
        return given
    from irshap.runtime.arrays import as_arrays

    return as_arrays(given, ["labels"], UserError, "labels")["labels"]


def _step(
    model: str,
    *,
    loss: str,
    output_name: str | None,
    prior: str | None,
    axes: str | None,
    optimizer: str,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    **options: Any,
) -> TrainingStep:
    from irshap.passes.training.prior import Prior
    from irshap.passes.training.step import Step
    from irshap.training import train_step

    try:
        wanted = tuple(int(axis) for axis in axes.split(",")) if axes else ()
    except ValueError:
        raise UserError(f"--axes {axes!r} are no integers", mend="write --axes 2,3") from None
    if axes and prior != "total-variation":
        raise UserError("--axes is an option of total-variation", mend="leave it out")
    how: Any = optimizer
    if optimizer != "gradients":
        try:
            how = Step(optimizer, momentum, nesterov, weight_decay)  # type: ignore[arg-type]
        except ValueError as error:
            raise UserError(str(error), where=f"--optimizer {optimizer}") from None
    return train_step(
        model,
        loss=loss,
        output=output_name or "",
        prior=None if prior is None else Prior(prior, wanted),  # type: ignore[arg-type]
        optimizer=how,
        **options,
    )

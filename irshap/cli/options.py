"""Options that several commands share: what is explained, and against what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from irshap.pipeline.named import DEVICES, SESSIONS
from irshap.pipeline.strategies import STRATEGIES

__all__ = ["LAYOUT", "compiling", "explained_arguments", "explaining", "reading"]

_F = TypeVar("_F", bound=Callable[..., Any])


LAYOUT = click.option(
    "--layout",
    type=click.Choice(["auto", "channels-first", "channels-last"]),
    default="auto",
    show_default=True,
    help="Where pictures have their channels.",
)


def _batch(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value not in ("auto", "none") and not (value.isdecimal() and int(value) > 0):
        raise click.BadParameter(f"{value!r} is none of auto, none, or a number from 1 on")
    return value


_READING = (
    click.option(
        "--batch",
        callback=_batch,
        default="auto",
        show_default=True,
        metavar="auto|none|SIZE",
        help="With none, the model has no batch axis: its whole input is one sample, as a graph's nodes are. "
        "With a size, the explained model takes that many samples at a time.",
    ),
    click.option(
        "--set",
        multiple=True,
        metavar="INPUT=VALUE",
        help="Fix an input of one element (a sampling rate, say), and decide what it chooses; repeatable.",
    ),
    click.option(
        "--dim",
        multiple=True,
        metavar="AXIS=SIZE",
        help="Fix the size of an open axis, by its name or as INPUT[AXIS]; repeatable.",
    ),
    click.option(
        "--batch-axis",
        multiple=True,
        metavar="TENSOR=AXIS",
        help="Which axis of an input or output counts samples, where it isn't found; repeatable.",
    ),
    click.option(
        "--constants",
        metavar="SIZE",
        help="What the model may compute from its constants alone (1GiB, beside large weights more).",
    ),
)

_REFERENCES = click.option(
    "--references", "-r", metavar="REFS", help="Samples to compare with: .npy [R, ...], or .npz by input."
)

_EXPLAINING = (
    *_READING,
    click.option(
        "--per-sample",
        is_flag=True,
        help="Every sample brings its own references: INPUT_references [N, R, ...], at run time.",
    ),
    click.option(
        "--target",
        default="argmax",
        show_default=True,
        metavar="argmax|INDEX|top-K|all|input|sum[...]|mean[...]|weights",
        help="The class to explain, or a sum over a region of the output; with input and weights, the "
        "explained model takes class or weights at run time.",
    ),
    click.option(
        "--rule",
        metavar="rescale|reveal-cancel|mixed",
        help="How deeplift treats ops that aren't linear.  [default: rescale]",
    ),
    click.option(
        "--passes", metavar="PIPELINE", help="Passes to run instead of the method's own, such as @naive."
    ),
    click.option(
        "--wrt",
        metavar="TENSORS",
        help="Attribute to these tensors, comma-separated.  [default: float inputs and tokens]",
    ),
    click.option(
        "--output-name",
        "--explain",
        "explain",
        metavar="NAME",
        help="The output or float tensor to explain; 'a, b' explains each, 'a + b' their sum.  [default: the "
        "first float output]",
    ),
    click.option(
        "--context",
        multiple=True,
        metavar="TENSOR",
        help="An input or interior tensor that keeps the sample's value; repeatable.  auto: masks and "
        "positions computed from token ids; none: nothing.  [default: auto]",
    ),
    click.option(
        "--quantized",
        is_flag=True,
        help="Explain activations that are rounded to integers as the clips that these steps go around; what "
        "rounding contributes is in completeness_error.",
    ),
    click.option("--weights", metavar="W.npy", help="A weight for each reference.  [default: equal]"),
    click.option(
        "--on-incomplete",
        type=click.Choice(["error", "residual"]),
        help="Refuse an op without a complete rule, or leave a gap in the certificate.  [default: error]",
    ),
)

_COMPILING = (
    click.option(
        "--method",
        default="deeplift",
        show_default=True,
        help="One of `irshap methods`, options in {}.",
    ),
    click.option(
        "--groups",
        metavar="G.npy",
        help="Integers of an input's shape (.npz: by input): which cells methods replace together.",
    ),
    *_EXPLAINING,
    click.option(
        "--for",
        "device",
        type=click.Choice(DEVICES),
        default="cpu",
        show_default=True,
        help="What the explained model is for: ONNX Runtime on a CPU or on CUDA, OpenVINO, ONNX Runtime in a "
        "browser, or any runtime: the most portable form (docs/runtimes.md).",
    ),
    click.option(
        "--fp16/--no-fp16",
        default=None,
        help="Attributions in float16 where it does little harm; predictions stay exact.  [default: no]",
    ),
    click.option(
        "--emit",
        multiple=True,
        metavar="NAME",
        help="A further output: completeness_error; of deeplift also multipliers, hypothetical; repeatable.",
    ),
    click.option(
        "--letters",
        metavar="AXIS|INPUT=AXIS,...",
        help="The axis that tells letters apart, for hypothetical contributions: 1 for [N, 4, L].",
    ),
    click.option(
        "--strategy",
        type=click.Choice(["auto", *STRATEGIES]),
        default="auto",
        show_default=True,
        help="Store what follows from the references (fold), in chunks (stream), less of it in small ones "
        "(compact), or nothing of it (recompute).",
    ),
    click.option(
        "--memory-limit",
        "--memory",
        "memory_limit",
        metavar="SIZE",
        help="What a process of Python with the session may take, such as 8GiB: compile takes the first "
        "strategy that needs no more, cost tells how many references fit.",
    ),
    click.option(
        "--session",
        type=click.Choice(SESSIONS),
        default="default",
        show_default=True,
        help="Whose memory that is: ONNX Runtime's InferenceSession without options, or irshap.Explainer's, "
        "which is smaller.",
    ),
    click.option(
        "--external-data",
        is_flag=True,
        default=None,
        help="Weights and references' activations stand in a file beside OUT.onnx, mapped when needed.",
    ),
    click.option(
        "--summary",
        metavar="OPTIONS",
        help="Further outputs that sum attributions up: top=5, sum=1 (an axis), groups=true (with --groups), "
        "normalize=max|sum, heatmap=(224,224), keep=false; commas between. `irshap passes summary` tells "
        "all.",
    ),
)


def explaining(command: _F) -> _F:
    """Adds the options that say what is explained, and how the model is read."""
    return _with(command, (_REFERENCES, *_EXPLAINING))


def compiling(command: _F, references: Callable[[_F], _F] = _REFERENCES) -> _F:
    """Adds the options that say what is compiled, and how, with this one for references."""
    return _with(command, (references, *_COMPILING))


def reading(command: _F) -> _F:
    """Adds the options that say how the model is read."""
    return _with(command, _READING)


def _with(command: _F, options: Sequence[Callable[[_F], _F]]) -> _F:
    for option in reversed(options):
        command = option(command)
    return command


def explained_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `irshap.compile` that flat options, as commands have them, mean.

    Raises:
        ModelError: what is said of the model isn't NAME=VALUE.
        PipelineError: the method has no such option.
        ReferencesError: a file of references that can't be read.
    """
    from irshap.checks.instruments import watching
    from irshap.compiler.model import Model
    from irshap.compiler.references import References
    from irshap.compiler.request import with_options
    from irshap.lowering.computed import MOST_COMPUTED
    from irshap.lowering.given import named_pairs
    from irshap.passes.target import Target

    given = dict(options)
    of_target = {"output": given.pop("explain", None), "wrt": given.pop("wrt", None)}
    of_target["context"] = ",".join(given.pop("context", None) or ())
    target = Target(str(given.pop("target", "argmax")), **{k: v for k, v in of_target.items() if v})
    of_method = {name: given.pop(name, None) for name in ("rule", "letters", "on_incomplete")}
    of_method["emit"] = ",".join(given.pop("emit", None) or ()) or None
    of_references = (given.pop(name, None) for name in ("references", "weights", "per_sample"))
    samples, weights, per_sample = of_references
    references = References(samples, weights, bool(per_sample))
    said = {name: ",".join(given.pop(name, None) or ()) for name in ("set", "dim", "batch_axis")}
    if "model" in given:
        given["model"] = Model(
            given["model"],
            named_pairs(said["set"], "the value of an input", str),
            named_pairs(said["dim"], "the size of an axis", int),
            named_pairs(said["batch_axis"], "the axis of a batch", int),
            given.pop("batch", "auto"),
            given.pop("constants", None) or MOST_COMPUTED,
        )
    watched = {
        name: given.pop(name) for name in ("verify", "print_after", "time_passes", "verbose") if name in given
    }
    return {
        **given,
        "references": references,
        "target": target,
        "method": with_options(given.get("method", "deeplift"), of_method),
        "instruments": [*watching(**watched), *given.get("instruments", ())],
    }

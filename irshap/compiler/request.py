"""What is asked of the compiler, as passes: target, method, device or pipeline; or one clear error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from irshap.attribution.targets import target_text
from irshap.compiler.catalog import METHODS
from irshap.errors import PipelineError, near
from irshap.lowering.lift import Lift
from irshap.passes.close_loops import CloseLoops
from irshap.passes.fix_batch import FixBatch
from irshap.passes.fp16 import Fp16
from irshap.passes.methods.base import Method
from irshap.passes.quantized import Quantized
from irshap.passes.summary import Summary
from irshap.passes.target import Target
from irshap.pipeline.base import Pass
from irshap.pipeline.named import DEVICES, for_method
from irshap.pipeline.strategies import STRATEGIES, with_strategy
from irshap.pipeline.text import format_pipeline, parse_pipeline

__all__ = ["as_method", "as_summary", "as_target", "requested", "with_options"]

_PassT = TypeVar("_PassT", bound=Pass)


def requested(
    *,
    target: str | int | Sequence[int] | Target = "argmax",
    method: str | Method = "deeplift",
    device: str = "cpu",
    fp16: bool | None = None,
    quantized: bool = False,
    passes: str | None = None,
    strategy: str = "auto",
    weighted: bool = False,
    per_sample: bool = False,
    grouped: bool = False,
    reading: Lift | None = None,
    batch: int | None = None,
    summary: str | Summary | None = None,
) -> tuple[Pass, ...]:
    """The passes that these arguments of `irshap.compile` ask for.

    Args:
        weighted: whether the references have weights.
        per_sample: whether every sample brings references of its own; no pass then binds any.
        grouped: whether groups of cells are given.
        reading: how the model is read, where not as it stands.
        batch: how many samples the compiled model takes at a time; None: any number.
        summary: what is summed up of attributions; None: nothing.

    Raises:
        PipelineError: an unknown name, or two arguments that contradict each other.
    """
    _require_texts(device=device, strategy=strategy, **({} if passes is None else {"passes": passes}))
    explained, how, read = as_target(target), as_method(method), reading or Lift()
    if how.attributes:
        explained = _attributing(explained, how)
    if device not in DEVICES:
        raise PipelineError(f"no device is called {device!r}", mend=near(device, DEVICES))
    if weighted:
        how = _with_data(how, "weights", "weights are given", "compares with no references")
    if per_sample:
        how = _with_data(how, "per_sample", "references per sample are asked for", "compares with none")
    summed = None if summary is None else as_summary(summary)
    if grouped and not (summed and summed.groups and not hasattr(how, "groups")):
        how = _with_data(how, "groups", "groups are given", "replaces no groups")
    if passes is None:
        text = for_method(how.points, device)
    elif device != "cpu":
        raise PipelineError(
            f"device {device!r} contradicts the given passes", mend="leave one of the two out"
        )
    else:
        text = passes
    pipeline = [
        _decided(p, how) if isinstance(p, Method) else _merged_with(p, (read, explained))
        for p in parse_pipeline(text, {"method": how})
    ]
    if any(getattr(p, "per_sample", False) for p in pipeline):
        pipeline = [p for p in pipeline if not p.binds_references]
    for asked in (read, explained, how):
        _require(asked, pipeline)
    _require_points(pipeline)
    if quantized and not any(isinstance(p, Quantized) for p in pipeline):
        at = next((i + 1 for i, p in enumerate(pipeline) if isinstance(p, Lift)), 0)
        pipeline.insert(at, Quantized())
    found = _with_fp16(pipeline, fp16, given=passes is not None)
    if strategy != "auto":
        found = with_strategy(found, strategy)
    last = [p for p in (summed, None if batch is None else FixBatch(batch)) if p is not None]
    found = _before_lowering(found, last)
    # read back, so that a dataclass is checked as its text is
    return parse_pipeline(format_pipeline(found))


def as_summary(summary: object) -> Summary:
    """A summary from the text of its options, such as `top=5,heatmap=(224,224)`, or as it is.

    Raises:
        PipelineError: no such option.
    """
    if isinstance(summary, Summary):
        return summary
    mend = "give its options as text, such as 'top=5,heatmap=(224,224)'"
    try:
        found = parse_pipeline(f"summary{{{summary}}}") if isinstance(summary, str) else ()
    except PipelineError as error:
        raise PipelineError(f"{summary!r}: {error.what}", where="summary", mend=error.mend or mend) from error
    if len(found) != 1 or not isinstance(found[0], Summary):
        raise PipelineError(f"{summary!r} is no summary", where="summary", mend=mend)
    return found[0]


def _before_lowering(pipeline: Sequence[Pass], added: Sequence[Pass]) -> Sequence[Pass]:
    """The pipeline with further passes behind all that changes numbers."""
    if twice := next((p for p in added if any(type(p) is type(q) for q in pipeline)), None):
        raise PipelineError(f"the given passes have {twice.name} already", mend="leave one of the two out")
    # what looks for open sizes comes behind them
    at = next((i for i, p in enumerate(pipeline) if isinstance(p, CloseLoops)), len(pipeline) - 1)
    return [*pipeline[:at], *added, *pipeline[at:]]


def _require_texts(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, str):
            raise PipelineError(f"{name}={value!r} is no text", mend=f"{_TEXTS[name]}, or leave it out")


_TEXTS = {
    "device": f"give {' or '.join(DEVICES)}",
    "strategy": f"give auto, {', '.join(STRATEGIES)}",
    "passes": "give passes with commas between, such as @naive",
}


def as_method(method: Any) -> Method:
    """A method from its text, such as `deeplift` or `epsilon-lrp{epsilon=1e-3}`, or as it is.

    Raises:
        PipelineError: it is neither, or no such method.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        mend = "give its name, such as deeplift, or an instance: DeepLift(rule='mixed')"
        raise PipelineError(f"{method!r} is no method", mend=mend)
    name = method.partition("{")[0].strip()
    if name not in METHODS:
        raise PipelineError(f"no method is called {name!r}", mend=near(name, METHODS))
    found = parse_pipeline(method)
    if len(found) != 1 or not isinstance(found[0], Method):
        raise PipelineError(f"{method!r} is no single method", mend="give one, such as deeplift{rule=mixed}")
    return found[0]


def as_target(target: str | int | Sequence[int] | Target) -> Target:
    """A target from its short form, such as "argmax", a class index, a list of them or "sum[3]"."""
    return target if isinstance(target, Target) else Target(target_text(target))


def _attributing(target: Target, method: Method) -> Target:
    """A target for the tensors that a method names itself."""
    if target.wrt not in ("", method.attributes):
        raise PipelineError(
            f"wrt={target.wrt} contradicts {method.name}, which attributes {method.attributes}",
            mend="leave wrt out",
        )
    return replace(target, wrt=method.attributes)


def _with_data(method: Method, name: str, given: str, otherwise: str) -> Method:
    """A method that is told of data given to it beside its text."""
    if not any(f.name == name for f in fields(method)):
        raise PipelineError(f"{given}, but the method {method.name} {otherwise}", mend="leave them out")
    try:
        return replace(method, **{name: True})
    except ValueError as error:  # two that contradict each other
        raise PipelineError(str(error), mend="leave one of the two out") from None


def _decided(given: Method, asked: Method) -> Method:
    """The method of a pipeline, with the options asked for; another method is a contradiction."""
    if type(given) is type(asked):
        return _merged(given, asked)
    if _is_default(asked) and asked.name == "deeplift":
        return given
    raise PipelineError(
        f"method {asked.name!r} contradicts the given passes", mend="leave one of the two out"
    )


def _merged_with(given: Pass, asked: Sequence[Pass]) -> Pass:
    """A pass of a pipeline, with the options of the pass of its kind that is asked for."""
    wanted = next((p for p in asked if type(p) is type(given)), None)
    return given if wanted is None else _merged(given, wanted)


def _merged(given: _PassT, asked: _PassT) -> _PassT:
    """A pass of a pipeline with the options of another, each said once.

    Raises:
        PipelineError: an option that both say, in different ways.
    """
    changes = {}
    for option in fields(asked):
        wanted, there = getattr(asked, option.name), getattr(given, option.name)
        if wanted in (option.default, there):
            continue
        if there != option.default:
            raise PipelineError(
                f"{option.name}={wanted!r} contradicts {option.name}={there!r} of pass {given.name}",
                where="pipeline",
                mend="leave one of the two out",
            )
        changes[option.name] = wanted
    return replace(given, **changes) if changes else given


def _require(asked: Pass, pipeline: Sequence[Pass]) -> None:
    """Options that are asked for need a pass that takes them; defaults ask for nothing."""
    if _is_default(asked) or any(type(p) is type(asked) for p in pipeline):
        return
    option = next(f.name for f in fields(asked) if getattr(asked, f.name) != f.default)
    raise PipelineError(
        f"{option} needs the pass {asked.name}, which the pipeline doesn't have",
        where="pipeline",
        mend=f"add it, as in @default{{before=(lower, {asked.name})}}, or leave {option} out",
    )


def _require_points(pipeline: Sequence[Pass]) -> None:
    for method in (p for p in pipeline if isinstance(p, Method) and not p.points.references):
        if binding := [p.name for p in pipeline if p.binds_references]:
            raise PipelineError(
                f"method {method.name!r} contradicts the given passes: it looks at no reference, "
                f"and {binding[0]} binds references",
                mend="leave one of the two out",
            )


def with_options(method: str | Method, options: Mapping[str, object]) -> Method:
    """A method with some of its options set; None leaves an option as it is.

    Raises:
        PipelineError: the method has no such option, or has set it otherwise.
    """
    found = as_method(method)
    asked = {name: value for name, value in options.items() if value is not None}
    if not asked:
        return found
    known = {f.name: f.default for f in fields(found)}
    for name, value in asked.items():
        if name not in known:
            others = sorted(m.name for m in METHODS.values() if any(f.name == name for f in fields(m)))
            raise PipelineError(
                f"{name}={value} is no option of the method {found.name}",
                mend=f"it is one of {', '.join(others)}" if others else "leave it out",
            )
    return _merged(found, replace(type(found)(), **asked))


def _is_default(instance: Pass) -> bool:
    return all(getattr(instance, f.name) == f.default for f in fields(instance))


def _with_fp16(pipeline: Sequence[Pass], wanted: bool | None, *, given: bool) -> Sequence[Pass]:
    """The pipeline with the pass fp16 before `lower`, or without it, as asked."""
    others = [p for p in pipeline if not isinstance(p, Fp16)]
    if wanted is None or wanted == (len(others) < len(pipeline)):
        return pipeline
    if wanted:
        return [*others[:-1], Fp16(), *others[-1:]]
    if given:
        raise PipelineError("fp16=False contradicts the given passes", mend="leave one of the two out")
    return others

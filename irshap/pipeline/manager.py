"""Runs a pipeline of passes: checks that they fit together, shows each to its instruments, reports faults."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

from irshap.contract import Metadata
from irshap.errors import CheckFailed, PipelineError, UserError
from irshap.ir.core import Graph
from irshap.ir.rewrite import map_bodies
from irshap.pipeline.base import PASSES, PROPERTIES, Context, Pass
from irshap.pipeline.failure import explain_failure
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.report import PassRun, Report, program_size
from irshap.pipeline.text import format_pipeline, parse_pipeline, pass_text

__all__ = ["PassManager", "PassRun", "Report"]


class PassManager:
    """A pipeline, ready to run.

    After each pass the properties that it ensures are checked; all else that is checked, printed or measured
    is an instrument's work (`irshap.checks.instruments`).

    Args:
        passes: the passes, in order.
        instruments: what watches the run.

    Raises:
        PipelineError: the passes don't fit together, or don't fit an instrument.
    """

    def __init__(self, passes: Iterable[Pass], instruments: Sequence[Instrument] = ()) -> None:
        self.passes, self.instruments = tuple(passes), tuple(instruments)
        for instrument in self.instruments:
            instrument.begins(self.passes)
        self.report = Report(self.text)
        if not self.passes:
            raise PipelineError("the pipeline is empty", mend="name at least one pass")
        if self.passes[0].takes == "graph":
            self._check_kinds("graph")
        else:
            self.check()

    @classmethod
    def from_text(cls, text: str, instruments: Sequence[Instrument] = ()) -> PassManager:
        """A manager for a pipeline's text, such as `lift,canonicalize,@naive` (see irshap.pipeline.text)."""
        return cls(parse_pipeline(text), instruments)

    @property
    def text(self) -> str:
        """The pipeline's canonical text; `from_text` reads it back."""
        return format_pipeline(self.passes)

    def check(self, graph: Graph | None = None, start: int = 0) -> None:
        """Checks that each pass gets the kind of program and the properties that it requires.

        Args:
            graph: what the pipeline will run on, when it doesn't start from a model.
            start: the position of the first pass that will run.

        Raises:
            PipelineError: says which pass would give the missing property.
        """
        self._check_kinds("model" if graph is None else "graph", start)
        have = set() if graph is None else set(graph.properties)
        taken: dict[str, str] = {}
        for position, instance in enumerate(self.passes[start:], start + 1):
            for missing in sorted(instance.requires - have):
                raise PipelineError(
                    f"pass {instance.name} requires {missing!r}, "
                    + (
                        f"which {taken[missing]} took away"
                        if missing in taken
                        else "which nothing before it gives"
                    ),
                    where=f"pipeline, pass {position} of {len(self.passes)}",
                    mend=_providers(missing),
                )
            for given in sorted(instance.once & have):
                raise PipelineError(
                    f"pass {instance.name} makes a program {given!r}, which it already is",
                    where=f"pipeline, pass {position} of {len(self.passes)}",
                    mend="leave one of them out",
                )
            taken |= dict.fromkeys(instance.removes & have, instance.name)
            have = (have - instance.removes) | instance.ensures

    def _check_kinds(self, kind: str, start: int = 0) -> None:
        for position, instance in enumerate(self.passes[start:], start + 1):
            if instance.takes != kind:
                givers = sorted(c.name for c in PASSES.values() if c.gives == instance.takes != c.takes)
                if position == 1 and kind == "graph":
                    mend = "leave it out"
                else:
                    mend = f"put {' or '.join(givers)} before it" if givers else "it can only come first"
                raise PipelineError(
                    f"pass {instance.name} takes a {instance.takes}, and gets a {kind}",
                    where=f"pipeline, pass {position} of {len(self.passes)}",
                    mend=mend,
                )
            kind = instance.gives

    def run(self, ir: Any, context: Context | None = None, *, stop: int | None = None) -> Any:
        """Runs the passes.

        Args:
            ir: a Graph, or whatever the first pass takes (for `lift` a path, bytes or a ModelProto).
            context: the data of this compilation.
            stop: the position of the first pass that doesn't run; `resumed` goes on from there.

        Returns:
            What the last pass gives.

        Raises:
            UserError: the input doesn't allow what a pass should do; unchanged from the pass.
            PassError: a pass failed, or broke a promise; says how to rerun it.
            MemoryError: there is too little memory.
        """
        self.report = Report(self.text)
        return self._run(ir, context, 0, stop)

    def resumed(self, passes: Iterable[Pass], ir: Any, context: Context) -> tuple[Any, PassManager]:
        """Goes on with what `run` left at its stop, through the rest of `passes`, which begin as these did.

        Returns:
            What the last pass gives, and the manager whose report tells all of the run.
        """
        other = PassManager(passes, self.instruments)
        other.report.passes += self.report.passes
        return other._run(ir, context, len(self.report.passes), None), other

    def _run(self, ir: Any, context: Context | None, start: int, stop: int | None) -> Any:
        self.check(ir if isinstance(ir, Graph) else None, start)
        context = Context() if context is None else context
        context.metadata[Metadata.PIPELINE] = self.text
        done = False
        try:
            for index, instance in list(enumerate(self.passes))[start:stop]:
                for instrument in self.instruments:
                    instrument.before(index, instance)
                ir = self._step(index, instance, ir, context)
            done = stop is None
        finally:
            if done or len(self.report.passes) < len(self.passes[:stop]):
                for instrument in self.instruments:
                    instrument.ends(self.report)
        return ir

    def _step(self, index: int, instance: Pass, ir: Any, context: Context) -> Any:
        context.statistics.clear()
        result: Any = None
        try:
            start = time.perf_counter()
            result = _apply(instance, ir, context)
            seconds = time.perf_counter() - start
            if isinstance(result, Graph):
                result = _with_properties(instance, ir, result)
                for name in sorted(instance.ensures):
                    _check_property(name, result)
            notes = [i.after(instance, ir, result, context) for i in self.instruments]
        except (UserError, MemoryError):  # too little memory is no fault of a pass
            raise
        except Exception as error:
            position = f"{index + 1} of {len(self.passes)}"
            raise explain_failure(error, instance, position, ir, result) from error
        run = PassRun(
            pass_text(instance),
            seconds,
            program_size(ir),
            program_size(result),
            dict(context.statistics),
            tuple(sorted(result.properties)) if isinstance(result, Graph) else (),
            "; ".join(note for note in notes if note) or "properties",
        )
        self.report.passes.append(run)
        for instrument in self.instruments:
            instrument.recorded(run)
        return result


def _apply(instance: Pass, ir: Any, context: Context) -> Any:
    if instance.into_bodies and isinstance(ir, Graph):
        ir = map_bodies(ir, lambda body: cast(Graph, _apply(instance, body, context)))
    return instance.run(ir, context)


def _with_properties(instance: Pass, before: Any, after: Graph) -> Graph:
    kept = before.properties if isinstance(before, Graph) else frozenset()
    properties = ((kept | after.properties) - instance.removes) | instance.ensures
    return after if properties == after.properties else replace(after, properties=frozenset(properties))


def _check_property(name: str, graph: Graph) -> None:
    check = PROPERTIES.get(name)
    if check is None:
        raise TypeError(f"property {name!r} has no check: write one with @graph_property({name!r})")
    if problem := check(graph):
        raise CheckFailed(f"the graph should be {name!r}, but {problem}")


def _providers(missing: str) -> str:
    givers = sorted(cls.name for cls in PASSES.values() if missing in cls.ensures)
    return f"{' or '.join(givers)} would give it" if givers else "no pass gives it"

"""Runs a pipeline of passes: checks that they fit together, verifies and measures each, reports faults."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TextIO, TypeAlias, cast

from irshap.errors import CheckFailed, PipelineError, UserError, near
from irshap.ir.core import Graph
from irshap.ir.rewrite import map_bodies
from irshap.pipeline.base import PROPERTIES, Context, Pass
from irshap.pipeline.failure import explain_failure
from irshap.pipeline.text import format_pipeline, known_passes, parse_pipeline, pass_text

__all__ = ["VERIFY_LEVELS", "PassManager", "PassRun", "Report", "Verify"]

Verify: TypeAlias = Literal["none", "types", "numeric"]
VERIFY_LEVELS: tuple[Verify, ...] = ("none", "types", "numeric")


@dataclass(frozen=True)
class PassRun:
    """What one pass did.

    Attributes:
        text: the pass with its options, as in the pipeline.
        seconds: wall time of the pass alone, without verification.
        nodes_before, nodes_after: size of the program on both sides, in IR or ONNX nodes.
        statistics: what the pass counted.
        properties: the facts that hold after it.
        verified: the checks that it passed, or why one was left out.
    """

    text: str
    seconds: float
    nodes_before: int | None
    nodes_after: int | None
    statistics: dict[str, int]
    properties: tuple[str, ...]
    verified: str


@dataclass
class Report:
    """What a run of the pipeline did, pass by pass; grows while it runs."""

    pipeline: str
    passes: list[PassRun] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Wall time of all passes together."""
        return sum(run.seconds for run in self.passes)

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data, for JSON."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        """A table, a line for each pass."""
        lines = [f"{'seconds':>9}  {'nodes':>13}  pass"]
        for run in self.passes:
            before, after = ("-" if n is None else str(n) for n in (run.nodes_before, run.nodes_after))
            counts = ", ".join(f"{what}: {n}" for what, n in run.statistics.items())
            tail = f"  ({counts})" if counts else ""
            lines.append(f"{run.seconds:9.3f}  {before:>5} > {after:>5}  {run.text}{tail}")
        return "\n".join([*lines, f"{self.seconds:9.3f}  {'':13}  total"])


class PassManager:
    """A pipeline, ready to run.

    Args:
        passes: the passes, in order.
        verify: what is checked after each pass. "none": only that the properties which it ensures hold.
            "types": also the whole graph (types re-inferred, single assignment, every property). "numeric":
            also that the outputs keep their values on seeded random inputs.
        print_after: names of passes after which the IR is printed, or "all".
        time_passes: whether a table of the times is printed at the end.
        out: where both go; standard error by default.

    Raises:
        PipelineError: the passes don't fit together, or `print_after` or `verify` isn't known.
    """

    def __init__(
        self,
        passes: Iterable[Pass],
        *,
        verify: Verify = "none",
        print_after: Collection[str] | Literal["all"] = (),
        time_passes: bool = False,
        out: TextIO | None = None,
    ) -> None:
        self.passes = tuple(passes)
        if verify not in VERIFY_LEVELS:
            raise PipelineError(
                f"no level of verification is called {verify!r}", mend=near(verify, VERIFY_LEVELS)
            )
        self.verify: Verify = verify
        names = {p.name for p in self.passes}
        self.print_after = names if print_after == "all" else set(print_after)
        for name in sorted(self.print_after - names):
            raise PipelineError(
                f"can't print after pass {name!r}: it isn't in the pipeline", mend=near(name, names)
            )
        self.time_passes, self._out = time_passes, out
        self.report = Report(self.text)
        if not self.passes:
            raise PipelineError("the pipeline is empty", mend="name at least one pass")
        if self.passes[0].takes == "graph":
            self._check_kinds("graph")
        else:
            self.check()

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        verify: Verify = "none",
        print_after: Collection[str] | Literal["all"] = (),
        time_passes: bool = False,
        out: TextIO | None = None,
    ) -> PassManager:
        """A manager for a pipeline's text, such as `lift,canonicalize,@naive` (see irshap.pipeline.text)."""
        passes = parse_pipeline(text)
        return cls(passes, verify=verify, print_after=print_after, time_passes=time_passes, out=out)

    @property
    def text(self) -> str:
        """The pipeline's canonical text; `from_text` reads it back."""
        return format_pipeline(self.passes)

    def check(self, graph: Graph | None = None) -> None:
        """Checks that each pass gets the kind of program and the properties that it requires.

        Args:
            graph: what the pipeline will run on, when it doesn't start from a model.

        Raises:
            PipelineError: says which pass would give the missing property.
        """
        self._check_kinds("model" if graph is None else "graph")
        have = set() if graph is None else set(graph.properties)
        taken: dict[str, str] = {}
        for position, instance in enumerate(self.passes, 1):
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
            taken |= dict.fromkeys(instance.removes & have, instance.name)
            have = (have - instance.removes) | instance.ensures

    def _check_kinds(self, kind: str) -> None:
        for position, instance in enumerate(self.passes, 1):
            if instance.takes != kind:
                givers = sorted(
                    c.name for c in known_passes().values() if c.gives == instance.takes != c.takes
                )
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

    def run(
        self,
        ir: Any,
        context: Context | None = None,
        *,
        before: Callable[[int, Pass], None] | None = None,
        after: Callable[[int, Pass, Any], None] | None = None,
    ) -> Any:
        """Runs the passes.

        Args:
            ir: a Graph, or whatever the first pass takes (for `lift` a path, bytes or a ModelProto).
            context: the data of this compilation.
            before: called with (index, pass) when a pass starts.
            after: called with (index, pass, result) when it is done and verified.

        Returns:
            What the last pass gives.

        Raises:
            UserError: the input doesn't allow what a pass should do; unchanged from the pass.
            PassError: a pass failed, or broke a promise; says how to rerun it.
        """
        self.check(ir if isinstance(ir, Graph) else None)
        context = Context() if context is None else context
        context.metadata["irshap.pipeline"] = self.text
        self.report = Report(self.text)
        try:
            for index, instance in enumerate(self.passes):
                if before is not None:
                    before(index, instance)
                ir = self._step(index, instance, ir, context)
                if instance.name in self.print_after:
                    self._print(instance, ir)
                if after is not None:
                    after(index, instance, ir)
        finally:
            if self.time_passes:
                print(self.report, file=self._stream)
        return ir

    def _step(self, index: int, instance: Pass, ir: Any, context: Context) -> Any:
        context.statistics.clear()
        result: Any = None
        try:
            start = time.perf_counter()
            result = _run(instance, ir, context)
            seconds = time.perf_counter() - start
            if isinstance(result, Graph):
                result = _with_properties(instance, ir, result)
            verified = self._verify(instance, ir, result, context)
        except UserError:
            raise
        except Exception as error:
            position = f"{index + 1} of {len(self.passes)}"
            raise explain_failure(error, instance, position, ir, result) from error
        self.report.passes.append(
            PassRun(
                pass_text(instance),
                seconds,
                _size(ir),
                _size(result),
                dict(context.statistics),
                tuple(sorted(result.properties)) if isinstance(result, Graph) else (),
                verified,
            )
        )
        return result

    def _verify(self, instance: Pass, before: Any, after: Any, context: Context) -> str:
        if isinstance(after, Graph):
            promised = instance.ensures if self.verify == "none" else after.properties
            for name in sorted(promised):
                _check_property(name, after)
        if self.verify == "none":
            return "properties"
        if isinstance(after, Graph):
            from irshap.checks.verifier import verify

            verify(after)
        if self.verify == "types":
            return "types"
        from irshap.checks.equivalence import Unverified, check_same

        try:
            check_same(instance, before, after, context)
        except Unverified as why:
            return f"types; numeric skipped: {why}"
        return "numeric"

    def _print(self, instance: Pass, ir: Any) -> None:
        if isinstance(ir, Graph):
            from irshap.text import print_graph

            text = print_graph(ir, elide=True)
        else:
            text = f"a {instance.gives} of {_size(ir)} nodes\n"
        print(f"// after {pass_text(instance)}\n{text}", file=self._stream)

    @property
    def _stream(self) -> TextIO:
        # Asked for late: whoever replaces sys.stderr (a test, a progress display) is heard.
        return sys.stderr if self._out is None else self._out


def _run(instance: Pass, ir: Any, context: Context) -> Any:
    if instance.into_bodies and isinstance(ir, Graph):
        ir = map_bodies(ir, lambda body: cast(Graph, _run(instance, body, context)))
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
    givers = sorted(cls.name for cls in known_passes().values() if missing in cls.ensures)
    return f"{' or '.join(givers)} would give it" if givers else "no pass gives it"


def _size(ir: Any) -> int | None:
    if isinstance(ir, Graph):
        return len(ir.nodes)
    nodes = getattr(getattr(ir, "graph", None), "node", None)
    return None if nodes is None else len(nodes)

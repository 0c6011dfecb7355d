"""Instruments for a pass manager: they verify after each pass, print the IR, and tell the times."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import Any, Literal, TextIO

from irshap.checks.equivalence import Unverified, check_same
from irshap.checks.verifier import verify, verify_properties
from irshap.errors import PipelineError, near
from irshap.ir.core import Graph
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.instrument import Instrument
from irshap.pipeline.report import PassRun, Report, program_size
from irshap.pipeline.text import pass_text
from irshap.text.printer import print_graph

__all__ = ["VERIFY", "PrintAfter", "TellPasses", "TimePasses", "VerifyNumeric", "VerifyTypes", "watching"]


class VerifyTypes(Instrument):
    """Checks the whole graph after each pass: types inferred anew, single assignment, every property."""

    _verified: Graph | None = None

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> str | None:
        if not isinstance(made, Graph):
            self._verified = None
            return "types"
        # most passes have nothing to do in most programs
        (verify_properties if self._is_verified(made) else verify)(made)
        self._verified = made
        return "types"

    def _is_verified(self, graph: Graph) -> bool:
        """Whether it is what the pass before has made, up to its properties."""
        last = self._verified
        parts = ("inputs", "nodes", "outputs")
        return last is not None and all(getattr(graph, p) is getattr(last, p) for p in parts)


class VerifyNumeric(VerifyTypes):
    """Checks also that the outputs keep their values on seeded random inputs."""

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> str | None:
        super().after(instance, given, made, context)
        try:
            check_same(instance, given, made, context)
        except Unverified as why:
            return f"types; numeric skipped: {why}"
        return "numeric"


class PrintAfter(Instrument):
    """Prints the IR after the passes with these names, or "all"; to standard error by default."""

    def __init__(self, names: Collection[str] | Literal["all"], out: TextIO | None = None) -> None:
        self._names, self._out = names, out

    def begins(self, passes: Sequence[Pass]) -> None:
        known = {p.name for p in passes}
        for name in sorted(set() if self._names == "all" else set(self._names) - known):
            raise PipelineError(
                f"can't print after pass {name!r}: it isn't in the pipeline", mend=near(name, known)
            )

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> str | None:
        if self._names == "all" or instance.name in self._names:
            graph = isinstance(made, Graph)
            size = f"a {instance.gives} of {program_size(made)} nodes\n"
            text = print_graph(made, elide=True) if graph else size
            print(f"// after {pass_text(instance)}\n{text}", file=_stream(self._out))
        return None


class TellPasses(Instrument):
    """Says in a line what each pass did, as soon as it is done; to standard error by default."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out
        self._count = self._place = 0

    def begins(self, passes: Sequence[Pass]) -> None:
        self._count = len(passes)

    def before(self, index: int, instance: Pass) -> None:
        self._place = index + 1

    def recorded(self, run: PassRun) -> None:
        sizes = ["a file" if size is None else str(size) for size in (run.nodes_before, run.nodes_after)]
        told = [f"{what} {number}" for what, number in sorted(run.statistics.items())]
        nodes = f"{sizes[1]} nodes" if sizes[0] == sizes[1] else f"{sizes[0]} to {sizes[1]} nodes"
        line = ", ".join([f"{run.seconds:.2f} s", nodes, *told])
        print(f"{self._place:>2}/{self._count} {run.text}: {line}", file=_stream(self._out))


class TimePasses(Instrument):
    """Prints a table of the passes' times at the end; to standard error by default."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out

    def ends(self, report: Report) -> None:
        print(report, file=_stream(self._out))


VERIFY: dict[str, type[Instrument] | None] = {"none": None, "types": VerifyTypes, "numeric": VerifyNumeric}
"""The levels of verification by name."""


def watching(
    *,
    verify: str = "none",
    print_after: Collection[str] | Literal["all"] = (),
    time_passes: bool = False,
    verbose: bool = False,
) -> list[Instrument]:
    """The instruments that these options, as commands have them, ask for.

    Raises:
        PipelineError: no such level of verification.
    """
    if verify not in VERIFY:
        raise PipelineError(f"no level of verification is called {verify!r}", mend=near(verify, VERIFY))
    level = VERIFY[verify]
    found: list[Instrument] = [] if level is None else [level()]
    if print_after:
        found.append(PrintAfter(print_after))
    if verbose:
        found.append(TellPasses())
    return [*found, TimePasses()] if time_passes else found


def _stream(out: TextIO | None) -> TextIO:
    # Asked for late: whoever replaces sys.stderr (a test, a progress display) is heard.
    return sys.stderr if out is None else out

"""What watches a pipeline run: checks, printing, times and progress stay out of passes and manager."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from irshap.ir.core import Graph
from irshap.pipeline.base import Context, Pass
from irshap.pipeline.report import PassRun, Report

__all__ = ["Instrument", "KeepGraph"]


class Instrument:
    """Is shown a pipeline while it runs; every method may be left as it is (as TVM's pass instruments)."""

    def begins(self, passes: Sequence[Pass]) -> None:
        """A manager was made for `passes`.  Raises PipelineError where they don't fit the instrument."""

    def before(self, index: int, instance: Pass) -> None:
        """The pass at `index` (from 0) starts."""

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> str | None:
        """The pass made `made` of `given` (graphs, or models at the ONNX boundary).

        Returns what was verified by that, or None.  Raises a UserError, which stops the run as it is, or
        any other error, which is reported as a promise that the pass broke.
        """
        return None

    def recorded(self, run: PassRun) -> None:
        """The pass is over, and this stands in the report."""

    def ends(self, report: Report) -> None:
        """The run is over, or has failed."""


class KeepGraph(Instrument):
    """Keeps the last form of the program in IR."""

    graph: Graph

    def after(self, instance: Pass, given: Any, made: Any, context: Context) -> None:
        if isinstance(made, Graph):
            self.graph = made

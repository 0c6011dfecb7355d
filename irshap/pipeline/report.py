"""What a run of a pipeline did, pass by pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from irshap.ir.core import Graph

__all__ = ["PassRun", "Report", "program_size"]


@dataclass(frozen=True)
class PassRun:
    """What one pass did.

    Attributes:
        text: the pass with its options, as in the pipeline.
        seconds: wall time of the pass alone, without what watches it.
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


def program_size(ir: Any) -> int | None:
    """The number of nodes of a graph or an ONNX model; None for anything else."""
    if isinstance(ir, Graph):
        return len(ir.nodes)
    nodes = getattr(getattr(ir, "graph", None), "node", None)
    return None if nodes is None else len(nodes)

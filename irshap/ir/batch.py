"""Where the batch is: the axis of each value that counts samples."""

from __future__ import annotations

from collections.abc import Mapping

from irshap.errors import IRError, ModelError
from irshap.ir.core import Graph, MixesBatch, Node, Value
from irshap.ir.types import TensorType

__all__ = ["BatchAxes", "batch_axes"]


class BatchAxes:
    """The axis of each value that holds the batch.

    Ops that mix rows are found lazily: only asking for a value that depends on one raises.  `known` are axes
    of values for which the op doesn't say it.
    """

    def __init__(self, graph: Graph, known: Mapping[Value, int | None] | None = None) -> None:
        self._known = known or {}
        self._axes: dict[Value, int | None] = {}
        self._failures: dict[Value, tuple[Node, str]] = {}
        for node in graph.statements:
            self._visit(node)

    def _visit(self, node: Node) -> None:
        if all(v in self._known for v in node.results):
            self._axes.update({v: self._known[v] for v in node.results})
            return
        failed = next((self._failures[v] for v in node.operands if v in self._failures), None)
        if failed is None:
            axes = [self._axes[v] for v in node.operands]
            operands: list[TensorType] = [v.type for v in node.operands]  # type: ignore[misc]
            try:
                found = node.op.batch_axes(axes, operands, node.types)  # type: ignore[arg-type]
                self._axes.update(zip(node.results, found, strict=True))
            except MixesBatch as error:
                failed = (node, str(error))
        if failed is not None:
            self._failures.update(dict.fromkeys(node.results, failed))

    def axis(self, value: Value) -> int | None:
        """The batch axis of `value`, None for a value that is the same for every sample.

        Raises:
            ModelError: an op that it depends on mixes rows; names node, op and reason.
        """
        if value in self._failures:
            node, reason = self._failures[value]
            raise ModelError(
                f"the rows of its result don't depend on the same rows of its operands alone: {reason}",
                where=node.label,
                mend="samples are explained one by one, so the model must treat the rows of a batch apart; "
                "where its whole input is one sample, say so (batch=none)",
            )
        if value not in self._axes:
            raise IRError(f"{value!r} is no value of the graph whose batch axes these are")
        return self._axes[value]

    def reason(self, value: Value) -> str | None:
        """Why `value` has no known batch axis; None when it has one or needs none."""
        if value not in self._failures:
            return None
        node, reason = self._failures[value]
        return f"{node.label}: {reason}"


def batch_axes(graph: Graph) -> BatchAxes:
    """Where the batch is in each value, from where N stands in the inputs' shapes."""
    return BatchAxes(graph)

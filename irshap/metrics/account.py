"""An account of every op between two worlds: what came out of it, and what its local map shares out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.attribution.outputs import samples_first
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, Output, Role, Value
from irshap.ir.dims import Dim, R, as_dim
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.ir.walks import is_float
from irshap.ops.reduce import ReduceSum
from irshap.passes.autodiff import AdjointOrPullback, differentiate
from irshap.passes.methods import reveal_cancel
from irshap.passes.methods.joint_batch import JointBatch
from irshap.passes.methods.reveal_cancel import Share

__all__ = ["Loss", "account"]

Pairs = list[tuple[Value, Value]]
"""Cotangents with the values that they belong to."""


@dataclass(frozen=True)
class Loss:
    """What the local map m of one op loses, at the worst pair of a sample and a reference.

    `gap` is |sum of m * (operand - operand0) - sum of g * (result - result0)|, `flow` the magnitude of the
    two sums; `where` names the ONNX node and the op.
    """

    where: str
    gap: float
    flow: float


def account(graph: Graph, feeds: Callable[[Graph], dict[str, Array]], rule: str = "rescale") -> list[Loss]:
    """What each op of a graph with a target loses under a rule of deeplift, worst first.

    Args:
        feeds: arrays for the inputs of the graph that this makes: the samples', and the references'.
    """
    rows = as_dim(graph.output(Role.TARGET).value.shape[0] * R)
    nodes: list[Node] = []
    outputs: list[Output] = []

    def note(node: Node, **sides: list[tuple[int | None, Value]]) -> None:
        for name, side in sides.items():
            totals = [_total(value, axis, rows) for axis, value in side if axis is not None]
            outputs.extend(Output(f"{name}_{len(nodes)}_{i}", t) for i, t in enumerate(totals))
        nodes.append(node)

    with Builder() as b:
        if rule == "rescale":
            graph, records = _recorded(graph)
            joint = JointBatch(b, graph, (Role.SOURCE, Role.TARGET, Role.PROBE), [])
            for node, shared, came in records:
                note(node, shared=_products(joint, shared), came=_products(joint, came))
        else:
            joint = JointBatch(b, graph, (Role.SOURCE, Role.TARGET), [])

            def observe(node: Node, shared: list[Share], came: list[Share]) -> None:
                sides = [[(joint.axes[v], share) for v, share in side] for side in (shared, came)]
                note(node, shared=sides[0], came=sides[1])

            reveal_cancel.shares(joint, graph, mixed=rule == "mixed", observe=observe)
        built = b.build("account", outputs)
    arrays = evaluate(built, feeds(built))
    found = [_loss(node, position, arrays) for position, node in enumerate(nodes)]
    return sorted(found, key=lambda loss: np.inf if np.isnan(loss.gap) else loss.gap, reverse=True)


def _recorded(graph: Graph) -> tuple[Graph, list[tuple[Node, Pairs, Pairs]]]:
    """The graph with its reverse, and what each op was given and gives on; all of it is an output."""
    records: list[tuple[Node, Pairs, Pairs]] = []
    with Builder() as b:
        local = AdjointOrPullback(b)

        def recording(
            node: Node, cts: Sequence[Value], wrt: Sequence[int], changing: frozenset[int]
        ) -> Sequence[Value]:
            results = local(node, cts, wrt, changing)
            given = list(zip(cts, [v for v in node.results if is_float(v)], strict=True))
            records.append((node, list(zip(results, [node.operands[i] for i in wrt], strict=True)), given))
            return results

        mapping, _ = differentiate(b, graph, recording)
        outputs = [Output(o.name, mapping[o.value], o.role, o.of) for o in graph.outputs]
        probed = {v for _, taken, given in records for pair in (*taken, *given) for v in pair}
        outputs += [Output(f"probe_{i}", v, Role.PROBE) for i, v in enumerate(probed)]
        return b.build(graph.name, outputs, like=graph), records


def _products(joint: JointBatch, pairs: Pairs) -> list[tuple[int | None, Value]]:
    """Cotangent times difference, with the axis of the batch."""
    found: list[tuple[int | None, Value]] = []
    for cotangent, value in pairs:
        x, x0 = joint.halves(value)
        found.append((joint.axes[value], joint.halves(cotangent)[0] * (x - x0)))
    return found


def _total(value: Value, axis: int, rows: Dim) -> Value:
    """The sum for each pair of a sample and a reference."""
    first = samples_first(value, axis, rows)
    axes = tuple(range(1, first.rank))
    return emit1(ReduceSum(axes, keepdims=False), first) if axes else first


def _loss(node: Node, position: int, arrays: dict[str, Array]) -> Loss:
    sums = []
    for name in ("shared", "came"):
        parts = [a for n, a in arrays.items() if n.startswith(f"{name}_{position}_")]
        sums.append(np.sum(parts, axis=0) if parts else np.zeros(1))
    shared, came = sums
    gap, flow = np.abs(shared - came), np.abs(shared) + np.abs(came)
    return Loss(node.label, float(np.max(gap)), float(np.max(flow)))

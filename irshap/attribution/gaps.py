"""Where a difference between sample and reference reaches the target past what carries attributions.

Completeness is a cut: every path from what differs to the target goes through an attributed tensor, and from
there through ops with a complete local rule.  What breaks it is found here, before any rule is applied.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from irshap.attribution.side_paths import SidePath, side_paths
from irshap.attribution.sources import model_inputs
from irshap.contract import said
from irshap.errors import NotDifferentiable
from irshap.ir.core import Graph, Node, Role, Value
from irshap.ir.walks import is_float, upstream, varying_values
from irshap.ops.families import NonDifferentiable
from irshap.ops.program import Input, Pullback

__all__ = ["Gap", "from_text", "gaps", "gaps_of", "left_out", "references_needed", "refusal", "to_text"]


@dataclass(frozen=True)
class Gap:
    """An op at which a difference is lost: it is in f(x) - base, but in no attribution.

    `where` names the ONNX node and the op.
    """

    where: str
    reason: str
    mend: str = ""


def references_needed(graph: Graph) -> list[Value]:
    """The model's inputs that the attributed tensors are computed from: what differs between the worlds."""
    above = upstream(o.value for o in graph.outputs_of(Role.SOURCE))
    return [v for v in model_inputs(graph) if v in above]


def gaps(graph: Graph) -> list[Gap]:
    """Every op that takes a difference around the attributed tensors, or into what has no cotangent.

    `graph` has a target and sources; a float op without a complete rule is found only when its rule is asked.
    """
    sources = {o.value for o in graph.outputs_of(Role.SOURCE)}
    target = graph.output(Role.TARGET).value
    behind = varying_values(graph.nodes, sources)
    reaching = upstream([target], cut=sources)
    past: dict[Node, SidePath] = {}
    for path in side_paths(graph, list(sources), [target]):
        past.setdefault(path.node, path)
    found = []
    for node in graph.nodes:
        results = [v for v in node.results if v in reaching and v not in sources]
        if node.op.stops_change or not results:
            continue
        if node in past:
            found.append(_bypass(past[node], results[0], graph))
        elif any(v in behind and is_float(v) for v in node.operands) and (
            isinstance(node.op, NonDifferentiable) or not all(map(is_float, results))
        ):
            found.append(Gap(node.label, why(node), node.op.mend))
    return found


def gaps_of(graph: Graph, *, residual: bool, more: Iterable[Gap] = ()) -> list[Gap] | None:
    """The gaps of a graph, and `more`, where they may show in a residual; None where nothing may be missing.

    Raises:
        NotDifferentiable: something is.
    """
    found = [*gaps(graph), *more]
    if residual:
        return found
    if found:
        raise refusal(found[0])
    return None


def left_out(graph: Graph) -> list[Gap]:
    """The ops on the way back from the target whose local maps are those of what they step around."""
    passed = (n for n in graph.nodes if isinstance(n.op, Pullback) and n.op.of.leaves_out)
    return [Gap(Node(n.op.of, (), (), n.origin).label, n.op.of.leaves_out) for n in passed]  # type: ignore[attr-defined]


def why(node: Node) -> str:
    """Why differences can't go through `node`."""
    reason = getattr(node.op, "why", None) or getattr(node.op, "reason", None)
    kind = next((str(v.type) for v in node.results if not is_float(v)), "no tensor")
    return str(reason or f"its result jumps ({kind}): no local rule is complete")


def _bypass(path: SidePath, result: Value, graph: Graph) -> Gap:
    names = ", ".join(str(o.name) for o in graph.outputs_of(Role.SOURCE))
    origin = ", ".join(sorted(str(v.name) for v in upstream([path.operand]) if isinstance(v.node.op, Input)))
    reason = f"the target depends on {origin} also past {names}, through this op"
    held = f", or hold it at the sample's value (context={result.name})" if result.name else ""
    return Gap(path.node.label, reason, f"Attribute its result too (wrt){held}")


def refusal(gap: Gap) -> NotDifferentiable:
    """The error for a gap that wasn't asked for."""
    crossed = "the path from what is attributed to the target crosses an op without a complete rule"
    return NotDifferentiable(
        f"attributions could not sum up: {gap.reason}" if gap.mend else f"{crossed}: {gap.reason}",
        where=gap.where,
        mend=f"{gap.mend or 'Attribute a tensor behind it (wrt), explain another output'}, "
        "or let its difference show in completeness_error (on-incomplete=residual)",
    )


def to_text(found: Iterable[Gap]) -> str:
    """Gaps as JSON, for the lowered model's metadata."""
    unique = dict.fromkeys((g.where, g.reason) for g in found)
    return json.dumps([{"where": where, "reason": reason} for where, reason in unique], ensure_ascii=False)


def from_text(text: str) -> list[Gap]:
    """What `to_text` wrote."""
    return [Gap(entry["where"], entry["reason"]) for entry in said(text or "[]")]

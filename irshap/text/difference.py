"""What differs between two programs, statement by statement, whatever their values are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from hashlib import sha256

from irshap.ir.core import Graph, Node, Value
from irshap.text.printer import Printer, print_op, value_names

__all__ = ["Difference", "difference"]


@dataclass(frozen=True)
class Difference:
    """What `difference` finds.

    Attributes:
        lines: a unified diff without its head; none where the programs are the same.
        ops: for each op of which one program has more, how many before and after.
    """

    lines: list[str]
    ops: dict[str, tuple[int, int]]


def difference(before: Graph, after: Graph, *, context: int = 3) -> Difference:
    """Compares two programs.

    Statements with the same op, types and origin that follow each other in the same order are taken for one:
    their values are called in `before` as in `after`.  So a pass that numbers values anew changes nothing.

    Args:
        context: how many equal statements are shown around each change.
    """
    old, new = (_Listing(graph) for graph in (before, after))
    called = value_names(after)
    lines = list(
        unified_diff(old.lines(_matched(old, new, called)), new.lines(called), n=context, lineterm="")
    )
    counts = [Counter(node.op.mnemonic for node in listing.nodes) for listing in (old, new)]
    changed = sorted(op for op in {*counts[0], *counts[1]} if counts[0][op] != counts[1][op])
    return Difference(lines[2:], {op: (counts[0][op], counts[1][op]) for op in changed})


class _Listing:
    """A program's statements, with a digest of what is too long to be printed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = [*(v.node for v in graph.inputs), *graph.nodes]
        self.digests = [_digest(node) for node in self.nodes]
        self.keys = [
            (print_op(node.op, elide=True), digest, str(node.types), node.origin)
            for node, digest in zip(self.nodes, self.digests, strict=True)
        ]

    def lines(self, names: Mapping[Value, str]) -> list[str]:
        printer = Printer(self.graph, elide=True, names=names)
        pairs = zip(self.nodes, self.digests, strict=True)
        statements = [f"{printer.statement(node)}{digest}" for node, digest in pairs]
        outputs = [printer.output(output) for output in self.graph.outputs]
        return [line for text in (*statements, *outputs) for line in text.splitlines()]


def _digest(node: Node) -> str:
    if "elided" not in print_op(node.op, elide=True):
        return ""
    return f"   // sha256 {sha256(print_op(node.op).encode()).hexdigest()[:12]}"


def _matched(old: _Listing, new: _Listing, called: Mapping[Value, str]) -> dict[Value, str]:
    """The names of the old program's values: those of the new one where both have the statement."""
    found: dict[Value, str] = {}
    for block in SequenceMatcher(None, old.keys, new.keys, autojunk=False).get_matching_blocks():
        for i in range(block.size):
            pairs = zip(old.nodes[block.a + i].results, new.nodes[block.b + i].results, strict=True)
            found |= {value: called[other] for value, other in pairs}
    taken = set(found.values())
    for value, name in value_names(old.graph).items():
        # of the old program alone: marked where a value of both programs has that name
        found.setdefault(value, f"{name}'" if name in taken else name)
    return found

"""Rematerialization: what of the references is stored, and what a loop computes again, as a minimum cut."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil

from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, N, R, substitute, symbols_of
from irshap.ir.walks import ancestors, live

__all__ = ["OPEN", "rematerialized"]

OPEN = 128
"""What an axis whose size is open has, as far as costs are concerned."""

_FLOPS = 7.5
"""Operations that take as long as moving a byte: a core does 75 G of them, or moves 10 GB, in a second."""

_SEARCHED = 20
"""Bytes whose way takes as long as one comparison where maxima are looked for, element by element."""

_NODE = 16 * 2**10
"""Bytes whose way takes about as long as running a node; views are free."""

_START, _END = "start", "end"


def rematerialized(
    read: Iterable[Value],
    rowed: Iterable[Value],
    free: Callable[[Value], bool],
    size: Callable[[Value], Dim],
    price: float,
    *,
    rounded: bool = False,
) -> tuple[tuple[Value, ...], set[Node]]:
    """What to store so that `read` follows from it, and the nodes that compute the rest again.

    Least is price * (bytes stored) + (bytes moved to compute again, and what operations are worth): a minimum
    cut of the program, as torch's partitioner finds what a forward pass keeps for the backward one.  From the
    start an edge leads to each node, and is cut where it is computed again; from a node one leads to each
    result, and is cut where that is stored.  Layers, and what mixes references, are never computed again.

    Args:
        read: what the loop reads of the references.
        rowed: the values that could be stored, in order: with references, and computed while compiling.
        free: whether a value is there without being stored: weights, and what follows from them alone.
        size: the bytes that a value takes in store.
        rounded: whether what is stored is rounded, so that positions of maxima would move.
    """
    import networkx as nx  # takes 0.2 s, which only what loops over references needs

    wanted, could = [*dict.fromkeys(read)], dict.fromkeys(rowed)
    needed = ancestors(wanted, lambda v: v not in could) & could.keys()
    # in the program's order, so that ties fall alike each time
    nodes = [*dict.fromkeys(v.node for v in could if v in needed)]
    graph = nx.DiGraph()
    graph.add_nodes_from((_START, _END))
    for node in nodes:
        light = node.op.layer is None and not (rounded and node.op.positions)
        if light and node.operands and all(v in needed or free(v) for v in node.operands):
            graph.add_edge(_START, node, capacity=_work(node))
            graph.add_edges_from((v, node) for v in node.operands if v in needed)
        else:
            graph.add_edge(_START, node)
        graph.add_edges_from((node, v, {"capacity": ceil(price * _number(size(v)))}) for v in node.results)
    graph.add_edges_from((v, _END) for v in wanted)
    _, (before, _) = nx.minimum_cut(graph, _START, _END)
    stored = tuple(v for v in could if v in needed and v not in before and v.node in before)
    return stored, {*live(nodes, wanted, stored)}


def _work(node: Node) -> int:
    types = [[v.tensor.substitute({N: 1, R: 1}) for v in values] for values in (node.operands, node.results)]
    moved, flops = _number(node.op.nbytes(*types)), _number(node.op.flops(*types))
    worth = flops * _SEARCHED if node.op.positions else flops / _FLOPS
    return ceil(moved + worth + (_NODE if moved else 0))


def _number(size: Dim) -> int:
    """A size for one sample and one reference, open axes taken for middling ones."""
    given = {s: 1 if s in (N, R) else OPEN for s in symbols_of([size])}
    found = substitute(size, given)
    assert isinstance(found, int)
    return found

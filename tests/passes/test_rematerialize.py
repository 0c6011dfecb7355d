"""What of the references is stored: the least of all choices, found by trying each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from itertools import chain, combinations
from math import ceil

import numpy as np
import pytest

from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Node, Value
from irshap.ir.dims import Dim, R
from irshap.ir.types import DType, TensorType
from irshap.ops.elementwise import Exp, Relu
from irshap.ops.linear import MatMul
from irshap.ops.program import Constant, Full, Input
from irshap.ops.shape import Concat, split
from irshap.passes.references.rematerialize import rematerialized

WIDTH = 6000
FLOPS, NODE = 7.5, 16 * 2**10


def program(seed: int) -> tuple[list[Value], list[Value]]:
    """Values computed from references, and those of them that are read: branches, several results, layers."""
    rng = np.random.default_rng(seed)

    def pick(known: list[Value], like: Value | None = None) -> Value:
        same = [v for v in known if like is None or v.shape == like.shape]
        return same[rng.integers(len(same))]

    def sum_of(known: list[Value]) -> list[Value]:
        first = pick(known)
        return [first + pick(known, first)]

    def layer(known: list[Value]) -> list[Value]:
        first = pick(known)
        weights = emit1(Full(0.5, DType.F32, (first.shape[-1], 40)))
        return [emit1(MatMul(), first, weights)]

    steps: list[Callable[[list[Value]], list[Value]]] = [
        sum_of,
        sum_of,
        layer,
        lambda known: [emit1(Relu(), pick(known))],
        lambda known: [emit1(Exp(), pick(known))],
        lambda known: [emit1(Concat(1), pick(known), pick(known))],
        lambda known: list(split(v := pick(known), 1, [10, int(v.shape[1]) - 10])),
    ]
    with Builder() as b:
        kind = TensorType(DType.F32, (R, WIDTH))
        known = [b.emit(Input("r", "references", "x"), types=(kind,), names=("r",))[0]]
        for _ in range(5):
            known += steps[rng.integers(len(steps))](known)
    read = [v for v in known if rng.random() < 0.5]
    return known, read or known[-1:]


def bytes_of(value: Value) -> Dim:
    return value.tensor.substitute({R: 1}).nbytes


def price_of(stored: Collection[Value], read: Iterable[Value], price: float) -> float | None:
    """What a choice takes, or None where what is read doesn't follow from it."""
    again: set[Node] = set()
    wanted = [*read]
    while wanted:
        value = wanted.pop()
        if value in stored or isinstance(value.node.op, Constant | Full):
            continue
        if isinstance(value.node.op, Input | MatMul):
            return None
        if value.node not in again:
            again.add(value.node)
            wanted += value.node.operands
    total = float(sum(ceil(price * int(bytes_of(v))) for v in stored))
    for node in again:
        types = [[v.tensor.substitute({R: 1}) for v in values] for values in (node.operands, node.results)]
        moved = int(node.op.nbytes(*types))
        total += ceil(moved + int(node.op.flops(*types)) / FLOPS + (NODE if moved else 0))
    return total


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_is_cheaper(seed: int) -> None:
    rowed, read = program(seed)
    price = [0.5, 2.0, 3.0, 5.0, 20.0][seed % 5]
    stored, again = rematerialized(read, rowed, lambda v: isinstance(v.node.op, Full), bytes_of, price)
    found = price_of(stored, read, price)
    choices = chain.from_iterable(combinations(rowed, n) for n in range(len(rowed) + 1))
    least = min(c for c in (price_of(s, read, price) for s in choices) if c is not None)
    assert found == least
    assert not again & {v.node for v in stored}


def test_choices_differ_with_the_price() -> None:
    """That the test above has something to tell: some programs store less where storing costs more."""
    sizes = []
    for price in (0.0, 100.0):
        taken = [
            rematerialized(read, rowed, lambda v: isinstance(v.node.op, Full), bytes_of, price)[0]
            for rowed, read in map(program, range(20))
        ]
        sizes.append(sum(int(bytes_of(v)) for stored in taken for v in stored))
    assert sizes[1] < 0.5 * sizes[0]

"""Every op of the registry against its contract, on the samples that it gives itself.

A sample has operands, the operands in which its local linear map exists (`varying`) and, where it has rows,
the batch axis of each operand.  Nothing is skipped in silence: what an op can't do stands in a table here,
with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import pytest
from contract import (
    DIFFERENTIABLE,
    LIFTED_RESULTS,
    LIFTS_AS_OTHERS,
    NO_SAMPLES,
    NOT_EXPORTED,
    RULES_DIFFER_AT_REST,
    WHOLE_SINCE,
    Case,
    assert_same_graph,
    check_in_onnx,
    collected,
    concrete,
    feeds_of,
    given,
    in_precision,
    op_graph,
    run,
)
from kernels import needs_opset

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, MixesBatch, NoLocalRule, Point, Value
from irshap.ir.dims import same_shape, substitute
from irshap.ir.types import Array
from irshap.lowering import lift, lower
from irshap.lowering.emitter import EXPORTERS
from irshap.ops import OPS
from irshap.text import parse_graph, print_graph

every_case = pytest.mark.parametrize("case", list(collected()))
every_map = pytest.mark.parametrize("case", DIFFERENTIABLE)


# ---- the op itself ---------------------------------------------------------------------------------------


def test_every_op_has_samples_and_an_exporter() -> None:
    assert {m for m, c in OPS.items() if not list(c.samples())} == set(NO_SAMPLES)
    assert {m for m, c in OPS.items() if c not in EXPORTERS} == set(NOT_EXPORTED)


@every_case
def test_types(case: Case) -> None:
    """Inferred types are those of the results, also with N rows; nor do costs depend on when N is known."""
    arrays = case.sample.operands
    results = case.results(arrays)
    symbolic = case.op.infer(*case.types)
    op = case.op.substitute(case.binding)
    operands, plain = [concrete(a) for a in arrays], [concrete(a) for a in results]
    assert list(op.infer(*operands)) == plain
    assert [t.substitute(case.binding) for t in symbolic] == plain
    for count in ("flops", "nbytes"):
        total = getattr(op, count)(operands, plain)
        assert isinstance(total, int) and total >= 0
        assert substitute(getattr(case.op, count)(case.types, symbolic), case.binding) == total


def _picked(array: Array, axis: int | None, order: Sequence[int], rows: int) -> Array:
    """Rows of a batch axis in another order; a sample may be a block of several."""
    if axis is None:
        return array
    block = array.shape[axis] // rows
    index = [r * block + i for r in order for i in range(block)]
    return np.take(array, index, axis)


@every_case
def test_rows(case: Case) -> None:
    """Result rows follow operand rows: picking some before or after gives the same."""
    sample = case.sample
    arrays, results = sample.operands, case.results(sample.operands)
    if sample.batch is not None:
        symbolic = case.op.infer(*case.types)
        axes = case.op.batch_axes(sample.batch, case.types, symbolic)
        order = [*reversed(range(case.rows)), 0]
        picked = [_picked(a, i, order, case.rows) for a, i in zip(arrays, sample.batch, strict=True)]
        expected = [_picked(a, i, order, case.rows) for a, i in zip(results, axes, strict=True)]
        for a, b in zip(case.results(picked, len(order)), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    # whatever else an op claims to keep apart
    op = case.op.substitute(case.binding)
    types, kinds = [concrete(a) for a in arrays], [concrete(a) for a in results]
    for i, array in enumerate(arrays):
        for axis in range(array.ndim):
            where = [axis if j == i else None for j in range(len(arrays))]
            try:
                axes = op.batch_axes(where, types, kinds)
            except MixesBatch:
                continue
            count = array.shape[axis]
            order = [*reversed(range(count))]
            moved = op.evaluate(*(_picked(a, w, order, count) for a, w in zip(arrays, where, strict=True)))
            for a, b, to in zip(moved, results, axes, strict=True):
                np.testing.assert_allclose(a, _picked(b, to, order, count), rtol=1e-12, atol=1e-12)


@every_case
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_in_onnx(case: Case, precision: str) -> None:
    """The op evaluates as ONNX Runtime does, its lowered form lifts again, and its text parses again."""
    case, arrays = in_precision(case, precision)
    graph = op_graph(case)
    expected = {f"y{i}": a for i, a in enumerate(case.results(arrays))}
    name = case.op.mnemonic
    model = check_in_onnx(graph, feeds_of(x=arrays), expected, name)
    assert_same_graph(parse_graph(print_graph(graph)), graph)
    if not {name, f"{name} {precision}"} & set(LIFTS_AS_OTHERS):
        lifted = op_graph(case, LIFTED_RESULTS.get(name))
        assert_same_graph(lift(lower(lifted, opset=WHOLE_SINCE.get(name, 0)), batch="keep"), lifted)
    if name in WHOLE_SINCE:
        assert len(model.graph.node) > 1, f"it needs opset {model.opset_import[0].version}"
        needs_opset(WHOLE_SINCE[name])
        check_in_onnx(graph, feeds_of(x=arrays), expected, name, WHOLE_SINCE[name])


# ---- its local linear map --------------------------------------------------------------------------------


def choices(case: Case) -> list[tuple[int, ...]]:
    """Operands that vary together: each alone, all, and all that the sample promises a rule for."""
    floats = tuple(i for i, a in enumerate(case.sample.operands) if a.dtype.kind == "f")
    listed = [*((i,) for i in floats), case.sample.varying, floats]
    return list(dict.fromkeys(c for c in listed if c))


def promised(case: Case, wrt: Sequence[int]) -> bool:
    """Whether the sample promises a rule for these operands; for others the op may refuse, but not err."""
    return set(wrt) <= set(case.sample.varying)


every_choice = pytest.mark.parametrize(
    ("i", "wrt"),
    [
        pytest.param(i, wrt, id=f"{p.id}-wrt{''.join(map(str, wrt))}")
        for i, p in enumerate(DIFFERENTIABLE)
        for wrt in choices(p.values[0])
    ],
)


@dataclass(frozen=True)
class Maps:
    """Graphs of the derivative and the secant over x (operands), r (those of the other world) and ct.

    `lone`: the secant to a single reference.
    """

    derivative: Graph
    secant: Graph
    lone: Graph


@cache
def maps(i: int, wrt: tuple[int, ...], precision: str) -> Maps | None:
    """The local maps of the i-th differentiable case; None where the op refuses."""
    case, _ = in_precision(DIFFERENTIABLE[i].values[0], precision)
    try:
        return Maps(
            _map(case, wrt, worlds=1), _map(case, wrt, worlds=2), _map(case, wrt, worlds=2, alone=True)
        )
    except NoLocalRule as refusal:
        assert str(refusal)
        assert not promised(case, wrt), f"refuses {wrt}: {refusal}"
        return None


def _map(case: Case, wrt: tuple[int, ...], *, worlds: int, alone: bool = False) -> Graph:
    op: Any = case.op

    def body(builder: Builder, operands: tuple[Value, ...]) -> dict[str, Value]:
        points = []
        for world in range(worlds):
            values = list(operands)
            for k in wrt if world else ():
                values[k] = given(builder, f"r{k}", case.types[k])
            points.append(Point(tuple(values), builder.emit(op, *values), alone and world > 0))
        floats = [y.tensor for y in points[0].results if y.dtype.is_float]
        cts = [given(builder, f"ct{k}", t) for k, t in enumerate(floats)]
        if op.linear_in(frozenset(wrt)):
            found = [op.adjoints(cts, points[0], k) for k in wrt]
        else:
            found = list((op.derivative if worlds == 1 else op.secant)(cts, *points, wrt))
        for k, g in zip(wrt, found, strict=True):
            assert g.dtype is case.types[k].dtype and same_shape(g.shape, case.types[k].dims), g
        return {f"m{k}": g for k, g in zip(wrt, found, strict=True)}

    return case.build(body)


def floats_of(results: Sequence[Array]) -> list[Array]:
    return [y for y in results if y.dtype.kind == "f"]


def cotangents(case: Case, arrays: Sequence[Array]) -> list[Array]:
    rng = np.random.default_rng(70707)
    return [rng.standard_normal(y.shape).astype(y.dtype) for y in floats_of(case.results(arrays))]


def dot(a: Sequence[Array], b: Sequence[Array]) -> tuple[float, float]:
    """The inner product, and the sum of its terms' magnitudes."""
    terms = [(u.astype(np.float64) * v.astype(np.float64)).ravel() for u, v in zip(a, b, strict=True)]
    flat = np.concatenate(terms) if terms else np.zeros(0)
    return float(flat.sum()), float(np.abs(flat).sum())


@pytest.mark.slow
@every_choice
def test_derivative(i: int, wrt: tuple[int, ...]) -> None:
    """<u, (f(x + h v) - f(x - h v)) / 2h> == <J'u, v> in float64: the tangent and its transpose in one."""
    case = DIFFERENTIABLE[i].values[0]
    arrays = case.sample.operands
    found = maps(i, wrt, "f64")
    if found is None or any(arrays[k].dtype != np.float64 for k in wrt):
        return
    rng = np.random.default_rng(3)
    h = 1e-6
    direction = {k: rng.standard_normal(arrays[k].shape) for k in wrt}
    ends = []
    for sign in (h, -h):
        moved = [a + sign * direction[k] if k in direction else a for k, a in enumerate(arrays)]
        ends.append(floats_of(case.explained(moved)))
    if not promised(case, wrt) and not all(np.isfinite(y).all() for y in ends[0]):
        return
    cts = cotangents(case, arrays)
    expected, scale = dot(cts, [(a.astype(np.float64) - b) / (2 * h) for a, b in zip(*ends, strict=True)])
    pulled = run(found.derivative, feeds_of(x=arrays, ct=cts), case.binding)
    got, size = dot([pulled[f"m{k}"] for k in wrt], [direction[k] for k in wrt])
    noise = dot([np.abs(u) for u in cts], [np.abs(y) for y in ends[0]])[0] * 1e-9
    assert abs(expected - got) <= 1e-6 * (scale + size) + noise


def references(case: Case, wrt: tuple[int, ...]) -> Iterator[tuple[str, dict[int, Array]]]:
    """Second worlds: the operand's elements in another order (still in the domain), the same, nearby."""
    rng = np.random.default_rng(5)
    arrays = case.sample.operands
    shuffled = {k: rng.permutation(arrays[k].ravel()).reshape(arrays[k].shape) for k in wrt}
    other = {k: a if a.size > 1 else a * 0.9 for k, a in shuffled.items()}
    yield "other", other
    yield "same", {k: arrays[k] for k in wrt}
    yield "half", {k: np.where(rng.random(a.shape) < 0.5, arrays[k], a) for k, a in other.items()}
    for distance in (1e-9, 1e-5, 1e-3):
        steps = {k: distance * rng.choice([-1.0, 1.0], arrays[k].shape) for k in wrt}
        yield f"near {distance}", {k: arrays[k] + step for k, step in steps.items()}


def check_complete(
    case: Case, secant: Graph, arrays: Sequence[Array], other: Mapping[int, Array], exact: float
) -> dict[str, Array] | None:
    """sum m (x - x0) == sum ct (y - y0), and nothing infinite; None where the op itself overflows."""
    world0 = [other.get(k, a) for k, a in enumerate(arrays)]
    y, y0 = floats_of(case.explained(arrays)), floats_of(case.explained(world0))
    if not all(np.isfinite(v).all() for v in (*y, *y0)):
        return None
    cts = cotangents(case, arrays)
    feeds = feeds_of(x=arrays, ct=cts) | {f"r{k}": a for k, a in other.items()}
    m = run(secant, feeds, case.binding)
    assert all(np.isfinite(v).all() for v in m.values()), "not finite"
    wide = [[a.astype(np.float64) for a in side] for side in (y, y0)]
    expected, scale = dot(cts, [a - b for a, b in zip(*wide, strict=True)])
    delta = [arrays[k].astype(np.float64) - a for k, a in other.items()]
    got, size = dot([m[f"m{k}"] for k in other], delta)
    eps = max(float(np.finfo(arrays[k].dtype).eps) for k in other)
    noise = 64 * eps * sum(dot([np.abs(u) for u in cts], [np.abs(v) for v in side])[0] for side in wide)
    assert abs(expected - got) <= exact * (scale + size) + noise, f"gives {got}, should be {expected}"
    return m


def assert_near(found: Mapping[str, Array], expected: Mapping[str, Array], tolerance: float) -> None:
    """Equal up to this part of the largest element of all."""
    bound = tolerance * max(np.abs(a).max(initial=0.0) for a in expected.values())
    for name, a in expected.items():
        np.testing.assert_allclose(found[name], a, rtol=tolerance, atol=bound, err_msg=name)


@pytest.mark.slow
@every_choice
def test_secant_is_complete(i: int, wrt: tuple[int, ...]) -> None:
    """In float64 to 1e-10, wherever the reference lies; near the sample it is the derivative."""
    case = DIFFERENTIABLE[i].values[0]
    arrays = case.sample.operands
    found = maps(i, wrt, "f64")
    if found is None or any(arrays[k].dtype != np.float64 for k in wrt):
        return
    slope = run(found.derivative, feeds_of(x=arrays, ct=cotangents(case, arrays)), case.binding)
    for (kind, other), secant in product(references(case, wrt), (found.secant, found.lone)):
        m = check_complete(case, secant, arrays, other, 1e-10)
        assert m is not None or not promised(case, wrt), "the sample leaves the op's domain"
        if m is None:
            continue
        if kind == "near 1e-09" or (kind == "same" and case.op.mnemonic not in RULES_DIFFER_AT_REST):
            assert_near(m, slope, 2e-5)


@pytest.mark.slow
@every_choice
def test_secant_in_float32(i: int, wrt: tuple[int, ...]) -> None:
    """Finite and complete, also for differences of hundreds; near the sample no digits are lost."""
    case, arrays = in_precision(DIFFERENTIABLE[i].values[0], "f32")
    found = maps(i, wrt, "f32")
    if found is None:
        return
    slope = run(found.derivative, feeds_of(x=arrays, ct=cotangents(case, arrays)), case.binding)
    for (kind, other), secant in product(references(case, wrt), (found.secant, found.lone)):
        rounded = {k: a.astype(np.float32) for k, a in other.items()}
        m = check_complete(case, secant, arrays, rounded, 1e-5)
        if kind == "near 1e-05" and m is not None:
            assert_near(m, slope, 2e-3)
    for stretch in (200.0, -200.0):
        far = list(arrays)
        for k in wrt:
            far[k] = arrays[k] * np.float32(stretch / np.abs(arrays[k]).max(initial=1.0))
        for other in ({k: arrays[k] for k in wrt}, {k: -far[k] for k in wrt}, {k: far[k] for k in wrt}):
            for secant in (found.secant, found.lone):
                check_complete(case, secant, far, other, 1e-4)


@pytest.mark.slow
@every_choice
@pytest.mark.parametrize("precision", ["f64", "f32"])
def test_maps_in_onnx(i: int, wrt: tuple[int, ...], precision: str) -> None:
    """What a derivative or secant emits has an exporter, kernels in ONNX Runtime, and a text that parses."""
    found = maps(i, wrt, precision)
    if found is None:
        return
    case, arrays = in_precision(DIFFERENTIABLE[i].values[0], precision)
    other = next(o for kind, o in references(case, wrt) if kind == "half")
    feeds = feeds_of(x=arrays, ct=cotangents(case, arrays))
    feeds |= {f"r{k}": a.astype(arrays[k].dtype) for k, a in other.items()}
    for graph in (found.derivative, found.secant, found.lone):
        mine = {str(v.name): feeds[str(v.name)] for v in graph.inputs}
        check_in_onnx(graph, mine, run(graph, mine, case.binding), case.op.mnemonic)
        assert_same_graph(parse_graph(print_graph(graph)), graph)

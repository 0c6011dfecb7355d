"""Random graphs for property tests: small, valid, over the registered ops, with awkward names and numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
from hypothesis import strategies as st

import irshap.compiler.catalog  # noqa: F401  so that all passes have told their roles
from irshap.ir.builder import Builder, current, emit, emit1
from irshap.ir.core import Graph, Op, Output, Role, Source, Value
from irshap.ir.dims import Dim, N, R, as_dim, product, same, substitute
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.ops import OPS
from irshap.ops.arithmetic import Add, Div, Max, Min, Mul, Sub, Where
from irshap.ops.cast import Cast
from irshap.ops.families import Elementwise
from irshap.ops.index import ArgMax
from irshap.ops.logic import Equal, Greater, Less
from irshap.ops.program import Constant, Dims, Full, Hold, Input, Pullback
from irshap.ops.reduce import Expand, ReduceMean, ReduceSum
from irshap.ops.shape import Concat, Pad, Reshape, Slice, Split, Transpose
from irshap.pipeline.base import FACTS

FLOATS = (DType.F32, DType.F64)
TEXT = st.text(max_size=6)
NAMES = st.text(min_size=1, max_size=6)
BINDING: dict[Any, Dim] = {N: 2, R: 3}
"""What `input_arrays` gives for the dimension symbols."""


def _plain(family: type[Op]) -> list[type[Op]]:
    """The ops of a family that can be made without attributes."""
    return [
        cls
        for cls in OPS.values()
        if issubclass(cls, family) and all(f.default is not MISSING for f in fields(cls))  # type: ignore[arg-type]
    ]


UNARY = _plain(Elementwise)
BINARY = (Add, Sub, Mul, Div, Max, Min, Less, Greater, Equal)
"""Ops that broadcast either operand."""
FREE = [role for role in Role if role not in FACTS]
"""Roles that outputs of any program may have."""
SAMPLES = [sample for cls in OPS.values() for sample in cls.samples()]


@st.composite
def tensors(draw: st.DrawFn, *, dtypes: Sequence[DType] = tuple(DType)) -> Tensor:
    """Tensors of any element type with any bits, NaN payloads included."""
    dtype = draw(st.sampled_from(list(dtypes)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    size = int(np.prod(shape, dtype=int))
    if dtype is DType.STR:
        array = np.empty(size, dtype=object)
        array[:] = draw(st.lists(st.text(max_size=3), min_size=size, max_size=size))
    elif dtype is DType.BOOL or (dtype.is_integer and dtype.bytes == 1):
        array = np.array(draw(st.lists(st.integers(0, 1), min_size=size, max_size=size))).astype(dtype.numpy)
    elif dtype is DType.F4E2M1:
        array = np.array(draw(st.lists(st.sampled_from([0, 0.5, 6, -3]), min_size=size, max_size=size)))
        array = array.astype(dtype.numpy)
    else:
        count = size * dtype.bytes
        array = np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype=dtype.numpy)
    return Tensor(array.reshape(shape))


@st.composite
def graphs(draw: st.DrawFn, *, size: int = 8, runnable: bool = True) -> Graph:
    """Graphs of some inputs and about `size` nodes.

    Args:
        runnable: leave out what has no value (pullbacks).
    """
    moves = [*MOVES, *(() if runnable else (pullback,))]
    with Builder() as builder:
        # so that every symbol can be told from the inputs' shapes
        pool = [*builder.emit(Input("N, R"), types=(TensorType(DType.F32, (N, R)),), names=("N, R",))]
        for name in draw(st.lists(NAMES, max_size=3, unique=True)):
            kind = TensorType(draw(st.sampled_from(FLOATS)), draw(shapes()))
            pool += builder.emit(Input(name), types=(kind,), names=(name,))
        for _ in range(draw(st.integers(1, size))):
            with builder:
                builder.at(tuple(draw(st.lists(TEXT, max_size=2))))
                pool += draw(st.sampled_from(moves))(draw, pool)
        values = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3))
        names = draw(st.lists(NAMES, min_size=len(values), max_size=len(values), unique=True))
        roles = [draw(st.sampled_from(FREE)) for _ in values]
        of = draw(st.sampled_from([None, pool[0].name]))
        outputs = [Output(n, v, r, of) for n, v, r in zip(names, values, roles, strict=True)]
        graph = builder.build(draw(TEXT), outputs)
    source = Source(
        draw(st.integers(0, 30)), draw(TEXT), metadata=tuple(draw(st.lists(st.tuples(TEXT, TEXT))))
    )
    return Graph(graph.name, graph.inputs, graph.nodes, graph.outputs, graph.properties, source)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[Dim, ...]:
    """Up to four axes; the first may be symbolic."""
    first = draw(st.sampled_from([1, 2, N, as_dim(N * R), as_dim(2 * N + 1)]))
    return (first, *draw(st.lists(st.integers(1, 3), max_size=3)))


def _hint(draw: st.DrawFn) -> str | None:
    return draw(st.none() | st.sampled_from(["x", "x", "x_1", "conv/1", "7", "", "a b", "é", ".", "x_1_1"]))


def _named(draw: st.DrawFn, op: Op, *operands: Value) -> tuple[Value, ...]:
    """Emits an op with one result under a hint that may be awkward or taken."""
    return current().emit(op, *operands, names=(_hint(draw),))


def _floats(pool: list[Value]) -> list[Value]:
    return [v for v in pool if v.dtype in FLOATS]


def unary(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    return _named(draw, draw(st.sampled_from(UNARY))(), draw(st.sampled_from(_floats(pool))))


def binary(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    a = draw(st.sampled_from(_floats(pool)))
    return _named(draw, draw(st.sampled_from(BINARY))(), *draw(st.permutations([a, partner(draw, pool, a)])))


def partner(draw: st.DrawFn, pool: list[Value], a: Value) -> Value:
    """A value that broadcasts with `a` to its shape."""
    alike = [
        v
        for v in _floats(pool)
        if v.dtype is a.dtype and v.rank == a.rank and all(map(same, v.shape, a.shape))
    ]
    dims = [d if isinstance(d, int) and draw(st.booleans()) else 1 for d in a.shape]
    array = np.linspace(-1.5, 2.0, int(np.prod(dims)), dtype=a.dtype.numpy).reshape(dims)
    return draw(st.sampled_from(alike)) if draw(st.booleans()) else emit1(Constant(Tensor(array)))


def where(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    a = draw(st.sampled_from(_floats(pool)))
    b = partner(draw, pool, a)
    return emit(Where(), emit1(Less(), a, b), a, b)


def move(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    """Transposes, reshapes, cuts, pads, joins."""
    x = draw(st.sampled_from(pool))
    static = [a for a, d in enumerate(x.shape) if isinstance(d, int) and d > 0]
    options: list[Callable[[], tuple[Value, ...]]] = [
        lambda: emit(Transpose(tuple(draw(st.permutations(range(x.rank))))), x),
        lambda: emit(Reshape((*x.shape[:1], product(x.shape[1:]))), x),
        lambda: emit(Reshape((1, *x.shape, 1)), x),
        lambda: emit(Expand((2, *x.shape)), x),
        lambda: emit(Hold(), x),
    ]
    if static:
        axis = draw(st.sampled_from(static))
        length = int(x.shape[axis])
        cut = draw(st.integers(1, length))
        sizes = (cut, length - cut) if cut < length else (length,)
        step = draw(st.integers(1, 2))
        before = tuple(draw(st.integers(0, 1)) for _ in x.shape)
        options += [
            lambda: emit(Split(axis, sizes), x),
            lambda: emit(Concat(axis), x, x),
            lambda: emit(Slice((axis,), (length - cut,), (length,), (step,)), x),
            lambda: emit(Slice((axis,), (length - 1,), (-1,), (-step,)), x),
        ]
        if x.dtype in FLOATS:
            options.append(
                lambda: emit(Pad(before, (0,) * x.rank, draw(st.sampled_from([0.0, -1.5, 1e-30]))), x)
            )
    return draw(st.sampled_from(options))() if x.rank <= 5 and x.rank > 0 else (x,)


def reduction(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    x = draw(st.sampled_from(_floats(pool)))
    if x.rank == 0:
        return (x,)
    axes = tuple(sorted(draw(st.sets(st.integers(0, x.rank - 1), min_size=1))))
    keepdims = draw(st.booleans())
    op = draw(
        st.sampled_from([ReduceSum(axes, keepdims), ReduceMean(axes, keepdims), ArgMax(axes[:1], keepdims)])
    )
    return emit(op, x)


def cast(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    to = draw(st.sampled_from([*FLOATS, DType.I64, DType.BOOL]))
    return emit(Cast(to), draw(st.sampled_from(pool)))


def nullary(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    number = draw(st.floats(width=32, allow_subnormal=False, allow_nan=False))
    options = [
        Constant(draw(tensors(dtypes=[*FLOATS, DType.I64]))),
        Full(number, draw(st.sampled_from(FLOATS)), draw(shapes())),
        Dims(draw(shapes())),
    ]
    return _named(draw, draw(st.sampled_from(options)))


def sample(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    """A case of an op's own contract test, on constants."""
    case = draw(st.sampled_from(SAMPLES))
    batch = case.batch or (None,) * len(case.operands)
    rows = [a.shape[axis] for a, axis in zip(case.operands, batch, strict=True) if axis is not None]
    operands = [emit1(Constant(Tensor(a))) for a in case.operands]
    results = current().emit(case.op.substitute({N: rows[0]} if rows else {}), *operands, types=case.types)
    return tuple(v for v in results if isinstance(v.type, TensorType) and v.type.shape is not None)


def pullback(draw: st.DrawFn, pool: list[Value]) -> tuple[Value, ...]:
    x = draw(st.sampled_from(_floats(pool)))
    op = draw(st.sampled_from(UNARY))()
    (y,) = emit(op, x)
    return emit(Pullback(op, (0,), 1, 1), y, x, y)


MOVES = (unary, unary, binary, binary, where, move, move, reduction, cast, nullary, sample)


def input_arrays(graph: Graph, seed: int = 0) -> dict[str, Array]:
    """Random arrays for the inputs, under BINDING."""
    generator = np.random.default_rng(seed)
    result = {}
    for value in graph.inputs:
        shape = [int(substitute(d, BINDING)) for d in value.shape]  # type: ignore[arg-type]
        result[str(value.name)] = generator.standard_normal(shape).astype(value.dtype.numpy)
    return result

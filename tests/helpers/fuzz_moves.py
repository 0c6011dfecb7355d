"""The ops of random models that move elements around."""

from __future__ import annotations

import numpy as np
from fuzz_graphs import BATCH, OPS, Dim, Fuzz, Tensor, move
from onnx import TensorProto

__all__ = ["OPS"]


@move(2)
def transpose(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank >= 2)
    if x is None:
        return None
    perm = [int(p) for p in f.rng.permutation(x.rank)]
    if x.batch is not None and f.chance(0.7):
        # mostly the samples stay where they are
        perm.remove(x.batch)
        perm.insert(x.batch, x.batch)
    return f.add("Transpose", [x.name], [x.shape[p] for p in perm], perm=perm)


def _factors(f: Fuzz, count: int) -> list[int]:
    divisors = [d for d in range(1, count + 1) if count % d == 0]
    first = f.one_of(divisors)
    rest = count // first
    return f.one_of([[count], [first, rest], [1, count], [first, rest, 1]])  # type: ignore[no-any-return]


@move(2)
def reshape(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.batch == 0)
    if x is None:
        return None
    count = int(np.prod(list(x.shape[1:])))
    rows = x.shape[0][1]
    if f.chance(0.2) and x.rank >= 2:
        # samples merged with the axis behind them, or apart again
        if rows == 1:
            shape: list[Dim] = [("N", x.shape[1]), *x.shape[2:]]
            given = [-1, *x.shape[2:]]
        else:
            shape = [BATCH, rows, *x.shape[1:]]
            given = [-1, rows, *x.shape[1:]]
        return f.add("Reshape", [x.name, f.ints(given)], shape) if len(shape) < 5 else None
    inner = _factors(f, count)
    given = [0 if f.chance(0.5) else -1, *inner]
    return f.add("Reshape", [x.name, f.ints(given)], (x.shape[0], *inner))


@move(0.7)
def flatten(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.batch == 0 and t.rank >= 2)
    if x is None:
        return None
    return f.add("Flatten", [x.name], (x.shape[0], int(np.prod(list(x.shape[1:])))), axis=1)


@move(1)
def squeeze_or_unsqueeze(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank <= 4)
    if x is None:
        return None
    ones = [i for i, d in enumerate(x.shape) if d == 1]
    if ones and f.chance(0.6):
        axis = f.one_of(ones)
        shape = [d for i, d in enumerate(x.shape) if i != axis]
        return f.add("Squeeze", [x.name, f.ints([axis])], shape)
    axis = f.integer(1 if x.batch == 0 else 0, x.rank)
    return f.add("Unsqueeze", [x.name, f.ints([axis])], [*x.shape[:axis], 1, *x.shape[axis:]])


@move(1)
def expand_or_tile(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed) and np.prod([d for d in t.shape if isinstance(d, int)]) <= 30)
    if x is None:
        return None
    if f.chance(0.5):
        shape = [f.integer(2, 3) if d == 1 else d for d in x.shape]
        given = [1 if isinstance(d, tuple) else d for d in shape]
        return f.add("Expand", [x.name, f.ints(given)], shape)
    times = [f.integer(1, 2) if i in x.fixed else 1 for i in range(x.rank)]
    shape = [d * t if isinstance(d, int) else d for d, t in zip(x.shape, times, strict=True)]
    return f.add("Tile", [x.name, f.ints(times)], shape)


@move(2)
def slice_(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: any(t.shape[a] > 1 for a in t.fixed))
    if x is None:
        return None
    axis = f.one_of([a for a in x.fixed if x.shape[a] > 1])
    d = x.shape[axis]
    start, step = f.integer(0, d - 1), f.integer(1, 2)
    if f.chance(0.25):
        # backward through to the front
        start, stop, step = d - 1, -d - 1, -step
        count = -(-d // -step)
    else:
        stop = f.integer(start + 1, d)
        count = -(-(stop - start) // step)
        if stop == d and f.chance(0.3):
            stop = 2**40
    shape = [count if i == axis else n for i, n in enumerate(x.shape)]
    axes = [axis - f.integer(0, 1) * x.rank]
    return f.add("Slice", [x.name, *map(f.ints, ([start], [stop], axes, [step]))], shape)


@move(1)
def split(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: any(t.shape[a] > 1 for a in t.fixed))
    if x is None:
        return None
    axis = f.one_of([a for a in x.fixed if x.shape[a] > 1])
    cut = f.integer(1, x.shape[axis] - 1)
    sizes = [cut, x.shape[axis] - cut]
    names = f.node("Split", [x.name, f.ints(sizes)], 2, axis=axis)
    for name, count in zip(names, sizes, strict=True):
        f.pool.append(
            Tensor(name, tuple(count if i == axis else d for i, d in enumerate(x.shape)), x.positive)
        )
    return f.pool[-1]


@move(1.5)
def concat(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed))
    if x is None:
        return None
    axis = f.one_of(x.fixed)
    other = f.value(
        lambda t: (
            t.rank == x.rank
            and isinstance(t.shape[axis], int)
            and all(a == b for i, (a, b) in enumerate(zip(t.shape, x.shape, strict=True)) if i != axis)
        )
    )
    assert other is not None
    parts = [x, other]
    return f.add(
        "Concat",
        [p.name for p in parts],
        [sum(p.shape[axis] for p in parts) if i == axis else d for i, d in enumerate(x.shape)],
        axis=axis,
    )


@move(1.5)
def gather(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed))
    if x is None:
        return None
    axis = f.one_of(x.fixed)
    d = x.shape[axis]
    kind = f.integer(0, 2)
    if kind == 0:
        shape = f.one_of([(), (2,), (2, 2)])
        index = f.rng.integers(-d, d, shape)
        return f.add(
            "Gather", [x.name, f.constant(index)], [*x.shape[:axis], *shape, *x.shape[axis + 1 :]], axis=axis
        )
    if kind == 1 and x.batch == 0 and x.rank == 2 and x.shape[0] == BATCH:
        # the index varies with the sample's id, where there is one
        if not f.ids or d < 7:
            return None
        (index_name,) = f.node("ReduceMax", ["ids"], keepdims=1, axes=[1]) if f.opset < 18 else ("",)
        return f.add("GatherElements", [x.name, index_name], (BATCH, 1), axis=1) if index_name else None
    positions = f.rng.choice(d, f.integer(1, d), replace=False)
    return f.add(
        "Gather",
        [x.name, f.ints([int(p) for p in positions])],
        [len(positions) if i == axis else n for i, n in enumerate(x.shape)],
        axis=axis,
    )


@move(1)
def pad(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed))
    if x is None:
        return None
    axis = f.one_of(x.fixed)
    mode = f.one_of(["constant", "constant", "reflect", "edge"])
    most = x.shape[axis] - 1 if mode == "reflect" else 2
    before, after = f.integer(0, min(most, 2)), f.integer(0, min(most, 2))
    pads = [0] * (2 * x.rank)
    pads[axis], pads[x.rank + axis] = before, after
    shape = [d + before + after if i == axis else d for i, d in enumerate(x.shape)]
    value = [f.constant(np.float32(0.5))] if mode == "constant" and f.chance(0.5) else []
    return f.add("Pad", [x.name, f.ints(pads), *value], shape, mode=mode)


@move(0.7)
def resize(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank == 4 and t.batch == 0 and t.shape[0] == BATCH and max(t.shape[2:]) <= 5)
    if x is None:
        return None
    sizes = [x.shape[0], x.shape[1], 2 * x.shape[2], 2 * x.shape[3]]
    scales = f.constant(np.float32([1, 1, 2, 2]))
    mode = f.one_of(["nearest", "linear"])
    kind = f.one_of(["half_pixel", "asymmetric", "align_corners"])
    nearest = {"nearest_mode": "floor"} if mode == "nearest" else {}
    return f.add(
        "Resize", [x.name, "", scales], sizes, mode=mode, coordinate_transformation_mode=kind, **nearest
    )


@move(0.4)
def depth_and_space(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank == 4 and t.batch == 0 and t.shape[0] == BATCH)
    if x is None:
        return None
    n, c, h, w = x.shape
    if c % 4 == 0:
        mode = f.one_of(["DCR", "CRD"])
        return f.add("DepthToSpace", [x.name], (n, c // 4, h * 2, w * 2), blocksize=2, mode=mode)
    if h % 2 == 0 and w % 2 == 0:
        return f.add("SpaceToDepth", [x.name], (n, c * 4, h // 2, w // 2), blocksize=2)
    return None


@move(0.7)
def cumulative(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed))
    if x is None:
        return None
    axis = f.constant(np.array(f.one_of(x.fixed), dtype=np.int64))
    return f.add("CumSum", [x.name, axis], x.shape, exclusive=f.integer(0, 1), reverse=f.integer(0, 1))


@move(0.5)
def triangle(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank >= 3 and t.batch == 0)
    if x is None or f.opset < 14:
        return None
    return f.add("Trilu", [x.name], x.shape, upper=f.integer(0, 1))


@move(0.7)
def scatter(f: Fuzz) -> Tensor | None:
    """Constant positions on the last axis of [N, d], overwritten by another value's elements."""
    x = f.value(lambda t: t.rank == 2 and t.batch == 1 and len(t.fixed) == 1)
    if x is None:
        base = f.value(lambda t: t.rank == 2 and t.batch == 0 and len(t.fixed) == 1)
        if base is None:
            return None
        x = f.add("Transpose", [base.name], base.shape[::-1], perm=[1, 0])
    d = x.shape[0]
    positions = f.rng.choice(d, f.integer(1, d), replace=False)
    updates = f.add("Gather", [x.name, f.ints([0] * len(positions))], (len(positions), x.shape[1]), axis=0)
    index = f.constant(np.array(positions, dtype=np.int64)[:, None])
    return f.add("ScatterND", [x.name, index, updates.name], x.shape)


@move(0.5)
def top_k(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: any(t.shape[a] > 1 for a in t.fixed))
    if x is None:
        return None
    axis = f.one_of([a for a in x.fixed if x.shape[a] > 1])
    k = f.integer(1, x.shape[axis])
    values, _ = f.node("TopK", [x.name, f.ints([k])], 2, axis=axis, largest=f.integer(0, 1))
    f.pool.append(Tensor(values, tuple(k if i == axis else d for i, d in enumerate(x.shape))))
    return f.pool[-1]


@move(0.4)
def there_and_back(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    (wide,) = f.node("Cast", [x.name], to=TensorProto.DOUBLE)
    return f.add("Cast", [wide], x.shape, to=TensorProto.FLOAT)

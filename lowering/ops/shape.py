"""Ops that move elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, as_dim, divide, minimum, product, same, symbols_of
from irshap.lowering.alike import lower_alike
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import LARGEST_MADE, Import, Unmodeled, importer
from irshap.ops import gather, generate, program, reduce, shape

__all__ = ["INT64_MAX"]

_FAR = 10**9

INT64_MAX = np.iinfo(np.int64).max

lower_alike("Concat", shape.Concat)
lower_alike("Transpose", shape.Transpose)


@importer("Reshape")
def _read_reshape(n: Import) -> Value:
    x = n.tensor()
    given = n.partly(1) if n.opset >= 5 else list(n.attribute("shape", []))
    # where one is unknown, the elements that there are leave no choice
    wanted: list[Dim] = [-1 if d is None else d for d in given]
    if not n.attribute("allowzero", 0):
        wanted = [x.shape[i] if same(d, 0) and i < x.rank else d for i, d in enumerate(wanted)]
    if n.rebatched:
        wanted = _with_batch(x, wanted)
    holes = [i for i, d in enumerate(wanted) if same(d, -1)]
    if len(holes) > 1:
        raise Unmodeled("its shape has two unknown dimensions")
    if holes:
        rest = divide(x.tensor.size, product(d for i, d in enumerate(wanted) if i not in holes))
        if rest is None:
            raise Unmodeled(f"{x.shape} can't be shown to fill {wanted}")
        wanted[holes[0]] = rest
    return n.one(shape.Reshape(tuple(map(as_dim, wanted))), x)


def _with_batch(x: Value, wanted: list[Dim]) -> list[Dim]:
    """A shape written for a batch of 1, for any batch: the elements that are missing belong to the batch.

    The leading 1 becomes N (or a leading multiple of it); where a -1 would absorb the batch, as it must in
    [-1, 512], nothing has to change.
    """
    samples = [d for d in x.shape if N in symbols_of([d])]
    if not samples or any(N in symbols_of([d]) for d in wanted):
        return wanted
    known_part = product(d for d in wanted if not same(d, -1))
    has_hole = any(same(d, -1) for d in wanted)
    alone = product(as_dim(d.subs(N, 1)) if not isinstance(d, int) else d for d in x.shape)
    if has_hole:
        rest = divide(alone, known_part)
        if rest is None:
            return wanted
        wanted = [rest if same(d, -1) else d for d in wanted]
    axis = _batch_position(x, wanted)
    return [as_dim(d * N) if i == axis else d for i, d in enumerate(wanted)]


def _batch_position(x: Value, wanted: list[Dim]) -> int:
    """The axis of the new shape that starts where the batch starts in the old one."""
    axis = next(i for i, d in enumerate(x.shape) if N in symbols_of([d]))
    before = product(x.shape[:axis])
    candidates = [i for i in range(len(wanted)) if same(product(wanted[:i]), before)]
    ones = [i for i in candidates if same(wanted[i], 1)]
    # merged with positions before it, the batch stands behind them
    behind = product((before, divide(x.shape[axis], N) or 0))
    ones += [i for i, d in enumerate(wanted) if same(d, 1) and same(product(wanted[:i]), behind)]
    if not candidates:
        raise Unmodeled(f"the batch of {x.shape} has no place in {wanted}")
    found = (ones or candidates)[0]
    # behind positions and before what becomes one axis of features, the batch counts positions, as rows do
    features = not ones and found == len(wanted) - 1 and found > 0
    return found - 1 if features else found


@importer("Flatten")
def _read_flatten(n: Import) -> Value:
    x = n.tensor()
    axis = n.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return n.one(shape.Reshape((product(x.shape[:axis]), product(x.shape[axis:]))), x)


def _axes(n: Import, rank: int) -> list[int] | None:
    given = n.ints(1) if n.opset >= 13 and n.has(1) else n.attribute("axes", None)
    return None if given is None else [n.axis(a, rank) for a in given]


@importer("Squeeze")
def _read_squeeze(n: Import) -> Value:
    x = n.tensor()
    axes = _axes(n, x.rank)
    if axes is None:
        # a batch stays one, also of one sample
        if not all(isinstance(d, int) or (n.batched and same(d, N)) for d in x.shape):
            raise Unmodeled("which axes have size 1 is only known at run time")
        axes = [i for i, d in enumerate(x.shape) if same(d, 1)]
    if not all(same(x.shape[a], 1) for a in axes):
        raise Unmodeled(f"axes {axes} of {x.shape} can't be shown to have size 1")
    return n.one(shape.Reshape(tuple(d for i, d in enumerate(x.shape) if i not in axes)), x)


@importer("Unsqueeze")
def _read_unsqueeze(n: Import) -> Value:
    x = n.tensor()
    given = n.ints(1) if n.opset >= 13 else n.attribute("axes", [])
    rank = x.rank + len(given)
    axes = {n.axis(a, rank) for a in given}
    if len(axes) < len(given):
        raise Unmodeled(f"an axis is twice in {list(given)}")
    rest = iter(x.shape)
    return n.one(shape.Reshape(tuple(1 if i in axes else next(rest) for i in range(rank))), x)


@exporter(shape.Reshape)
def _write_reshape(e: Export, op: shape.Reshape) -> None:
    e.result("Reshape", [e.inputs[0], e.shape(op.shape, infer=True)], allowzero=_zero(op.shape, e))


def _zero(dims: tuple[Dim, ...], e: Export) -> int | None:
    """Reshape's 0 means "copy" unless allowzero is set, which needs opset 14."""
    return 1 if e.opset >= 14 and any(same(d, 0) for d in dims) else None


@importer("DepthToSpace")
def _read_depth_to_space(n: Import) -> Value:
    """[n, b, b, c, h, w] (or [n, c, b, b, h, w]) -> [n, c, h, b, w, b]."""
    x, b = n.tensor(), n.attributes["blocksize"]
    samples, channels, h, w = x.shape
    c = divide(channels, b * b)
    if c is None:
        raise Unmodeled(f"{channels} channels can't be shown to hold blocks of {b} by {b}")
    if n.attribute("mode", "DCR") == "DCR":
        blocks = shape.transpose(shape.reshape(x, (samples, b, b, c, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        blocks = shape.transpose(shape.reshape(x, (samples, c, b, b, h, w)), (0, 1, 4, 2, 5, 3))
    return shape.reshape(blocks, (samples, c, as_dim(h * b), as_dim(w * b)))


@importer("SpaceToDepth")
def _read_space_to_depth(n: Import) -> Value:
    """[n, c, h, b, w, b] -> [n, b, b, c, h, w]."""
    x, b = n.tensor(), n.attributes["blocksize"]
    samples, c, *plane = x.shape
    h, w = (divide(size, b) for size in plane)
    if h is None or w is None:
        raise Unmodeled(f"{plane} can't be shown to fall into blocks of {b} by {b}")
    blocks = shape.transpose(shape.reshape(x, (samples, c, h, b, w, b)), (0, 3, 5, 1, 2, 4))
    return shape.reshape(blocks, (samples, as_dim(c * b * b), h, w))


@importer("Transpose")
def _read_transpose(n: Import) -> Value:
    x = n.tensor()
    perm = n.attribute("perm", None) or list(range(x.rank))[::-1]
    return n.one(shape.Transpose(tuple(perm)), x)


@importer("Concat")
def _read_concat(n: Import) -> Value:
    values = n.given()
    axis = n.axis(n.attribute("axis", 1))
    if n.rebatched:
        values = _same_batch(n, values, axis)
    return values[0] if len(values) == 1 else n.one(shape.Concat(axis), *values)


def _same_batch(n: Import, values: list[Value], axis: int) -> list[Value]:
    """Operands with a batch of 1 beside others with N (a class token, say) are repeated for each sample."""
    lead = {
        i: v.shape[i] for v in values for i in range(v.rank) if i != axis and N in symbols_of([v.shape[i]])
    }
    result = []
    for value in values:
        target = [lead.get(i, d) if same(d, 1) else d for i, d in enumerate(value.shape)]
        result.append(value if tuple(target) == value.shape else n.one(reduce.Expand(tuple(target)), value))
    return result


@importer("Split")
def _read_split(n: Import) -> Sequence[Value]:
    x = n.tensor()
    axis = n.axis(n.attribute("axis", 0))
    given = n.dims(1) if n.opset >= 13 and n.has(1) else n.attribute("split", None)
    if given is None:
        count = n.attribute("num_outputs", len(n.proto.output))
        size = x.shape[axis]
        if not isinstance(size, int):
            part = divide(size, count)
            if part is None:
                raise Unmodeled(f"{size} can't be shown to split into {count}")
            given = [part] * count
        else:
            part_size = -(-size // count)
            given = [part_size] * (count - 1) + [size - part_size * (count - 1)]
    return n.emit(shape.Split(axis, tuple(map(as_dim, given))), x)


@exporter(shape.Split)
def _write_split(e: Export, op: shape.Split) -> None:
    e.result("Split", [e.inputs[0], e.shape(op.sizes)], axis=op.axis)


@importer("Slice")
def _read_slice(n: Import) -> Value:
    x = n.tensor()
    if n.opset >= 10:
        starts, stops = n.dims(1), n.dims(2)
        axes = n.ints(3) if n.has(3) else list(range(len(starts)))
        steps = n.ints(4) if n.has(4) else [1] * len(starts)
    else:
        starts, stops = list(n.attributes["starts"]), list(n.attributes["ends"])
        axes, steps = n.attribute("axes", list(range(len(starts)))), [1] * len(starts)
    axes = [n.axis(a) for a in axes]
    bounds = [
        _bounds(start, stop, step, x.shape[axis])
        for start, stop, step, axis in zip(starts, stops, steps, axes, strict=True)
    ]
    return n.one(
        shape.Slice(tuple(axes), tuple(b[0] for b in bounds), tuple(b[1] for b in bounds), tuple(steps)), x
    )


def _bounds(start: Dim, stop: Dim, step: int, size: Dim) -> tuple[Dim, Dim]:
    """Start and stop within [0, size], or for negative steps within [-1, size - 1]."""
    if isinstance(size, int) and isinstance(start, int) and isinstance(stop, int):
        first, last, _ = slice(start, None if step < 0 and stop < -size else stop, step).indices(size)
        return first, last
    if step < 0:
        if (
            step != -1
            or not (start == -1 or _is_far(start))
            or not (_is_far(stop) and same(stop, -abs(stop)))
        ):
            raise Unmodeled("a negative step on an axis whose size is only known at run time")
        return as_dim(size - 1), -1

    def clipped(bound: Dim, *, end: bool) -> Dim:
        if not isinstance(bound, int):
            return bound
        if _is_far(bound):
            return size if bound > 0 else 0
        if bound < 0:
            return as_dim(size + bound)
        return minimum(bound, size) if end else bound

    return clipped(start, end=False), clipped(stop, end=True)


def _is_far(bound: Dim) -> bool:
    """Whether a bound is beyond any axis: writers have several numbers for "to the end"."""
    return isinstance(bound, int) and abs(bound) >= _FAR


@exporter(shape.Slice)
def _write_slice(e: Export, op: shape.Slice) -> None:
    dims = e.operand().shape
    stops = []
    for axis, stop, step in zip(op.axes, op.stops, op.steps, strict=True):
        if step > 0:
            stops.append(INT64_MAX if same(stop, dims[axis]) else stop)
        else:
            stops.append(-INT64_MAX if same(stop, -1) else stop)
    # a negative step that starts at the last element may say so without knowing the size
    starts = [
        -1 if step < 0 and same(start, dims[axis] - 1) else start
        for axis, start, step in zip(op.axes, op.starts, op.steps, strict=True)
    ]
    e.result("Slice", [e.inputs[0], e.shape(starts), e.shape(stops), e.ints(op.axes), e.ints(op.steps)])


@importer("Pad")
def _read_pad(n: Import) -> Value:
    x = n.tensor()
    if n.opset < 11:
        counts, value = list(n.attributes["pads"]), n.attribute("value", 0.0)
        axes = list(range(x.rank))
    else:
        counts, value = n.dims(1), n.scalar(2, 0.0)
        axes = [n.axis(a) for a in n.ints(3)] if n.has(3) else list(range(x.rank))
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = counts[i], counts[i + len(axes)]
    if n.attribute("mode", "constant") != "constant":
        return _padded_with_own(n, before, after, n.attribute("mode", "constant"))
    return n.one(shape.Pad(tuple(before), tuple(after), value), x)


def _padded_with_own(n: Import, before: Sequence[Dim], after: Sequence[Dim], mode: str) -> Value:
    """Padding with elements of the operand itself: on each axis they are picked by constant indices."""
    x = n.tensor()
    for axis, (start, end) in enumerate(zip(before, after, strict=True)):
        size = x.shape[axis]
        if same(start, 0) and same(end, 0):
            continue
        if not (isinstance(start, int) and isinstance(end, int)):
            raise Unmodeled(f"padding with mode {mode!r} by what is only known at run time")
        if not isinstance(size, int):
            x = n.one(gather.Gather(axis), x, _own_positions(n, size, start, end, mode))
            continue
        if size + abs(start) + abs(end) > LARGEST_MADE:
            raise Unmodeled(f"padding with mode {mode!r} of more than {LARGEST_MADE} elements")
        kept = np.arange(size)[max(-start, 0) : size - max(-end, 0)]
        if mode not in ("edge", "reflect", "wrap") or not kept.size:
            raise Unmodeled(f"padding with mode {mode!r} of {kept.size} elements")
        index = np.pad(kept, (max(start, 0), max(end, 0)), mode=mode)  # type: ignore[call-overload]
        x = n.one(gather.Gather(axis), x, program.constant(index))
    return x


def _own_positions(n: Import, size: Dim, start: int, end: int, mode: str) -> Value:
    """As above, which elements stand where on an axis of open size: those before it, all, those behind."""
    if start < 0 or end < 0 or start + end > LARGEST_MADE or mode not in ("edge", "reflect", "wrap"):
        raise Unmodeled(f"padding with mode {mode!r} by {start} and {end} of an axis of open size")
    last = as_dim(size - 1)
    before, behind = {
        "edge": ([0] * start, [last] * end),
        "reflect": (list(range(start, 0, -1)), [as_dim(last - i) for i in range(1, end + 1)]),
        "wrap": ([as_dim(size - i) for i in range(start, 0, -1)], list(range(end))),
    }[mode]
    ends = [n.one(program.Dims(tuple(d))) if d else None for d in (before, behind)]
    parts = [ends[0], n.one(generate.Arange(0, 1, size)), ends[1]]
    return shape.concat([p for p in parts if p is not None], 0)


@exporter(shape.Pad)
def _write_pad(e: Export, op: shape.Pad) -> None:
    value = e.number(op.value)
    e.result("Pad", [e.inputs[0], e.shape((*op.before, *op.after)), value])


@exporter(shape.Dilate)
def _write_dilate(e: Export, op: shape.Dilate) -> None:
    # [.., n, ..] -> [.., n, 1, ..] -> zeros behind each -> [.., n step, ..] -> cut the last step - 1
    rank = e.operand().rank
    dims = list(e.operand().shape)
    apart = e.add("Unsqueeze", [e.inputs[0], e.ints([op.axis + 1])])
    counts = [0] * (2 * (rank + 1))
    counts[rank + 1 + op.axis + 1] = op.step - 1
    spaced = e.add("Pad", [apart, e.ints(counts)])
    merged = [*dims[: op.axis], dims[op.axis] * op.step, *dims[op.axis + 1 :]]
    flat = e.add("Reshape", [spaced, e.shape(merged, infer=True)])
    stop = e.ints([-(op.step - 1)]) if op.step > 1 else e.ints([INT64_MAX])
    e.result("Slice", [flat, e.ints([0]), stop, e.ints([op.axis])])

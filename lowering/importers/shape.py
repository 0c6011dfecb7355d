"""How ONNX ops that move elements, and shape arithmetic, are lifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, N, as_dim, divide, product, same, symbols_of
from irshap.ir.types import Array, DType, Tensor
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import gather, program, reduce, shape
from irshap.ops.families import broadcast

__all__: list[str] = []


@importer("Shape")
def _shape(n: Import) -> Value:
    dims = n.tensor().shape
    start, end = n.attribute("start", 0), n.attribute("end", None)
    return vector(n, dims[slice(start, end)])


@importer("Size")
def _size(n: Import) -> Value:
    return n.one(program.Dims((n.tensor().tensor.size,), scalar=True))


def vector(n: Import, dims: Sequence[Dim]) -> Value:
    """An int64 vector of dimensions: a constant when all are known."""
    if all(isinstance(d, int) for d in dims):
        return n.one(program.Constant(Tensor(np.array(dims, dtype=np.int64))))
    return n.one(program.Dims(tuple(dims)))


@importer("Reshape")
def _reshape(n: Import) -> Value:
    x = n.tensor()
    wanted = n.dims(1) if n.opset >= 5 else list(n.attribute("shape", []))
    if not n.attribute("allowzero", 0):
        wanted = [x.shape[i] if same(d, 0) and i < x.rank else d for i, d in enumerate(wanted)]
    if n.rebatched:
        wanted = with_batch(x, wanted)
    holes = [i for i, d in enumerate(wanted) if same(d, -1)]
    if len(holes) > 1:
        raise Unmodeled("its shape has two unknown dimensions")
    if holes:
        rest = divide(x.tensor.size, product(d for i, d in enumerate(wanted) if i not in holes))
        if rest is None:
            raise Unmodeled(f"{x.shape} can't be shown to fill {wanted}")
        wanted[holes[0]] = rest
    return n.one(shape.Reshape(tuple(map(as_dim, wanted))), x)


def with_batch(x: Value, wanted: list[Dim]) -> list[Dim]:
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
    if not candidates:
        raise Unmodeled(f"the batch of {x.shape} has no place in {wanted}")
    return (ones or candidates)[0]


@importer("Flatten")
def _flatten(n: Import) -> Value:
    x = n.tensor()
    axis = n.attribute("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    return n.one(shape.Reshape((product(x.shape[:axis]), product(x.shape[axis:]))), x)


def _axes(n: Import, rank: int) -> list[int] | None:
    given = n.ints(1) if n.opset >= 13 and n.has(1) else n.attribute("axes", None)
    return None if given is None else [n.axis(a, rank) for a in given]


@importer("Squeeze")
def _squeeze(n: Import) -> Value:
    x = n.tensor()
    axes = _axes(n, x.rank)
    if axes is None:
        if not all(isinstance(d, int) for d in x.shape):
            raise Unmodeled("which axes have size 1 is only known at run time")
        axes = [i for i, d in enumerate(x.shape) if same(d, 1)]
    if not all(same(x.shape[a], 1) for a in axes):
        raise Unmodeled(f"axes {axes} of {x.shape} can't be shown to have size 1")
    return n.one(shape.Reshape(tuple(d for i, d in enumerate(x.shape) if i not in axes)), x)


@importer("Unsqueeze")
def _unsqueeze(n: Import) -> Value:
    x = n.tensor()
    given = n.ints(1) if n.opset >= 13 else n.attribute("axes", [])
    rank = x.rank + len(given)
    axes = {n.axis(a, rank) for a in given}
    rest = iter(x.shape)
    return n.one(shape.Reshape(tuple(1 if i in axes else next(rest) for i in range(rank))), x)


@importer("Transpose")
def _transpose(n: Import) -> Value:
    x = n.tensor()
    perm = n.attribute("perm", None) or list(range(x.rank))[::-1]
    return n.one(shape.Transpose(tuple(perm)), x)


@importer("Concat")
def _concat(n: Import) -> Value:
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
def _split(n: Import) -> Sequence[Value]:
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


@importer("Expand")
def _expand(n: Import) -> Value:
    x = n.tensor()
    return n.one(reduce.Expand(broadcast([x.shape, tuple(map(as_dim, n.dims(1)))])), x)


@importer("Slice")
def _slice(n: Import) -> Value:
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
    huge = 2**31 - 1
    if isinstance(size, int) and isinstance(start, int) and isinstance(stop, int):
        first, last, _ = slice(start, None if step < 0 and stop < -size else stop, step).indices(size)
        return first, last
    if step != 1:
        raise Unmodeled("a step on an axis whose size is only known at run time")

    def clipped(bound: Dim, *, end: bool) -> Dim:
        if isinstance(bound, int):
            if bound >= huge:
                return size
            if bound < 0:
                return 0 if bound <= -huge else as_dim(size + bound)
            if bound == 0 or not end:
                return bound
            raise Unmodeled(f"whether {bound} lies within {size} is only known at run time")
        return bound

    return clipped(start, end=False), clipped(stop, end=True)


@importer("Pad")
def _pad(n: Import) -> Value:
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


_LONGEST_PAD = 2**20
"""Positions are stored: a few bytes of model could ask for any amount of memory."""


def _padded_with_own(n: Import, before: Sequence[Dim], after: Sequence[Dim], mode: str) -> Value:
    """Padding with elements of the operand itself: on each axis they are picked by constant indices."""
    x = n.tensor()
    for axis, (start, end) in enumerate(zip(before, after, strict=True)):
        size = x.shape[axis]
        if same(start, 0) and same(end, 0):
            continue
        if not (isinstance(size, int) and isinstance(start, int) and isinstance(end, int)):
            raise Unmodeled(f"padding with mode {mode!r} by what is only known at run time")
        if size + abs(start) + abs(end) > _LONGEST_PAD:
            raise Unmodeled(f"padding with mode {mode!r} of more than {_LONGEST_PAD} elements")
        kept = np.arange(size)[max(-start, 0) : size - max(-end, 0)]
        if mode not in ("edge", "reflect", "wrap") or not kept.size:
            raise Unmodeled(f"padding with mode {mode!r} of {kept.size} elements")
        index = np.pad(kept, (max(start, 0), max(end, 0)), mode=mode)  # type: ignore[call-overload]
        x = n.one(gather.Gather(axis), x, program.constant(index))
    return x


@importer("ConstantOfShape")
def _constant_of_shape(n: Import) -> Value:
    dims = tuple(map(as_dim, n.dims(0)))
    proto = n.attributes.get("value")
    fill = np.zeros(1, np.float32) if proto is None else _array(proto)
    size = product(dims)
    if all(isinstance(d, int) for d in dims) and isinstance(size, int) and size <= 64:
        shape_now = [int(d) for d in dims]
        return n.one(program.Constant(Tensor(np.full(shape_now, fill[0], fill.dtype))))
    if fill.dtype.kind not in "fiub" or (fill.dtype.kind in "iu" and int(float(fill[0])) != int(fill[0])):
        raise Unmodeled("its fill value is no plain number")
    return n.one(program.Full(float(fill[0]), DType.of(fill), dims))


def _array(proto: object) -> Array:
    from onnx import numpy_helper

    return numpy_helper.to_array(proto).ravel()  # type: ignore[arg-type]

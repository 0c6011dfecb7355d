"""Rotary position embeddings."""

from __future__ import annotations

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, divide
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.cast import cast
from irshap.ops.gather import Gather
from irshap.ops.generate import Arange
from irshap.ops.shape import concat, reshape, split, transpose

__all__ = ["heads", "merged", "positions_from", "rotated"]


@importer("com.microsoft.RotaryEmbedding")
def _read_rotary(n: Import) -> Value:
    x, at = n.tensor(0), n.tensor(1)
    if n.attribute("is_packed_batching", 0):
        raise Unmodeled("its samples are packed into one row (is_packed_batching)")
    if n.attribute("scale", 1.0) != 1:
        raise Unmodeled("it is scaled, which ONNX Runtime's kernels leave out")
    part, count = n.attribute("rotary_embedding_dim", 0), n.attribute("num_heads", 0)
    if x.rank not in (3, 4):
        raise Unmodeled(f"its input {x.tensor} has neither 3 nor 4 axes")
    if x.rank == 3 and part and not count:
        raise Unmodeled("it has rotary_embedding_dim without num_heads")
    apart = x
    if x.rank == 3:
        apart = heads(x, count or divide(x.shape[2], as_dim(2 * n.tensor(2).shape[1])))
    places = positions_from(at, apart.shape[2]) if at.rank == 1 else at
    y = rotated(apart, n.tensor(2), n.tensor(3), places, interleaved=bool(n.attribute("interleaved", 0)))
    return merged(y) if x.rank == 3 else y


def heads(x: Value, count: Dim | None) -> Value:
    """[samples, tokens, heads * size] as [samples, heads, tokens, size]."""
    size = None if count is None or x.rank != 3 else divide(x.shape[2], count)
    if size is None or count is None:
        raise Unmodeled(f"{x.tensor} doesn't make {count} heads")
    return transpose(reshape(x, (*x.shape[:2], count, size)), (0, 2, 1, 3))


def merged(x: Value) -> Value:
    """What undoes `heads`."""
    samples, count, tokens, size = x.shape
    return reshape(transpose(x, (0, 2, 1, 3)), (samples, tokens, as_dim(count * size)))


def positions_from(start: Value, count: Dim) -> Value:
    """Of each sample: start, start + 1, ...; `start` [1] or [samples]."""
    return reshape(cast(start, DType.I64), (*start.shape, 1)) + emit1(Arange(0, 1, count))


def rotated(x: Value, cos: Value, sin: Value, positions: Value, *, interleaved: bool) -> Value:
    """Pairs of channels (a, b), turned: a cos - b sin, a sin + b cos.

    Args:
        x: [samples, heads, tokens, size]; channels past twice the table's width stay as they are.
        cos: [positions, pairs], as is `sin`.
        positions: [samples or 1, tokens].
        interleaved: whether channel 2i goes with 2i + 1, and not with i + pairs.
    """
    pairs, size = cos.shape[1], x.shape[3]
    if not isinstance(pairs, int) or not isinstance(size, int) or 2 * pairs > size:
        raise Unmodeled(f"a table of {pairs} angles for {size} channels")
    turning, *rest = split(x, 3, (2 * pairs, size - 2 * pairs)) if 2 * pairs < size else (x,)
    lead = x.shape[:3]
    if interleaved:
        columns = split(reshape(turning, (*lead, pairs, 2)), 4, (1, 1))
        a, b = (reshape(half, (*lead, pairs)) for half in columns)
    else:
        a, b = split(turning, 3, (pairs, pairs))
    c, s = (emit1(Gather(0), table, positions) for table in (cos, sin))
    c, s = (reshape(v, (v.shape[0], 1, *v.shape[1:])) for v in (c, s))
    turned = a * c - b * s, a * s + b * c
    if interleaved:
        columns = tuple(reshape(v, (*lead, pairs, 1)) for v in turned)
        whole = reshape(concat(columns, 4), (*lead, 2 * pairs))
    else:
        whole = concat(turned, 3)
    return concat([whole, *rest], 3)

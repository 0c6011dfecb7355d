"""Attention over heads, with its projections and masks."""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, divide, same
from irshap.ir.types import DType
from irshap.lowering.contrib.rotary import heads, merged
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.arithmetic import where
from irshap.ops.cast import cast
from irshap.ops.generate import Arange
from irshap.ops.linear import matmul, swap_last
from irshap.ops.logic import Greater, Less
from irshap.ops.program import constant
from irshap.ops.shape import concat, reshape, split
from irshap.ops.softmax import Softmax

__all__ = ["attend", "positions", "scores"]


@importer("com.microsoft.Attention")
def _read_attention(n: Import) -> Sequence[Value]:
    """Inputs: x, weights, bias, mask, past keys and values as one, what is added to scores."""
    for name in ("do_rotary", "past_present_share_buffer"):
        if n.attribute(name, 0):
            raise Unmodeled(f"irshap doesn't lift its {name}")
    if n.has(6):
        raise Unmodeled("its past_sequence_length is given")
    x, w, count = n.tensor(0), n.tensor(1), n.attributes["num_heads"]
    width = w.shape[1]
    third = divide(width, 3)
    sizes = tuple(n.attribute("qkv_hidden_sizes", [] if third is None else [third] * 3))
    if len(sizes) != 3 or not same(as_dim(sum(sizes)), width):
        raise Unmodeled(f"weights {w.tensor} don't hold three projections")
    projected = matmul(x, w) + n.tensor(2) if n.has(2) else matmul(x, w)
    q, k, v = (heads(part, count) for part in split(projected, 2, sizes))
    if n.has(4):
        past_k, past_v = (reshape(p, p.shape[1:]) for p in split(n.tensor(4), 0, (1, 1)))
        k, v = concat([past_k, k], 2), concat([past_v, v], 2)
    added = _masks(n, 3, 5, q, k, causal=bool(n.attribute("unidirectional", 0)))
    y = merged(attend(scores(q, k, n.attribute("scale", 0.0)), added, v))
    if len(n.proto.output) == 1:
        return (y,)
    return y, concat([reshape(p, (1, *p.shape)) for p in (k, v)], 0)


@importer("com.microsoft.MultiHeadAttention")
def _read_multi_head_attention(n: Import) -> Sequence[Value]:
    """Inputs: q, k, v, their bias, mask, what is added to scores, past keys and values."""
    if n.has(8) or n.has(9):
        raise Unmodeled("its past is in a buffer (past_sequence_length, cache_indirection)")
    if any(n.proto.output[3:]):
        raise Unmodeled("its scores are used")
    q, k, v = _projections(n, n.attributes["num_heads"])
    if n.has(6) != n.has(7):
        raise Unmodeled("it has past keys without values, or the other way round")
    if n.has(6):
        k, v = concat([n.tensor(6), k], 2), concat([n.tensor(7), v], 2)
    added = _masks(n, 4, 5, q, k, causal=bool(n.attribute("unidirectional", 0)))
    y = merged(attend(scores(q, k, n.attribute("scale", 0.0)), added, v))
    return (y, k, v)[: len(n.proto.output)]


def _projections(n: Import, count: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values of each head, which may come packed."""
    q = n.tensor(0)
    if q.rank == 5 and not n.has(1):  # [samples, tokens, heads, 3, size]
        parts = list(_unpacked(q))
    elif q.rank == 3 and n.has(1) and n.tensor(1).rank == 5 and not n.has(2):
        parts = [q, *_unpacked(n.tensor(1))]
    elif q.rank == 3 and n.has(1) and n.has(2):
        parts = [q, n.tensor(1), n.tensor(2)]
    else:
        raise Unmodeled("irshap doesn't know this form of its query, key and value")
    if n.has(3):
        if any(p.rank != 3 for p in parts):
            raise Unmodeled("a bias beside keys and values that are apart by head already")
        biases = split(n.tensor(3), 0, [p.shape[2] for p in parts])
        parts = [p + b for p, b in zip(parts, biases, strict=True)]
    found = [heads(p, count) if p.rank == 3 else p for p in parts]
    return found[0], found[1], found[2]


def _unpacked(x: Value) -> Sequence[Value]:
    """[samples, tokens, heads, parts, size] as [samples, tokens, heads * size] for each part."""
    samples, tokens, count, parts, size = x.shape
    if not isinstance(parts, int):
        raise Unmodeled(f"{x.tensor} packs an unknown number of projections")
    flat = (samples, tokens, as_dim(count * size))
    return [reshape(part, flat) for part in split(x, 3, (1,) * parts)]


def scores(q: Value, k: Value, scale: float) -> Value:
    """What queries have to do with keys, [samples, heads, queries, keys]; a scale of 0: 1/sqrt(size)."""
    size = q.shape[3]
    if not scale and not isinstance(size, int):
        raise Unmodeled("the size of its heads is only known at run time")
    return matmul(q, swap_last(k)) * (scale or float(size) ** -0.5)


def attend(score: Value, added: Sequence[Value], v: Value) -> Value:
    """The mean of values, weighted by the softmax of scores and all that is added to them."""
    for more in added:
        score = score + more
    return matmul(emit1(Softmax(3), score), v)


def positions(first: Dim, count: Dim, shape: Sequence[Dim]) -> Value:
    """`count` consecutive positions, as a tensor of this shape."""
    return reshape(emit1(Arange(first, 1, count)), shape)


def _masks(n: Import, mask: int, bias: int, q: Value, k: Value, *, causal: bool) -> list[Value]:
    """What is added to scores: the bias, and much less than 0 where a query must not see a key."""
    filler = n.attribute("mask_filter_value", -10000.0)
    queries, keys = q.shape[2], k.shape[2]
    added = []
    if n.has(mask) and (seen := _seen(n.tensor(mask), q.shape[0], queries, keys)) is not None:
        added.append(where(seen, constant(0.0, q.dtype), filler))
    if causal:
        now = positions(as_dim(keys - queries), queries, (queries, 1))
        later = emit1(Less(), now, positions(0, keys, (1, keys)))
        added.append(where(later, constant(filler, q.dtype), 0.0))
    if n.has(bias):
        added.append(n.tensor(bias))
    return added


def _seen(mask: Value, samples: Dim, queries: Dim, keys: Dim) -> Value | None:
    """Which keys may be seen, broadcasting to scores; None for all.

    A mask is [samples, keys], [samples, queries, keys], or how many keys each sample has: [samples].
    """
    zero = constant(0, mask.dtype)
    if mask.rank == 2 and same(mask.shape[1], 1) and not same(keys, 1):
        return None  # ONNX Runtime takes it for a dummy
    if mask.rank == 2 and same(mask.shape[1], keys):
        return emit1(Greater(), reshape(mask, (mask.shape[0], 1, 1, keys)), zero)
    if mask.rank == 3 and same(mask.shape[1], queries) and same(mask.shape[2], keys):
        return emit1(Greater(), reshape(mask, (mask.shape[0], 1, queries, keys)), zero)
    if mask.rank == 1 and same(mask.shape[0], samples):
        at = positions(0, keys, (1, 1, 1, keys))
        return emit1(Less(), at, reshape(cast(mask, DType.I64), (samples, 1, 1, 1)))
    raise Unmodeled(f"irshap doesn't know a mask {mask.tensor} for {queries} queries of {keys} keys")

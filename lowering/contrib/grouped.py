"""Causal attention whose queries share keys in groups, as language models use it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, divide, same
from irshap.ir.types import DType
from irshap.lowering.contrib.attention import positions, scores
from irshap.lowering.contrib.rotary import heads, merged, positions_from, rotated
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.arithmetic import where
from irshap.ops.cast import cast
from irshap.ops.elementwise import Tanh
from irshap.ops.linear import matmul
from irshap.ops.logic import And, Equal, Greater, Less, LessOrEqual
from irshap.ops.norm import RMSNorm
from irshap.ops.program import Dims, Full, constant
from irshap.ops.reduce import Expand
from irshap.ops.shape import concat, reshape, split
from irshap.ops.softmax import Softmax

__all__: list[str] = []

_REFUSED = {"sliding_window_cache": 0, "qk_output": 0, "k_quant_type": "NONE", "v_quant_type": "NONE"}


@importer("com.microsoft.GroupQueryAttention")
def _read_grouped(n: Import) -> Sequence[Value]:
    """Inputs: q, k, v (or all packed in q), past keys and values, last positions, the longest length, ..."""
    for name, usual in _REFUSED.items():
        if n.attribute(name, usual) != usual:
            raise Unmodeled(f"irshap doesn't lift its {name}={n.attribute(name, usual)}")
    if any(n.proto.output[3:]):
        raise Unmodeled("its scores are used")
    for i, name in {9: "position_ids", 12: "k_scale", 13: "v_scale"}.items():
        if n.has(i):
            raise Unmodeled(f"irshap doesn't lift its {name}")
    q, k, v = _projections(n)
    samples, queries = q.shape[0], q.shape[2]
    past = _past(n)
    start = _starts(n, samples, queries) if past else constant(np.zeros((1, 1), np.int64))
    if n.attribute("do_rotary", 0):
        at = positions_from(reshape(start, start.shape[:1]), queries)
        turn = bool(n.attribute("rotary_interleaved", 0))
        q, k = (rotated(x, n.tensor(7), n.tensor(8), at, interleaved=turn) for x in (q, k))
    present = (k, v)
    if past:
        if any(n.proto.output[1:]):
            length = n.tensor(3).shape[2]
            raise Unmodeled(f"its new keys and values are used: explain it without a past (dims {length}=0)")
        k, v = concat([past[0], k], 2), concat([past[1], v], 2)
    score = scores(q, _for_each_query(k, q.shape[1]), n.attribute("scale", 0.0))
    if (softcap := n.attribute("softcap", 0.0)) > 0:
        score = n.one(Tanh(), score * (1.0 / softcap)) * softcap
    if n.has(10):
        if past:
            raise Unmodeled("its attention_bias counts keys otherwise where there are past ones")
        score = score + n.tensor(10)
    lowest = float(np.finfo(score.dtype.numpy).min) / 2
    score = where(_seen(n, start, queries, k.shape[2]), score, lowest)
    y = merged(matmul(_weights(n, score), _for_each_query(v, q.shape[1])))
    return (y, *present)[: len(n.proto.output)]


def _projections(n: Import) -> tuple[Value, Value, Value]:
    """Queries, keys and values of each head, normalized if that is asked for."""
    count, shared = n.attributes["num_heads"], n.attributes["kv_num_heads"]
    q = n.tensor(0)
    if n.has(1) != n.has(2):
        raise Unmodeled("it has keys without values, or the other way round")
    if n.has(1):
        parts = [q, n.tensor(1), n.tensor(2)]
    else:
        size = divide(q.shape[2], count + 2 * shared)
        if size is None:
            raise Unmodeled(f"{q.tensor} doesn't make {count} heads and {shared} for keys and values")
        parts = list(split(q, 2, [as_dim(c * size) for c in (count, shared, shared)]))
    found = [heads(p, c) for p, c in zip(parts, (count, shared, shared), strict=True)]
    if n.has(14) or n.has(15):
        norm = RMSNorm(3, n.attribute("qk_norm_epsilon", 1e-6))
        found[:2] = (n.one(norm, x, n.tensor(i)) for i, x in zip((14, 15), found[:2], strict=True))
    return found[0], found[1], found[2]


def _past(n: Import) -> tuple[Value, Value] | None:
    """Past keys and values; None where there are none, or none in them."""
    if n.has(3) != n.has(4):
        raise Unmodeled("it has past keys without values, or the other way round")
    if not n.has(3) or same(n.tensor(3).shape[2], 0):
        return None
    return n.tensor(3), n.tensor(4)


def _starts(n: Import, samples: Dim, queries: Dim) -> Value:
    """How many tokens of each sample came before, [samples, 1]: none where the tokens are all there are."""
    length = n.one(Dims((queries,), scalar=True))
    last = reshape(cast(n.tensor(5), DType.I64), (samples, 1))
    whole = n.one(Equal(), reshape(cast(n.tensor(6), DType.I64), ()), length)
    before = last + 1 - length
    return where(whole, constant(0, DType.I64), before)


def _seen(n: Import, start: Value, queries: Dim, keys: Dim) -> Value:
    """Which keys a query sees, [samples or 1, 1, queries, keys].

    Keys are those of the past, of which a sample may have fewer, and then its own, one for each query.
    """
    window, causal = n.attribute("local_window_size", -1), n.attribute("causal", 1)
    begin = reshape(start, (*start.shape, 1, 1))
    past = as_dim(keys - queries)
    older, newer = positions(0, past, (1, 1, 1, past)), positions(0, queries, (1, 1, 1, queries))
    own = begin + newer
    at = concat([older + begin * 0, own], 3)
    now = begin + positions(0, queries, (1, 1, queries, 1))
    # a key of the past that a sample doesn't have stands nowhere
    there = concat([n.one(Less(), older, begin), n.one(LessOrEqual(), own, own)], 3)
    if causal:
        seen = n.one(And(), there, n.one(LessOrEqual(), at, now))
        return n.one(And(), seen, n.one(Greater(), at, now - window)) if window > 0 else seen
    last = reshape(cast(n.tensor(5), DType.I64), (n.tensor(5).shape[0], 1, 1, 1))
    return n.one(And(), there, n.one(LessOrEqual(), at, last))


def _for_each_query(x: Value, count: Dim) -> Value:
    """[samples, shared heads, tokens, size] with each head as often as queries have it."""
    samples, shared, tokens, size = x.shape
    times = divide(count, shared)
    if times is None:
        raise Unmodeled(f"{count} heads don't share {shared} for keys")
    if same(times, 1):
        return x
    apart = reshape(x, (samples, shared, 1, tokens, size))
    return reshape(
        emit1(Expand((samples, shared, times, tokens, size)), apart), (samples, count, tokens, size)
    )


def _weights(n: Import, score: Value) -> Value:
    """The softmax, with one more score, of nothing, where the weights may add up to less than 1."""
    samples, count, queries, keys = score.shape
    if n.has(11):
        sink = n.one(Expand((samples, count, queries, 1)), reshape(n.tensor(11), (1, count, 1, 1)))
    elif n.attribute("smooth_softmax", -1) == 1:
        sink = n.one(Full(0.0, score.dtype, (samples, count, queries, 1)))
    else:
        return n.one(Softmax(3), score)
    return split(n.one(Softmax(3), concat([score, sink], 3)), 3, (keys, 1))[0]

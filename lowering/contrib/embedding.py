"""Embeddings of words, segments and positions, normalized."""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.cast import cast
from irshap.ops.gather import Gather
from irshap.ops.norm import LayerNorm
from irshap.ops.program import Full
from irshap.ops.reduce import ReduceSum
from irshap.ops.shape import Slice

__all__: list[str] = []


@importer("com.microsoft.EmbedLayerNormalization")
def _read_embed_layer_norm(n: Import) -> Sequence[Value]:
    """Results: what is normalized, how many tokens the mask leaves of each sample, and the sum before."""
    ids = n.tensor(0)
    total = n.one(Gather(0), n.tensor(2), ids)
    positions = n.tensor(3)
    if n.has(8):
        total = total + n.one(Gather(0), positions, n.tensor(8))
    else:
        total = total + n.one(Slice((0,), (0,), (ids.shape[1],), (1,)), positions)
    if n.has(1) != n.has(4):
        raise Unmodeled("it has segments without an embedding of them, or the other way round")
    if n.has(1):
        total = total + n.one(Gather(0), n.tensor(4), n.tensor(1))
    y = n.one(LayerNorm(2, n.attribute("epsilon", 1e-12)), total, n.tensor(5), n.tensor(6))
    return (y, _left(n, ids), total)[: len(n.proto.output)]


def _left(n: Import, ids: Value) -> Value:
    """How many tokens are no padding; 0 without a mask, which attention takes for none."""
    if not n.has(7):
        return n.one(Full(0.0, DType.I32, (ids.shape[0],)))
    return cast(n.one(ReduceSum((1,), keepdims=False), cast(n.tensor(7), DType.I64)), DType.I32)

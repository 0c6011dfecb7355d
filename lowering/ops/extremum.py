"""The largest and the smallest over axes."""

from __future__ import annotations

from irshap.lowering.ops.reduce import lift_global_pool, reduction
from irshap.ops import extremum

__all__: list[str] = []

reduction("ReduceMax", extremum.ReduceMax, keeps_one=True)
reduction("ReduceMin", extremum.ReduceMin, keeps_one=True)
lift_global_pool("GlobalMaxPool", extremum.ReduceMax)

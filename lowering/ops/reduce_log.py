"""Products, and logarithms of sums."""

from __future__ import annotations

from irshap.lowering.ops.reduce import reduction
from irshap.ops import reduce_log

__all__: list[str] = []

reduction("ReduceLogSum", reduce_log.ReduceLogSum)
reduction("ReduceLogSumExp", reduce_log.ReduceLogSumExp)
reduction("ReduceProd", reduce_log.ReduceProd, keeps_one=True)

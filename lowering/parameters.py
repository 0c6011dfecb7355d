"""Which initializers of a model are trained: by name, before anything is lifted."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import prod

import onnx

from irshap.errors import ModelError, near
from irshap.ir.types import DType
from irshap.lowering.files.arrays import dtype_of
from irshap.ops.program import PARAMETER, STATE

__all__ = ["chosen_initializers"]


def chosen_initializers(model: onnx.ModelProto, patterns: str, statistics: bool) -> Mapping[str, str]:
    """The kind of input that each chosen initializer becomes: a parameter, or a running statistic.

    Args:
        patterns: names with wildcards, comma-separated.  "*" alone is every float tensor of more than one
            number that a node reads, but for statistics of batch normalizations; "" is none.
        statistics: whether the running means and variances of batch normalizations become inputs, too.

    Raises:
        ModelError: a pattern fits no float initializer, or fits running statistics alone.
    """
    if not patterns and not statistics:
        return {}
    graph = model.graph
    read = {name for node in graph.node if node.op_type not in _SETTINGS for name in node.input}
    running = {name for node in graph.node if node.op_type == "BatchNormalization" for name in node.input[3:]}
    floats = {t.name: t for t in graph.initializer if dtype_of(t.data_type) in (DType.F32, DType.F64)}
    found = dict.fromkeys((n for n in floats if n in running), STATE) if statistics else {}
    for pattern in (p.strip() for p in patterns.split(",")):
        if not pattern:
            continue
        fits = [name for name in floats if fnmatchcase(name, pattern)]
        weights = [name for name in fits if name not in running]
        if pattern == "*":
            weights = [name for name in weights if name in read and prod(floats[name].dims) > 1]
        if not weights:
            what = f"no float initializer is called {pattern!r}"
            if fits:
                what = f"{fits[0]!r} is a running statistic of a batch normalization, which isn't trained"
            raise ModelError(what, mend=near(pattern, [n for n in floats if n not in running]))
        found |= dict.fromkeys(weights, PARAMETER)
    return found


_SETTINGS = {"DequantizeLinear", "QuantizeLinear", "Resize", "Upsample"}
"""What has float operands that aren't weights: scales, which must be known."""

"""Float16 as GPUs compute it, on any device: an op adds up in float32 and rounds its result."""

from __future__ import annotations

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Value
from irshap.ir.types import DType, TensorType
from irshap.ops.cast import Cast, cast, retyped
from irshap.ops.program import Constant


def is_half(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype is DType.F16


def rounding(graph: Graph) -> Graph:
    """`graph` with each float16 op in float32 between casts.

    ONNX Runtime's CPU casts by itself where it has no float16 kernel, but leaves the casts out between two
    such nodes; those that stand in the model it keeps.
    """
    with Builder() as b:
        mapping = {v: b.copy(v.node, {})[0] for v in graph.inputs}
        for node in graph.nodes:
            if isinstance(node.op, Constant | Cast) or not any(map(is_half, (*node.operands, *node.results))):
                mapping.update(zip(node.results, b.copy(node, mapping), strict=True))
                continue
            with b.at(node.origin):
                operands = [cast(mapping[v], DType.F32) if is_half(v) else mapping[v] for v in node.operands]
                op = retyped(node.op, lambda dtype: DType.F32 if dtype is DType.F16 else dtype)
                for old, new in zip(node.results, b.emit(op, *operands), strict=True):
                    mapping[old] = cast(new, DType.F16) if is_half(old) else new
        return b.rebuild(graph, mapping)

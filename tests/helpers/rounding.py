"""Float16 as GPUs compute it, on any device: an op adds up in float32 and rounds its result."""

from __future__ import annotations

from collections.abc import Mapping

from irshap.ir.builder import emit
from irshap.ir.core import Graph, Node, Value
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import DType, TensorType
from irshap.ops.cast import Cast, cast, retyped
from irshap.ops.program import Constant, Input


def is_half(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.dtype is DType.F16


def rounding(graph: Graph) -> Graph:
    """`graph` with each float16 op in float32 between casts.

    ONNX Runtime's CPU casts by itself where it has no float16 kernel, but leaves the casts out between two
    such nodes; those that stand in the model it keeps.
    """

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if isinstance(node.op, Input | Constant | Cast):
            return None
        if not any(map(is_half, (*node.operands, *node.results))):
            return None
        operands = [cast(mapping[v], DType.F32) if is_half(v) else mapping[v] for v in node.operands]
        op = retyped(node.op, lambda dtype: DType.F32 if dtype is DType.F16 else dtype)
        results = zip(node.results, emit(op, *operands), strict=True)
        return tuple(cast(new, DType.F16) if is_half(old) else new for old, new in results)

    return map_nodes(graph, visit)

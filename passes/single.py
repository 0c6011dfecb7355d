"""single: a model in half precision is explained in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Value
from irshap.ir.types import DType, TensorType, Type
from irshap.ops.cast import HALF, cast
from irshap.passes.rules.widening import widened
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Single"]


@dataclass(frozen=True)
class Single(Pass):
    """Computes in float32 what a model computes in float16 or bfloat16; inputs and outputs keep their types.

    Multipliers don't bear half precision: those of a normalization go up to epsilon^(-1/2) and more, beyond
    float16's range, and differences of sample and reference lose their digits before any rule sees them.  On
    a CPU it also costs less: ONNX Runtime has few kernels for float16 there, none to speak of for bfloat16,
    and casts around each node.  The pass fp16 narrows again what bears it.
    """

    name = "single"
    semantics = Semantics.APPROXIMATES
    tolerance = 2e-2

    def run(self, ir: Graph, context: Context) -> Graph:
        if not any(_is_half(v.type) for v in ir.values()):
            return ir

        def visit(node: Node, mapping: Mapping[Value, Value]) -> list[Value] | None:
            if node.op.is_input:
                (value,) = b.copy(node, {})
                return [cast(value, DType.F32) if _is_half(value.type) else value]
            results = widened(node, mapping, _single)
            pairs = zip(node.results, results, strict=True)
            context.count("widened", sum(old.type != new.type for old, new in pairs))
            return results

        with Builder() as b:
            mapping = b.extend(ir.statements, {}, visit)
            outputs = []
            for output in ir.outputs:
                value, kind = mapping[output.value], output.value.type
                with b.at(output.value.node.origin):
                    value = cast(value, output.value.dtype) if _is_half(kind) else value
                outputs.append(replace(output, value=value))
            return b.build(ir.name, outputs, ir.properties, like=ir)


def _is_half(type: Type) -> bool:
    return isinstance(type, TensorType) and type.shape is not None and type.dtype in HALF


def _single(dtype: DType) -> DType:
    return DType.F32 if dtype in HALF else dtype

"""remove-bias: every layer without what it adds, so that a network of ReLUs scales with its input."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from irshap.ir.builder import current
from irshap.ir.core import Graph, Node, NoLocalRule, Value
from irshap.ir.rewrite import live_nodes, map_nodes
from irshap.ir.walks import descendants, is_float
from irshap.ops.arithmetic import Add, Sub
from irshap.ops.conv import Conv, ConvTranspose
from irshap.ops.linear import BatchNorm, Gemm
from irshap.ops.shape import zeros_like
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["RemoveBias"]

_AFFINE = (Add, BatchNorm, Conv, ConvTranspose, Gemm, Sub)


@dataclass(frozen=True)
class RemoveBias(Pass):
    """Takes out what affine ops add to what depends on an input: biases, shifts and means of normalization.

    Makes an X-DNN of a network (Hesse, Schaub-Meyer, Roth 2021, arXiv:2111.07668): Conv, Gemm, sums with
    constants, batch normalization (shift and running mean; its scale and variance stay).  It is another
    function then, which is to be trained, or at least measured, as such.  All else stays: `irshap
    homogeneity` tells whether the network scales now.
    """

    name = "remove-bias"
    semantics = Semantics.REPLACES

    def run(self, ir: Graph, context: Context) -> Graph:
        varying = descendants(ir.nodes, ir.inputs)

        def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            changing = frozenset(i for i, v in enumerate(node.operands) if v in varying and is_float(v))
            if not (isinstance(node.op, _AFFINE) and changing and node.op.linear_in(changing)):
                return None
            operands = [mapping[v] for v in node.operands]
            try:
                op, given = node.op.linear_part(operands, changing, absolute=False)
            except NoLocalRule:
                return None
            if op == node.op and list(given) == operands:
                return None
            context.count("biases removed")
            filled = [zeros_like(v) if g is None else g for g, v in zip(given, operands, strict=False)]
            return current().emit(op, *filled, names=tuple(v.name for v in node.results))

        return live_nodes(map_nodes(ir, visit))

"""deeplift: every pullback becomes the secant between the sample and the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irshap.builder import Builder
from irshap.dims import R, divide
from irshap.errors import UserError
from irshap.graph import Graph, Output, Role, Value
from irshap.ops.base import emit1
from irshap.ops.program import Input
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.shape import reshape
from irshap.pass_base import Context, Pass, Semantics
from irshap.passes.gradient import by_class
from irshap.passes.joint_batch import JointBatch
from irshap.types import TensorType

__all__ = ["DeepLift"]


@dataclass(frozen=True)
class DeepLift(Pass):
    """DeepLIFT attributions against R references, in the form that SHAP computes them (the paper's NON-ONNX).

    Each sample is repeated R times and joined with the references into one batch of 2 N R rows; the joint
    batch runs forward and backward, and is split again at every op that isn't linear.  The attribution of
    an input is the mean over the references of multiplier times (sample - reference).

    `rule`: how nonlinear ops share a difference; "rescale" is Shrikumar et al. 2017 with the exact forms for
    products, pooling and normalizations.  `weights`: references are weighted by an input
    `reference_weights` [R] instead of equally.  `emit`: "completeness_error" adds the output
    f(x) - base - sum of attributions.
    """

    rule: str = "rescale"
    weights: bool = False
    emit: str = ""
    name = "deeplift"
    semantics = Semantics.EXTENDS
    requires = frozenset({"adjoint"})
    ensures = frozenset({"decided"})
    removes = frozenset({"target", "adjoint"})

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.rule != "rescale":
            raise UserError(f"deeplift knows no rule {self.rule!r}", mend="Use rule=rescale")
        if self.emit not in ("", "completeness_error"):
            raise UserError(f"deeplift emits no {self.emit!r}", mend="Use emit=completeness_error")
        with Builder() as b:
            joint = JointBatch(b, ir, (Role.SOURCE, Role.TARGET, Role.ADJOINT))
            outputs = [replace(o, value=joint.sample(o.value)) for o in ir.outputs_of(Role.MODEL)]
            weights = None
            if self.weights:
                kind = TensorType(ir.output(Role.TARGET).value.dtype, (R,))
                op = Input("reference_weights", "weights")
                weights = b.emit(op, types=(kind,), names=("reference_weights",))[0]
            attributions = []
            adjoints = {o.of: o.value for o in ir.outputs_of(Role.ADJOINT)}
            for source in ir.outputs_of(Role.SOURCE):
                multiplier, _ = joint.halves(adjoints[source.of])
                x, x0 = joint.halves(source.value)
                mean = mean_over_references(multiplier * (x - x0), weights)
                attributions.append(mean)
                shaped = by_class(mean, ir)
                outputs.append(Output(f"{source.of}_attributions", shaped, Role.ATTRIBUTION, source.of))
            explained, base = (
                mean_over_references(v, weights) for v in joint.halves(ir.output(Role.TARGET).value)
            )
            outputs.append(Output("base_values", by_class(base, ir), Role.BASE))
            index = ir.output(Role.TARGET_INDEX)
            outputs.append(replace(index, value=joint.sample(index.value)))
            if self.emit:
                error = explained - base
                for attribution in attributions:
                    error = error - emit1(
                        ReduceSum(tuple(range(1, attribution.rank)), keepdims=False), attribution
                    )
                outputs.append(Output("completeness_error", by_class(error, ir), Role.COMPLETENESS))
            return b.build(ir.name, outputs, ir.properties, like=ir)


def mean_over_references(rows: Value, weights: Value | None) -> Value:
    """[n R, ...] -> [n, ...]: the mean over each sample's rows, weighted if weights [R] are given."""
    count = divide(rows.shape[0], R)
    assert count is not None
    apart = reshape(rows, (count, R, *rows.shape[1:]))
    if weights is None:
        return emit1(ReduceMean((1,), keepdims=False), apart)
    column = reshape(weights, (R, *[1] * (rows.rank - 1)))
    return emit1(ReduceSum((1,), keepdims=False), apart * column)

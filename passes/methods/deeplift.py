"""deeplift: every pullback becomes the secant between the sample and the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from irshap.attribution.gaps import METADATA, Gap, gaps, refusal, to_text
from irshap.attribution.outputs import attributions, by_class, samples_first
from irshap.errors import UserError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import R, as_dim, divide
from irshap.ir.types import TensorType
from irshap.ops.program import Input
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.shape import reshape
from irshap.passes.methods import reveal_cancel
from irshap.passes.methods.joint_batch import JointBatch
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["DeepLift"]


@dataclass(frozen=True)
class DeepLift(Pass):
    """DeepLIFT attributions against R references, in the form that SHAP computes them (the paper's NON-ONNX).

    Each sample is repeated R times and joined with the references into one batch of 2 N R rows; the joint
    batch runs forward and backward, and is split again at every op that isn't linear.  The attribution of
    an input is the mean over the references of multiplier times (sample - reference).

    `rule`: how nonlinear ops share a difference (docs/methods.md); "rescale" is Shrikumar et al. 2017 with
    the exact forms for products, pooling and normalizations, "reveal-cancel" their rule that keeps positive
    and negative contributions apart, "mixed" RevealCancel after dense layers only.  The latter two follow the
    difference forward before they go back, so they read the target and not autodiff's adjoints, which are
    left out with all that leads to them.  `weights`: references are weighted by an input
    `reference_weights` [R] instead of equally.  `emit`: "completeness_error" adds the output
    f(x) - base - sum of attributions.  `on_incomplete`: an op without a complete rule is an "error", or with
    "residual" contributes what its derivative explains, or nothing; the rest is in completeness_error, which
    is then an output, and the model's metadata names the ops.
    """

    rule: Literal["rescale", "reveal-cancel", "mixed"] = "rescale"
    weights: bool = False
    emit: str = ""
    on_incomplete: Literal["error", "residual"] = "error"
    name = "deeplift"
    semantics = Semantics.EXTENDS
    requires = frozenset({"adjoint"})
    ensures = frozenset({"decided"})
    removes = frozenset({"target", "adjoint"})

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.emit not in ("", "completeness_error"):
            raise UserError(f"deeplift emits no {self.emit!r}", mend="Use emit=completeness_error")
        missing = self._gaps(ir)
        with Builder() as b:
            forward = (Role.SOURCE, Role.TARGET)
            rescale = self.rule == "rescale"
            joint = JointBatch(b, ir, (*forward, Role.ADJOINT) if rescale else forward, missing)
            outputs = [replace(o, value=joint.sample(o.value)) for o in ir.outputs_of(Role.MODEL)]
            weights = None
            target = ir.output(Role.TARGET).value
            if self.weights:
                op = Input("reference_weights", "weights")
                kind = TensorType(target.dtype, (R,))
                weights = b.emit(op, types=(kind,), names=("reference_weights",))[0]
            rows = as_dim(target.shape[0] * R)
            means = []
            shares = (
                _rescale(joint, ir)
                if rescale
                else reveal_cancel.scores(joint, ir, mixed=self.rule == "mixed")
            )
            for source, share in zip(ir.outputs_of(Role.SOURCE), shares, strict=True):
                axis = joint.axes[source.value]
                assert axis is not None
                means.append(mean_over_references(samples_first(share, axis, rows), weights))
            outputs += attributions(ir, means)
            explained, base = (mean_over_references(v, weights) for v in joint.halves(target))
            outputs.append(Output("base_values", by_class(base, ir), Role.BASE))
            index = ir.output(Role.TARGET_INDEX)
            outputs.append(replace(index, value=joint.sample(index.value)))
            if self.emit or missing:
                error = explained - base
                for mean in means:
                    error = error - emit1(ReduceSum(tuple(range(1, mean.rank)), keepdims=False), mean)
                outputs.append(Output("completeness_error", by_class(error, ir), Role.COMPLETENESS))
            if missing:
                context.metadata[METADATA] = to_text(missing)
                context.count("incomplete", len(missing))
            return b.build(ir.name, outputs, ir.properties, like=ir)

    def _gaps(self, graph: Graph) -> list[Gap] | None:
        """Where differences get lost before any rule is asked, or None where nothing may be."""
        found = gaps(graph)
        if self.on_incomplete == "residual":
            return found
        if found:
            raise refusal(found[0])
        return None


def _rescale(joint: JointBatch, graph: Graph) -> list[Value]:
    """What each source gets in each pair: multiplier times (sample - reference)."""
    shares = []
    for source, adjoint in zip(graph.outputs_of(Role.SOURCE), graph.outputs_of(Role.ADJOINT), strict=True):
        multiplier, _ = joint.halves(adjoint.value)
        x, x0 = joint.halves(source.value)
        shares.append(multiplier * (x - x0))
    return shares


def mean_over_references(rows: Value, weights: Value | None) -> Value:
    """[n R, ...] -> [n, ...]: the mean over each sample's rows, weighted if weights [R] are given."""
    count = divide(rows.shape[0], R)
    assert count is not None
    apart = reshape(rows, (count, R, *rows.shape[1:]))
    if weights is None:
        return emit1(ReduceMean((1,), keepdims=False), apart)
    column = reshape(weights, (R, *[1] * (rows.rank - 1)))
    return emit1(ReduceSum((1,), keepdims=False), apart * column)

"""deeplift: every pullback becomes the secant between the sample and the reference."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from irshap import contract
from irshap.attribution.gaps import gaps_of, to_text
from irshap.attribution.outputs import own_names, samples_first
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Role, Value
from irshap.ir.dims import R, as_dim
from irshap.ops.parts import Multipliers
from irshap.passes.methods import reveal_cancel
from irshap.passes.methods.base import Explained, Method, Sum, emitted
from irshap.passes.methods.joint_batch import JointBatch, mean_over_references, reference_weights, refuse_both
from irshap.passes.methods.multipliers import further
from irshap.pipeline.base import Context, Points

__all__ = ["DeepLift"]

_EMITTED = (contract.COMPLETENESS_ERROR, contract.MULTIPLIERS, contract.HYPOTHETICAL)


@dataclass(frozen=True)
class DeepLift(Method):
    """DeepLIFT attributions against R references, in the form that SHAP computes them (the paper's NON-ONNX).

    Each sample is repeated R times and joined with the references into one batch of 2 N R rows; the joint
    batch runs forward and backward, and is split again at every op that isn't linear.  The attribution of
    an input is the mean over the references of multiplier times (sample - reference).

    `rule`: how nonlinear ops share a difference (docs/methods.md); "rescale" is Shrikumar et al. 2017 with
    the exact forms for products, pooling and normalizations, "reveal-cancel" their rule that keeps positive
    and negative contributions apart, "mixed" RevealCancel after dense layers only.  The latter two follow the
    difference forward before they go back, so they read the target and not autodiff's adjoints, which are
    left out with all that leads to them.  `weights`: references are weighted by an input
    `reference_weights` [R] instead of equally.  `per_sample`: every sample brings its own references, by an
    input `<input>_references` [N, R, ...].  `emit`, separated by commas: "completeness_error"
    adds the output f(x) - base - sum of attributions, "multipliers" what each element's difference is
    multiplied with (mean over the references), "hypothetical" what every letter would get at each position of
    a one-hot input (docs/methods.md), where `letters` says which axis tells letters apart: "1" for
    [N, 4, L], or by input, "dna=1".  `on_incomplete`: an op without a complete rule is an "error", or with
    "residual" contributes what its derivative explains, or nothing; the rest is in completeness_error, which
    is then an output, and the model's metadata names the ops.
    """

    rule: Literal["rescale", "reveal-cancel", "mixed"] = "rescale"
    weights: bool = False
    per_sample: bool = False
    emit: str = ""
    letters: str = ""
    on_incomplete: Literal["error", "residual"] = "error"
    name = "deeplift"
    points = Points.SAMPLE_AND_REFERENCE
    sums_to = Sum.DIFFERENCE

    def __post_init__(self) -> None:
        refuse_both(weights=self.weights, per_sample=self.per_sample)

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        asked = emitted(self.name, self.emit, _EMITTED)
        missing = gaps_of(ir, residual=self.on_incomplete == "residual")
        rescale = self.rule == "rescale"
        forward = (Role.SOURCE, Role.TARGET)
        roles = (*forward, Role.ADJOINT) if rescale else forward
        given, per_sample, alone = context.references, self.per_sample, context.alone
        joint = JointBatch(builder, ir, roles, missing, given, per_sample=per_sample, alone=alone)
        target = ir.output(Role.TARGET).value
        weights = reference_weights(builder, target.dtype, own_names(ir)) if self.weights else None
        mixed = self.rule == "mixed"
        found = _rescale(joint, ir) if rescale else reveal_cancel.shares(joint, ir, mixed=mixed)
        rows = as_dim(target.shape[0] * R)
        axes = [joint.axis(o.value) for o in ir.outputs_of(Role.SOURCE)]
        means = [
            mean_over_references(samples_first(share, axis, rows), weights)
            for (_, share), axis in zip(found, axes, strict=True)
        ]
        more = further(joint, ir, [m for m, _ in found], weights, asked, self.letters)
        if missing:
            context.metadata[contract.Metadata.GAPS] = to_text(missing)
            context.count("incomplete", len(missing))

        def ends() -> tuple[Value, Value]:
            explained, base = (mean_over_references(v, weights) for v in joint.halves(target))
            return explained, base

        certified = contract.COMPLETENESS_ERROR in asked or bool(missing)
        return Explained(joint.sample, means, ends, certified=certified, more=more)

    @classmethod
    def cases(cls) -> Iterable[DeepLift]:
        yield cls(emit=",".join(_EMITTED), letters="-1")
        yield cls(rule="reveal-cancel", emit=contract.COMPLETENESS_ERROR)
        yield cls(rule="mixed", emit=contract.COMPLETENESS_ERROR)


def _rescale(joint: JointBatch, graph: Graph) -> list[tuple[Multipliers, Value]]:
    """The multiplier of each source in each pair, and what it gets: that times (sample - reference)."""
    shares = []
    for source, adjoint in zip(graph.outputs_of(Role.SOURCE), graph.outputs_of(Role.ADJOINT), strict=True):
        multiplier, _ = joint.halves(adjoint.value)
        x, x0 = joint.halves(source.value)
        shares.append((Multipliers(multiplier, None), multiplier * (x - x0)))
    return shares

"""x-gradient: the input times the gradient, where that is complete by Euler's theorem."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from irshap import contract
from irshap.attribution.homogeneity import degrees
from irshap.errors import NotDifferentiable
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Op, Point, Role, Value
from irshap.ir.degrees import Broken
from irshap.ir.walks import live
from irshap.passes.methods.base import Explained, LocalMethod, Sum, emits_certificate
from irshap.pipeline.base import Context

__all__ = ["XGradient"]


@dataclass(frozen=True)
class XGradient(LocalMethod):
    """x dT/dx / k, where T is nonnegatively homogeneous of degree k > 0: T(a x) = a^k T(x) for every a > 0.

    Hesse, Schaub-Meyer, Roth 2021 (arXiv:2111.07668), where k = 1: bias-free layers, ReLU, max-, min- and
    average pooling, residual sums.  It then is integrated gradients against zeros, for one gradient, and sums
    to T(x) exactly.  x is all that is attributed together; what isn't, and what is held, stays as it is.  The
    op that breaks it is named; remove-bias (`irshap x-dnn`) takes biases out of a network.

    `emit`: "completeness_error" adds the output f(x) - sum of attributions.
    """

    emit: str = ""
    name = "x-gradient"
    sums_to = Sum.OUTPUT

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        certified = emits_certificate(self.name, self.emit)
        degree = self._degree(ir)
        found = super().explain(builder, ir, context)
        scores = found.scores if degree == 1 else [s / degree for s in found.scores]
        return replace(found, scores=scores, certified=certified)

    def _degree(self, ir: Graph) -> float:
        target = ir.output(Role.TARGET).value
        sources = [o.value for o in ir.outputs_of(Role.SOURCE)]
        found = degrees(ir, sources, live(ir.nodes, [target], sources))[target]
        mend = "Use integrated-gradients against zeros, or take the biases out (irshap x-dnn, remove-bias)"
        if isinstance(found, Broken):
            what = f"x-gradient needs a target that scales with what is attributed: {found.reason}"
            raise NotDifferentiable(what, where=found.node.label, mend=mend)
        if found is None:
            return 1.0
        if found <= 0:
            what = f"x-gradient needs a target of positive degree in what is attributed: it has {found:g}"
            raise NotDifferentiable(what, mend=mend)
        return found

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        return m * x

    @classmethod
    def cases(cls) -> Iterable[XGradient]:
        yield cls()
        yield cls(emit=contract.COMPLETENESS_ERROR)

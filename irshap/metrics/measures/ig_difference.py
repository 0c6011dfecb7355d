"""d(A): how far attributions are from integrated gradients."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irshap.compiler.compile import compile
from irshap.errors import UserError
from irshap.metrics.measure import Measure, Measured
from irshap.metrics.subject import Subject
from irshap.passes.target import Target
from irshap.runtime.arrays import Array, Arrays

__all__ = ["IgDifference"]


@dataclass(frozen=True)
class IgDifference(Measure):
    """d(A): the mean over samples and elements of |IG - A| / |IG|; IG: integrated gradients against zeros.

    Hesse, Schaub-Meyer, Roth 2021 (arXiv:2111.07668).  IG by `steps` points of a Gauss-Legendre quadrature.
    Elements where IG is 0, as it is where the sample is, have no such ratio and are left out.
    """

    steps: int = 128
    name = "ig-difference"
    better = "lower"

    def measure(self, subject: Subject) -> Measured:
        exact = self._exact(subject)
        parts = [
            (exact[n].reshape(len(a), -1), a.reshape(len(a), -1)) for n, a in subject.attributions.items()
        ]
        ig, a = (np.concatenate(side, axis=1).astype(np.float64) for side in zip(*parts, strict=True))
        ratios = np.divide(np.abs(ig - a), np.abs(ig), out=np.full(ig.shape, np.nan), where=ig != 0)
        return Measured(_mean(ratios.ravel()), np.array([_mean(row) for row in ratios]))

    def _exact(self, subject: Subject) -> Arrays:
        """IG by input; computed once for all methods that explain the same classes of the same model."""
        inputs, forward = subject.require_floats(), subject.forward
        if subject.classes is None:
            mend = "compile for a class, not a sum, or leave this measure out"
            raise UserError("no class of an output is explained", mend=mend)
        outputs = subject.outputs({})
        key = (self, forward.digest or id(forward), forward.output, *inputs, subject.classes.tobytes())
        # one source may be read in several ways (sizes, values that are set): its outputs tell
        if key in subject.memo and np.allclose(subject.memo[key][0], outputs, rtol=1e-4, atol=1e-5):
            found: Arrays = subject.memo[key][1]
            return found
        explainer = compile(
            forward.model,
            {name: np.zeros_like(x[:1]) for name, x in inputs.items()},
            method=f"integrated-gradients{{steps={self.steps}}}",
            target=Target("input", output=forward.output, wrt=",".join(inputs)),
        ).explainer()
        parts = []
        for which in forward.slices(subject.inputs):
            some = forward.laid_out(forward.rows(subject.inputs, which))
            values = explainer({**some, str(explainer.tensors.target): subject.classes[which]}).values
            parts.append(values if isinstance(values, dict) else {next(iter(inputs)): values})
        found = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
        subject.memo[key] = (outputs, found)
        return found


def _mean(ratios: Array) -> float:
    told = ratios[~np.isnan(ratios)]
    return float(told.mean()) if told.size else float("nan")

"""log-probabilities: the logarithms of the probabilities of all classes, as an output to explain."""

from __future__ import annotations

from dataclasses import dataclass, replace

from irshap import contract
from irshap.errors import TargetError, near
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role
from irshap.ir.dims import product, same
from irshap.ir.walks import is_float
from irshap.ops.cast import single
from irshap.ops.elementwise import Softplus
from irshap.ops.shape import concat
from irshap.ops.softmax import LogSoftmax
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["NAME", "LogProbabilities"]

NAME = "log_probabilities"


@dataclass(frozen=True)
class LogProbabilities(Pass):
    """Appends an output `log_probabilities`: ln p_k of the logits `output`, by default the first of floats.

    What right-reasons explains is their sum (Ross et al. 2017).  Of a single logit f they are ln sigmoid(-f)
    and ln sigmoid(f).
    """

    output: str = ""
    name = "log-probabilities"
    semantics = Semantics.EXTENDS

    def run(self, ir: Graph, context: Context) -> Graph:
        floats = [o for o in ir.outputs_of(Role.MODEL) if o.of is None and is_float(o.value)]
        found = next((o for o in floats if self.output in ("", o.name)), None)
        if found is None:
            mend = near(self.output, [o.name for o in floats])
            raise TargetError(f"the model has no float output {self.output!r}", mend=mend)
        with Builder() as b:
            mapping = b.graft(ir)
            f = single(mapping[found.value])
            if f.rank == 2 and same(product(f.shape[1:]), 1):
                logs = concat([-emit1(Softplus(), f), -emit1(Softplus(), -f)], 1)
            elif f.rank == 2:
                logs = emit1(LogSoftmax(1), f)
            else:
                raise TargetError(f"right-reasons takes logits [N, K], and the output is {f.type}")
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            outputs.append(Output(contract.free(NAME, {o.name for o in outputs}), logs))
            return b.build(ir.name, outputs, ir.properties, like=ir)

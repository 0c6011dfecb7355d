"""trainable: which inputs are parameters, and how batch normalization behaves while they are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from irshap import contract
from irshap.attribution.outputs import own_names, require_unexplained
from irshap.errors import ModelError
from irshap.ir.builder import Builder, emit, emit1
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.dims import N
from irshap.ir.types import DType, TensorType
from irshap.ir.walks import ancestors
from irshap.ops.linear import BatchMoments, BatchNorm
from irshap.ops.program import PARAMETER, STATE, TRAINING, Dropout, Input, new_input
from irshap.ops.reduce import number, over
from irshap.passes.training.dropped import dropped
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["IDLE", "Trainable", "UnreadParameters"]

IDLE = "dropouts that drop nothing"
"""What is counted of a network whose dropouts are left out."""


class UnreadParameters(ModelError):
    """Parameters that what is minimized doesn't depend on.

    Attributes:
        names: theirs.
    """

    def __init__(self, what: str, names: Sequence[str]) -> None:
        self.names = tuple(names)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        mend = f"leave it out of those that are trained: parameters='..., !{names[0]}'"
        super().__init__(f"{what} the parameter {names[0]!r}{more}", mend=mend)


@graph_property("trainable")
def _has_parameters(graph: Graph) -> str | None:
    return None if _inputs(graph, PARAMETER) else "no initializer was made an input"


@dataclass(frozen=True)
class Trainable(Pass):
    """Takes the initializers that `lift` made inputs for the parameters of a training step.

    `batch_norm`: what batch normalizations go by.  "frozen", the statistics of the model as it is; "batch",
    the mean and the variance of each batch (population variance, as ONNX and torch have it), while the
    running ones are handed on as state: running + momentum (batch - running), whose variance is the unbiased
    one, as in torch; "running", these, as inputs, which is how a model is evaluated while it is trained.
    `dropout`: "none", nothing is dropped; "seeded", what an input `dropout_seeds` int64 [N] draws for each
    sample.
    """

    batch_norm: Literal["frozen", "batch", "running"] = "frozen"
    momentum: float = 0.1
    dropout: Literal["none", "seeded"] = "none"
    name = "trainable"
    semantics = Semantics.REPLACES
    ensures = frozenset({"trainable"})

    def run(self, ir: Graph, context: Context) -> Graph:
        require_unexplained(ir)
        if contract.Metadata.TRAINING in dict(ir.source.metadata):
            raise ModelError("it is a training step already", mend="Give the model that it was made of")
        read = ancestors([o.value for o in ir.outputs])
        parameters = _inputs(ir, PARAMETER)
        if unread := [str(v.name) for v in parameters if v not in read]:
            raise UnreadParameters("nothing that the model gives reads", unread)
        context.count("parameters", len(parameters))
        if why := _has_parameters(ir):
            raise ModelError(why, mend="Name those that are trained: parameters='fc*, conv1.weight'")
        drops = any(isinstance(n.op, Dropout) for n in ir.nodes)
        if self.dropout == "seeded" and not drops:
            what = "the model has no dropout that could drop: exporters leave them out in evaluation form"
            raise ModelError(what, mend="Export it with its dropouts in training form, or use dropout=none")
        if self.batch_norm != "batch" and not drops:
            return ir
        with Builder() as b:
            visit = _Visit(self, context, own_names(ir))
            mapping = b.extend(ir.statements, {}, visit)
            outputs = [Output(o.name, mapping[o.value], o.role, o.of) for o in ir.outputs]
            # behind the model's own, so that its first output stays the first
            outputs += [Output(contract.next_of(name), v, of=name) for name, v in visit.handed_on.items()]
            return b.build(ir.name, outputs, ir.properties, like=ir)


class _Visit:
    """Puts the training form of a node in its place; `handed_on` are the next running statistics, by name."""

    def __init__(self, how: Trainable, context: Context, taken: set[str]) -> None:
        self.how, self.context, self.taken = how, context, taken
        self.handed_on: dict[str, Value] = {}
        self.places = 0

    @cached_property
    def seeds(self) -> Value:
        name = contract.free(contract.DROPOUT_SEEDS, self.taken)
        return new_input(name, TensorType(DType.I64, (N,)), TRAINING, contract.DROPOUT_SEEDS)

    def __call__(self, node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
        if isinstance(node.op, Dropout):
            return (self._dropped(node.op, mapping[node.operands[0]]),)
        if not isinstance(node.op, BatchNorm) or self.how.batch_norm != "batch":
            return None
        x, scale, bias, *running = (mapping[v] for v in node.operands)
        if not all(isinstance(v.node.op, Input) and v.node.op.kind == STATE for v in running):
            what = "its running statistics are no initializers, so that there is nothing to hand on"
            raise ModelError(what, where=node.label, mend="Use batch_norm=frozen")
        self.context.count("normalized by batch")
        moments = emit(BatchMoments(), x)
        for value, old in zip(self._next(x, running, moments), running, strict=True):
            self.handed_on[str(old.name)] = value
        return (emit1(node.op, x, scale, bias, *moments),)

    def _dropped(self, op: Dropout, x: Value) -> Value:
        if self.how.dropout == "none":
            self.context.count(IDLE)
            return x
        self.context.count("dropouts")
        self.places += 1
        return dropped(x, op.ratio, self.seeds, self.places)

    def _next(self, x: Value, running: list[Value], moments: tuple[Value, ...]) -> tuple[Value, Value]:
        count = number(over(x, (0, *range(2, x.rank))), x.dtype)
        mean, variance = moments
        unbiased = variance * (count / (count - 1.0))
        momentum = self.how.momentum
        kept = 1.0 - momentum
        return running[0] * kept + mean * momentum, running[1] * kept + unbiased * momentum


def _inputs(graph: Graph, kind: str) -> list[Value]:
    return [v for v in graph.inputs if isinstance(v.node.op, Input) and v.node.op.kind == kind]

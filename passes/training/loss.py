"""loss: what an output is compared with, as one number for a batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from irshap import contract
from irshap.attribution.outputs import own_names
from irshap.errors import TargetError, near
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import N, Shape, product, same
from irshap.ir.types import DType, TensorType
from irshap.ir.walks import is_float
from irshap.ops.arithmetic import maximum, where
from irshap.ops.cast import cast, single
from irshap.ops.elementwise import Exp, Log, Softplus
from irshap.ops.extremum import ReduceMax
from irshap.ops.index import GatherElements
from irshap.ops.logic import Equal, GreaterOrEqual
from irshap.ops.program import TRAINING, Input, constant, new_input
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.shape import reshape
from irshap.ops.softmax import LogSoftmax
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["Loss", "Losses"]

Losses = Literal["cross-entropy", "binary-cross-entropy", "mse", "hinge", "cox"]


@graph_property("loss")
def _has_loss(graph: Graph) -> str | None:
    return None if len(graph.outputs_of(Role.LOSS)) == 1 else "it has no loss"


@dataclass(frozen=True)
class Loss(Pass):
    """Appends the loss of an output f, the mean over the batch weighted by an input `sample_weights` [N].

    "cross-entropy": f [N, K] are logits, the input `labels` int64 [N] are classes.  "binary-cross-entropy":
    f are logits, `labels` are probabilities of f's shape and type, mean over the elements of a sample; "mse":
    (f - labels)^2 likewise.  "hinge": int64 `labels` [N]; for one number a sample
    max(0, 1 - (2 label - 1) f), for K of them the mean over all K of max(0, 1 - f_label + f_k), k not the
    label (as torch's MultiMarginLoss).  "cox": f is the logarithm of a risk, `labels` [N] are times and
    `events` [N] 1 where an event was seen then, 0 where the sample was lost from sight: minus the partial
    log-likelihood (Cox 1972, ties as in Breslow 1974) of the batch, divided by the weight of its events.

    `output`: the model's output, default the first of floats.  Where a target is chosen by an input, that is
    the class: `labels` takes its place.
    """

    kind: Losses = "cross-entropy"
    output: str = ""
    name = "loss"
    semantics = Semantics.EXTENDS
    requires = frozenset({"trainable"})
    ensures = once = frozenset({"loss"})

    def run(self, ir: Graph, context: Context) -> Graph:
        chosen = _chosen(ir, self.output)
        with Builder() as b:
            taken = own_names(ir)

            def given(of: str, shape: Shape, dtype: DType) -> Value:
                return new_input(contract.free(of, taken), TensorType(dtype, shape), TRAINING, of)

            mapping = {}
            if self.kind in ("cross-entropy", "hinge"):
                for value in ir.inputs:
                    if isinstance(value.node.op, Input) and value.node.op.kind == "target":
                        mapping[value] = given(contract.LABELS, (N,), DType.I64)
            b.graft(ir, mapping)
            f = single(mapping[chosen.value])
            weights = given(contract.SAMPLE_WEIGHTS, (N,), f.dtype)
            found = _FORMULAS[self.kind](f, weights, given)
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            name = contract.free(contract.LOSS, {o.name for o in outputs})
            outputs.append(Output(name, found, Role.LOSS))
            return b.build(ir.name, outputs, ir.properties, like=ir)


def _chosen(graph: Graph, name: str) -> Output:
    outputs = [o for o in graph.outputs_of(Role.MODEL) if o.of is None and is_float(o.value)]
    found = next((o for o in outputs if name in ("", o.name)), None)
    if found is None:
        mend = near(name, [o.name for o in outputs])
        raise TargetError(f"the model has no float output {name!r} to take the loss of", mend=mend)
    if not (found.value.rank and same(found.value.shape[0], N)):
        raise TargetError(
            f"output {found.name!r} is {found.value.type}: its first axis doesn't count samples",
            mend="Export the model with a dynamic batch axis",
        )
    return found


Given = Callable[[str, Shape, DType], Value]


def _mean(each: Value, weights: Value) -> Value:
    """The weighted mean of [N, ...]: over the elements of a sample, then over the samples."""
    if each.rank > 1:
        each = emit1(ReduceMean(tuple(range(1, each.rank)), keepdims=False), each)
    over = ReduceSum((0,), keepdims=False)
    return emit1(over, each * weights) / emit1(over, weights)


def _cross_entropy(f: Value, weights: Value, given: Given) -> Value:
    _require(f, f.rank == 2, "cross-entropy takes logits [N, K]")
    labels = given(contract.LABELS, (N,), DType.I64)
    return _mean(-_at(emit1(LogSoftmax(1), f), labels), weights)


def _binary(f: Value, weights: Value, given: Given) -> Value:
    labels = given(contract.LABELS, f.shape, f.dtype)
    # -y ln sigmoid(f) - (1 - y) ln sigmoid(-f)
    return _mean(emit1(Softplus(), f) - labels * f, weights)


def _squares(f: Value, weights: Value, given: Given) -> Value:
    missed = f - given(contract.LABELS, f.shape, f.dtype)
    return _mean(missed * missed, weights)


def _hinge(f: Value, weights: Value, given: Given) -> Value:
    labels = given(contract.LABELS, (N,), DType.I64)
    if same(product(f.shape[1:]), 1):
        sign = cast(labels, f.dtype) * 2.0 - 1.0
        return _mean(maximum(1.0 - reshape(f, (N,)) * sign, 0.0), weights)
    _require(f, f.rank == 2 and isinstance(f.shape[1], int), "the hinge loss takes [N] or [N, K]")
    column, classes = reshape(labels, (N, 1)), int(f.shape[1])
    short = maximum(1.0 - reshape(_at(f, labels), (N, 1)) + f, 0.0)
    own = emit1(Equal(), column, constant([list(range(classes))], DType.I64))
    return _mean(where(own, 0.0, short), weights)


def _cox(f: Value, weights: Value, given: Given) -> Value:
    _require(f, same(product(f.shape[1:]), 1), "the Cox likelihood takes one number a sample")
    risk = reshape(f, (N,))
    times, events = given(contract.LABELS, (N,), f.dtype), given(contract.EVENTS, (N,), f.dtype)
    # sample j is at risk at i's time where t_j >= t_i; ln sum_j w_j e^f_j with the largest of these in front
    at_risk = emit1(GreaterOrEqual(), reshape(times, (1, N)), reshape(times, (N, 1)))
    top = emit1(ReduceMax((1,), keepdims=True), where(at_risk, reshape(risk, (1, N)), _lowest(f)))
    parts = emit1(Exp(), where(at_risk, reshape(risk, (1, N)) - top, _lowest(f)))
    summed = emit1(ReduceSum((1,), keepdims=False), parts * reshape(weights, (1, N)))
    counted = events * weights
    # one of no weight, and none besides it at risk, counts nothing
    nothing = emit1(Equal(), summed, constant(0.0, f.dtype))
    total = emit1(Log(), where(nothing, 1.0, summed)) + reshape(top, (N,))
    over = ReduceSum((0,), keepdims=False)
    seen = emit1(over, counted)
    none = emit1(Equal(), seen, constant(0.0, f.dtype))
    return emit1(over, counted * (total - risk)) / where(none, 1.0, seen)


def _lowest(f: Value) -> float:
    """So low that e to it is 0."""
    return -1e30 if f.dtype is DType.F32 else -1e300


def _at(rows: Value, labels: Value) -> Value:
    """Each row's number for its label: [N]."""
    return reshape(emit1(GatherElements(1), rows, reshape(labels, (N, 1))), (N,))


def _require(f: Value, fits: bool, wanted: str) -> None:
    if not fits:
        raise TargetError(f"{wanted}, and the output is {f.type}", mend="Choose another loss, or output")


_FORMULAS: dict[str, Callable[[Value, Value, Given], Value]] = {
    "cross-entropy": _cross_entropy,
    "binary-cross-entropy": _binary,
    "mse": _squares,
    "hinge": _hinge,
    "cox": _cox,
}

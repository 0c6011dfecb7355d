"""Recurrent layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import same
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.program import Full, constant
from irshap.ops.recurrent import ACTIVATIONS, DIRECTIONS, Gru, Lstm, Recurrent, Rnn
from irshap.ops.reduce import Expand

__all__: list[str] = []

_BIAS, _LENGTHS, _STATES, _PEEPHOLES = 3, 4, (5, 6), 7
_DEFAULT = {"GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh"), "RNN": ("Tanh",)}


@importer("GRU", "LSTM", "RNN")
def _read_recurrent(n: Import) -> Sequence[Value]:
    if n.rebatched:
        _for_any_batch(n)
    kind = n.proto.op_type
    if n.attribute("layout", 0):
        raise Unmodeled("its batch comes first (layout=1)")
    if n.attribute("clip", 0.0) or n.attribute("input_forget", 0):
        raise Unmodeled("its gates are clipped or coupled")
    x, w = n.tensor(0), n.tensor(1)
    hidden, direction = int(n.attribute("hidden_size", 0)), str(n.attribute("direction", "forward"))
    if direction not in DIRECTIONS:
        raise Unmodeled(f"no direction is called {direction!r}")
    ways = len(DIRECTIONS[direction])
    if n.has(_LENGTHS) and not _whole(n, n.tensor(_LENGTHS), x):
        raise Unmodeled("its sequences have lengths of their own")
    op: Recurrent
    if kind == "GRU":
        op = Gru(hidden, direction, _activations(n, ways), bool(n.attribute("linear_before_reset", 0)))
    else:
        op = (Lstm if kind == "LSTM" else Rnn)(hidden, direction, _activations(n, ways))
    bias = constant(np.zeros((ways, 2 * op.gates * hidden)), x.dtype)
    state = Full(0.0, x.dtype, (ways, x.shape[1], hidden))
    given = [x, w, n.tensor(2), n.tensor(_BIAS) if n.has(_BIAS) else bias]
    given += [n.tensor(i) if n.has(i) else n.one(state) for i in _STATES[: op.states]]
    if kind == "LSTM" and n.has(_PEEPHOLES):
        given.append(n.tensor(_PEEPHOLES))
    return n.emit(op, *given)


def _for_any_batch(n: Import) -> None:
    """States that a model was exported with have the batch of 1 and don't broadcast: they are repeated."""
    axis = 0 if n.attribute("layout", 0) else 1
    batch = n.tensor(0).shape[axis]
    for i, place in ((_LENGTHS, 0), *((i, axis) for i in _STATES)):
        if n.has(i) and same(n.tensor(i).shape[place], 1):
            state = n.tensor(i)
            shape = tuple(batch if a == place else d for a, d in enumerate(state.shape))
            n.inputs[i] = n.one(Expand(shape), state)


def _whole(n: Import, lengths: Value, x: Value) -> bool:
    """Whether all sequences are as long as the input."""
    while isinstance(lengths.node.op, Expand):
        (lengths,) = lengths.node.operands
    op = lengths.node.op
    if isinstance(op, Full):
        return same(int(op.value), x.shape[0]) is True
    found = n.facts.known(lengths)
    return found is not None and all(same(d, x.shape[0]) for d in found.ravel())


def _activations(n: Import, ways: int) -> tuple[str, ...]:
    if n.attribute("activation_alpha", None) or n.attribute("activation_beta", None):
        raise Unmodeled("its activations have parameters of their own")
    given = n.attribute("activations", None)
    if given is None:
        return _DEFAULT[n.proto.op_type] * ways
    # ONNX Runtime doesn't look at case
    names = {name.lower(): name for name in ACTIVATIONS}
    found = [a.decode() for a in given]
    if unknown := [a for a in found if a.lower() not in names]:
        raise Unmodeled(f"irshap has no rule for its activation {unknown[0]}")
    return tuple(names[a.lower()] for a in found)


@exporter(Gru, Lstm, Rnn)
def _write_recurrent(e: Export, op: Recurrent) -> None:
    kind = {Gru: "GRU", Lstm: "LSTM", Rnn: "RNN"}[type(op)]
    names = [name if e.used(i) else "" for i, name in enumerate(e.outputs)]
    while not names[-1]:
        names.pop()
    late = int(op.late) if isinstance(op, Gru) else None
    inputs = [*e.inputs[:_LENGTHS], "", *e.inputs[_LENGTHS:]]
    e.add(
        kind, inputs, into=names, hidden_size=op.hidden, direction=op.direction,
        activations=list(op.activations), linear_before_reset=late,
    )  # fmt: skip

"""Recurrent networks, which irshap has no rules for: opaque, but of any batch."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.ir.dims import same
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.reduce import Expand

__all__: list[str] = []

_LENGTHS, _STATES = 4, (5, 6)


@importer("GRU", "LSTM", "RNN")
def _read_recurrent(n: Import) -> Value:
    if n.rebatched:
        # states that a model was exported with have the batch of 1 and don't broadcast
        axis = 0 if n.attribute("layout", 0) else 1
        batch = n.tensor(0).shape[axis]
        for i, place in ((_LENGTHS, 0), *((i, axis) for i in _STATES)):
            if n.has(i) and same(n.tensor(i).shape[place], 1):
                state = n.tensor(i)
                shape = tuple(batch if a == place else d for a, d in enumerate(state.shape))
                n.inputs[i] = n.one(Expand(shape), state)
    raise Unmodeled("irshap has no rule for this op")

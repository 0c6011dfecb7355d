"""Expected gradients where whoever runs the program draws: training does so anew in every step."""

from __future__ import annotations

from irshap import contract
from irshap.attribution.outputs import own_names
from irshap.ir.core import Role, Value
from irshap.ir.dims import N, R
from irshap.ir.types import TensorType
from irshap.ops.cast import cast
from irshap.ops.program import PLACES, new_input
from irshap.ops.shape import reshape
from irshap.passes.methods.joint_batch import mean_over_references
from irshap.passes.methods.path import Paths

__all__ = ["at_given_places"]


def at_given_places(paths: Paths) -> list[Value]:
    """The mean over the references of (x - r) times the gradient at r + a (x - r), a place for each pair."""
    target = paths.graph.output(Role.TARGET).value
    first = str(paths.graph.outputs_of(Role.SOURCE)[0].of)
    name = contract.free(contract.places(first), own_names(paths.graph))
    at = new_input(name, TensorType(target.dtype, (N, R)), PLACES, first)
    moved = {}
    for value, (start, step) in paths.ends.items():
        column = reshape(cast(at, step.dtype), (step.shape[0], *[1] * (step.rank - 1)))
        moved[value] = start + column * step
    batch = paths.at(moved, R)
    gradients = (batch.rows_first(o.value) for o in paths.graph.outputs_of(Role.ADJOINT))
    return [
        mean_over_references(reshape(m, step.shape) * step, paths.weights)
        for m, (_, step) in zip(gradients, paths.ends.values(), strict=True)
    ]

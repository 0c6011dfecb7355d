"""Which cells of the attributed tensors go together, for methods that replace them: features by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from irshap.attribution.groups import groups_by_name, groups_of_cells
from irshap.attribution.outputs import in_own_order, is_token
from irshap.errors import UserError
from irshap.ir.core import Graph, Output, Value
from irshap.ir.types import Array
from irshap.passes.methods.masks import Masked, masked

__all__ = ["Features", "features"]


@dataclass(frozen=True)
class Features:
    """The features of one explanation, over all attributed tensors.

    Attributes:
        count: how many there are.
        of: for each source the feature of each of its elements, [*shape].
        sizes: how many elements each has, [count].
    """

    count: int
    of: Mapping[Value, Array]
    sizes: Array


def features(
    graph: Graph, sources: Sequence[Output], rows: Mapping[Value, Value], groups: Mapping[str, Array] | None
) -> Features:
    """One feature for each cell, or for each number in `groups`, where equal ones belong together.

    A token is one cell, wherever it is read in; groups may reach across inputs.

    Args:
        rows: what each source is for the samples, [samples, ...].
        groups: integers by input, of its shape behind the samples' axis or broadcast to it; None: no groups.

    Raises:
        UserError: groups that don't fit.
        TargetError: sizes that are known at run time only.
    """
    parts = {o: masked(graph, o, rows[o.value]) for o in sources}
    names = list(dict.fromkeys(part.name for part in parts.values()))
    if groups is not None:
        groups = groups_by_name(groups, names)
    numbers, start, single = dict[str, Array](), 0, len(parts) == len(names)
    for output, part in parts.items():
        # cells of a token in an order of their own are nobody else's
        if (groups is not None or not single) and is_token(graph, output) and not in_own_order(graph, output):
            raise UserError(
                f"the tokens of {part.name!r} are read in another order than they stand in",
                mend=f"attribute the tensor that they are read into (wrt={output.name})",
            )
        if part.name in numbers:
            continue
        own = part.shape[: part.cells]
        if groups is None:
            numbers[part.name] = start + np.arange(np.prod(own)).reshape(own)
            start += int(np.prod(own))
        else:
            shape = _own_shape(graph, output, part)
            numbers[part.name] = groups_of_cells(groups[part.name], shape, part.name)
    flat = np.concatenate([numbers[part.name].reshape(-1) for part in parts.values()])
    known, found = np.unique(flat, return_inverse=True)
    of, at = {}, 0
    for output, part in parts.items():
        own, inner = part.shape[: part.cells], part.shape[part.cells :]
        cells = found[at : at + int(np.prod(own))].reshape(*own, *[1] * len(inner))
        of[output.value], at = np.broadcast_to(cells, part.shape), at + int(np.prod(own))
    sizes = np.bincount(np.concatenate([ids.reshape(-1) for ids in of.values()]), minlength=len(known))
    return Features(len(known), of, sizes)


def _own_shape(graph: Graph, output: Output, part: Masked) -> tuple[int, ...]:
    """That of the input behind the samples' axis; of a token, not that of what it is read into."""
    own = part.shape[: part.cells]
    if not is_token(graph, output):
        return own
    shape = tuple(d for d in graph.input(part.name).shape[1:] if isinstance(d, int))
    return shape if np.prod(shape) == np.prod(own) else own

"""Groups of cells, as a user numbers them: which array is for which tensor, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from irshap.contract import ONLY
from irshap.errors import UserError, near
from irshap.ir.dims import Dim
from irshap.ir.types import Array

__all__ = ["groups_by_name", "groups_of_cells", "members"]


def groups_by_name(groups: Mapping[str, Array], names: Sequence[str]) -> Mapping[str, Array]:
    """The groups of each of the attributed tensors `names`.

    Raises:
        UserError: none for one of them, or some for another.
    """
    if not groups:
        raise UserError("no groups are given", mend="give groups= (--groups G.npy): integers by cell")
    if set(groups) == {ONLY}:
        if len(names) > 1:
            raise UserError(
                f"one array, but {len(names)} inputs are attributed",
                where="groups",
                mend=f"give a dict or an .npz file with {', '.join(names)}",
            )
        return {names[0]: groups[ONLY]}
    for name in groups:
        if name not in names:
            raise UserError(f"no attributed input is called {name!r}", where="groups", mend=near(name, names))
    if missing := [name for name in names if name not in groups]:
        raise UserError(
            f"none for {', '.join(map(repr, missing))}", where="groups", mend="give an array for each input"
        )
    return groups


def groups_of_cells(groups: Array, shape: Sequence[Dim], name: str) -> Array:
    """The group of each cell of a sample of this shape.

    Raises:
        UserError: they are no integers, of another shape, or the shape isn't known.
    """
    where = f"groups for {name!r}"
    if groups.dtype.kind not in "iu":
        raise UserError(f"have dtype {groups.dtype}", where=where, mend="number the groups with integers")
    known = [size for size in shape if isinstance(size, int)]
    if len(known) < len(shape):
        mend = "fix the open axes (dims)"
        raise UserError(f"a sample of it has the shape {[*map(str, shape)]}", where=where, mend=mend)
    try:
        return np.broadcast_to(groups, known)
    except ValueError:
        what = f"have shape {list(groups.shape)}, and a sample of it has {known}"
        raise UserError(
            what, where=where, mend="give a number for each cell; leading axes may miss"
        ) from None


def members(groups: Array) -> Array:
    """Whether a cell is in a group: [cells, groups], groups in the order of their numbers."""
    numbers, place = np.unique(groups, return_inverse=True)
    return np.asarray(place.reshape(-1, 1) == np.arange(numbers.size))

"""Arrays by kind and name, and a header of JSON, in one .npz file, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from irshap.contract import said
from irshap.errors import UserError
from irshap.files import write_npz
from irshap.runtime.arrays import Arrays, as_arrays

__all__ = ["read", "write"]

_HEADER = "irshap"


def write(
    path: str | os.PathLike[str], kinds: Mapping[str, Arrays], arrays: Arrays, header: dict[str, Any]
) -> None:
    """Writes arrays, and the header.  Texts are stored as such.

    Args:
        kinds: arrays by kind and name, which numpy reads as `kind/name`.
        arrays: those without a kind.

    Raises:
        UserError: the folder doesn't exist or can't be written, or the disk is full.
    """
    sorted_out = {f"{kind}/{name}": array for kind, found in kinds.items() for name, array in found.items()}
    try:
        write_npz(path, {_HEADER: np.array(json.dumps(header)), **sorted_out, **arrays})
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror or error}", where=os.fspath(path)) from error


def read(
    path: str | os.PathLike[str], kinds: tuple[str, ...], what: str, mend: str | None = None
) -> tuple[dict[str, Arrays], Arrays, dict[str, Any]]:
    """What `write` wrote: arrays of these kinds, those without, and the header.

    Args:
        what: it should be, and
        mend: what to give instead, both for messages.

    Raises:
        UserError: no such file, or another one.
    """
    where = os.fspath(path)
    arrays = as_arrays(path, [], UserError, what)
    try:
        header = said(str(arrays.pop(_HEADER)[()]))
        if not isinstance(header, dict):
            raise ValueError("no header")
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"is no {what}", where=where, mend=mend) from error
    found: dict[str, Arrays] = {kind: {} for kind in kinds}
    for key in list(arrays):
        kind, slash, name = key.partition("/")
        if slash and kind in found:
            found[kind][name] = arrays.pop(key)
    return found, arrays, header

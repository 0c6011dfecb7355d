"""Arrays and a header of JSON in one .npz file, written whole or not at all."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.files import write_npz
from irshap.runtime.arrays import Arrays, as_arrays

__all__ = ["read", "write"]

_HEADER = "irshap"


def write(path: str | os.PathLike[str], arrays: Arrays, header: dict[str, Any]) -> None:
    """Writes arrays by name, and the header.  Texts are stored as such.

    Raises:
        UserError: the folder doesn't exist or can't be written, or the disk is full.
    """
    try:
        write_npz(path, {_HEADER: np.array(json.dumps(header)), **arrays})
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror or error}", where=os.fspath(path)) from error


def read(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """What `write` wrote.

    Raises:
        UserError: no such file, or another one.
    """
    where = os.fspath(path)
    arrays = as_arrays(path, [], UserError, "explanation")
    try:
        header = json.loads(str(arrays.pop(_HEADER)[()]))
    except (KeyError, ValueError, IndexError) as error:
        mend = "give a file that Explanation.save wrote"
        raise UserError("is no explanation", where=where, mend=mend) from error
    return arrays, header

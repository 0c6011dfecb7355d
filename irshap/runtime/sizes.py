"""Sizes of memory as people write them, and numbers of things."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from irshap.errors import UserError

__all__ = ["is_whole", "parse_size"]

_UNITS: Mapping[str, int] = {
    "": 1,
    "B": 1,
    **{f"{p}iB": 1024**i for i, p in enumerate("KMGT", 1)},
    **{f"{p}B": 1000**i for i, p in enumerate("KMGT", 1)},
    **{p: 1024**i for i, p in enumerate("KMGT", 1)},
}


def parse_size(text: str) -> int:
    """Bytes from text such as `16GiB`, `512 MB` or `1.5G` (a unit without B is binary).

    Raises:
        UserError: it is no size.
    """
    stripped = text.strip()
    digits = stripped.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ").rstrip()
    unit = {u.lower(): f for u, f in _UNITS.items()}.get(stripped[len(digits) :].strip().lower())
    try:
        value = float(digits) * (unit or 0)
    except ValueError:
        value = 0
    if not 0 < value < 2**63:
        raise UserError(f"{text!r} is no size of memory", mend="write it as 16GiB, 512MB or in bytes")
    return int(value)


def is_whole(value: object, least: int) -> bool:
    """Whether it is a whole number, of Python or numpy, and not below `least`; no truth value is."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= least)

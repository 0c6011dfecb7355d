"""Packages that only a part of irshap needs, and an extra brings."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irshap.errors import UserError

__all__ = ["optional"]


def optional(module: str, package: str, extra: str, what: str, where: str | None = None) -> Any:
    """A module of a package that may be missing.

    Args:
        module: "PIL.Image".
        package: what its distribution is called: "pillow".
        extra: irshap's extra that brings it: "images".
        what: what needs it: "reading images".
        where: what is to be read or written.

    Raises:
        UserError: it is missing.
    """
    try:
        return import_module(module)
    except ImportError:
        mend = f'install it: pip install "irshap[{extra}]"'
        raise UserError(f"{what} needs {package}", where=where, mend=mend) from None

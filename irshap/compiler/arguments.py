"""Keyword arguments that a function doesn't have: what is meant, or where it is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import wraps
from inspect import signature
from typing import Any, ParamSpec, TypeVar

from irshap.errors import UserError, near

__all__ = ["known_names"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def known_names(said: Mapping[str, type[Any]]) -> Callable[[Callable[_P, _T]], Callable[_P, _T]]:
    """Makes an unknown keyword of the decorated function a UserError.

    Args:
        said: by argument the dataclass that says more than a plain value: its fields are looked for, too.
    """

    def decorated(function: Callable[_P, _T]) -> Callable[_P, _T]:
        known = signature(function).parameters
        homes = {
            f.name: f"{name}={cls.__name__}" for name, cls in said.items() for f in fields(cls) if f.init
        }

        @wraps(function)
        def checked(*args: _P.args, **kwargs: _P.kwargs) -> _T:
            for name in kwargs:
                if name not in known:
                    meant = next(iter(get_close_matches(name, [*known, *homes], 1)), name)
                    mend = f"say it by {homes[meant]}({meant}=...)" if meant in homes else near(name, known)
                    raise UserError(f"{function.__name__} has no argument {name!r}", mend=mend)
            return function(*args, **kwargs)

        return checked

    return decorated

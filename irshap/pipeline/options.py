"""Options of a pass in text: its dataclass fields, typed by their annotations, read and written exactly."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

__all__ = [
    "REQUIRED",
    "Items",
    "Option",
    "Quoted",
    "Syntax",
    "Word",
    "expects",
    "options_of",
    "read",
    "write",
]


@dataclass(frozen=True)
class Word:
    """A value without quotes: `rescale`, `3`, `1e-4`, `true`, `none`."""

    text: str


@dataclass(frozen=True)
class Quoted:
    """A value in double quotes: always a string."""

    text: str


@dataclass(frozen=True)
class Items:
    """A value in parentheses: `(a, b)`."""

    items: tuple[Syntax, ...]


Syntax: TypeAlias = Word | Quoted | Items

REQUIRED = object()
"""The default of an option that must be given."""


@dataclass(frozen=True)
class Option:
    """One option of a pass: its name, the type of its value and its default (REQUIRED for none)."""

    name: str
    type: Any
    default: Any

    @property
    def text(self) -> str:
        """`rule=rescale`: the option with its default, or with the kind of value that must be given."""
        value = f"<{expects(self.type)}>" if self.default is REQUIRED else write(self.default)
        return f"{self.name}={value}"


def options_of(cls: type[Any]) -> dict[str, Option]:
    """The options of a pass, or of another dataclass, by name, in the order of its fields."""
    hints = _hints(cls)
    return {f.name: Option(f.name, hints[f.name], _default(f)) for f in fields(cls) if f.init}


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type[Any]) -> dict[str, Any]:
    # evaluating annotations takes longer than all else that a pipeline's text needs
    if cls not in _HINTS:
        _HINTS[cls] = get_type_hints(cls)
    return _HINTS[cls]


def _default(field: Field[Any]) -> Any:
    if field.default is not MISSING:
        return field.default
    return REQUIRED if field.default_factory is MISSING else field.default_factory()


def read(syntax: Syntax, annotation: Any) -> Any:
    """The value that `syntax` means where `annotation` is expected.

    Raises:
        ValueError: it means none.
        TypeError: the annotation has no form in text: a fault of the pass's author.
    """
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return _read_union(syntax, get_args(annotation))
    if origin is Literal:
        return _choose(syntax, {_literal_text(v): v for v in get_args(annotation)})
    if origin is tuple:
        return _read_tuple(syntax, get_args(annotation))
    if isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return _choose(syntax, {_enum_text(member): member for member in annotation})
        if (reader := _READERS.get(annotation)) is not None:
            return reader(syntax)
    raise TypeError(f"an option of type {annotation} has no form in a pipeline's text")


def expects(annotation: Any) -> str:
    """The kind of value that `annotation` stands for, in words."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(map(expects, args))
    if origin is Literal:
        return _alternatives(map(_literal_text, args))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return f"({expects(args[0])}, ...)"
        return f"({', '.join(map(expects, args))})"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _alternatives(map(_enum_text, annotation))
    return _NAMES.get(annotation, str(annotation))


def write(value: Any) -> str:
    """Text that `read` reads back as `value`."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return _write_str(_enum_text(value))
    if isinstance(value, str):
        return _write_str(value)
    if isinstance(value, tuple):
        return f"({','.join(map(write, value))})"
    if isinstance(value, int) or (isinstance(value, float) and not math.isnan(value)):
        return repr(value)
    raise TypeError(f"{value!r} has no form in a pipeline's text")


_BARE = re.compile(r"[A-Za-z_][\w.\-]*", re.ASCII)
_KEYWORDS = {"true", "false", "none", "inf"}


def _write_str(text: str) -> str:
    bare = _BARE.fullmatch(text) and text not in _KEYWORDS
    return text if bare else json.dumps(text, ensure_ascii=False)


def _alternatives(texts: Any) -> str:
    return "|".join(texts)


def _literal_text(value: object) -> str:
    return value if isinstance(value, str) else write(value)


def _enum_text(member: Enum) -> str:
    return member.value if isinstance(member.value, str) else member.name.lower()


def _choose(syntax: Syntax, choices: dict[str, Any]) -> Any:
    if isinstance(syntax, Items) or syntax.text not in choices:
        raise ValueError
    return choices[syntax.text]


def _read_union(syntax: Syntax, alternatives: tuple[Any, ...]) -> Any:
    # A string takes anything, so it comes last: `int | str` reads 3 as a number and "3" as text.
    for alternative in sorted(alternatives, key=lambda a: a is str):
        try:
            return read(syntax, alternative)
        except ValueError:
            continue
    raise ValueError


def _read_tuple(syntax: Syntax, args: tuple[Any, ...]) -> tuple[Any, ...]:
    # One value may stand without its parentheses.
    items = syntax.items if isinstance(syntax, Items) else (syntax,)
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(read(item, args[0]) for item in items)
    if len(items) != len(args):
        raise ValueError
    return tuple(map(read, items, args))


def _matching(pattern: str, convert: Callable[[str], Any]) -> Callable[[Syntax], Any]:
    compiled = re.compile(pattern, re.ASCII)

    def reader(syntax: Syntax) -> Any:
        if not isinstance(syntax, Word) or not compiled.fullmatch(syntax.text):
            raise ValueError
        return convert(syntax.text)

    return reader


def _read_str(syntax: Syntax) -> str:
    if isinstance(syntax, Items):
        raise ValueError
    return syntax.text


_READERS: dict[type, Callable[[Syntax], Any]] = {
    bool: _matching("true|false", lambda text: text == "true"),
    # Bounded, because Python takes quadratic time for a number of a million digits.
    int: _matching(r"[+-]?\d{1,18}", int),
    float: _matching(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,4})?|[+-]?inf", float),
    NoneType: _matching("none", lambda text: None),
    str: _read_str,
}
_NAMES: dict[Any, str] = {bool: "true|false", int: "int", float: "number", str: "text", NoneType: "none"}

"""Pipelines as text: `lift,canonicalize,target{target="3"},autodiff,deeplift{rule=rescale},lower`.

    pipeline = entry {"," entry}
    entry    = ["@"] name ["{" [option {"," option}] "}"]
    option   = name "=" value
    value    = word  |  "quoted"  |  "(" [value {"," value}] ")"

Whitespace between these is free, and a final comma in brackets is too.  `@name` stands for a named pipeline,
or for a slot that the caller fills: `@method` is the attribution method.  Options of a named pipeline change
it: `@default{without=polyphase}`, `@default{before=(lower, my-pass)}`, `@default{after=(lift, my-pass)}`.

A text is data: nothing in it is evaluated.  It can name the passes that are registered;
`irshap.compiler.catalog` imports all there are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from irshap.errors import PipelineError, near
from irshap.pipeline.base import PASSES, UNAVAILABLE, Pass
from irshap.pipeline.edits import edited
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.options import REQUIRED, Items, Quoted, Syntax, Word, expects, options_of, read, write

__all__ = ["format_pipeline", "parse_pipeline", "pass_text", "read_calls"]

_T = TypeVar("_T")

_LIMIT = 100_000
_DEPTH = 8
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[A-Za-z_][\w\-]*", re.ASCII)
_WORD = re.compile(r"[\w.+\-/:]+", re.ASCII)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')


def pass_text(instance: Any) -> str:
    """The canonical text of a pass, or a measure: its name, and the options that aren't as by default."""
    options = options_of(type(instance)).values()
    changed = [(o.name, getattr(instance, o.name)) for o in options if getattr(instance, o.name) != o.default]
    listed = ",".join(f"{name}={write(value)}" for name, value in changed)
    return f"{instance.name}{{{listed}}}" if listed else instance.name


def format_pipeline(passes: Iterable[Pass]) -> str:
    """The canonical text of a pipeline: `parse_pipeline` reads the same passes back."""
    return ",".join(map(pass_text, passes))


def parse_pipeline(text: str, slots: Mapping[str, Pass] | None = None) -> tuple[Pass, ...]:
    """The passes that `text` names, named pipelines expanded.

    Args:
        slots: passes by the name of the slot that they stand in, such as "method"; a slot that isn't given
            is the named pipeline of that name.

    Raises:
        PipelineError: the text has no such form, or names an unknown pass, option, value or pipeline.
    """
    if len(text) > _LIMIT:
        raise PipelineError(f"is longer than {_LIMIT} characters", where="the pipeline's text")
    calls = _expand(text, "pipeline", (), slots or {})
    return tuple(call if isinstance(call, Pass) else _build(call, PASSES, "pass") for call in calls)


def read_calls(text: str, known: Mapping[str, type[_T]], kind: str) -> tuple[_T, ...]:
    """What else is written as passes are, such as `insertion{steps=20},sparseness`.

    Args:
        known: dataclasses by name, whose fields are the options.
        kind: what one of them is called in messages.

    Raises:
        PipelineError: the text has no such form, or names what isn't known.
    """
    if len(text) > _LIMIT:
        raise PipelineError(f"is longer than {_LIMIT} characters", where=f"the text of {kind}s")
    return tuple(_build(call, known, kind) for call in _Parser(text, f"{kind}s", kind).entries())


@dataclass(frozen=True)
class _Call:
    name: str
    options: dict[str, tuple[Syntax, str]]
    where: str


def _expand(
    text: str, source: str, inside: tuple[str, ...], slots: Mapping[str, Pass]
) -> Iterable[_Call | Pass]:
    for entry in _Parser(text, source).entries():
        if not entry.name.startswith("@"):
            yield entry
            continue
        name = entry.name[1:]
        if name in slots:
            if entry.options:
                mend = "give options with the method itself"
                raise PipelineError(f"@{name} stands for {slots[name].name}", where=entry.where, mend=mend)
            yield slots[name]
            continue
        if name not in PIPELINES:
            mend = _near_pipeline(name)
            raise PipelineError(f"no pipeline is called @{name}", where=entry.where, mend=mend)
        if name in inside:
            raise PipelineError(f"@{name} contains itself", where=entry.where)
        within = (*inside, name)
        expanded = _expand(PIPELINES[name], f"pipeline @{name}", within, slots)

        def added(text: str, where: str, within: tuple[str, ...] = within) -> Iterable[_Call | Pass]:
            return _expand(text, where, within, slots)

        yield from edited(expanded, entry.options, added, f"@{name}")


def _near_pipeline(name: str) -> str:
    """What was perhaps meant: `@default-polyphase` is `@default` without a pass."""
    for known in sorted(PIPELINES, key=len, reverse=True):
        rest = name.removeprefix(f"{known}-")
        if rest != name:
            return f"to leave a pass out, write @{known}{{without={rest}}}"
    return near(f"@{name}", [f"@{p}" for p in PIPELINES])


def _build(call: _Call, known: Mapping[str, type[_T]], kind: str) -> _T:
    cls = known.get(call.name)
    if cls is None:
        absent = [f"{what} are missing: {why}" for what, why in UNAVAILABLE.items() if known is PASSES]
        mend = ". ".join([near(call.name, known), *absent])
        raise PipelineError(f"no {kind} is called {call.name!r}", where=call.where, mend=mend)
    options = options_of(cls)
    values = {}
    for name, (syntax, where) in call.options.items():
        if name not in options:
            mend = near(name, options) if options else "it has none"
            raise PipelineError(f"{kind} {call.name} has no option {name!r}", where=where, mend=mend)
        try:
            values[name] = read(syntax, options[name].type)
        except ValueError:
            raise PipelineError(
                f"option {name} of {kind} {call.name} can't be {_show(syntax)}",
                where=where,
                mend=f"it takes {expects(options[name].type)}",
            ) from None
    missing = [o.text for o in options.values() if o.default is REQUIRED and o.name not in values]
    if missing:
        raise PipelineError(
            f"{kind} {call.name} lacks an option", where=call.where, mend=f"give {', '.join(missing)}"
        )
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:  # its __post_init__ refuses a combination of values
        raise PipelineError(f"{kind} {call.name}: {error}", where=call.where) from error


def _show(syntax: Syntax) -> str:
    if isinstance(syntax, Items):
        return f"({', '.join(map(_show, syntax.items))})"
    shown = syntax.text if len(syntax.text) <= 60 else f"{syntax.text[:57]}..."
    return json.dumps(shown) if isinstance(syntax, Quoted) else shown


class _Parser:
    def __init__(self, text: str, source: str, kind: str = "pass") -> None:
        self.text, self.source, self.kind, self.position = text, source, kind, 0

    def entries(self) -> Iterable[_Call]:
        if not self.text.strip():
            raise self.error("is empty", mend=f"name at least one {self.kind}")
        yield self.entry()
        while self.accept(","):
            yield self.entry()
        if self.position < len(self.text):
            raise self.expected("a comma or the end")

    def entry(self) -> _Call:
        self.skip()
        where = self.where()
        name = f"@{self.name('a pipeline')}" if self.accept("@") else self.name(f"a {self.kind}")
        options: dict[str, tuple[Syntax, str]] = {}
        kind = "" if name.startswith("@") else f"{self.kind} "
        if self.accept("{"):
            while not self.accept("}"):
                self.skip()
                place = self.where()
                option = self.name("an option")
                if option in options:
                    raise PipelineError(f"option {option} of {kind}{name} is given twice", where=place)
                self.expect("=")
                options[option] = (self.value(0), place)
                if self.peek() != "}":
                    self.expect(",")
        return _Call(name, options, where)

    def value(self, depth: int) -> Syntax:
        if self.accept("("):
            if depth == _DEPTH:
                raise self.error("has too many nested parentheses")
            items: list[Syntax] = []
            while not self.accept(")"):
                items.append(self.value(depth + 1))
                if self.peek() != ")":
                    self.expect(",")
            return Items(tuple(items))
        if quoted := self.match(_QUOTED):
            try:
                return Quoted(str(json.loads(quoted, strict=False)))
            except ValueError:
                raise self.error(f"{quoted[:60]} has an escape that JSON doesn't know") from None
        if word := self.match(_WORD):
            return Word(word)
        raise self.expected("a value")

    def name(self, what: str) -> str:
        if name := self.match(_NAME):
            return name
        raise self.expected(f"the name of {what}")

    def skip(self) -> None:
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position

    def peek(self) -> str:
        self.skip()
        return self.text[self.position : self.position + 1]

    def accept(self, char: str) -> bool:
        found = self.peek() == char
        if found:
            self.position += 1
            self.skip()
        return found

    def expect(self, char: str) -> None:
        if not self.accept(char):
            raise self.expected(repr(char))

    def match(self, pattern: re.Pattern[str]) -> str:
        self.skip()
        found = pattern.match(self.text, self.position)
        if not found:
            return ""
        self.position = found.end()
        self.skip()
        return found.group()

    def expected(self, what: str) -> PipelineError:
        rest = self.text[self.position :]
        found = "the end" if not rest else json.dumps(rest[:20] + ("..." if len(rest) > 20 else ""))
        return self.error(f"expected {what}, found {found}")

    def error(self, what: str, mend: str | None = None) -> PipelineError:
        return PipelineError(what, where=self.where(), mend=mend)

    def where(self) -> str:
        return f"{self.source}, character {self.position + 1}"

"""A named pipeline, changed: `@default{without=polyphase, before=(lower, a), after=(lift, "b{c=1}")}`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from irshap.errors import PipelineError, near
from irshap.pipeline.options import Items, Syntax

__all__ = ["edited"]


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Entry = TypeVar("_Entry", bound=_Named)


def edited(
    entries: Iterable[_Entry],
    edits: Mapping[str, tuple[Syntax, str]],
    read: Callable[[str, str], Iterable[_Entry]],
    pipeline: str,
) -> list[_Entry]:
    """The passes of a pipeline without some, and with others before or after one.

    Args:
        edits: by `without`, `before` and `after` what it says, and where that stands.
        read: the passes that a text names, and where it stands.
        pipeline: its name, for messages.

    Raises:
        PipelineError: another edit, or a pass that the pipeline doesn't have, or several times.
    """
    found = list(entries)
    for edit, (syntax, where) in edits.items():
        if edit not in ("without", "before", "after"):
            mend = "it takes without=PASS, before=(PASS, NEW) and after=(PASS, NEW)"
            raise PipelineError(f"{pipeline} has no option {edit!r}", where=where, mend=mend)
        anchor, *others = _texts(syntax, where)
        for name in [anchor, *(others if edit == "without" else [])]:
            _require(name, found, where, pipeline)
        if edit == "without":
            found = [entry for entry in found if entry.name not in (anchor, *others)]
            continue
        if not others:
            raise PipelineError(
                f"{edit}={anchor} names no pass to add", where=where, mend=f"write {edit}=({anchor}, NEW)"
            )
        places = [i for i, entry in enumerate(found) if entry.name == anchor]
        if len(places) > 1:
            raise PipelineError(
                f"{pipeline} has the pass {anchor} {len(places)} times",
                where=where,
                mend="name one that it has once",
            )
        at = places[0] + (edit == "after")
        found[at:at] = [entry for text in others for entry in read(text, where)]
    return found


def _texts(syntax: Syntax, where: str) -> list[str]:
    items: Sequence[Syntax] = syntax.items if isinstance(syntax, Items) else (syntax,)
    texts = [item.text for item in items if not isinstance(item, Items)]
    if not texts or len(texts) < len(items):
        raise PipelineError(
            "names no passes", where=where, mend='write (lower, my-pass) or (lower, "my-pass{option=3}")'
        )
    return texts


def _require(name: str, entries: Sequence[_Named], where: str, pipeline: str) -> None:
    names = [entry.name for entry in entries]
    if name not in names:
        raise PipelineError(f"{pipeline} has no pass {name!r}", where=where, mend=near(name, set(names)))

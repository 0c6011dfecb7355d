"""Every error that irshap raises on purpose.

A message answers three questions in one go: *what* is wrong, *where*, and *how to mend it*.  The
CLI prints it without a traceback and exits with `exit_code`.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CheckFailed",
    "IRError",
    "IrshapError",
    "ModelError",
    "NotDifferentiable",
    "ParseError",
    "PassError",
    "PipelineError",
    "ReferencesError",
    "TargetError",
    "UserError",
    "is_text",
    "near",
    "printable",
]


class IrshapError(Exception):
    """Base of all irshap errors.

    Args:
        what: the fault, one sentence without a final period.
        where: the place: a file, a node, a pass, a line of text.
        mend: what the user can do about it.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str | None = None, mend: str | None = None) -> None:
        self.what, self.where, self.mend = what, where, mend
        parts = [f"{where}: {what}" if where else what]
        if mend:
            parts.append(mend)
        super().__init__(". ".join(parts))


class UserError(IrshapError):
    """Bad input of any kind: a value, an option, a file."""


class ModelError(UserError):
    """The ONNX model can't be read, isn't valid, or has a form that irshap can't compile."""


class ReferencesError(UserError):
    """References of the wrong shape, dtype or count, or with NaN."""


class TargetError(UserError):
    """The explained output or class doesn't exist."""


class PipelineError(UserError):
    """A pipeline's text names an unknown pass or option, or its passes don't fit together."""


class ParseError(UserError):
    """IR text that doesn't parse; `where` is line:column."""


class NotDifferentiable(UserError):
    """The path from the attributed input to the target crosses an op that has no local rule."""


class CheckFailed(IrshapError):
    """A verification that was asked for didn't hold (exit code 1)."""

    exit_code = 1


class IRError(IrshapError):
    """A graph that breaks an invariant of the IR: a fault of a pass, not of the user."""

    exit_code = 1


class PassError(IrshapError):
    """A pass failed; carries what is needed to rerun it."""

    exit_code = 1


def near(word: str, known: Iterable[str]) -> str:
    """A hint listing the names in `known` nearest to `word`, or all of them when few or none is near."""
    names = sorted(map(printable, known))
    close = get_close_matches(word, names, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(names)}" if names else "none is known"


def printable(text: str, keep: str = "") -> str:
    """A text from a model or its user, without what would break a line or move a terminal's cursor."""
    return "".join(c if c.isprintable() or c in keep else "?" for c in text)


def is_text(text: str) -> bool:
    """Whether UTF-8 can say it: JSON and names of files may hold half of a pair of surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)

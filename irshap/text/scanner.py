"""The lowest level of the parser: a cursor over text, its tokens, and errors that tell line and column."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from irshap.errors import ParseError

__all__ = ["Scanner"]

_BLANK = re.compile(r"(?:\s+|//[^\n]*)*")
_INLINE_BLANK = re.compile(r"[ \t]*")
_COMMENT = re.compile(r"//[ \t]*([^\n]*)")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
_VALUE = re.compile(r"%([A-Za-z0-9_.]+)")
_STRING = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"')
_EXPRESSION = re.compile(r"[\w \t+\-*/.()]*")
_SHOWN = 40


class Scanner:
    """A cursor over `text`.  Blanks and comments may stand between any two tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def fail(self, what: str, *, at: int | None = None, mend: str | None = None) -> ParseError:
        """The error to raise: `what`, at a position or at the cursor."""
        position = self.position if at is None else at
        line = self.text.count("\n", 0, position) + 1
        column = position - self.text.rfind("\n", 0, position)
        return ParseError(what, where=f"{line}:{column}", mend=mend)

    def expected(self, what: str) -> ParseError:
        """The error that `what` doesn't stand at the cursor."""
        rest = self.text[self.position : self.position + _SHOWN].split("\n")[0]
        return self.fail(
            f"expected {what}, found {rest!r}" if rest else f"expected {what}, the line ends here"
        )

    def skip(self) -> int:
        """Moves past blanks and comments; returns where the next token starts."""
        match = _BLANK.match(self.text, self.position)
        self.position = match.end() if match else self.position
        return self.position

    def at_end(self) -> bool:
        """Whether nothing but blanks and comments follows."""
        return self.skip() == len(self.text)

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Takes what `pattern` matches at the next token, if it does."""
        found = pattern.match(self.text, self.skip())
        if found:
            self.position = found.end()
        return found

    def next_is(self, token: str) -> bool:
        """Whether the next token starts with `token`."""
        return self.text.startswith(token, self.skip())

    def take(self, token: str) -> bool:
        """Takes `token` if it comes next."""
        if not self.next_is(token):
            return False
        self.position += len(token)
        return True

    def take_on_line(self, token: str) -> bool:
        """Takes `token` if it comes next on this very line."""
        match = _INLINE_BLANK.match(self.text, self.position)
        start = match.end() if match else self.position
        if not self.text.startswith(token, start):
            return False
        self.position = start + len(token)
        return True

    def expect(self, token: str, what: str | None = None) -> None:
        """Takes `token`, which must come next."""
        if not self.take(token):
            raise self.expected(what or f"'{token}'")

    def word(self, what: str) -> str:
        """Letters, digits and underscores."""
        if not (found := self.match(_WORD)):
            raise self.expected(what)
        return found[0]

    def name(self, what: str) -> str:
        """A word in which dots and hyphens may stand, too."""
        if not (found := self.match(_NAME)):
            raise self.expected(what)
        return found[0]

    def value_name(self) -> str:
        """`%name`, without the percent sign."""
        if not (found := self.match(_VALUE)):
            raise self.expected("a value such as %x")
        return found[1]

    def string(self, what: str) -> str:
        """A JSON string."""
        start = self.skip()
        if not (found := self.match(_STRING)):
            raise self.expected(what)
        try:
            return str(json.loads(found[0]))
        except ValueError as error:
            raise self.fail(f"this is no string: {error}", at=start) from None

    def quoted(self, what: str) -> str:
        """What stands between two quotes, without escapes."""
        if not (found := self.match(re.compile(r'"([^"\n]*)"'))):
            raise self.expected(what)
        return found[1]

    def until(self, mark: str, allowed: re.Pattern[str]) -> str:
        """What `allowed` matches, up to `mark`, which is taken too."""
        found = allowed.match(self.text, self.position)
        self.position = found.end() if found else self.position
        self.expect(mark)
        return found[0] if found else ""

    def expression(self) -> str:
        """Number or dimension: up to a comma or a bracket that belongs to what stands around it."""
        start, depth = self.skip(), 0
        while found := _EXPRESSION.match(self.text, self.position):
            self.position = found.end()
            depth += found[0].count("(") - found[0].count(")")
            # a comma in parentheses separates the arguments of floor, Max and the like
            if depth <= 0 or not self.text.startswith(",", self.position):
                break
            self.position += 1
        text = self.text[start : self.position].strip()
        if not text:
            raise self.expected("a value")
        return text

    def trailing_comment(self) -> str | None:
        """The comment on the line that the cursor is on, if nothing else stands before it."""
        match = _INLINE_BLANK.match(self.text, self.position)
        found = _COMMENT.match(self.text, match.end() if match else self.position)
        if not found:
            return None
        self.position = found.end()
        return found[1].strip()

    def separated(self, opening: str, closing: str) -> Iterator[int]:
        """Yields the position of each item of a list in brackets; the caller reads the item."""
        self.expect(opening)
        if self.take(closing):
            return
        while True:
            yield self.skip()
            if self.take(closing):
                return
            self.expect(",", f"',' or '{closing}'")

"""What can be explained of an output: a class, several classes, or a sum over more than one number.

    argmax   3   -1   top-5   all   input        one number or K numbers picked from the flattened output
    sum   sum[3]   sum[:, 3]   sum[3, 10:20]     a region's sum; `mean` likewise
    weights                                      a sum with weights given at run time

A region is an index as in numpy, on the output's axes after the batch: integers, ranges and `...`; axes at
the end may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from irshap.errors import TargetError, near
from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim
from irshap.ir.walks import upstream
from irshap.ops.program import Opaque
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.shape import Slice, reshape

__all__ = ["Class", "Form", "Region", "Top", "Word", "behind_map", "behind_nms", "parse_form", "split_names"]


@dataclass(frozen=True)
class Word:
    """ "argmax", "all", "input" or "weights"."""

    text: str


@dataclass(frozen=True)
class Class:
    """One class of the flattened output; a negative one counts from the end."""

    index: int


@dataclass(frozen=True)
class Top:
    """The `count` largest."""

    count: int


@dataclass(frozen=True)
class Range:
    """start:stop:step on one axis; an integer is a range of one."""

    start: int | None = None
    stop: int | None = None
    step: int = 1
    single: bool = False

    def bounds(self, size: Dim, where: str) -> tuple[int, int] | None:
        """First and end on an axis, or None for all of it.

        Raises:
            TargetError: it isn't within the axis, or holds nothing.
        """
        if self == Range():
            return None
        if not isinstance(size, int):
            what = f"{where}: the axis has {size} elements, which is only known at run time"
            raise TargetError(what, mend="Take all of it (:), or give weights at run time (target=weights)")
        start = 0 if self.start is None else self.start + size * (self.start < 0)
        stop = size if self.stop is None else self.stop + size * (self.stop < 0)
        stop = start + 1 if self.single else stop
        if not 0 <= start < stop <= size:
            raise TargetError(f"{where}: not within the {size} elements of its axis")
        return start, stop


@dataclass(frozen=True)
class Region:
    """The sum, or the mean, of the part of an output that an index takes.

    `entries` are those before and behind `...`, which stands at the end if it isn't given.
    """

    text: str
    mean: bool = False
    entries: tuple[Range, ...] = ()
    last: tuple[Range, ...] = ()

    def of(self, y: Value) -> Value:
        """[N, ...] -> [N].

        Raises:
            TargetError: the region isn't within `y`.
        """
        free = y.rank - 1 - len(self.entries) - len(self.last)
        if free < 0:
            what = f"target {self.text!r}: {len(self.entries) + len(self.last)} axes for an output {y.type}"
            raise TargetError(what, mend="the first axis, which counts samples, is left out")
        ranges = (*self.entries, *[Range()] * free, *self.last)
        cut = []
        for axis, wanted in enumerate(ranges, 1):
            if bounds := wanted.bounds(y.shape[axis], f"target {self.text!r}"):
                cut.append((axis, *bounds, wanted.step))
        if cut:
            axes, starts, stops, steps = zip(*cut, strict=True)
            y = emit1(Slice(axes, starts, stops, steps), y)
        if y.rank == 1:
            return y
        over = tuple(range(1, y.rank))
        summed = ReduceMean(over, keepdims=False) if self.mean else ReduceSum(over, keepdims=False)
        return reshape(emit1(summed, y), (y.shape[0],))


Form: TypeAlias = Word | Class | Top | Region

_WORDS = ("argmax", "all", "input", "weights")
_REGION = re.compile(r"(sum|mean)(?:\[([^\[\]]*)\])?", re.ASCII)
_INT = r"\s*([+-]?\d{1,18})?\s*"
_RANGE = re.compile(rf"{_INT}:{_INT}(?::\s*([1-9]\d{{0,17}})\s*)?", re.ASCII)
_SINGLE = re.compile(r"\s*([+-]?\d{1,18})\s*", re.ASCII)


def parse_form(text: str) -> Form:
    """The form that a target's text means.

    Raises:
        TargetError: it means none.
    """
    if text in _WORDS:
        return Word(text)
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        return Class(int(text))
    if re.fullmatch(r"top-\d{1,18}", text, re.ASCII):
        return Top(int(text[4:]))
    if found := _REGION.fullmatch(text.strip()):
        parts = [] if found[2] is None else found[2].split(",")
        dots = [i for i, part in enumerate(parts) if part.strip() == "..."]
        if len(dots) > 1:
            raise TargetError(f"target {text!r}: more than one ...")
        at = dots[0] if dots else len(parts)
        before, behind = (tuple(_range(p, text) for p in ps) for ps in (parts[:at], parts[at + 1 :]))
        return Region(text, found[1] == "mean", before, behind)
    known = ["argmax", "all", "input", "top-5", "sum", "mean", "weights"]
    raise TargetError(
        f"unknown target {text!r}",
        mend="Use a class index, argmax, top-K, all, input, sum[...], mean[...] or weights; "
        f"{near(text, known)}",
    )


def _range(part: str, text: str) -> Range:
    if found := _SINGLE.fullmatch(part):
        return Range(int(found[1]), single=True)
    if found := _RANGE.fullmatch(part):
        start, stop, step = (None if g is None else int(g) for g in found.groups())
        return Range(start, stop, step or 1)
    raise TargetError(
        f"target {text!r}: {part.strip()!r} is no index", mend="Use integers, ranges such as 2:5, : and ..."
    )


def split_names(text: str, known: Sequence[str]) -> tuple[list[str], str]:
    """The names in "a, b" (each) or "a + b" (their sum), and what joins them.

    A text that is the name of one of `known` is that.
    """
    if text in known or not re.search(r"[,+]", text):
        return [text], ""
    mark = "," if "," in text else "+"
    return [name.strip() for name in text.split(mark)], mark


def behind_map(value: Value) -> Value | None:
    """The scores that a sequence of maps from classes to these is made of; None for anything else."""
    op = value.node.op
    return value.node.operands[0] if isinstance(op, Opaque) and op.kind == "ZipMap" else None


def behind_nms(value: Value) -> str | None:
    """What to explain instead of boxes that were picked: the scores that they were picked by."""
    for found in upstream([value]):
        op = found.node.op
        if isinstance(op, Opaque) and op.kind == "NonMaxSuppression":
            scores = found.node.operands[1]
            return (
                f"{found.node.label} picks boxes, which is a jump; explain the scores that it reads, "
                f"{scores.type}: output={scores.name}, with target=sum[...] or weights"
            )
    return None

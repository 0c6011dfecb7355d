"""What can be explained of an output: a class, several classes, or a sum over more than one number.

    argmax   3   -1   input                      one number picked from the flattened output
    3,7   top-5   all                            K numbers of it
    sum   sum[3]   sum[:, 3]   sum[3, 10:20]     a region's sum; `mean` likewise
    weights                                      a sum with weights given at run time

A region is an index as in numpy, on the output's axes after the batch: integers, ranges and `...`; axes at
the end may be left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from operator import index
from typing import Any, TypeAlias

from irshap.errors import TargetError, near
from irshap.ir.builder import emit1
from irshap.ir.core import Value
from irshap.ir.dims import Dim
from irshap.ir.walks import upstream
from irshap.ops.program import Opaque
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.shape import Slice, reshape

__all__ = ["Class", "Classes", "Form", "Region", "Top", "Word", "behind_map", "behind_nms", "parse_form"]
__all__ += ["split_names", "target_text", "text_of_names"]


@dataclass(frozen=True)
class Word:
    """ "argmax", "all", "input" or "weights"."""

    text: str


@dataclass(frozen=True)
class Class:
    """One class of the flattened output; a negative one counts from the end."""

    index: int

    def of(self, count: Dim) -> int:
        """The class among `count`, not negative where that is known.

        Raises:
            TargetError: there is no such class.
        """
        if not isinstance(count, int):
            return self.index
        if not -count <= self.index < count:
            many = "1 class" if count == 1 else f"{count} classes"
            mend = "Use 0" if count == 1 else f"Use 0 to {count - 1}"
            raise TargetError(f"target {self.index}: the output has {many}", mend=mend)
        return self.index % count


@dataclass(frozen=True)
class Classes:
    """These classes, in this order."""

    classes: tuple[Class, ...]


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


Form: TypeAlias = Word | Class | Classes | Top | Region

_WORDS = ("argmax", "all", "input", "weights")
_REGION = re.compile(r"(sum|mean)(?:\[([^\[\]]*)\])?", re.ASCII)
_CLASSES = re.compile(r"(?:\s*-?\d{1,18}\s*,)+(?:\s*-?\d{1,18})?\s*", re.ASCII)
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
    if _CLASSES.fullmatch(text):
        return Classes(tuple(Class(int(part)) for part in text.split(",") if part.strip()))
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
    raise TargetError(f"unknown target {text!r}", mend=f"{_FORMS}; {_near(text)}")


_FORMS = "Use a class index or several (3,7), argmax, top-K, all, input, sum[...], mean[...] or weights"


def target_text(target: Any) -> str:
    """A target as text: a text as it is, a class index, or a list of them.

    Raises:
        TargetError: it is none of these.
    """
    if isinstance(target, str):
        return target
    # an array, or a tensor of torch, may be a single number
    several = isinstance(target, Iterable) and getattr(target, "ndim", 1) > 0
    ordered = not isinstance(target, Mapping | Set)
    try:
        given = [index(c) for c in (target if several else [target])]
    except TypeError:
        given = []
    if not given or not ordered or isinstance(target, bool):
        raise TargetError(f"target {target!r} is no class", mend=_FORMS)
    # a comma behind one says that it is a list: [N, K], for K = 1, too
    return ",".join(map(str, given)) + "," * (several and len(given) == 1)


def _near(text: str) -> str:
    """The form that was perhaps meant."""
    if found := re.fullmatch(r"\s*top\W*(\d{1,18})\s*", text.replace("_", " "), re.IGNORECASE | re.ASCII):
        return f"did you mean top-{found[1]}?"
    return near(text, ["argmax", "all", "input", "top-5", "sum", "mean", "weights"])


def _range(part: str, text: str) -> Range:
    if found := _SINGLE.fullmatch(part):
        return Range(int(found[1]), single=True)
    if found := _RANGE.fullmatch(part):
        start, stop, step = (None if g is None else int(g) for g in found.groups())
        return Range(start, stop, step or 1)
    raise TargetError(
        f"target {text!r}: {part.strip()!r} is no index", mend="Use integers, ranges such as 2:5, : and ..."
    )


def text_of_names(names: Any, what: str) -> str:
    """Names as one text: a text as it is, several with commas between.

    Raises:
        TargetError: they are neither.
    """
    if isinstance(names, str):
        return names
    given = list(names) if isinstance(names, list | tuple | set | frozenset) else [names]
    if not all(isinstance(name, str) for name in given):
        raise TargetError(f"{what}={names!r} is no name", mend="Give a tensor's name, or a list of names")
    return ", ".join(given)


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
        if isinstance(op, Opaque) and op.kind == "NonMaxSuppression" and op.present[:2] == (True, True):
            scores = found.node.operands[1]
            return (
                f"{found.node.label} picks boxes, which is a jump; explain the scores that it reads, "
                f"{scores.type}: output={scores.name}, with target=sum[...] or weights"
            )
    return None

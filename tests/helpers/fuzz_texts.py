"""Broken texts by seed: programs in irshap's IR, and pipelines.

A program is parsed, checked and run through passes; a pipeline is parsed and compiles a small network.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import cache

import numpy as np
import onnx.parser
from fuzz_data import NETWORK, REFERENCES
from fuzz_files import NUMBERS, fixtures, generated
from fuzz_workers import Kind, Outcome, judged
from places import GOLDEN

import irshap
from irshap.cli.programs import parse_program
from irshap.compiler.catalog import PassManager
from irshap.errors import ParseError, UserError
from irshap.ir.core import Role
from irshap.ops import OPS
from irshap.pipeline.base import PASSES, PROPERTIES, Context
from irshap.pipeline.named import PIPELINES
from irshap.pipeline.options import options_of
from irshap.pipeline.text import parse_pipeline
from irshap.text import parse_graph, print_graph

__all__ = ["IR", "PIPELINE", "golden", "program"]

Random = np.random.Generator
Mutation = Callable[[str, Random, Sequence[str]], str]

JUNK = ("", "\0", "\x1b[2J", "é", "\ud800", "N", "R", "inf", "nan", "-", "0", "9" * 50, "(" * 40, "[" * 40)
JUNK += (
    "{" * 40,
    '"',
    '\\"',
    "%0",
    "none",
    "true",
    "f32[*]",
    "i64[N]",
    "!f64",
    "dense<",
    'base64"AAAA"',
    "//",
)
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?")
WORD = re.compile(r"[A-Za-z_][\w\-]*")
REPAIRS = 40
DIMENSIONS = ("N", "R", "N*R", "N + 1", "floor(N/2)", "Max(1, N)", "Mod(N, 3)", "N**9", "1/N", "N - N", "0")


@cache
def golden() -> tuple[str, ...]:
    """Programs of golden files."""
    found = (p.read_text().partition("\n// ----\n")[0] for p in sorted(GOLDEN.glob("*.ir")))
    return tuple(text for text in found if len(text) < 20_000)


@cache
def programs() -> tuple[str, ...]:
    """These, and programs of models, some of them in the middle of a pipeline."""
    found = [*golden()]
    begins = PIPELINES["default"].replace("@method", "deeplift").split(",")
    for at, model in enumerate((*fixtures(6_000), *generated(40))):
        with suppress(UserError):
            last = (1, 8, 9, 11)[at % 4]
            graph = PassManager.from_text(",".join(begins[:last])).run(model)
            text = print_graph(graph, elide=False)
            found += [text] * (len(text) < 30_000)
    return tuple(found)


def _one(rng: Random, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _span(rng: Random, text: str) -> tuple[int, int]:
    start = int(rng.integers(len(text) + 1))
    return start, min(len(text), start + int(rng.integers(12)))


def _swapped(text: str, pattern: re.Pattern[str], by: str, rng: Random) -> str:
    places = [m.span() for m in pattern.finditer(text)]
    if not places:
        return text
    start, end = places[int(rng.integers(len(places)))]
    return text[:start] + by + text[end:]


def junk(text: str, rng: Random, others: Sequence[str]) -> str:
    start, end = _span(rng, text)
    return text[:start] + _one(rng, JUNK) + text[end:]


def number(text: str, rng: Random, others: Sequence[str]) -> str:
    by = (*map(str, NUMBERS), "1e308", "-0.0", "inf", "nan", "1.5", *DIMENSIONS)
    return _swapped(text, NUMBER, _one(rng, by), rng)


def word(text: str, rng: Random, others: Sequence[str]) -> str:
    words = WORD.findall(text) or ["x"]
    by = [*OPS, *PASSES, *words, *words][int(rng.integers(len(OPS) + len(PASSES) + 2 * len(words)))]
    return _swapped(text, WORD, by, rng)


def cut(text: str, rng: Random, others: Sequence[str]) -> str:
    start, end = _span(rng, text)
    return text[:start] + (text[end:] if rng.random() < 0.7 else "")


def lines(text: str, rng: Random, others: Sequence[str]) -> str:
    """A line is doubled, lost, moved, or comes from another text."""
    found = text.splitlines() or [""]
    at, to = (int(rng.integers(len(found))) for _ in range(2))
    kind = int(rng.integers(4))
    if kind == 0:
        found.insert(to, found[at])
    elif kind == 1:
        del found[at]
    elif kind == 2:
        found.insert(to, found.pop(at))
    else:
        found.insert(to, _one(rng, _one(rng, others).splitlines() or [""]))
    return "\n".join(found)


def operand(text: str, rng: Random, others: Sequence[str]) -> str:
    names = re.findall(r"%\w+", text) or ["%x"]
    return _swapped(text, re.compile(r"%\w+"), _one(rng, names), rng)


def repeated(text: str, rng: Random, others: Sequence[str]) -> str:
    start, end = _span(rng, text)
    return text[:start] + text[start:end] * int(rng.integers(2, 60)) + text[end:]


MUTATIONS: tuple[Mutation, ...] = (
    junk,
    number,
    number,
    word,
    word,
    cut,
    lines,
    operand,
    operand,
    repeated,
)


def mutated(texts: Sequence[str], rng: Random, by: Sequence[Mutation]) -> str:
    text = _one(rng, texts)
    for _ in range(1 + int(rng.integers(3))):
        text = by[int(rng.integers(len(by)))](text, rng, texts)
    return text


# --- mutations of programs that mostly parse -----------------------------------------------------------


def _line(text: str, rng: Random, wanted: str, change: Callable[[str, str], str]) -> str:
    """`text` with one of the lines that match changed; `change` also gets what stands above it."""
    found = text.splitlines()
    places = [i for i, line in enumerate(found) if re.search(wanted, line) and len(line) < 500]
    if places:
        at = places[int(rng.integers(len(places)))]
        found[at] = change(found[at], "\n".join(found[:at]))
    return "\n".join(found)


def _sub(pattern: str, by: str) -> Callable[[str, str], str]:
    return lambda line, above: re.sub(pattern, by, line, count=1)


def other_op(text: str, rng: Random, others: Sequence[str]) -> str:
    plain = [name for name, cls in OPS.items() if not fields(cls)]
    return _line(text, rng, r"= \w+\(", _sub(r"= \w+\(", f"= {_one(rng, plain)}("))


def other_operand(text: str, rng: Random, others: Sequence[str]) -> str:
    def change(line: str, above: str) -> str:
        names = re.findall(r"^(%\w+)", above, re.MULTILINE) or ["%x"]
        head, equals, rest = line.partition("=")
        return head + equals + _swapped(rest, re.compile(r"%\w+"), _one(rng, names), rng)

    return _line(text, rng, r"= .*\(%", change)


def more_operands(text: str, rng: Random, others: Sequence[str]) -> str:
    by = _one(rng, ("", r"\1, \1", r"\1, \1, \1"))
    return _line(text, rng, r"\(%\w+", _sub(r"(%\w+)(?=[,)])", by))


def attribute(text: str, rng: Random, others: Sequence[str]) -> str:
    by = (
        *map(str, (*NUMBERS, 0, 1, 2, 3, -1)),
        "1.5",
        "1e30",
        "inf",
        "true",
        "none",
        "[]",
        "[0]",
        *DIMENSIONS,
    )

    def change(line: str, above: str) -> str:
        head, brace, rest = line.partition("{")
        inside, closing, behind = rest.partition("}")
        return head + brace + _swapped(inside, NUMBER, _one(rng, by), rng) + closing + behind

    return _line(text, rng, r"= \w+\{(?!name)", change)


def kind_of_input(text: str, rng: Random, others: Sequence[str]) -> str:
    dims = ", ".join(
        _one(rng, ("N", "R", "1", "2", "3", "4", "0", *DIMENSIONS)) for _ in range(rng.integers(5))
    )
    kind = _one(rng, ("f32", "f32", "f64", "f16", "i64", "bool", "str", "c64"))
    by = f": {kind}[{_one(rng, (dims, dims, '*'))}]"
    return _line(text, rng, "= input", _sub(r": \w+\[.*?\](?!.*\])", by))


def output(text: str, rng: Random, others: Sequence[str]) -> str:
    """An output of another role, of another tensor, or none."""
    if rng.random() < 0.3:
        return _line(text, rng, "^output", _sub(".*", ""))
    names = re.findall(r"^(%\w+)", text, re.MULTILINE) or ["%x"]
    of = re.findall(r'name="(\w+)"', text) or ["x"]
    added = (
        f'output "o{rng.integers(3)}" {{role={_one(rng, [r.value for r in Role])}, of="{_one(rng, of)}"}} = '
    )
    return f"{text}\n{added}{_one(rng, names)}"


def properties(text: str, rng: Random, others: Sequence[str]) -> str:
    said = ", ".join(name for name in PROPERTIES if rng.random() < 0.3)
    return re.sub(r"(graph @\w+)(?: \{.*?\})?", rf"\1 {{{said}}}", text, count=1)


CAREFUL: tuple[Mutation, ...] = (other_op, other_operand, more_operands, attribute, attribute)
CAREFUL += (kind_of_input, output, properties)


def retyped(text: str) -> str:
    """`text` with the types that its statements give: most mutations would end at the first one else."""
    for _ in range(REPAIRS):
        try:
            parse_graph(text)
        except ParseError as error:
            gives = re.search(r" gives (.*), not (.*)$", error.what, re.DOTALL)
            if not gives or not error.where:
                break
            line = int(error.where.partition(":")[0]) - 1
            head, behind = "".join(text.splitlines(True)[:line]), "".join(text.splitlines(True)[line:])
            text = head + behind.replace(gives[2], gives[1], 1)
    return text


def program(seed: int, texts: Callable[[], Sequence[str]] = programs) -> bytes:
    """A program; of three two have the types that follow."""
    rng = np.random.default_rng(seed)
    text = mutated(texts(), rng, CAREFUL if seed % 3 else MUTATIONS)
    if seed % 3:
        with suppress(Exception):  # a fault shows when the text is judged
            text = retyped(text)
    return text.encode("utf-8", "surrogatepass")


def _chosen(content: bytes) -> Random:
    """What a program is run through follows from it alone, so that a file is enough to run it again."""
    return np.random.default_rng(zlib.crc32(content))


def _passes(rng: Random) -> str:
    """A piece of the default pipeline, or any passes."""
    whole = PIPELINES["default"].replace("@method", "deeplift").split(",")
    if rng.random() < 0.5:
        start = int(rng.integers(1, len(whole) - 1))
        return ",".join(whole[start : start + 1 + int(rng.integers(8))])
    return ",".join(_one(rng, sorted(PASSES)) for _ in range(1 + int(rng.integers(2))))


def _program_steps(content: bytes) -> Iterator[str]:
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return  # refused before it is parsed (irshap.cli.programs)
    graph = parse_program(text)
    yield "checked"
    printed = print_graph(graph)
    if print_graph(parse_graph(printed)) != printed:
        raise AssertionError("the printed program reads differently")
    manager = PassManager.from_text(_passes(_chosen(content)))
    if manager.passes[0].takes == "graph":
        manager.run(graph, Context())
        yield "run"


@cache
def pipelines() -> tuple[str, ...]:
    """Pipelines by name and in full, and each pass in its place with options that it has."""
    found = [f"@{name}" for name in PIPELINES] + [text for text in PIPELINES.values() if "," in text]
    found += ["@default{without=(polyphase, order)}", '@default{before=(lower, "summary{top=2}")}']
    found += ['lift,target{target="top-2"},canonicalize,autodiff,@method,fold-references,dce,lower']
    for name, cls in sorted(PASSES.items()):
        with suppress(TypeError, ValueError):
            options = ",".join(o.text for o in options_of(cls).values() if "<" not in o.text)
            called = f"{name}{{{options}}}"
            if cls.takes == cls.gives == "graph":
                found.append(
                    f"lift,single,target,canonicalize,{called},autodiff,@method,bind-references,lower"
                )
                found.append(PIPELINES["default"].replace("@method", called))
                found.append(f"@default{{after=(autodiff, {called})}}")
    return tuple(found)


def pipeline(seed: int) -> bytes:
    text = mutated(pipelines(), np.random.default_rng(seed), MUTATIONS)
    return text.encode("utf-8", "surrogatepass")


def _pipeline_steps(content: bytes) -> Iterator[str]:
    text = content.decode("utf-8", "surrogatepass")
    parse_pipeline(text)
    yield "parsed"
    manager = PassManager.from_text(text)
    if PassManager.from_text(manager.text).text != manager.text:
        raise AssertionError("the canonical text reads differently")
    yield "fits together"
    compiled = irshap.compile(onnx.parser.parse_model(NETWORK), REFERENCES, passes=text)
    yield "compiled"
    compiled.explainer()(REFERENCES)
    yield "explained"


def _judge(steps: Callable[[bytes], Iterator[str]]) -> Callable[..., Outcome]:
    def outcome(content: bytes, *, reraise: bool = False) -> Outcome:
        return judged(steps(content), reraise)

    return outcome


IR = Kind(program, _judge(_program_steps))
PIPELINE = Kind(pipeline, _judge(_pipeline_steps))

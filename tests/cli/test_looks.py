"""Looks into programs: `irshap diff`, `irshap print --graph`, `irshap compile -v`."""

from __future__ import annotations

import base64
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import onnx
import pytest
from shells import Shell

from irshap import demo
from irshap.text import parse_graph
from irshap.text.difference import difference

HEAD = 'graph @g\n%x = input{name="x"} : f32[N, 3]\n'
A = (
    HEAD
    + """%a = relu(%x) : f32[N, 3]
%b = tanh(%a) : f32[N, 3]
%c = neg(%b) : f32[N, 3]
output "y" = %c
"""
)


def changes(before: str, after: str) -> list[str]:
    found = difference(parse_graph(before), parse_graph(after))
    return [line for line in found.lines if line[0] in "+-"]


def test_the_same_program_under_other_names() -> None:
    renamed = A.replace("%a", "%0").replace("%b", "%1").replace("%c", "%other")
    assert changes(A, A) == changes(A, renamed) == []


def test_a_statement_that_goes() -> None:
    after = HEAD + '%0 = relu(%x) : f32[N, 3]\n%1 = neg(%0) : f32[N, 3]\noutput "y" = %1\n'
    found = difference(parse_graph(A), parse_graph(after))
    assert found.ops == {"tanh": (1, 0)}
    assert [line for line in found.lines if line[0] in "+-"] == [
        "-%b = tanh(%0) : f32[N, 3]",
        "-%1 = neg(%b) : f32[N, 3]",
        "+%1 = neg(%0) : f32[N, 3]",
    ]


def test_an_operand_that_changes() -> None:
    after = A.replace("neg(%b)", "neg(%a)")
    assert changes(A, after) == ["-%c = neg(%b) : f32[N, 3]", "+%c = neg(%a) : f32[N, 3]"]


def test_long_constants_that_differ() -> None:
    """Their elements aren't printed, and are told apart all the same."""
    text = HEAD + "%w = constant{value=dense<f32[3, 20], WEIGHTS>} : f32[3, 20]\n"
    text += '%y = matmul(%x, %w) : f32[N, 20]\noutput "y" = %y\n'

    def of(number: float) -> str:
        content = base64.b64encode(np.full((3, 20), number, np.float32).tobytes()).decode()
        return text.replace("WEIGHTS", f'base64"{content}"')

    assert changes(of(1.0), of(1.0)) == []
    gone, came = changes(of(1.0), of(2.0))
    assert "elided" in gone and "// sha256 " in gone and gone[1:] != came[1:]


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """In a folder with a program."""
    Path("a.ir").write_text(A)
    return shell


MODEL = demo.model_path()


def test_diff_on_the_command_line(shell: Shell) -> None:
    assert shell.ok("diff", MODEL, MODEL) == ""
    assert shell("diff", MODEL, "--passes", "lift", "--passes", "lift,target").code == 1
    lines = shell.out.splitlines()
    assert any(line.startswith('+output "target_value" {role=target} = ') for line in lines)
    assert not any(line.startswith("-") for line in lines)
    assert lines[-1] == "ops: argmax 0 to 1, gather_elements 0 to 1, hold 0 to 2, reshape 1 to 3"
    shell.ok("diff", "a.ir", "a.ir")
    shell.ok("diff", "a.ir", "--passes", "dce", "--passes", "canonicalize")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["a.ir"], "there is one program to compare. give B, or --passes twice"),
        (["a.ir", "a.ir", *["--passes", "dce"] * 3], "3 pipelines for two programs"),
        (["a.ir", "none.onnx"], "none.onnx: no such file"),
        (["-", "-"], "standard input is one program"),
        ([MODEL, MODEL, "--passes", "lift,lower"], "pass lower gives a model, which has no text"),
    ],
)
def test_what_has_no_difference(shell: Shell, args: list[str], message: str) -> None:
    assert message in shell.refused("diff", *args)


class Texts(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data.strip())


@pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz's program dot is missing")
def test_a_drawing(shell: Shell) -> None:
    pytest.importorskip("graphviz")
    Path("risky.ir").write_text(A.replace('name="x"', 'name="<b>&\\\\n\\"x"'))
    shell.ok("print", "risky.ir", "--passes", "dce", "--graph", "g.svg")
    drawing = Texts(Path("g.svg").read_text())
    assert {"relu", "tanh", "neg", "model", "forward"} <= set(drawing.texts)
    assert "b" not in drawing.tags and drawing.texts.count("f32[N, 3]") == 5
    shell.ok("print", MODEL, "--passes", "lift,target,autodiff,gradient,dce", "--graph", "g.svg")
    both = Texts(Path("g.svg").read_text())
    assert {"forward", "explain", "logits", "attribution"} <= set(both.texts)
    shell.ok("print", "a.ir", "--passes", "dce", "--graph", "g.png")
    assert Path("g.png").read_bytes().startswith(b"\x89PNG")


def test_drawings_that_cannot_be(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    told = shell.refused("print", "a.ir", "--graph", "g.bmp")
    assert "g.bmp: names no kind of drawing. end it with .svg, .png, .pdf" in told
    told = shell.refused("print", "a.ir", "--graph", "g.svg", "--output", "g.ir")
    assert "--graph draws instead of printing. leave --output out" in told
    monkeypatch.setitem(sys.modules, "graphviz", None)  # type: ignore[arg-type]
    told = shell.refused("print", "a.ir", "--passes", "dce", "--graph", "g.svg")
    assert 'drawing a graph needs graphviz. install both: pip install "irshap[graph]"' in told


def test_compile_says_what_passes_do(shell: Shell) -> None:
    shell("compile", MODEL, "-r", demo.references_path(), "-o", "e.onnx", "-v")
    assert shell.code == 0
    lines = shell.err.splitlines()
    pipeline = next(line for line in shell.out.splitlines() if "passes" in line).split()[1]
    assert len(lines) == pipeline.count(",") + 1 == int(lines[0].split("/")[1].split()[0])
    assert lines[0].startswith(" 1/") and " lift: " in lines[0] and "nodes" in lines[0]
    assert " lower: " in lines[-1]
    assert len(onnx.load("e.onnx").graph.node) == int(lines[-1].split(" nodes")[0].split()[-1])

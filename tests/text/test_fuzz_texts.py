"""A hundred broken texts, data files and explained files; tests/bench/fuzz_texts.py runs any number."""

from __future__ import annotations

from collections import Counter
from functools import partial

import onnx.parser
import pytest
from fuzz_data import DATA, NETWORK, REFERENCES
from fuzz_explained import EXPLAINED
from fuzz_texts import IR, PIPELINE, golden, program
from fuzz_workers import Kind, Outcome, is_fault, judged

import irshap
from irshap.cli.programs import parse_program
from irshap.compiler.catalog import PassManager
from irshap.errors import ModelError, ParseError, ReferencesError, UserError
from irshap.lowering import lower
from irshap.pipeline.base import Context

KINDS = {
    "ir": (Kind(partial(program, texts=golden), IR.outcome), 40, "run"),
    "pipeline": (PIPELINE, 40, "explained"),
    "data": (DATA, 120, "references samples groups made"),
    "explained": (EXPLAINED, 8, "explained"),
}


@pytest.mark.parametrize("name", KINDS)
def test_broken_ones_are_taken_or_refused(name: str) -> None:
    kind, count, taken = KINDS[name]
    found = [(seed, kind.outcome(kind.made(seed))) for seed in range(count)]
    assert not [(seed, f) for seed, f in found if is_fault(f)]
    kinds = Counter(f.kind for _, f in found)
    # refusing everything would pass, too
    assert kinds[taken] >= 1
    assert kinds["refused"] >= count // 10


@pytest.mark.parametrize("name", KINDS)
def test_a_seed_gives_the_same(name: str) -> None:
    kind: Kind = KINDS[name][0]
    made = [kind.made(seed) for seed in range(12)]
    assert made == [kind.made(seed) for seed in range(12)]
    assert len(set(made)) > 9


def test_a_fault_is_an_internal_error() -> None:
    def steps():  # type: ignore[no-untyped-def]
        yield "read"
        raise KeyError("v1")

    assert judged(steps(), reraise=False) == Outcome("internal error", "KeyError", "'v1'")


MIDDLES = {
    "fix-batch{size=1}": "has no axis that counts samples. fix their number behind the method",
    "trainable": "no initializer was made an input",
}


@pytest.mark.parametrize("middle", MIDDLES)
def test_passes_in_the_wrong_place(middle: str) -> None:
    passes = f"lift,single,target,canonicalize,{middle},autodiff,@method,bind-references,lower"
    with pytest.raises(UserError, match=MIDDLES[middle]):
        irshap.compile(onnx.parser.parse_model(NETWORK), REFERENCES, passes=passes)


@pytest.mark.parametrize("op", ["neg(%x)", "mul(%x, %c)"])
def test_a_program_without_references_has_none_to_stream(op: str) -> None:
    text = f"""graph @g {{decided}}
    %x = input{{name="x"}} : f32[N, 2]
    %c = constant{{value=dense<f32[1], [2.0]>}} : f32[1]
    %y = {op} : f32[N, 2]
    output "y" = %y"""
    with pytest.raises(ReferencesError, match="no references were given"):
        PassManager.from_text("stream").run(parse_program(text), Context())
    assert PassManager.from_text("stream{otherwise=fold}").run(parse_program(text), Context()).outputs


EXPLAINED_TEXT = """graph @g {adjoint, target}
%x = input{name="x"} : f32[N, 2]
%n = cast{to=!i64}(%x) : i64[N, 2]
%y = exp(%x) : f32[N, 2]
%t = reduce_sum{axes=[1], keepdims=false}(%y) : f32[N]
%one = full{value=1.0, dtype=!f32, shape=[N, 2]} : f32[N, 2]
%ct = full{value=1.0, dtype=!f32, shape=[N, 1]} : f32[N, 1]
%m = pullback{of=exp{}, wrt=[0], cotangents=1, inputs=1}(%one, %x, %y) : f32[N, 2]
output "y" {role=model} = %y
output "x" {role=source, of="x"} = %x
output "target_value" {role=target} = %t
output "target_values" {role=target_values} = %t
output "x_adjoint" {role=adjoint, of="x"} = %m
"""


def test_what_a_text_says_of_its_tensors_holds() -> None:
    made = PassManager.from_text("input-x-gradient").run(parse_program(EXPLAINED_TEXT), Context())
    assert "x_attributions" in {o.name for o in made.outputs}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{adjoint, target}", "{target}", "output 'x_adjoint': its role is adjoint, and the graph isn't"),
        ("{adjoint, target}", "{adjoint}", "output 'x': its role is source, and the graph isn't 'target'"),
        ('of="x"} = %x', 'of="x"} = %n', r"source 'x' is i64\[N, 2\]"),
        ("target} = %t", "target} = %n", "target 'target_value' is i64"),
        ("target} = %t", "target} = %y", "target 'target_value' is f32.*not one number for each row"),
        ('of="x"} = %m', 'of="x"} = %ct', r"source 'x' is f32\[N, 2\], and its adjoint f32\[N, 1\]"),
        ("(%one, %x, %y)", "(%ct, %x, %y)", "the cotangents of exp are of other types than its results"),
        ("(%one, %x, %y)", "(%one, %x, %t)", "the results of exp are of other types"),
        ("(%one, %x, %y)", "(%one, %x)", "the results of exp are of other types"),
        ("cotangents=1", "cotangents=0", "other types"),
        ('output "target_values" {role=target_values} = %t', "", "no output tells what is explained"),
    ],
)
def test_a_text_that_says_otherwise_is_refused(old: str, new: str, message: str) -> None:
    assert EXPLAINED_TEXT.count(old) == 1
    with pytest.raises(ParseError, match=message):
        parse_program(EXPLAINED_TEXT.replace(old, new))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("%s = opaque{OPAQUE}() : f32[N, 2]", "ZipMap takes 1 operands and has 0"),
        ("%s = opaque{OPAQUE}(%x, %x) : f32[N, 2]", "ZipMap takes 1 operands and has 2"),
        ("%s, %t = opaque{OPAQUE}(%x) : f32[N, 2], f32[N, 2]", "ZipMap makes 1 results and has 2"),
    ],
)
def test_an_opaque_node_has_the_operands_that_it_says(line: str, message: str) -> None:
    of = 'kind="ZipMap", domain="ai.onnx.ml", opsets=[], proto=base64"", present=[true], outputs=[true]'
    text = f"""graph @g
    %x = input{{name="x"}} : f32[N, 2]
    {line.replace("OPAQUE", of)}
    output "s" = %s"""
    with pytest.raises(ParseError, match=message):
        parse_program(text)


@pytest.mark.parametrize(("content", "message"), [("", "are another's"), ("/w==", "are none")])
def test_the_bytes_of_an_opaque_node_are_those_of_the_node(content: str, message: str) -> None:
    """Bytes of no node, and bytes that protobuf doesn't read."""
    of = f'kind="ZipMap", domain="ai.onnx.ml", opsets=[["ai.onnx.ml", 1]], proto=base64"{content}"'
    graph = parse_program(f"""graph @g
    %x = input{{name="x"}} : f32[N, 2]
    %s = opaque{{{of}, present=[true], outputs=[true]}}(%x) : f32[N, 2]
    output "s" = %s""")
    with pytest.raises(ModelError, match=f"the bytes of the node ZipMap {message}"):
        lower(graph)


def test_the_bytes_of_a_foreign_type_are_those_of_a_type() -> None:
    graph = parse_program("""graph @g
    %x = input{name="x"} : sequence<ff>
    output "s" = %x""")
    with pytest.raises(ModelError, match="the bytes of the type sequence are none"):
        lower(graph)

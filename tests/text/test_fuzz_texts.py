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
from irshap.errors import ReferencesError, UserError
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

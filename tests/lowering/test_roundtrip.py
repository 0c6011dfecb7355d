"""Lift and lower without passes: the onnx wheel's models that ONNX Runtime runs; see bench/roundtrip.py."""

from __future__ import annotations

import zlib
from functools import cache

import pytest
from bench.roundtrip import BATCHES, Case, Result, cases, check
from kernels import computes, lacks
from onnx.reference import ReferenceEvaluator

from irshap.lowering import lift, lower

pytestmark = pytest.mark.slow

SHARDS = 8


@cache
def shards(kind: str) -> list[list[Case]]:
    """The cases of a kind, dealt out by their names: always the same ones together."""
    result: list[list[Case]] = [[] for _ in range(SHARDS)]
    for case in cases([kind]):
        result[zlib.crc32(case.name.encode()) % SHARDS].append(case)
    return result


def failures(results: list[Result]) -> list[str]:
    return [
        f"{r.name} (batch={r.batch}): {r.reason}"
        for r in results
        if r.outcome == "failed" and not lacks(r.reason)
    ]


def trusted(case: Case) -> bool:
    """Whether ONNX Runtime itself is right about a case: asked where a round trip gives something else."""
    model = case.load()
    return all(
        computes(form, feeds, wanted, output, atol=2e-3)
        for form in (model, lower(lift(model, batch="keep")))
        for feeds in case.feeds(model)
        for output, wanted in enumerate(ReferenceEvaluator(form).run(None, feeds))
    )


def assert_faithful(found: list[Case], most_run: bool = True) -> None:
    checked = [(case, check(case)) for case in found]
    assert not [f for case, results in checked for f in failures(results) if trusted(case)]
    results = [result for _, results in checked for result in results]
    passed = sum(r.outcome == "passed" for r in results)
    assert all(r.reason for r in results if r.outcome == "skipped")
    # an older ONNX Runtime skips more; one that skips most would make this test empty
    assert passed >= (0.5 * len(results) if most_run else 0)


@pytest.mark.parametrize("case", [*cases(["light"])], ids=lambda case: case.name)
def test_light_models(case: Case) -> None:
    results = check(case)
    assert [(r.batch, r.outcome, r.reason) for r in results] == [(b, "passed", "") for b in BATCHES]


@pytest.mark.parametrize("shard", range(SHARDS))
def test_single_node_models(shard: int) -> None:
    assert_faithful(shards("node")[shard])


@pytest.mark.parametrize("kind", ["simple", "pytorch-operator", "pytorch-converted"])
def test_small_models(kind: str) -> None:
    # nearly all of PyTorch's are of opset 6
    assert_faithful([case for shard in shards(kind) for case in shard], most_run=kind == "simple")


@pytest.mark.parametrize("opset", [13, 18, 22])
def test_opaque_nodes_at_a_later_opset(opset: int) -> None:
    """An eighth of the models, written at a later opset: what irshap doesn't model is converted."""
    results = [result for case in shards("node")[0] for result in check(case, ["keep"], opset)]
    known = [f for f in failures(results) if "Scan means something else since 9" not in f]
    assert not known

"""The axioms: Hesse et al.'s table comes out, counterexamples are told, files are tried on their samples."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from revealing import net, normal

import irshap
from irshap import demo
from irshap.cli import main
from irshap.errors import ModelError, UserError
from irshap.metrics.axioms import AXIOMS, SensitivityA, SensitivityB, method_of, try_file, try_method
from irshap.metrics.axioms.functions import SMOOTH, Tried
from irshap.metrics.evaluate import subject_of
from irshap.passes.methods.base import METHODS

A, B, INVARIANT, COMPLETE, LINEAR, SYMMETRIC, SCALES = AXIOMS
SIX = {A, B, INVARIANT, COMPLETE, LINEAR, SYMMETRIC}

HOLDS = {
    "gradient": {B, INVARIANT, LINEAR, SYMMETRIC},
    "input-x-gradient": {B, INVARIANT, LINEAR, SYMMETRIC},
    "x-gradient": {*SIX, SCALES},
    "integrated-gradients": SIX - {COMPLETE},
    "expected-gradients": {A, B},
    "expected-gradients{samples=1}": {B},
    "deeplift": {A, B, COMPLETE, LINEAR},
    "exact-shapley": SIX,
}
"""Table 1 of Hesse, Schaub-Meyer, Roth 2021, with DeepLIFT and the Shapley value beside it."""

IN_THE_LIMIT = {
    "integrated-gradients": {COMPLETE},
    "expected-gradients": SIX - {A, B},
    "expected-gradients{samples=1}": SIX - {B},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", HOLDS)
def test_the_table_of_hesse(method: str) -> None:
    found = try_method(method)
    assert {name for name, v in found.items() if v.status == "holds"} == HOLDS[method], found
    limit = {name for name, v in found.items() if v.status == "in the limit"}
    assert limit == IN_THE_LIMIT.get(method, set()), found
    for verdict in found.values():
        assert bool(verdict.told) == (verdict.status != "holds")
        assert verdict.cases > 0
        assert (verdict.deviation <= 1e-9) == (verdict.status == "holds")


def test_counterexamples_are_told() -> None:
    found = try_method("gradient")
    assert found[A].told == "f = 1 - relu(1 - x) at x = (2) changes by 1 from that feature, which gets 0"
    assert "attributions sum to 0" in found[COMPLETE].told
    invariance = try_method("deeplift")[INVARIANT]
    assert "f = x1 - relu(x1 - x2) gets (0, 1), f = min(x1, x2) gets (0.5, 0.5)" in invariance.told
    assert str(invariance) == "fails (0.5)"


def test_a_method_is_tried_where_it_explains() -> None:
    """x-gradient on what scales alone, grad-cam on none of these; reasons are told."""
    found = try_method("x-gradient")
    assert next((v.cases, v.refused) for v in found.values()) == (1, 5)
    assert str(found[A]) == "holds (1 of 6)"
    cam = try_method("grad-cam{layer=h}")
    assert {v.status for v in cam.values()} == {"not tried"}
    assert all(v.told for v in cam.values())


def test_every_draw_is_another() -> None:
    """Seeds are no part of f: the same function twice, explained by one draw, gets two answers."""
    explain = Tried(METHODS["expected-gradients"](samples=1))  # type: ignore[call-arg]
    x = normal(1, 4, 3)
    assert not np.allclose(explain(SMOOTH, x), explain(SMOOTH, x))


def test_the_cases_are_what_they_say() -> None:
    """Each function computes its formula, at least where that can be read as numpy."""
    words = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh, "min": np.minimum}
    words["sigmoid"] = lambda z: 1 / (1 + np.exp(-z))
    read = 0
    for cls in AXIOMS.values():
        for case in cls().cases():
            for f in (case.f, getattr(case, "g", None) or case.f):
                if "." in f.formula:
                    continue
                text = f.formula.replace("2 x", "2 * x").replace("4 x", "4 * x").replace("2 sig", "2 * sig")
                text = (
                    text.replace(") tanh", ") * tanh")
                    .replace(") x3", ") * x3")
                    .replace("(x3 x2)", "* (x3 * x2)")
                )
                x = case.x if case.x.shape[1] > 1 else np.repeat(case.x, 2, axis=1)
                names = {f"x{i + 1}": x[:, i] for i in range(x.shape[1])} | {"x": x[:, 0]}
                np.testing.assert_allclose(f(case.x), eval(text, {}, {**words, **names}), atol=1e-12)
                read += 1
    assert read >= 12


def mlp(seed: int) -> object:
    w = normal(seed, 4, 6)
    w[2] = 0
    body = "{ a = Gemm(x, w, b) h = Relu(a) y = MatMul(h, v) }"
    return net(f"(double[N, 4] x) => (double[N, 3] y) {body}", w=w, b=normal(2, 6), v=normal(3, 6, 3))


def test_on_a_file() -> None:
    x = normal(5, 6, 4)
    deep = try_file(irshap.compile(mlp(1), np.zeros((2, 4))), x)
    assert [deep[name].status for name in (COMPLETE, B, SCALES)] == ["holds", "holds", "fails"]
    assert {deep[name].status for name in (A, INVARIANT, LINEAR, SYMMETRIC)} == {"not tried"}
    slope = try_file(irshap.compile(mlp(1), method="input-x-gradient"), x)
    assert [slope[name].status for name in (COMPLETE, B)] == ["fails", "holds"]
    assert "attributions sum to" in slope[COMPLETE].told


def test_a_cell_that_is_not_read_on_a_file() -> None:
    subject = subject_of(irshap.compile(mlp(1), method="gradient"), normal(5, 6, 4))
    trial = SensitivityB().on_file(subject, None)
    assert trial is not None
    assert trial.deviation == 0
    wrong = replace(subject, attributions={"x": subject.attributions["x"] + 0.01})
    told = SensitivityB().on_file(wrong, None)
    assert told is not None
    assert told.deviation > 1e-4
    assert "cell 2" in told.told


def test_two_files() -> None:
    head = "(double[N, 2] x) => (double[N, 1] y) { a, b = Split<axis = 1, num_outputs = 2>(x)"
    one = net(f"{head} d = Sub(a, b) h = Relu(d) y = Sub(a, h) }}")
    other = net(f"{head} y = Min(a, b) }}")
    x, zero = normal(1, 5, 2), np.zeros((1, 2))
    for method, refs, status in (("deeplift", zero, "fails"), ("gradient", None, "holds")):
        files = [irshap.compile(m, refs, method=method, target=0) for m in (one, other)]
        assert try_file(files[0], x, files[1])[INVARIANT].status == status
    with pytest.raises(UserError, match="compute different functions"):
        third = irshap.compile(net(f"{head} y = Max(a, b) }}"), method="gradient", target=0)
        try_file(irshap.compile(one, method="gradient", target=0), x, third)


def test_files_that_differ_in_more_than_how_they_are_written() -> None:
    model, x = (
        net(
            "(double[N, 2] x, double[N, 2] z) => (double[N, 1] y) { a = Mul(x, z) y = ReduceSum(a, one) }",
            one=np.array([1]),
        ),
        {"x": normal(1, 5, 2), "z": normal(2, 5, 2)},
    )
    zero = {n: np.zeros((1, 2)) for n in x}
    first = irshap.compile(model, zero, target=0)
    for method, target, message in (
        ("gradient", 0, "explain by different methods: deeplift and gradient"),
        ("deeplift", irshap.Target("0", context="z"), "attribute to different tensors"),
        ("deeplift", 0, "compare with different references: base values differ"),
    ):
        refs = {"gradient": None, "deeplift": zero["x"] if target else {n: a + 1 for n, a in zero.items()}}
        with pytest.raises(UserError, match=message):
            try_file(first, x, irshap.compile(model, refs[method], method=method, target=target))


def test_what_a_file_cannot_tell_is_said() -> None:
    """Tokens can't be scaled, and homogeneity is against zeros: the other axioms are tried all the same."""
    ids = np.array([[1, 2], [0, 2], [2, 2]])
    body = "{ e = Gather(table, ids) t = Tanh(e) y = ReduceSum<keepdims = 0>(t, one) }"
    model = net(f"(int64[N, 2] ids) => (double[N, 3] y) {body}", table=normal(1, 4, 3), one=np.array([1]))
    found = try_file(irshap.compile(model, np.zeros((1, 2), np.int64)), ids)
    assert found[COMPLETE].status == "holds"
    assert found[SCALES].status == "not tried"
    assert "is of integers" in found[SCALES].told
    found = try_file(irshap.compile(mlp(1), np.ones((1, 4))), normal(5, 6, 4))
    assert (found[COMPLETE].status, found[SCALES].status) == ("holds", "not tried")
    assert "other references than zeros" in found[SCALES].told


def test_references_per_sample_are_no_part_of_a_method() -> None:
    own, shared = (try_method(f"feature-ablation{{per_sample={w}}}") for w in ("true", "false"))
    assert own == shared
    assert own[LINEAR].status == "holds"


def test_an_x_dnn_scales(tmp_path: Path) -> None:
    assert main(["x-dnn", str(demo.model_path()), str(tmp_path / "x.onnx")]) == 0
    explained = irshap.compile(tmp_path / "x.onnx", method="x-gradient")
    found = try_file(explained, demo.digits()[0][:8])
    assert [found[name].status for name in (COMPLETE, SCALES)] == ["holds", "holds"]


def test_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "explained.onnx"
    irshap.compile(demo.model_path(), method="input-x-gradient").save(path)
    np.save(tmp_path / "x.npy", demo.digits()[0][:4])
    assert main(["axioms", str(path), "-i", str(tmp_path / "x.npy"), "-m", "saliency"]) == 0
    printed = capsys.readouterr().out
    assert "sensitivity (a)" in printed
    assert "fails (1)" in printed
    assert "saliency" in printed
    assert "- input-x-gradient, completeness: f = " in printed
    assert main(["axioms", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["input-x-gradient"][LINEAR]["status"] == "holds"
    for args, message in (
        ([], "nothing to try"),
        ([str(path), "--other", str(path)], "needs samples"),
        (["-m", "saliency", "-i", "x.npy"], "are for an explained model"),
        (["-m", "salience"], "did you mean saliency"),
        ([str(demo.model_path())], "returns no attributions"),
    ):
        assert main(["axioms", *args]) == 2
        assert message in capsys.readouterr().err


def test_metadata_without_a_method() -> None:
    with pytest.raises(ModelError, match="names no attribution method"):
        method_of({})


def test_the_first_axiom_needs_a_change() -> None:
    """A feature that changes nothing may get 0."""
    case = next(SensitivityA().cases())
    none = replace(case, x=np.zeros((1, 1)))
    assert SensitivityA().trial(Tried(METHODS["gradient"]()), none).deviation == 0

"""deeplift's multipliers and hypothetical contributions, against a plain walk back through each pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from revealing import net, normal
from two_world import TwoWorlds, explain

import irshap
from irshap.cli import main
from irshap.errors import TargetError, UserError
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.passes.methods.deeplift import DeepLift

SEQUENCE = """(double[N, 4, 9] x) => (double[N, 3] y)
{ a = Conv(x, u, c) h = Relu(a) p = MaxPool<kernel_shape = [2], strides = [2]>(h) f = Flatten(p)
  g = Gemm(f, w) t = Sigmoid(g) y = Gemm(t, k) }"""
BOTH = "multipliers,hypothetical,completeness_error"


def sequences() -> onnx.ModelProto:
    sizes = {"u": (5, 4, 4), "c": (5,), "w": (15, 6), "k": (6, 3)}
    return net(SEQUENCE, **{name: normal(i, *size) for i, (name, size) in enumerate(sizes.items())})


def letters(seed: int, count: int) -> Array:
    return np.eye(4)[np.random.default_rng(seed).integers(0, 4, (count, 9))].transpose(0, 2, 1)


X, REFERENCES = letters(1, 3), letters(2, 5)
"""Most references have a letter that the sample has at the same position, where nothing differs."""


def walked(model: onnx.ModelProto, x: Array, r: Array, target: int) -> Array:
    """The multipliers of every pair, one by one: [N, R, ...]."""
    worlds = TwoWorlds(model)
    seed = np.zeros((1, 3))
    seed[0, target] = 1
    return np.array(
        [
            [
                worlds.multipliers(worlds.world({"x": a[None]}), worlds.world({"x": b[None]}), seed)["x"][0]
                for b in r
            ]
            for a in x
        ]
    )


def brute_force(m: Array, r: Array, weights: Array) -> Array:
    """[N, R, 4, L], [R, 4, L] -> [N, 4, L], letter by letter, as genomics tools write it."""
    found = np.zeros((len(m), *r.shape[1:]))
    for letter in range(4):
        whole = np.zeros(r.shape[1:])
        whole[letter] = 1.0
        given = m * (whole - r)  # [N, R, 4, L]
        found[:, letter] = np.einsum("r,nral->nl", weights, given)
    return found


def run(model: Any, r: Any, x: Array = X, **arguments: Any) -> dict[str, Array]:
    """All outputs in float64, by irshap's evaluator (ONNX Runtime has no such convolution)."""
    return evaluate(irshap.compile(model, r, **arguments).graph, {"x": x})


def close(a: Array, b: Array) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-12 * max(1, np.abs(b).max()))


@pytest.mark.parametrize("passes", [None, "@naive", "@cuda"])
def test_they_are_what_the_plain_walk_finds(passes: str | None) -> None:
    method = DeepLift(emit=BOTH, letters="1")
    found = run(sequences(), REFERENCES, target="all", method=method, passes=passes)
    for target in range(3):
        m = walked(sequences(), X, REFERENCES, target)
        close(found["x_multipliers"][:, target], m.mean(axis=1))
        close(found["x_hypothetical"][:, target], brute_force(m, REFERENCES, np.full(5, 0.2)))
    weights = np.array([0.1, 0.4, 0.2, 0.25, 0.05])
    found = run(sequences(), irshap.References(REFERENCES, weights), target=2, method=method, passes=passes)
    close(found["x_multipliers"], np.einsum("r,nral->nal", weights, m))
    close(found["x_hypothetical"], brute_force(m, REFERENCES, weights))


@pytest.mark.parametrize("rule", ["rescale", "mixed"])
@pytest.mark.parametrize("strategy", ["fold", "stream", "recompute"])
def test_present_letters_get_what_is_attributed(rule: str, strategy: str) -> None:
    method = f'deeplift{{rule={rule},emit="{BOTH}",letters="-2"}}'
    found = run(sequences(), REFERENCES, target=1, method=method, strategy=strategy)
    at_letters = (found["x_hypothetical"] * X).sum(axis=1)
    close(at_letters, found["x_attributions"].sum(axis=1))
    assert np.abs(found["completeness_error"]).max() < 1e-12
    plain = run(sequences(), REFERENCES, target=1, method=f"deeplift{{rule={rule}}}", strategy=strategy)
    close(found["x_attributions"], plain["x_attributions"])
    # other letters get something of their own
    assert not np.allclose(found["x_hypothetical"], at_letters[:, None])


def test_mixed_where_everything_differs() -> None:
    """There, with one reference, a multiplier is what is attributed over the difference."""
    x, r = normal(5, 3, 4, 9), normal(6, 1, 4, 9)
    given = explain(sequences(), {"x": x}, {"x": r}, target=0, rule="mixed").values["x"]
    found = run(
        sequences(), r, x, target=0, method='deeplift{rule=mixed,emit="multipliers,hypothetical",letters="1"}'
    )
    m = given / (x - r)
    np.testing.assert_allclose(found["x_multipliers"], m, rtol=1e-6, atol=1e-6 * np.abs(m).max())
    wanted = brute_force(m[:, None], r, np.ones(1))
    np.testing.assert_allclose(found["x_hypothetical"], wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


def test_references_of_each_sample() -> None:
    own = np.stack([letters(7 + i, 2) for i in range(3)])
    method = DeepLift(emit=BOTH, letters="1")
    compiled = irshap.compile(sequences(), irshap.References(per_sample=True), target=1, method=method)
    found = evaluate(compiled.graph, {"x": X, "x_references": own})
    for i in range(3):
        one = run(sequences(), own[i], X[i : i + 1], target=1, method=method)
        for name in ("x_multipliers", "x_hypothetical"):
            close(found[name][i], one[name][0])


TWO = """(float[N, 4, 6] dna, float[N, 3] b) => (float[N, 2] y)
{ f = Flatten(dna) c = MatMul(f, u) d = MatMul(b, v) e = Mul(c, d) h = Tanh(e) y = MatMul(h, w) }"""
LINEAR = "(float[N, 3] x) => (float[N, 1] y) { y = MatMul(x, w) }"


def two() -> onnx.ModelProto:
    weights = {"u": normal(1, 24, 5), "v": normal(2, 3, 5), "w": normal(3, 5, 2)}
    return net(TWO, **{k: v.astype(np.float32) for k, v in weights.items()})


def pair(count: int) -> dict[str, Array]:
    hot = np.eye(4, dtype=np.float32)[np.random.default_rng(count).integers(0, 4, (count, 6))]
    return {"dna": hot.transpose(0, 2, 1), "b": normal(count, count, 3).astype(np.float32)}


def test_explanations_have_them(tmp_path: Path) -> None:
    method = 'deeplift{emit="multipliers,hypothetical",letters="dna=1"}'
    compiled = irshap.compile(two(), pair(2), target="all", method=method)
    outputs = [o.name for o in compiled.model.graph.output]
    assert outputs[1:6] == [f"{n}_{k}" for k, n in _ORDER]
    x = pair(3)
    found = compiled.explainer()(x)
    assert {n: a.shape for n, a in found.multipliers.items()} == {"dna": (3, 2, 4, 6), "b": (3, 2, 3)}
    assert {n: a.shape for n, a in found.hypothetical.items()} == {"dna": (3, 2, 4, 6)}
    assert list(found.outputs) == ["y"]
    at_letters = (found.hypothetical["dna"] * x["dna"][:, None]).sum(axis=2)
    np.testing.assert_allclose(at_letters, found.values["dna"].sum(axis=2), atol=1e-4)
    part = found[1:].of_class(1)
    np.testing.assert_array_equal(part.multipliers["b"], found.multipliers["b"][1:, 1])
    np.testing.assert_array_equal(part.hypothetical["dna"], found.hypothetical["dna"][1:, 1])
    found.save(tmp_path / "e.npz")
    again = irshap.Explanation.load(tmp_path / "e.npz")
    np.testing.assert_array_equal(again.hypothetical["dna"], found.hypothetical["dna"])
    np.testing.assert_array_equal(again.multipliers["b"], found.multipliers["b"])
    without = irshap.compile(two(), pair(2)).explainer()(x)
    assert without.multipliers is without.hypothetical is None


_ORDER = [("attributions", "dna"), ("attributions", "b"), ("multipliers", "dna"), ("multipliers", "b")]
_ORDER += [("hypothetical", "dna")]


def test_one_input() -> None:
    """The multipliers of a linear model are its weights; some features of them can be taken."""
    w = np.float32([[1], [-2], [5]])
    model, x = net(LINEAR, w=w), np.float32([[1, 2, 3], [3, 2, 1]])
    compiled = irshap.compile(model, np.zeros((1, 3), np.float32), method="deeplift{emit=multipliers}")
    found = compiled.explainer()(x)
    np.testing.assert_allclose(found.multipliers, [w[:, 0]] * 2)
    np.testing.assert_allclose(found[:, [2, 0]].multipliers, [[5, 1]] * 2)


def test_a_name_of_the_models_own() -> None:
    model = net(
        """(float[N, 3] x) => (float[N, 1] y, float[N, 3] x_multipliers)
        { y = MatMul(x, w) x_multipliers = Tanh(x) }""",
        w=np.float32([[1], [2], [3]]),
    )
    x, r = np.float32([[1, 2, 3]]), np.zeros((1, 3), np.float32)
    plain = irshap.compile(model, r).explainer()(x)
    assert plain.multipliers is None
    assert "x_multipliers" in plain.outputs
    both = irshap.compile(model, r, method="deeplift{emit=multipliers}").explainer()(x)
    np.testing.assert_allclose(both.multipliers, [[1, 2, 3]])
    np.testing.assert_allclose(both.outputs["x_multipliers"], np.tanh(x), rtol=1e-6)


TOKENS = """(int64[N, 4] t) => (float[N, 2] y)
{ e = Gather(table, t) m = ReduceMean<keepdims = 0>(e, one) h = Tanh(m) y = MatMul(h, w) }"""


def test_tokens_have_none_and_their_embeddings_do() -> None:
    weights = {"table": normal(1, 9, 3), "w": normal(2, 3, 2)}
    model = net(TOKENS, **{k: v.astype(np.float32) for k, v in weights.items()}, one=np.array([1]))
    t, r = np.array([[1, 2, 3, 0]]), np.array([[4, 4, 8, 0]])
    with pytest.raises(TargetError, match=r"input 't' is integer: a token has no multiplier.*wrt=e"):
        irshap.compile(model, r, method="deeplift{emit=multipliers}")
    target = irshap.Target("0", wrt="e")
    found = irshap.compile(model, r, method="deeplift{emit=multipliers}", target=target).explainer()(t)
    difference = weights["table"][t] - weights["table"][r]
    np.testing.assert_allclose(found.multipliers * difference, found.values, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "emit=hypothetical",
            "hypothetical contributions need letters, and '' names no axis. say which axis",
        ),
        ('emit=hypothetical,letters="dna"', "'dna' names no axis"),
        ('emit=hypothetical,letters="dna=1,"', None),
        ('emit=hypothetical,letters="dna=0"', "'dna' has axes 1 to 2 behind the samples'"),
        ('emit=hypothetical,letters="dna=3"', "'dna' has axes 1 to 2"),
        ('emit=hypothetical,letters="2"', "'b' has axes 1 to 1"),
        ('emit=hypothetical,letters="rna=1"', "no attributed tensor is called 'rna'"),
        ('letters="dna=1"', "letters='dna=1' is for hypothetical contributions. add emit=hypothetical"),
        (
            "emit=multiplier",
            "deeplift emits no 'multiplier'. Use emit=completeness_error or multipliers or hypo",
        ),
    ],
)
def test_options(options: str, message: str | None) -> None:
    if message is None:
        irshap.compile(two(), pair(2), method=f"deeplift{{{options}}}")
        return
    with pytest.raises(UserError, match=message):
        irshap.compile(two(), pair(2), method=f"deeplift{{{options}}}")


def test_two_multipliers_are_refused() -> None:
    model = net(
        "(float[N, 3] x) => (float[N, 1] y) { h = Relu(x) a = MatMul(h, w) y = Relu(a) }",
        w=np.float32([[1], [-2], [5]]),
    )
    r = np.zeros((1, 3), np.float32)
    with pytest.raises(UserError, match=r"'x' has two multipliers, for what it adds.*use rule=rescale"):
        irshap.compile(model, r, method="deeplift{rule=reveal-cancel,emit=multipliers}")
    assert irshap.compile(model, r, method="deeplift{emit=multipliers}")


def test_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    onnx.save(two(), "m.onnx")
    np.savez("r.npz", **pair(2))
    np.savez("x.npz", **pair(3))
    emit = ["--emit", "multipliers", "--emit", "hypothetical", "--letters", "dna=1"]
    assert main(["compile", "m.onnx", "-r", "r.npz", "-o", "e.onnx", *emit]) == 0
    assert main(["run", "e.onnx", "x.npz", "-o", "out.npz", "--max-error", "1e-4"]) == 0
    assert {"dna_multipliers", "b_multipliers", "dna_hypothetical"} <= set(np.load("out.npz").files)
    assert main(["compile", "m.onnx", "--method", "gradient", "-o", "g.onnx", "--letters", "1"]) == 2

"""References per sample: equal to explaining each sample by itself against its own references."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from revealing import net, normal

import irshap
from irshap.cli import main
from irshap.errors import PipelineError, ReferencesError, UserError
from irshap.ir.types import Array
from irshap.metrics.completeness import check_completeness
from irshap.passes.methods.base import METHODS, Sum
from irshap.pipeline.named import for_method
from irshap.pipeline.text import pass_text

OWN = irshap.References(per_sample=True)
TAKING = [cls for cls in METHODS.values() if any(f.name == "per_sample" for f in fields(cls))]  # type: ignore[arg-type]
CASES = [
    method
    for cls in TAKING
    for method in cls.cases()
    if not getattr(method, "groups", False) and not pass_text(method).startswith("exact-shapley{groups")
]
CNN = """(float[N, 2, 5, 6] x) => (float[N, 3] y)
{ a = Conv<pads = [1, 1, 1, 1]>(x, u, c) h = Relu(a) p = MaxPool<kernel_shape = [2, 2], strides = [1, 1]>(h)
  b = Conv(p, v) s = Relu(b) f = Flatten(s) g = Gemm(f, w) t = Tanh(g) y = Gemm(t, k) }"""
TWO = """(double[N, 3] a, double[N, 4] b) => (double[N, 3] y)
{ c = MatMul(a, u) d = MatMul(b, v) e = Add(c, d) h = Tanh(e) y = MatMul(h, w) }"""
TOKENS = """(int64[N, 4] t) => (double[N, 2] y)
{ e = Gather(table, t) m = ReduceMean<keepdims = 0>(e, one) h = Tanh(m) y = MatMul(h, w) }"""


def cnn() -> onnx.ModelProto:
    sizes = {"u": (3, 2, 3, 3), "c": (3,), "v": (4, 3, 2, 2), "w": (48, 6), "k": (6, 3)}
    weights = {name: normal(i, *size) for i, (name, size) in enumerate(sizes.items())}
    return net(CNN, **{name: array.astype(np.float32) for name, array in weights.items()})


def dense() -> onnx.ModelProto:
    return net(
        """(double[N, 5] x) => (double[N, 3] y)
        { a = Gemm(x, u) h = Relu(a) b = Gemm(h, v) t = Tanh(b) y = Gemm(t, w) }""",
        u=normal(1, 5, 7),
        v=normal(2, 7, 4),
        w=normal(3, 4, 3),
    )


def two() -> onnx.ModelProto:
    return net(TWO, u=normal(1, 3, 5), v=normal(2, 4, 5), w=normal(3, 5, 3))


def compared(
    model: onnx.ModelProto, x: Mapping[str, Array], own: Mapping[str, Array], **arguments: Any
) -> irshap.Explanation:
    """The explanation of all samples, once it is that of each alone."""
    given = {f"{name}_references": array for name, array in own.items()}
    found = irshap.compile(model, OWN, **arguments).explainer()({**x, **given})
    for i in range(len(next(iter(x.values())))):
        shared = {name: array[i] for name, array in own.items()}
        one = irshap.compile(model, shared, **arguments).explainer()({k: v[i : i + 1] for k, v in x.items()})
        part = found[i]
        for name in found.inputs:
            a, b = (e.values[name] if isinstance(e.values, dict) else e.values for e in (part, one))
            tolerance = 1e-5 if a.dtype == np.float32 else 1e-10
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())
        for told in ("base_values", "target_index", "completeness_error"):
            a, b = getattr(part, told), getattr(one, told)
            assert (a is None) == (b is None)
            if b is not None:
                np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1, np.abs(b).max()))
    return found


def rows(*shape: int, count: int = 3) -> tuple[Array, Array]:
    return normal(11, count, *shape), normal(12, count, 2, *shape)


@pytest.mark.parametrize("method", CASES, ids=pass_text)
def test_equal_to_a_loop_over_samples(method: Any) -> None:
    x, own = rows(5)
    found = compared(dense(), {"x": x}, {"x": own}, method=method)
    if method.sums_to is Sum.DIFFERENCE:
        assert found.base_values is not None
        assert found.base_values.shape == (3,)
        assert len(set(found.base_values)) == 3
    shared = irshap.compile(dense(), own[0], method=method).explainer()(x)
    assert not np.allclose(found.values, shared.values)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "target"),
    [
        *itertools.product(
            ("deeplift", "deeplift{rule=mixed}", "integrated-gradients{steps=4,chunk=3}", "feature-ablation"),
            ("argmax", "all", "top-2", "sum"),
        )
    ],
)
def test_targets_and_pipelines(method: str, target: str) -> None:
    """Several classes repeat the sample; every pipeline pairs it with its own references."""
    x, own = (a.astype(np.float32) for a in rows(2, 5, 6, count=2))
    found = compared(cnn(), {"x": x}, {"x": own}, method=method, target=target)
    for passes in (None,) if method == "feature-ablation" else ("@naive", "@cuda"):
        other = irshap.compile(cnn(), OWN, method=method, target=target, passes=passes).explainer()
        close = np.abs(found.values).max() * 1e-4
        np.testing.assert_allclose(other(x, x_references=own).values, found.values, rtol=0, atol=close)


@pytest.mark.parametrize(
    "method", ["deeplift", "integrated-gradients{steps=4}", "shapley-sampling{samples=3}"]
)
def test_two_inputs_and_tokens(method: str) -> None:
    x = {"a": normal(4, 3, 3), "b": normal(5, 3, 4)}
    own = {"a": normal(6, 3, 2, 3), "b": normal(7, 3, 2, 4)}
    compared(two(), x, own, method=method)
    compared(two(), x, own, method=method, target=irshap.Target("all", wrt="h"))
    held = irshap.Target("1", context="b")
    compared(two(), x, {"a": own["a"]}, method=method, target=held)
    rng = np.random.default_rng(1)
    tokens = net(TOKENS, table=normal(1, 9, 3), w=normal(2, 3, 2), one=np.array([1]))
    compared(tokens, {"t": rng.integers(0, 9, (3, 4))}, {"t": rng.integers(0, 9, (3, 2, 4))}, method=method)


def test_batch_on_another_axis() -> None:
    """References stand as [N, R, ...] whatever axis of the input counts samples."""
    model = net(
        """(double[3, N, 4] x) => (double[N, 2] y)
        { t = Transpose<perm = [1, 0, 2]>(x) q = Tanh(t) f = Flatten(q) y = MatMul(f, w) }""",
        w=normal(1, 12, 2),
    )
    x, own = normal(2, 3, 5, 4), normal(3, 5, 2, 3, 4)
    given = irshap.Model(model, batch_axes={"x": 1})
    found = irshap.compile(given, OWN).explainer()(x, x_references=own)
    for i in range(5):
        one = irshap.compile(given, own[i]).explainer()(x[:, i : i + 1])
        np.testing.assert_allclose(found.values[i : i + 1], one.values, rtol=1e-9, atol=1e-12)
    assert np.abs(found.completeness_error).max() < 1e-12


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (normal(1, 2, 2, 5), r"different numbers of samples \(x: 3, x_references: 2\)"),
        (normal(1, 3, 5), r"has shape \[3, 5\], and every sample brings its own references: \[N, R, ...\]"),
        (normal(1, 3, 2, 6), r"has shape \[3, 2, 6\], the model wants \[N, R, 5\]"),
        (normal(1, 3, 0, 5), "input 'x_references': there is no reference. give at least one"),
        (np.full((3, 2, 5), np.nan), r"30 of 30 values are NaN or infinite, the first at \[0, 0, 0\]"),
        (np.zeros((3, 2, 5), np.int64), "has dtype int64, the model wants float64"),
    ],
)
def test_bad_references(own: Array, message: str) -> None:
    with pytest.raises(UserError, match=message):
        _DENSE.explainer()(normal(2, 3, 5), x_references=own)


_DENSE = irshap.compile(dense(), OWN)


@pytest.mark.parametrize("shared", [False, True])
def test_open_axes(shared: bool) -> None:
    """An axis of size 1 is broadcast, as where references are given when compiling; another size is none."""
    body = "{ h = MatMul(x, w) t = Tanh(h) s = ReduceSum<keepdims = 0>(t, one) y = Mul(s, s) }"
    model = net(f"(double[N, L, 3] x) => (double[N, 2] y) {body}", w=normal(1, 3, 2), one=np.array([1]))
    x, row = normal(2, 2, 4, 3), normal(3, 2, 1, 3)
    wanted = irshap.compile(model, row).explainer()(x)
    plain = "lift,target,canonicalize,autodiff,deeplift,eliminate-split-tile,broadcast-target,dce,lower"
    asked = {"passes": plain} if shared else {"references": OWN}
    explainer = irshap.compile(model, **asked).explainer()

    def given(rows: Array) -> Array:
        return rows if shared else np.stack([rows, rows])

    for rows in (row, np.repeat(row, 4, axis=1)):
        found = explainer(x, x_references=given(rows))
        np.testing.assert_allclose(found.values, wanted.values, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.base_values, wanted.base_values)
    with pytest.raises(UserError, match=r"references of shape \[3, 3\] for samples of \[4, 3\]"):
        explainer(x, x_references=given(np.repeat(row, 3, axis=1)))


def test_inputs_with_different_numbers_of_references() -> None:
    explainer = irshap.compile(two(), OWN).explainer()
    x = {"a": normal(4, 3, 3), "b": normal(5, 3, 4)}
    own = {"a_references": normal(6, 3, 2, 3), "b_references": normal(7, 3, 1, 4)}
    with pytest.raises(
        UserError, match=r"different numbers of references \(a_references: 2, b_references: 1\)"
    ):
        explainer({**x, **own})


@pytest.mark.parametrize(
    ("references", "arguments", "error", "message"),
    [
        (
            irshap.References(np.zeros((3, 2, 5)), per_sample=True),
            {},
            ReferencesError,
            "explainer.x, x_references=",
        ),
        (
            OWN,
            {"method": "gradient"},
            PipelineError,
            "the method gradient compares with none. leave them out",
        ),
        (OWN, {"method": "occlusion"}, PipelineError, "the method occlusion compares with none"),
        (
            irshap.References(None, [1.0], per_sample=True),
            {},
            PipelineError,
            "weights are for references that all",
        ),
        (
            OWN,
            {"method": "deeplift{weights=true}"},
            PipelineError,
            "weights are for references that all samples",
        ),
        (OWN, {"strategy": "fold"}, PipelineError, "leave strategy and memory limit out"),
        (OWN, {"memory_limit": "1GiB"}, PipelineError, "leave strategy and memory limit out"),
    ],
)
def test_refused(references: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        irshap.compile(dense(), references, **arguments)


def test_the_option_of_the_method_is_the_same() -> None:
    assert bytes(irshap.compile(dense(), method="deeplift{per_sample=true}")) == bytes(_DENSE)
    with pytest.raises(
        PipelineError, match="references are given, but the pipeline has no pass that would bind"
    ):
        irshap.compile(dense(), np.zeros((1, 5)), method="deeplift{per_sample=true}")
    assert all("bind" not in p for p in _DENSE.pipeline.split(","))
    assert set(for_method(TAKING[0].points, "cpu").split(",")) - set(_DENSE.pipeline.split(",")) > set()


def test_verify() -> None:
    x, own = rows(5)
    given = irshap.References({"x": own}, per_sample=True)
    assert check_completeness(dense(), given, x).ok
    assert check_completeness(dense(), irshap.References(own, per_sample=True), x).ok
    # what is looked for where it fails runs the worst sample with its own references
    images, theirs = (a.astype(np.float32) for a in rows(2, 5, 6))
    for rule in ("rescale", "mixed"):
        method = f"deeplift{{rule={rule}}}"
        failed = check_completeness(
            cnn(), irshap.References(theirs, per_sample=True), images, tolerance=1e-12, method=method
        )
        assert failed.ok or "in float64 attributions sum up" in failed.cause
    with pytest.raises(UserError, match=r"no such input 'z'\. known: x$"):
        check_completeness(dense(), irshap.References({"z": own}, per_sample=True), x)
    with pytest.raises(UserError, match="no value for input 'x_references'"):
        check_completeness(dense(), OWN, x)
    with pytest.raises(UserError, match="every sample brings its own references"):
        check_completeness(dense(), irshap.References(own[0], per_sample=True), x)


def test_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    letters = np.random.default_rng(2).integers(0, 4, (3, 12))
    np.save("x.npy", np.eye(4, dtype=np.float32)[letters].transpose(0, 2, 1))
    body = """(float[N, 4, 12] x) => (float[N, 2] y)
    { a = Conv(x, u) h = Relu(a) f = Flatten(h) y = MatMul(f, w) }"""
    weights = {"u": normal(1, 3, 4, 5), "w": normal(2, 24, 2)}
    onnx.save(net(body, **{k: a.astype(np.float32) for k, a in weights.items()}), "m.onnx")
    make = ["references", "x.npy", "--kind", "dinucleotide-shuffle", "-n", "5", "--per-sample", "-o", "r.npy"]
    assert main(make) == 0
    made = np.load("r.npy")
    assert made.shape == (3, 5, 4, 12)
    x = np.load("x.npy")
    assert (made.sum(axis=3) == x.sum(axis=2)[:, None]).all()  # every sample's own letters
    assert main(["compile", "m.onnx", "--per-sample", "-o", "e.onnx"]) == 0
    assert main(["run", "e.onnx", "x.npy", "-r", "r.npy", "--max-error", "1e-5"]) == 0
    assert main(["verify", "m.onnx", "--per-sample", "-r", "r.npy", "-i", "x.npy"]) == 0
    sampling = ["--method", "shapley-sampling{samples=2}", "--per-sample"]
    assert main(["verify", "m.onnx", *sampling, "-r", "r.npy", "-i", "x.npy"]) == 0
    assert main(["verify", "m.onnx", "--method", "gradient", "-i", "x.npy"]) == 2
    assert main(["cost", "m.onnx", "--per-sample", "-r", "r.npy"]) == 0
    assert "R = 5 references" in capsys.readouterr().out
    for wrong in (["-r", "r.npy"], ["--per-sample", "-r", "x.npy"], ["-r", "own.npz"]):
        np.savez("own.npz", z=x)
        assert main(["cost", "m.onnx", *wrong]) == 2
        assert "are none of any input" in capsys.readouterr().err
    assert main(["cost", "m.onnx", "-r", "x.npy"]) == 0
    assert "R = 3 references" in capsys.readouterr().out
    assert main(["compile", "m.onnx", "--per-sample", "-r", "r.npy", "-o", "e2.onnx"]) == 2
    assert main(["references", "x.npy", "--kind", "mean", "--per-sample", "-o", "r.npy"]) == 2
    assert "mean makes no references of a single sample. give blur, shuffle" in capsys.readouterr().err
    assert main(["compile", "m.onnx", "--method", "gradient", "-o", "g.onnx"]) == 0
    assert main(["run", "g.onnx", "x.npy", "-r", "r.npy"]) == 2
    assert "takes no references at run time. leave -r out" in capsys.readouterr().err

"""Targets for more than one number: regions, weights, several outputs, interior tensors; and refusals."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

import irshap
from irshap.attribution.targets import Class, Classes, Region, Top, Word, parse_form, split_names
from irshap.cli import main
from irshap.errors import PipelineError, TargetError, UserError

SEGMENTS = """<ir_version: 10, opset_import: ["": 17]>
g (float[N,2,4,3] x) => (float[N,3,4,3] seg, float[N,4] y, int64[N] best)
<float[3,2,1,1] w = {1,-1,0.5,2,-0.3,0.7}, int64[2] plane = {2,3}, float[2,4] v = {1,2,-1,0.5,0.3,0.2,-1,2}> {
    c = Conv(x, w)
    seg = Tanh(c)
    p = ReduceMean<axes = [2,3], keepdims = 0>(x)
    logits = MatMul(p, v)
    y = Sigmoid(logits)
    best = ArgMax<axis = 1, keepdims = 0>(y)
}"""
RNG = np.random.default_rng(0)
X, REFERENCES = (RNG.normal(size=(n, 2, 4, 3)).astype(np.float32) for n in (3, 5))
WEIGHTS = RNG.normal(size=(3, 3, 4, 3)).astype(np.float32)


def model(text: str = SEGMENTS) -> onnx.ModelProto:
    return parser.parse_model(text)


@cache
def explained(target: str, output: str = "", **arguments: Any) -> irshap.Explainer:
    asked = irshap.Target(target, output=output)
    return irshap.compile(model(), REFERENCES, target=asked, **arguments).explainer()


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def complete(found: irshap.Explanation) -> None:
    assert np.abs(found.completeness_error).max() < 1e-5
    assert np.abs(found.total()).min() > 1e-3


REGIONS = {
    "sum": lambda y: y.sum(axis=(1, 2, 3)),
    "sum[1]": lambda y: y[:, 1].sum(axis=(1, 2)),
    "sum[-1, 2, 0]": lambda y: y[:, -1, 2, 0],
    "sum[..., -1]": lambda y: y[..., -1].sum(axis=(1, 2)),
    "sum[0, ..., 1:]": lambda y: y[:, 0, :, 1:].sum(axis=(1, 2)),
    "sum[:, 1:-1, ::2]": lambda y: y[:, :, 1:-1, ::2].sum(axis=(1, 2, 3)),
    "mean[1, :2]": lambda y: y[:, 1, :2].mean(axis=(1, 2)),
    "mean": lambda y: y.mean(axis=(1, 2, 3)),
}


@pytest.mark.parametrize("target", REGIONS)
def test_a_region(target: str) -> None:
    found = explained(target)(X)
    close(found.target_values, REGIONS[target](found.outputs["seg"]))
    assert found.target_index is None
    assert found.base_values.shape == (3,)
    complete(found)
    naive = explained(target, passes="@naive")(X)
    close(found.values, naive.values)
    close(found.base_values, naive.base_values)


def test_a_sum_of_one_number_is_the_class() -> None:
    one, picked = explained("sum[1, 2, 0]")(X), explained("18")(X)
    np.testing.assert_array_equal(picked.target_index, 18)
    close(one.values, picked.values)
    close(one.target_values, picked.target_values)


def test_weights_at_run_time() -> None:
    weighted = explained("weights")
    assert weighted.input_names == ("x", "target_weights")
    found = weighted(X, target_weights=WEIGHTS)
    close(found.target_values, (found.outputs["seg"] * WEIGHTS).sum(axis=(1, 2, 3)))
    complete(found)
    shared = weighted(X, target_weights=WEIGHTS[0])
    close(shared.values[0], found.values[0])
    close(shared.target_values, (found.outputs["seg"] * WEIGHTS[0]).sum(axis=(1, 2, 3)))
    ones = np.zeros_like(WEIGHTS[0])
    ones[1] = 1
    close(weighted(X, target_weights=ones).values, explained("sum[1]")(X).values)
    naive = explained("weights", passes="@naive")(X, target_weights=WEIGHTS)
    close(found.values, naive.values)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:2], "different numbers of samples"),
        (WEIGHTS[0, 0], r"has shape \[4, 3\], the model wants"),
        (WEIGHTS.astype(np.int64), "has dtype int64"),
        (None, "no value for input 'target_weights'"),
    ],
)
def test_weights_that_do_not_fit(weights: Any, message: str) -> None:
    given = {} if weights is None else {"target_weights": weights}
    with pytest.raises(UserError, match=message):
        explained("weights")(X, **given)


@pytest.mark.parametrize("target", ["0", "argmax", "sum", "mean[1]"])
def test_several_outputs(target: str) -> None:
    alone = [explained(target, name)(X) for name in ("seg", "y")]
    both, total = explained(target, "seg, y")(X), explained(target, "seg + y")(X)
    for k, single in enumerate(alone):
        close(both.values[:, k], single.values)
        close(both.base_values[:, k], single.base_values)
        close(both.target_values[:, k], single.target_values)
    close(total.values, alone[0].values + alone[1].values)
    close(total.target_values, alone[0].target_values + alone[1].target_values)
    complete(both)
    complete(total)
    if target in ("0", "argmax"):
        np.testing.assert_array_equal(both.target_index, np.stack([a.target_index for a in alone], 1))
    else:
        assert both.target_index is None
    assert total.target_index is None
    close(both.values, explained(target, "seg, y", passes="@naive")(X).values)


def test_an_interior_tensor() -> None:
    found = explained("top-2", "logits")(X)
    assert found.target_index.shape == found.target_values.shape == (3, 2)
    assert "logits" not in found.outputs
    complete(found)
    logits = X.mean(axis=(2, 3)) @ np.float32([[1, 2, -1, 0.5], [0.3, 0.2, -1, 2]])
    close(found.target_values, np.sort(logits)[:, :-3:-1])
    change = X.mean(axis=(2, 3))[:, None] - REFERENCES.mean(axis=(2, 3))
    close(found.total().sum(), (found.target_values - found.base_values).sum())
    assert change.shape == (3, 5, 2)


@pytest.mark.parametrize("strategy", ["fold", "stream", "recompute"])
@pytest.mark.parametrize(("target", "output"), [("weights", ""), ("sum[1]", ""), ("argmax", "seg, y")])
def test_strategies_agree(target: str, output: str, strategy: str) -> None:
    given = {"target_weights": WEIGHTS} if target == "weights" else {}
    expected = explained(target, output, passes="@naive")(X, **given)
    found = explained(target, output, strategy=strategy)(X, **given)
    close(found.values, expected.values)
    close(found.target_values, expected.target_values)


@pytest.mark.parametrize("chunk", [1, 2])
def test_in_chunks(chunk: int) -> None:
    from irshap.pipeline.named import PIPELINES

    passes = PIPELINES["default"].replace("stream{", f"stream{{chunk={chunk}, together=2, ")
    for target, output in (("weights", ""), ("mean[1:]", "seg"), ("0", "seg, y")):
        given = {"target_weights": WEIGHTS} if target == "weights" else {}
        found = explained(target, output, passes=passes)(X, **given)
        close(found.values, explained(target, output, passes="@naive")(X, **given).values)
        complete(found)


@pytest.mark.parametrize("method", ["deeplift{rule=reveal-cancel}", "deeplift{rule=mixed}"])
@pytest.mark.parametrize(("target", "output"), [("weights", ""), ("sum[1]", ""), ("0", "seg + y")])
def test_rules(target: str, output: str, method: str) -> None:
    given = {"target_weights": WEIGHTS} if target == "weights" else {}
    complete(explained(target, output, method=method)(X, **given))


@pytest.mark.parametrize("method", ["gradient", "input-x-gradient", "epsilon-lrp"])
def test_methods_that_look_at_the_sample_alone(method: str) -> None:
    def values(target: str, output: str = "", **given: Any) -> Any:
        asked = irshap.Target(target, output=output)
        return irshap.compile(model(), target=asked, method=method).explainer()(X, **given)

    region = values("sum[1]")
    mask = np.zeros_like(WEIGHTS[0])
    mask[1] = 1
    close(region.values, values("weights", target_weights=mask).values)
    parts = [values("0", name).values for name in ("seg", "y")]
    close(values("0", "seg + y").values, parts[0] + parts[1])
    close(values("0", "seg, y").values, np.stack(parts, 1))
    assert region.base_values is None


def test_weighted_references_and_half_precision() -> None:
    shares = np.float32([0.1, 0.2, 0.3, 0.2, 0.2])
    references = irshap.References(REFERENCES, shares)
    found = irshap.compile(model(), references, target="weights").explainer()(X, target_weights=WEIGHTS)
    complete(found)
    half = irshap.compile(model(), REFERENCES, target="weights", fp16=True).explainer()
    exact = explained("weights")(X, target_weights=WEIGHTS)
    close(half(X, target_weights=WEIGHTS).target_values, exact.target_values)
    error = np.abs(half(X, target_weights=WEIGHTS).values - exact.values).max()
    assert error < 0.02 * np.abs(exact.values).max()


def test_positions_of_any_number() -> None:
    """Sequence labelling: the sum of one class over all positions, whose number only a run knows."""
    text = """<ir_version: 10, opset_import: ["": 17]>
    g (float[N,t,2] x) => (float[N,t,3] y) <float[2,3] w = {1,-1,0.5,2,-0.3,0.7}> {
        h = MatMul(x, w)
        y = Tanh(h)
    }"""
    steps = "lift,canonicalize,target,autodiff,deeplift,eliminate-split-tile,broadcast-target,dce,lower"
    for target, region in (("sum[:, 2]", np.s_[:, :, 2]), ("weights", np.s_[:, :, 2])):
        explainer = irshap.compile(model(text), target=target, passes=steps).explainer()
        for t in (1, 4):
            x, r = (RNG.normal(size=(n, t, 2)).astype(np.float32) for n in (3, 2))
            mask = np.zeros((t, 3), np.float32)
            mask[:, 2] = 1
            given = {"target_weights": mask} if target == "weights" else {}
            found = explainer(x, x_references=r, **given)
            close(found.target_values, found.outputs["y"][region].sum(axis=1))
            complete(found)
    with pytest.raises(TargetError, match=r"only known at run time.*sum"):
        irshap.compile(model(text), target="argmax", passes=steps)
    with pytest.raises(TargetError, match=r"sum\[3\].*only known at run time.*Take all of it"):
        irshap.compile(model(text), target="sum[3]", passes=steps)


BOXES = """<ir_version: 10, opset_import: ["": 17]>
g (float[N,4,2] x) => (OUTPUT)
<float[2,4] b = {1,0,2,1,0,1,1,2}, float[2,3] s = {1,-1,2,0.5,1,-2}, int64 most = {2}, float iou = {0.5}> {
    boxes = MatMul(x, b)
    raw = MatMul(x, s)
    probability = Sigmoid(raw)
    scores = Transpose<perm = [0,2,1]>(probability)
    [nms] picked = NonMaxSuppression(boxes, scores, most, iou)
    kept = Cast<to = 1>(picked)
}"""


def test_what_was_picked_by_a_suppression() -> None:
    zeros = np.zeros((1, 4, 2), np.float32)
    for declared, name in (("int64[k,3]", "picked"), ("int64[k,3]", ""), ("float[k,3]", "kept")):
        detector = model(BOXES.replace("OUTPUT", f"{declared} {name or 'picked'}"))
        with pytest.raises(TargetError, match=r"nms \(NonMaxSuppression\) picks boxes.*output=scores"):
            irshap.compile(detector, zeros, target=irshap.Target("sum", output=name))
    detector = model(BOXES.replace("OUTPUT", "int64[k,3] picked"))
    x = RNG.normal(size=(3, 4, 2)).astype(np.float32)
    asked = irshap.Target("sum[1]", output="scores")
    found = irshap.compile(detector, zeros, target=asked).explainer()(x)
    raw = x @ np.float32([[1, -1, 2], [0.5, 1, -2]])
    close(found.target_values, (1 / (1 + np.exp(-raw[..., 1]))).sum(axis=1))
    complete(found)


def test_an_integer_output() -> None:
    with pytest.raises(TargetError, match=r"output 'best' is i64\[N\]: it moves in steps"):
        irshap.compile(model(), REFERENCES, target=irshap.Target("sum", output="best"))


@pytest.mark.parametrize(
    ("target", "output", "message"),
    [
        ("sum[3]", "", r"'sum\[3\]': not within the 3 elements"),
        ("sum[-4]", "", "not within the 3 elements"),
        ("sum[0, 2:2]", "", "not within the 4 elements"),
        ("sum[0, 0:5]", "", "not within the 4 elements"),
        ("sum[0, 0, 0, 0]", "", "4 axes for an output"),
        ("sum[a]", "", "'a' is no index"),
        ("sum[]", "", "'' is no index"),
        ("sum[0, ::-1]", "", "'::-1' is no index"),
        ("sum[..., ...]", "", r"more than one \.\.\."),
        ("sum[0]]", "", "unknown target"),
        ("sum(0)", "", "unknown target"),
        ("weight", "", "did you mean weights"),
        ("all", "seg, y", "'all' of several outputs"),
        ("weights", "seg + y", "'weights' of several outputs"),
        ("input", "seg, y", "'input' of several outputs"),
        ("0", "seg, z", "no float output 'z'"),
        ("4", "seg + y", "the output has 4 classes"),
        ("0,9", "y", "target 9: the output has 4 classes. Use 0 to 3"),
        ("0,1", "seg, y", "'0,1' of several outputs"),
        ("top3", "", r"did you mean top-3\?"),
        ("Top 3", "", r"did you mean top-3\?"),
        ("0", "seg,", "no float output ''"),
    ],
)
def test_what_is_refused(target: str, output: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        irshap.compile(model(), REFERENCES, target=irshap.Target(target, output=output))


@pytest.mark.parametrize("passes", [None, "@naive"])
def test_a_list_of_classes_equals_each_class_alone(passes: str | None) -> None:
    def explained_as(target: Any) -> irshap.Explanation:
        asked = irshap.Target(target, output=["y"])  # type: ignore[arg-type]
        return irshap.compile(model(), REFERENCES, target=asked, passes=passes).explainer()(X)

    given = explained_as([3, 0, -2])
    assert given.values.shape == (len(X), 3, *X.shape[1:])
    assert given.target_index.tolist() == [[3, 0, 2]] * len(X)
    for k, index in enumerate((3, 0, 2)):
        alone = explained_as(index)
        close(given.values[:, k], alone.values)
        close(given.base_values[:, k], alone.base_values)
    complete(given)
    close(explained_as([3]).values, given.values[:, :1])
    close(explained_as(np.array([3, 0, 2])).values, given.values)


def test_an_output_of_one_class_says_so() -> None:
    text = SEGMENTS.replace("float[N,4] y", "float[N,1] y")
    text = text.replace("float[2,4] v = {1,2,-1,0.5,0.3,0.2,-1,2}", "float[2,1] v = {1,2}")
    with pytest.raises(TargetError, match=r"target 1: the output has 1 class\. Use 0$"):
        irshap.compile(model(text), REFERENCES, target=irshap.Target(1, output="y"))  # type: ignore[arg-type]


def test_forms_as_text() -> None:
    words = [Word(w) for w in ("argmax", "all", "input", "weights")]
    assert [parse_form(w.text) for w in words] == words
    assert [parse_form(t) for t in ("3", "-1", "top-5")] == [Class(3), Class(-1), Top(5)]
    assert parse_form("sum") == Region("sum")
    assert parse_form("3, -7,2") == Classes((Class(3), Class(-7), Class(2)))
    assert parse_form("3,") == Classes((Class(3),))
    assert parse_form(" mean[ 1 , 2 : , ... ]").mean  # type: ignore[union-attr]
    wrong = ["--3", "3.0", "top-", "top--1", "٣", "sum[٣]", "summe", "mean[1:2:0]", "sum[1", "sum[::::]", ""]
    wrong += [",", "3,,4", ",3", "3,a"]
    for text in wrong:
        with pytest.raises(TargetError):
            parse_form(text)
    assert split_names("a+b", ["a+b"]) == (["a+b"], "")
    assert split_names("a + b", ["a"]) == (["a", "b"], "+")
    assert split_names("a, b", []) == (["a", "b"], ",")


def test_text_of_a_pipeline_and_the_command_line(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    compiled = irshap.compile(model(), REFERENCES, target="sum[1, :, 0:2]")
    assert 'target{target="sum[1, :, 0:2]"}' in compiled.pipeline
    assert bytes(irshap.compile(model(), REFERENCES, passes=compiled.pipeline)) == bytes(compiled)
    file, out = tmp_path / "m.onnx", tmp_path / "e.onnx"
    onnx.save(model(), file)
    np.save(tmp_path / "r.npy", REFERENCES)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "xw.npz", x=X, target_weights=WEIGHTS)
    what = [str(file), "-r", str(tmp_path / "r.npy")]
    assert main(["compile", *what, "-o", str(out), "--target", "weights"]) == 0
    assert main(["run", str(out), str(tmp_path / "xw.npz"), "--max-error", "1e-4"]) == 0
    assert main(["verify", *what, "-i", str(tmp_path / "x.npy"), "--target", "mean[1]"]) == 0
    assert main(["verify", *what, "-i", str(tmp_path / "xw.npz"), "--target", "weights"]) == 0
    assert main(["verify", *what, "-i", str(tmp_path / "x.npy"), "--explain", "seg, y", "--target", "0"]) == 0
    capsys.readouterr()
    peaks = {}
    for target in ("0", "sum[1]", "weights"):
        assert main(["cost", str(file), "-r", "5", "--target", target, "--json"]) == 0
        peaks[target] = json.loads(capsys.readouterr().out)
    assert peaks["weights"] != peaks["sum[1]"]


def test_a_target_of_an_option_that_contradicts() -> None:
    with pytest.raises(PipelineError, match="contradicts"):
        irshap.compile(model(), REFERENCES, target="sum[1]", passes="lift,target{target=weights},lower")

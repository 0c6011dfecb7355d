"""Measures of attributions against plain definitions, Captum and Quantus, on files and on plain arrays."""

from __future__ import annotations

import json
from pathlib import Path

import measures as plain
import numpy as np
import onnx.parser
import onnxruntime
import pytest
from places import FIXTURES
from revealing import net, normal

import irshap
from irshap import demo
from irshap.cli import main
from irshap.errors import PipelineError, TargetError, UserError
from irshap.ir.types import Array
from irshap.metrics.baselines import filled
from irshap.metrics.evaluate import Evaluation, evaluate
from irshap.metrics.forward import Forward
from irshap.metrics.measure import MEASURES, Measure, Measured, read_measures
from irshap.metrics.subject import Subject

GIVEN = np.load(FIXTURES / "measures.npz")
IMAGES, LABELS = demo.digits()
IMAGES, LABELS = IMAGES[:6], LABELS[:6]
LABELS = np.where(np.arange(6) == 2, 0, LABELS)  # one is wrong, so that it matters which class is meant


@pytest.fixture(scope="module")
def gradient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "gradient.onnx"
    irshap.compile(demo.model_path(), method="gradient").save(path)
    return path


@pytest.fixture(scope="module")
def session() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(demo.model_path()))


def found(found: Evaluation, measure: str) -> Measured:
    one = next(iter(found.results.values()))[measure]
    assert isinstance(one, Measured), one
    return one


def test_as_captum_and_quantus(gradient: Path) -> None:
    text = "infidelity{noise=0.2,samples=12,seed=5},sensitivity-max{radius=0.05,samples=12,seed=5},sparseness"
    result = evaluate({"gradient": gradient}, GIVEN["inputs"], measures=text)
    for name in ("infidelity", "sensitivity-max", "sparseness"):
        np.testing.assert_allclose(found(result, name).values, GIVEN[name], rtol=2e-5, err_msg=name)


def test_deletion_as_quantus(gradient: Path) -> None:
    result = evaluate({"gradient": gradient}, GIVEN["inputs"], measures="deletion{steps=64}")
    curve = found(result, "deletion").curve
    assert curve is not None
    assert curve.score[0] > 0.9
    np.testing.assert_allclose(curve.score[1:], GIVEN["deletion"].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("kind", ["keep-positive", "keep-negative", "keep-absolute", "remove-absolute"])
@pytest.mark.parametrize("channels", [1, 3])
def test_keep_and_remove(kind: str, channels: int) -> None:
    """With three channels on a picture that isn't square, and attributions of which some are zero."""
    w = normal(1, channels * 30, 4)
    head = f"(double[N, {channels}, 5, 6] x) => (double[N, 4] y)"
    model = net(
        f"{head} {{ f = Flatten(x) h = Gemm(f, w) t = Tanh(h) y = Gemm(t, v) }}", w=w, v=normal(2, 4, 4)
    )
    f = irshap_function(model)
    x, a = normal(3, 5, channels, 5, 6), normal(4, 5, channels, 5, 6)
    a[:, :, 1:3, 2:5] = 0
    labels = np.array([0, 1, 2, 3, 0])
    result = evaluate({"a": a}, x, labels, measures=kind, model=model, target="label")
    wanted = [
        plain.keep_or_remove(f, x[i], a[i], plain.blurred(x[i], 51, 41), labels[i], labels[i], kind)
        for i in range(5)
    ]
    np.testing.assert_allclose(found(result, kind).values, wanted, rtol=1e-12)
    assert result.value("a", kind) == pytest.approx(np.mean(wanted))
    assert len(set(np.round(wanted, 6))) > 2


def irshap_function(model: object) -> plain.Function:
    forward = Forward(model)
    return lambda x: forward({"x": x})


def test_keep_counts_ties_and_zeros_in_order() -> None:
    """By hand: f is the sum of 4 cells of 1, hidden ones are 0, and three of them have p > 0."""
    model = net("(double[N, 4] x) => (double[N, 1] y) { y = ReduceSum(x, one) }", one=np.array([1]))
    a = np.array([[2.0, 0.0, 2.0, -1.0]])
    text = "keep-positive,keep-negative"
    result = evaluate({"a": a}, np.ones((1, 4)), measures=text, model=model, baseline="constant")
    shares = np.geomspace(0.01, 1, 16)
    for name, most in (("keep-positive", 2), ("keep-negative", 1)):
        shown = np.minimum(np.floor(shares * 4), most)
        wanted = np.sum((shown[1:] + shown[:-1]) / 2 * np.diff(shares))
        assert result.value("a", name) == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["insertion", "deletion"])
def test_insertion_and_deletion(name: str, gradient: Path, session: onnxruntime.InferenceSession) -> None:
    result = evaluate({"gradient": gradient}, IMAGES, measures=f"{name}{{steps=64}}")
    background = (
        [plain.blurred(x, 11, 5 / 2**0.5).astype(np.float32) for x in IMAGES]
        if name == "insertion"
        else np.zeros_like(IMAGES)
    )
    values, classes = GIVEN["attributions"], GIVEN["target_index"]
    wanted = [
        plain.game(
            lambda x: session.run(None, {"image": x})[0],
            IMAGES[i],
            values[i],
            background[i],
            classes[i],
            inserts=name == "insertion",
        )
        for i in range(6)
    ]
    np.testing.assert_allclose(found(result, name).values, wanted, rtol=1e-5)


def test_probabilities_are_taken_as_they_are() -> None:
    body = "(double[N, 3] x) => (double[N, 3] y) { y = Softmax(x) }"
    plain_body = "(double[N, 3] x) => (double[N, 3] y) { y = Identity(x) }"
    x, a = normal(1, 4, 3), normal(2, 4, 3)
    one, other = (evaluate({"a": a}, x, measures="deletion", model=net(b)) for b in (body, plain_body))
    np.testing.assert_allclose(found(one, "deletion").values, found(other, "deletion").values)
    raw = evaluate({"a": a}, x, measures="deletion{score=output}", model=net(plain_body))
    assert abs(raw.value("a", "deletion") - one.value("a", "deletion")) > 0.01


def test_a_single_number_is_no_class() -> None:
    """A softmax over one number is 1, and the largest of one number is it: neither says anything."""
    model = net("(double[N, 3] x) => (double[N, 1] y) { y = MatMul(x, w) }", w=normal(5, 3, 1))
    x, a = normal(1, 4, 3), normal(2, 4, 3)
    labels = np.array([0, 1, 1, 0])  # of a binary classifier
    result = evaluate({"a": a}, x, labels, model=model, baseline="constant")
    raw = evaluate({"a": a}, x, model=model, measures="deletion{score=output}")
    np.testing.assert_array_equal(found(result, "deletion").values, found(raw, "deletion").values)
    assert np.ptp(found(raw, "deletion").values) > 0.1
    curve = found(result, "insertion").curve
    assert curve is not None
    assert curve.y == "f, mean"
    for name in ("keep-absolute", "remove-absolute"):
        assert "no class is explained, but a single number" in result.reasons[f"a, {name}"]
    with pytest.raises(TargetError, match="class 1 for sample 1: the output has 1 class"):
        evaluate({"a": a}, x, labels, model=model, target="label")


def test_sparseness_is_gini() -> None:
    a = np.stack([normal(1, 7), np.ones(7), np.eye(7)[3], np.zeros(7)])
    model = net("(double[N, 7] x) => (double[N, 7] y) { y = Identity(x) }")
    values = found(
        evaluate({"a": a}, np.ones((4, 7)), measures="sparseness", model=model), "sparseness"
    ).values
    np.testing.assert_allclose(values[:3], [plain.gini(row) for row in a[:3]], atol=1e-12)
    np.testing.assert_allclose(values[1:], [0, 6 / 7, 0], atol=1e-12)


def test_infidelity_by_hand() -> None:
    """A linear f with its slopes has none; slopes that are wrong by d have noise^2 |d|^2 in the mean."""
    model = net("(double[N, 5] x) => (double[N, 1] y) { y = MatMul(x, w) }", w=normal(1, 5, 1))
    x, d = normal(2, 3, 5), np.array([0.5, -1.0, 0.0, 2.0, 0.0])
    right = np.broadcast_to(normal(1, 5, 1)[:, 0], x.shape)
    text = "infidelity{noise=0.3,samples=4000}"
    assert evaluate({"a": right}, x, measures=text, model=model).value("a", "infidelity") < 1e-20
    wrong = evaluate({"a": right + d}, x, measures=text, model=model).value("a", "infidelity")
    assert wrong == pytest.approx(0.09 * (d**2).sum(), rel=0.1)


def test_ig_difference() -> None:
    """Against a quadratic f, whose integrated gradients are half its slopes times x."""
    model = net("(double[N, 3] x) => (double[N, 2] y) { s = Mul(x, x) y = MatMul(s, w) }", w=normal(1, 3, 2))
    x = normal(2, 4, 3)
    x[0, 1] = 0  # IG is 0 there: left out
    ig = x * x * normal(1, 3, 2)[:, 0]
    a = ig * np.array([1.5, 0.5, 1.0]) + np.where(x == 0, 7.0, 0.0)
    values = found(
        evaluate({"a": a}, x, np.zeros(4, int), measures="ig-difference", model=model, target="label"),
        "ig-difference",
    )
    np.testing.assert_allclose(values.values, [0.25, 1 / 3, 1 / 3, 1 / 3], rtol=1e-9)
    assert values.value == pytest.approx((0.5 + 0.5 * 3 + 0.5 * 3) / 11)


def test_ig_difference_is_kept_for_the_same_model_alone() -> None:
    """Two models of different weights, explained alike, each get their own."""
    x = normal(2, 4, 3)
    body = "(double[N, 3] x) => (double[N, 2] y) { t = Tanh(x) y = MatMul(t, w) }"
    files = {
        f"{seed} {method}": irshap.compile(net(body, w=normal(seed, 3, 2)), refs, method=method, target=0)
        for seed in (1, 5)
        for method, refs in (("integrated-gradients", np.zeros((1, 3))), ("input-x-gradient", None))
    }
    result = evaluate(files, x, measures="ig-difference")
    for name in files:
        value = result.value(name, "ig-difference")
        assert value < 1e-5 if "integrated" in name else value > 0.01


def test_completeness_error() -> None:
    zero = np.zeros_like(IMAGES[:1])
    methods = {"deeplift": demo.references_path(), "integrated-gradients{steps=3}": zero, "gradient": None}
    files = {m: irshap.compile(demo.model_path(), refs, method=m) for m, refs in methods.items()}
    result = evaluate(files, IMAGES, measures="completeness")
    assert result.value("deeplift", "completeness") < 1e-5
    coarse = files["integrated-gradients{steps=3}"].explainer()(IMAGES)
    assert coarse.completeness_error is not None
    wanted = np.abs(coarse.completeness_error)
    np.testing.assert_allclose(
        result.results["integrated-gradients{steps=3}"]["completeness"].values,
        wanted,
        atol=1e-5,  # type: ignore[union-attr]
    )
    found = files["gradient"].explainer()(IMAGES)
    at_zero = files["gradient"].explainer()(zero).outputs["logits"][0]
    gap = found.target_values - at_zero[found.target_index] - found.total()
    assert result.value("gradient", "completeness") == pytest.approx(np.abs(gap).mean(), rel=1e-5)


@pytest.mark.parametrize("size, sigma", [(51, 41.0), (11, 3.5), (3, 1.0), (1, 1.0)])
def test_blur(size: int, sigma: float) -> None:
    """Reflected as often as it takes: the kernel is larger than the picture."""
    x = normal(1, 2, 3, 5, 4)
    subject = Subject(Forward(demo.model_path()), {"x": x}, {"x": x})
    blurred = filled(f"blur{{size={size},sigma={sigma}}}", subject)["x"]
    np.testing.assert_allclose(blurred, [plain.blurred(image, size, sigma) for image in x], rtol=1e-12)
    last = Subject(Forward(demo.model_path()), {"x": x.transpose(0, 2, 3, 1)}, {"x": x.transpose(0, 2, 3, 1)})
    there = filled(f"blur{{size={size},sigma={sigma}}}", last)["x"]
    np.testing.assert_allclose(there.transpose(0, 3, 1, 2), blurred)


def test_other_baselines() -> None:
    x, refs = normal(1, 3, 4), normal(2, 3, 4)

    def of(text: str, refs: Array | None) -> Array:
        given = {} if refs is None else {"x": refs}
        return filled(text, Subject(Forward(demo.model_path()), {"x": x}, {"x": x}, references=given))["x"]

    np.testing.assert_array_equal(of("reference", refs), refs)
    np.testing.assert_array_equal(of("reference", refs[:1]), np.repeat(refs[:1], 3, axis=0))
    np.testing.assert_allclose(of("mean", refs), np.repeat(refs.mean(axis=0)[None], 3, axis=0))
    np.testing.assert_allclose(of("mean", None), np.repeat(x.mean(axis=0)[None], 3, axis=0))
    np.testing.assert_array_equal(of("constant{value=0.5}", None), np.full((3, 4), 0.5))
    with pytest.raises(UserError, match="no picture"):
        of("blur", None)
    with pytest.raises(UserError, match="has none"):
        of("reference", None)
    with pytest.raises(UserError, match="2 references for 3"):
        of("reference", refs[:2])
    with pytest.raises(PipelineError, match=r"no baseline is called 'blurr'.*did you mean blur"):
        of("blurr", None)


def test_a_file_and_its_attributions_measure_alike(gradient: Path) -> None:
    """All but what must be explained again; the array's class is the predicted one."""
    values = irshap.Explainer(gradient)(IMAGES).values
    both = evaluate({"file": gradient, "array": values}, IMAGES, LABELS, model=demo.model_path())
    assert isinstance(both.results["array"]["sensitivity-max"], str)
    for name in MEASURES:
        if name != "sensitivity-max":
            np.testing.assert_allclose(both.value("file", name), both.value("array", name), rtol=1e-5)
    assert np.isfinite([both.value("file", m) for m in MEASURES]).all()


@pytest.mark.parametrize("target", ["argmax", "label"])
def test_a_class_at_run_time(target: str, gradient: Path) -> None:
    given = irshap.compile(demo.model_path(), method="gradient", target="input")
    result = evaluate({"g": given}, IMAGES, LABELS, measures="keep-positive", target=target)
    alike = evaluate({"g": gradient}, IMAGES, LABELS, measures="keep-positive")
    same = np.isclose(found(result, "keep-positive").values, found(alike, "keep-positive").values)
    assert same.tolist() == [target == "argmax" or i != 2 for i in range(6)]


def test_several_inputs_and_batches(gradient: Path) -> None:
    head = "(double[N, 3] a, double[N, 2, 2] b) => (double[N, 2] y)"
    model = net(
        f"{head} {{ f = Flatten(b) c = Concat<axis = 1>(a, f) t = Tanh(c) y = MatMul(t, w) }}",
        w=normal(1, 7, 2),
    )
    x = {"a": normal(2, 5, 3), "b": normal(3, 5, 2, 2)}
    refs = {"a": np.zeros((1, 3)), "b": np.zeros((1, 2, 2))}
    file = irshap.compile(model, refs, target=0)
    whole, parts = (evaluate({"d": file}, x, baseline="constant", batch=size) for size in (64, 2))
    joined = np.concatenate([v.reshape(5, -1) for v in file.explainer()(x).values.values()], axis=1)
    one = net("(double[N, 7] c) => (double[N, 2] y) { t = Tanh(c) y = MatMul(t, w) }", w=normal(1, 7, 2))
    together = evaluate(
        {"d": joined}, np.concatenate([x["a"], x["b"].reshape(5, 4)], axis=1), np.zeros(5, int),
        model=one, target="label", baseline="constant",
    )  # fmt: skip
    for name in ("keep-positive", "keep-negative", "insertion", "deletion", "sparseness", "ig-difference"):
        assert whole.value("d", name) == pytest.approx(parts.value("d", name), rel=1e-12)
        assert whole.value("d", name) == pytest.approx(together.value("d", name), rel=1e-9)
    assert "needs labels" in whole.reasons["d, keep-absolute"]


def test_a_sum_over_outputs() -> None:
    """What is explained is no class: its own number is asked for, and accuracy isn't."""
    file = irshap.compile(demo.model_path(), method="gradient", target="sum[2:5]")
    result = evaluate({"g": file}, IMAGES, LABELS)
    outputs = Forward(demo.model_path())({"image": np.zeros_like(IMAGES[:1])})
    curve = found(result, "deletion").curve
    assert curve is not None
    assert curve.score[-1] == pytest.approx(outputs[0, 2:5].sum(), rel=1e-5)
    assert "no class is explained" in result.reasons["g, keep-absolute"]


def test_tokens() -> None:
    """Ids are replaced by an id; what can't be done to integers says so."""
    body = "{ v = Gather(e, ids) s = Tanh(v) r = ReduceSum<keepdims = 0>(s, one) y = MatMul(r, w) }"
    e, w = normal(1, 5, 3), normal(2, 3, 2)
    model = net(f"(int64[N, 4] ids) => (double[N, 2] y) {body}", e=e, w=w, one=np.array([1]))
    ids = np.array([[1, 2, 3, 4], [4, 4, 1, 2], [3, 1, 2, 2]])
    file = irshap.compile(model, np.zeros((1, 4), np.int64), target=0)
    result = evaluate({"d": file}, ids, baseline="constant{value=0}")
    plain_ones = {"d": file.explainer()(ids).values}  # arrays are of tokens where there is nothing else
    again = evaluate(plain_ones, ids, measures="deletion", baseline="constant", model=file, target="argmax")
    same = evaluate({"d": file}, ids, measures="deletion", baseline="constant")
    assert found(again, "deletion").values.shape == found(same, "deletion").values.shape

    def f(x: Array) -> Array:
        return np.asarray(np.tanh(e[x]).sum(axis=1) @ w)

    for name in ("insertion", "deletion"):
        wanted = [
            plain.game(
                lambda x: f(x[:, 0, 0]), row[None, None], a[None, None], 0 * row[None, None], 0,
                inserts=name == "insertion",
            )
            for row, a in zip(ids, file.explainer()(ids).values, strict=True)
        ]  # fmt: skip
        np.testing.assert_allclose(found(result, name).values, wanted, rtol=1e-9)
    assert "can't be moved a little" in result.reasons["d, infidelity"]
    assert "can't be moved a little" in result.reasons["d, ig-difference"]
    with pytest.raises(UserError, match=r"isn't of integers, as input 'ids' is"):
        evaluate({"d": file}, ids, measures="deletion", baseline="constant{value=0.5}")


def test_sensitivity_leaves_out_what_is_explained_as_another_class(gradient: Path) -> None:
    text = "sensitivity-max{radius=0.8,samples=6,seed=2}"
    values = found(evaluate({"g": gradient}, IMAGES, measures=text), "sensitivity-max").values
    explainer = irshap.Explainer(gradient)
    plain_ones, draws = explainer(IMAGES), np.random.default_rng(2).uniform(-0.8, 0.8, (6, 1, 8, 8))
    left, wanted = 0, np.full(6, np.nan)
    for draw in draws:
        near = explainer((IMAGES + draw).astype(np.float32))
        for i in range(6):
            if near.target_index[i] != plain_ones.target_index[i]:
                left += 1
                continue
            apart = np.linalg.norm(near.values[i] - plain_ones.values[i])
            wanted[i] = np.fmax(wanted[i], apart / np.linalg.norm(plain_ones.values[i]))
    assert 0 < left < 36
    np.testing.assert_allclose(values, wanted, rtol=1e-5)


def test_a_model_for_one_sample() -> None:
    body = "{ t = Tanh(x) y = MatMul(t, w) }"
    one, many = (net(f"(double[{n}, 3] x) => (double[{n}, 2] y) {body}", w=normal(1, 3, 2)) for n in (1, "N"))
    x, a = normal(2, 5, 3), normal(3, 5, 3)
    results = [evaluate({"a": a}, x, measures="deletion,infidelity", model=m) for m in (one, many)]
    for name in ("deletion", "infidelity"):
        assert results[0].value("a", name) == pytest.approx(results[1].value("a", name), rel=1e-12)


def test_samples_on_the_second_axis() -> None:
    """As with samples first, weights for all samples at run time among it."""
    first = net(
        "(double[N, 4, 3] x) => (double[N, 3] y) { t = Tanh(x) y = ReduceMean<keepdims = 0>(t, a) }",
        a=np.array([1]),
    )
    second = net(
        "(double[4, N, 3] x) => (double[N, 3] y) { t = Tanh(x) y = ReduceMean<keepdims = 0>(t, a) }",
        a=np.array([0]),
    )
    x, zero, w = normal(1, 5, 4, 3), np.zeros((1, 4, 3)), normal(2, 3)
    for target in ("argmax", "weights"):
        values = []
        for model, given in ((first, x), (second, x.transpose(1, 0, 2))):
            file = irshap.compile(model, zero, target=target)
            more = {"target_weights": w} if target == "weights" else {}
            values.append(evaluate({"d": file}, {"x": given, **more}, baseline="constant", batch=2))
        for name, one in values[0].results["d"].items():
            other = values[1].results["d"][name]
            if isinstance(one, Measured) and isinstance(other, Measured):
                np.testing.assert_allclose(one.values, other.values, rtol=1e-9, atol=1e-12, err_msg=name)
            else:
                assert one == other
        assert ("d, ig-difference" in values[0].reasons) == (target == "weights")


def test_a_frames_columns_are_found_by_name() -> None:
    pandas = pytest.importorskip("pandas")
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
        g (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1,-2,3,0.5,0,1}>
        { h = MatMul(x, w) y = Tanh(h) }""")
    rows = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    frame = pandas.DataFrame(rows, columns=["a", "b", "c"])
    compiled = irshap.compile(model, frame[:1])
    expected, found = (evaluate(compiled, x, measures="sparseness") for x in (rows, frame[["c", "a", "b"]]))
    (one,), (other,) = (result.results.values() for result in (found, expected))
    np.testing.assert_array_equal(one["sparseness"].values, other["sparseness"].values)  # type: ignore[union-attr]


def test_a_measure_with_several_options(gradient: Path) -> None:
    result = evaluate(gradient, IMAGES, measures="deletion{baseline=mean},deletion,sparseness")
    assert list(result.measures) == ["deletion{baseline=mean}", "deletion", "sparseness"]
    assert result.value("explained", "deletion") != result.value("explained", "deletion{baseline=mean}")


def test_inputs_at_run_time() -> None:
    """References and classes that a file takes as inputs; one class for all; an input that nothing reads."""
    head = "(double[N, 3] x, double[2, N] rest) => (double[N, 2] y, double[2, N] z)"
    model = net(f"{head} {{ t = Tanh(x) y = MatMul(t, w) z = Identity(rest) }}", w=normal(1, 3, 2))
    x, refs, rest = normal(2, 5, 3), normal(3, 4, 3), normal(4, 2, 5)
    passes = "lift,target{target=input},canonicalize,autodiff,deeplift,eliminate-split-tile,dce,lower"
    open_refs = irshap.compile(irshap.Model(model, batch_axes={"rest": 1}), passes=passes)
    assert set(open_refs.explainer().input_names) == {"x", "rest", "target", "x_references"}
    given = {"x": x, "rest": rest, "x_references": refs, "target": np.array(1)}
    one, parts = (
        evaluate(open_refs, given, measures="completeness,deletion", batch=size) for size in (64, 2)
    )
    bound = irshap.compile(
        net("(double[N, 3] x) => (double[N, 2] y) { t = Tanh(x) y = MatMul(t, w) }", w=normal(1, 3, 2)),
        refs,
        target=1,
    )
    wanted = evaluate(bound, x, measures="completeness,deletion")
    for result in (one, parts):
        assert result.value("explained", "completeness") < 1e-12
        assert result.value("explained", "deletion") == pytest.approx(wanted.value("explained", "deletion"))
    with pytest.raises(UserError, match="no such input 'reference'"):
        evaluate(open_refs, {**given, "reference": refs})


@pytest.mark.parametrize("name", MEASURES)
def test_the_form_of_a_measure(name: str) -> None:
    cls = MEASURES[name]
    assert read_measures(cls().text) == (cls(),)
    assert cls.better in ("higher", "lower", "")
    page = (Path(__file__).parents[2] / "docs" / "measures.md").read_text(encoding="utf-8")
    assert f"`{name}`" in page


def test_a_measure_without_a_facet_is_refused() -> None:
    with pytest.raises(TypeError, match=r"measure Half lacks better: .*measure: def measure"):

        class Half(Measure):
            """Half of one."""

            name = "half"


def test_on_the_command_line(gradient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    np.save(tmp_path / "y.npy", LABELS)
    np.save(tmp_path / "a.npy", irshap.Explainer(gradient)(IMAGES).values)
    args = ["evaluate", f"of file={gradient}", str(tmp_path / "a.npy"), "-i", str(tmp_path / "x.npy")]
    args += ["-l", str(tmp_path / "y.npy"), "--model", str(demo.model_path())]
    picture = tmp_path / "curves.png"
    assert main([*args, "--plot", str(picture)]) == 0
    printed = capsys.readouterr().out
    assert "keep-positive ↑" in printed
    assert "of file" in printed
    assert "- a, sensitivity-max: plain attributions can't be computed again" in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*args, "--json", "-m", "keep-absolute,sparseness"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["samples"] == 6
    assert len(told["results"]["a"]["keep-absolute"]["curve"]["score"]) == 16
    assert main(["evaluate", "--list"]) == 0
    assert "insertion ↑" in capsys.readouterr().out
    assert main(["evaluate", "--list", "--json"]) == 0
    assert {row["name"] for row in json.loads(capsys.readouterr().out)} >= {*MEASURES, "blur", "mean"}

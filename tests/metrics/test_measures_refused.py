"""What no measure is taken of: wrong options and files, numbers beyond numbers, what doesn't fit together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from revealing import net, normal

import irshap
from irshap import demo
from irshap.cli import main
from irshap.errors import ModelError, PipelineError, TargetError, UserError
from irshap.metrics.evaluate import evaluate

IMAGES, LABELS = demo.digits()
IMAGES, LABELS = IMAGES[:6], LABELS[:6]


@pytest.fixture(scope="module")
def gradient(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "gradient.onnx"
    irshap.compile(demo.model_path(), method="gradient").save(path)
    return path


def test_what_gives_no_number_is_told() -> None:
    model = net("(double[N, 3] x) => (double[N, 2] y) { r = Sqrt(x) y = MatMul(r, w) }", w=normal(5, 3, 2))
    x, a = np.ones((4, 3)), normal(2, 4, 3)
    x[2, 1] = -1
    result = evaluate({"a": a}, x, model=model, baseline="constant")
    assert "comes out as nan for sample 2" in result.reasons["a, keep-positive"]
    assert result.value("a", "sparseness") > 0
    with pytest.raises(UserError, match="keep-positive of a: comes out as nan for sample 2"):
        evaluate({"a": a}, x, measures="keep-positive", model=model, baseline="constant")
    with pytest.raises(UserError, match="mean of a single sample"):
        evaluate({"a": a[:1]}, x[:1], measures="keep-positive", model=model, baseline="mean")
    with pytest.raises(UserError, match="labels: has values beyond the range of int64"):
        evaluate({"a": a}, x, np.full(4, 2**64 - 1, np.uint64), model=model)


def test_options_that_lead_beyond_numbers(gradient: Path) -> None:
    for text in (
        "infidelity{noise=inf}",
        "infidelity{samples=100000000000}",
        "sensitivity-max{radius=inf}",
        "sensitivity-max{samples=100000000000}",
        'deletion{baseline="constant{value=inf}"}',
    ):
        with pytest.raises(UserError):
            evaluate({"g": gradient}, IMAGES, measures=text)
    for text in ("infidelity{noise=1e300}", "sensitivity-max{radius=1e300}"):
        with pytest.raises(UserError, match=r"of g, input 'image', moved: has values beyond the range"):
            evaluate({"g": gradient}, IMAGES, measures=text)
    with pytest.raises(UserError, match=r"the baseline constant.*beyond the range of float32"):
        evaluate({"g": gradient}, IMAGES, measures="deletion", baseline="constant{value=1e39}")


@pytest.mark.parametrize("text", ["blur{", "", "mean,mean", "nothing", "constant{value=nan}"])
def test_a_wrong_baseline_is_an_error_where_no_measure_is_named(text: str, gradient: Path) -> None:
    with pytest.raises(UserError, match="baseline"):
        evaluate({"g": gradient}, IMAGES, baseline=text)


def test_references_that_do_not_fit(gradient: Path) -> None:
    with pytest.raises(UserError, match=r"references for input 'image': has shape \[1, 8, 8\]"):
        evaluate(gradient, IMAGES, baseline="reference", references=IMAGES[0])
    with pytest.raises(UserError, match="no such input 'picture'"):
        evaluate(gradient, IMAGES, references={"picture": IMAGES})
    mean = evaluate(gradient, IMAGES, measures="deletion", baseline="mean", references=IMAGES[:1])
    one = evaluate(gradient, IMAGES, measures="deletion", baseline="reference", references=IMAGES[:1])
    assert mean.value("explained", "deletion") == one.value("explained", "deletion")


def test_what_is_refused(gradient: Path, tmp_path: Path) -> None:
    tokens = irshap.compile(
        demo.model_path(), method="gradient", target=irshap.Target("0", wrt="/relu3/Relu_output_0")
    )
    result = evaluate({"inner": tokens}, IMAGES, LABELS)
    assert "is no input" in result.reasons["inner, keep-positive"]
    assert result.value("inner", "sparseness") > 0
    with pytest.raises(UserError, match=r"keep-positive of inner: .*is no input"):
        evaluate({"inner": tokens}, IMAGES, measures="keep-positive")
    several = irshap.compile(demo.model_path(), method="gradient", target="all")
    with pytest.raises(TargetError, match="several classes"):
        evaluate({"all": several}, IMAGES)
    with pytest.raises(UserError, match="returns no attributions"):
        evaluate({"plain": demo.model_path()}, IMAGES)
    with pytest.raises(UserError, match="say nothing of the model"):
        evaluate({"a": IMAGES}, IMAGES)
    with pytest.raises(UserError, match=r"float32 \[6, 8, 8\].*should be floats \[6, 1, 8, 8\]"):
        evaluate({"a": IMAGES[:, 0]}, IMAGES, model=demo.model_path())
    with pytest.raises(UserError, match=r"NaN or infinity"):
        evaluate({"a": np.where(IMAGES > 0, IMAGES, np.nan)}, IMAGES, model=demo.model_path())
    with pytest.raises(ModelError, match=r"int is no model"):
        evaluate({"a": 3}, IMAGES)
    with pytest.raises(TargetError, match=r"class 10 for sample 1"):
        evaluate({"g": gradient}, IMAGES, np.array([1, 10, 2, 3, 4, 5]))
    with pytest.raises(PipelineError, match=r"no measure is called 'keep'"):
        evaluate({"g": gradient}, IMAGES, measures="keep")
    with pytest.raises(PipelineError, match="steps is 0"):
        evaluate({"g": gradient}, IMAGES, measures="deletion{steps=0}")
    with pytest.raises(ModelError, match="no such file"):
        evaluate({"g": tmp_path / "none.onnx"}, IMAGES)
    for measures in ([], ["sparseness"]):
        with pytest.raises(UserError, match="measures are a text"):
            evaluate({"g": gradient}, IMAGES, measures=measures)  # type: ignore[arg-type]
    for batch in (0, -1):
        with pytest.raises(UserError, match=f"batch is {batch}"):
            evaluate({"g": gradient}, IMAGES, batch=batch)
    whole = net("(double[5, 3] x) => (double[5, 2] y) { y = MatMul(x, w) }", w=normal(1, 3, 2))
    with pytest.raises(UserError, match="no input of the measured model counts samples"):
        evaluate({"a": normal(2, 5, 3)}, normal(3, 5, 3), model=whole)
    with pytest.raises(UserError, match="nothing is explained"):
        evaluate({}, IMAGES)
    with pytest.raises(UserError, match="layout"):
        evaluate({"g": gradient}, IMAGES, measures="sparseness", layout="sideways")


def test_the_command_line_refuses(gradient: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", IMAGES)
    args = ["evaluate", str(gradient), "-i", str(tmp_path / "x.npy")]
    assert main(["evaluate", str(gradient)]) == 2
    assert "--inputs is missing" in capsys.readouterr().err
    for text in (f"={gradient}", "a="):
        assert main([*args, text]) == 2
        assert "write NAME=EXPLAINED" in capsys.readouterr().err
    assert main([*args, str(gradient)]) == 2
    assert "two are called 'gradient'" in capsys.readouterr().err
    picture = tmp_path / "curves.png"
    assert main([*args, "-m", "sparseness", "--plot", str(picture)]) == 2
    assert "none of these measures has a curve" in capsys.readouterr().err
    assert not picture.exists()
    assert main([*args, "-m", "keep-absolute"]) == 2
    assert "keep-absolute of gradient: accuracy needs labels" in capsys.readouterr().err

"""Pictures of explanations: the numbers that are drawn, scales, names, and what can't be drawn."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from explained import FEATURES, HOT, RNG, ROWS, digits, letters, table, text, two
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch, Rectangle

import irshap
from irshap import demo, report
from irshap.errors import UserError
from irshap.report.drawing import AGAINST, FOR


def drawn(figure: Any) -> Any:
    """The axes of a figure that draws without a complaint."""
    assert isinstance(figure, Figure)
    figure.canvas.draw()
    return figure.axes[0]


def bars(axes: Any) -> dict[str, tuple[float, float]]:
    """Start and length of each bar by its feature."""
    names = [t.get_text().partition(" = ")[0] for t in axes.get_yticklabels()]
    found = [p for p in axes.patches if isinstance(p, Rectangle)]
    return {n: (p.get_x(), p.get_width()) for n, p in zip(names, found, strict=True)}


def test_a_waterfall_leads_from_the_base_to_the_prediction() -> None:
    e = table()
    found = bars(drawn(report.waterfall(e, 3)))
    values = dict(zip(FEATURES, e.values[3], strict=True))
    assert list(found) == sorted(FEATURES, key=lambda n: -abs(values[n]))
    for name, (_, length) in found.items():
        np.testing.assert_allclose(length, values[name], rtol=1e-5)
    order = list(found.values())
    np.testing.assert_allclose(order[-1][0], e.base_values[3], rtol=1e-5)
    np.testing.assert_allclose(sum(order[0]), e.target_values[3], rtol=1e-5)
    for upper, lower in pairwise(order):
        np.testing.assert_allclose(upper[0], sum(lower), atol=1e-6)
    few = bars(drawn(report.waterfall(e, 3, most=3)))
    assert list(few)[-1] == "3 others"
    rest = sorted(map(float, e.values[3]), key=abs)[:3]
    np.testing.assert_allclose(few["3 others"][1], sum(rest), rtol=1e-5)
    assert "output for no" in drawn(report.waterfall(e, 3)).get_xlabel()


def test_bars_of_a_sample_and_of_all() -> None:
    e = table()
    axes = drawn(report.bar(e, 3))
    values = dict(zip(FEATURES, e.values[3], strict=True))
    for (name, (start, length)), patch in zip(bars(axes).items(), axes.patches, strict=True):
        assert start == 0
        np.testing.assert_allclose(length, values[name], rtol=1e-5)
        assert to_hex(patch.get_facecolor()) == (FOR if length >= 0 else AGAINST)
    mean = dict(zip(FEATURES, np.abs(e.values).mean(axis=0), strict=True))
    found = bars(drawn(report.bar(e)))
    assert list(found) == sorted(FEATURES, key=lambda n: -mean[n])
    for name, (_, length) in found.items():
        np.testing.assert_allclose(length, mean[name], rtol=1e-5)
    both = bars(drawn(report.bar(two(), 0, name="features", most=20)))
    np.testing.assert_allclose(
        both["all of image"][1], two().values["image"][0].sum(dtype=np.float64), rtol=1e-5
    )
    assert bars(drawn(report.bar(table("gradient"), 0)))


def test_a_swarm_has_a_dot_for_each_sample() -> None:
    e = table()
    axes = drawn(report.beeswarm(e, most=3))
    order = np.argsort(-np.abs(e.values).mean(axis=0))[:3]
    assert [t.get_text() for t in axes.get_yticklabels()] == [FEATURES[i] for i in order]
    for place, (feature, dots) in enumerate(zip(order, axes.collections, strict=True)):
        across, up = dots.get_offsets().T
        np.testing.assert_allclose(across, e.values[:, feature], rtol=1e-6)
        assert np.abs(up - place).max() < 0.5
        assert len(np.unique(dots.get_offsets(), axis=0)) == len(ROWS)  # none covers another whole
        shades = dots.get_array()
        assert shades[ROWS[:, feature].argmax()] == 1 and shades[ROWS[:, feature].argmin()] == 0


def heats(figure: Any) -> list[Any]:
    return [i for axes in figure.axes for i in axes.get_images() if i.get_cmap().name == "attributions"]


def drawn_labels(figure: Any) -> list[str]:
    return [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]


def test_pictures_share_one_symmetric_scale() -> None:
    e = digits()
    figure = report.images(e)
    drawn(figure)
    maps = heats(figure)
    assert len(maps) == 6
    end = np.abs(e.values).max()
    for i, k in np.ndindex(2, 3):
        heat = maps[3 * i + k]
        np.testing.assert_allclose(heat.get_array(), e.values[i, k, 0], rtol=1e-6)
        np.testing.assert_allclose(heat.get_clim(), (-end, end), rtol=1e-6)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == [str(t) for t in e.target_names.ravel()]
    rows = drawn_labels(report.images(e)), drawn_labels(report.images(e.with_labels(["cat", "d" * 50])))
    assert rows == ([], ["cat", "d" * 39 + "…"])


def test_dollars_are_no_formulas() -> None:
    """Prices and what is no formula at all, in names of features, classes, samples, tokens and lines."""
    odd = r"$\frac{$"
    e, pictures = table(), digits()
    named = replace(e, names=irshap.Names((odd,) * 9, {"x": (odd,) * len(FEATURES)}))
    shown = replace(pictures, names=irshap.Names((odd,) * 10)).with_labels([odd, "$1 or $2"])
    words = [odd] * text().values.shape[-1]
    for figure in (
        report.bar(named, 0),
        report.beeswarm(named),
        report.waterfall(named),
        report.images(shown),
        report.image(shown, 0),
        report.tokens(text(), 0, texts=words),
        report.curves({odd: (np.arange(2), np.arange(2))}),
    ):
        drawn(figure)
    assert odd in report.page(shown) and "$1 or $2" in report.page(shown)


@pytest.mark.parametrize("sign", [0.0, 1.0, -1.0])
def test_maps_of_one_sign_and_of_nothing(sign: float) -> None:
    e = digits()
    flat = replace(e, values=sign * np.abs(e.values))
    (heat,) = heats(report.image(flat, 1, rank=2))
    end = np.abs(e.values[1, 2]).max() if sign else 1.0
    np.testing.assert_allclose(heat.get_clim(), (-end, end), rtol=1e-6)
    middle = heat.get_cmap()(heat.norm(0.0))[:3]
    np.testing.assert_allclose(middle, (1, 1, 1), atol=0.01)  # zero stays white
    drawn(report.images(flat))


def test_layouts_and_channels() -> None:
    values, data = RNG.normal(size=(2, 3, 6, 7)), RNG.random((2, 3, 6, 7))
    first = replace(table()[:2], values=values, data=data, names=irshap.Names())
    last = replace(first, values=values.transpose(0, 2, 3, 1), data=data.transpose(0, 2, 3, 1))
    for e, layout in ((first, "auto"), (last, "auto"), (first, "channels-first"), (last, "channels-last")):
        (heat,) = heats(report.image(e, 1, layout=layout))
        np.testing.assert_allclose(heat.get_array(), values[1].sum(axis=0))
        drawn(report.images(e, layout=layout))
    with pytest.raises(UserError, match=r"no layout is called 'NCHW'"):
        report.image(first, layout="NCHW")


def test_a_map_of_an_interior_tensor_covers_the_picture() -> None:
    e = digits("argmax", wrt="/pool2/MaxPool_output_0")
    assert e.values.shape == (2, 32, 2, 2)
    (heat,) = heats(report.image(e, 1, picture=demo.digits()[0][1]))
    assert heat.get_array().shape == (2, 2)
    assert heat.get_extent() == [-0.5, 7.5, 7.5, -0.5]
    np.testing.assert_allclose(heat.get_array(), e.values[1].sum(axis=0), rtol=1e-5, atol=1e-6)
    drawn(report.images(e, pictures=demo.digits()[0][:2]))
    drawn(report.images(e))


def test_steps_go_right() -> None:
    e = letters()
    (heat,) = heats(report.steps(e, 1))
    np.testing.assert_allclose(heat.get_array(), e.values[1].T, rtol=1e-6)
    (turned,) = heats(report.steps(e, 1, time=1))
    np.testing.assert_allclose(turned.get_array(), e.values[1], rtol=1e-6)
    (line,) = heats(report.steps(table(), 0))
    np.testing.assert_allclose(line.get_array(), table().values[0][None], rtol=1e-6)
    named = irshap.Names(features={"x": ("A", "C", "G", "T")})
    axes = drawn(report.steps(replace(e, names=named), 1))
    assert [t.get_text() for t in axes.get_yticklabels()] == list("ACGT")


def test_letters_are_as_high_as_their_attributions() -> None:
    e = letters()
    axes = drawn(report.logo(e, 2))
    heights = (e.values[2] * HOT[2]).sum(axis=1)
    shapes = [p.get_path().get_extents() for p in axes.patches if isinstance(p, PathPatch)]
    places = np.flatnonzero(heights)
    assert len(shapes) == len(places)
    for place, box in zip(places, shapes, strict=True):
        np.testing.assert_allclose((box.x0 + box.x1) / 2, place, atol=1e-6)
        low, high = sorted((0.0, float(heights[place])))
        np.testing.assert_allclose((box.y0, box.y1), (low, high), atol=1e-6)
    with pytest.raises(UserError, match=r"no one-hot sequence of 5 letters. give letters="):
        report.logo(e, letters="ACGTN")
    with pytest.raises(UserError, match=r"no one-hot sequence"):
        report.logo(table())


def test_tokens_stand_on_their_colours() -> None:
    e = text()
    axes = drawn(report.tokens(e, 1))
    words = [t.get_text() for t in axes.texts]
    assert words == list(e.tokens()[1])
    strongest = int(np.abs(e.values[1]).argmax())
    colour = FOR if e.values[1][strongest] >= 0 else AGAINST
    assert to_hex(axes.patches[strongest].get_facecolor()) == colour
    many = drawn(report.tokens(e, 1, texts=["a long word of text"] * e.values.shape[1]))
    assert len({round(p.get_y(), 3) for p in many.patches}) > 1  # lines break
    page = report.tokens_html(e, 1, texts=["<b>"] * e.values.shape[1])
    assert page.count("<span") == e.values.shape[1]
    assert "<b>" not in page and "&lt;b&gt;" in page
    assert f"background:{colour}" in page
    assert f'title="{e.values[1][strongest]:+.4g}"' in page
    with pytest.raises(UserError, match=r"1 texts for 10 tokens. give one for each"):
        report.tokens(e, texts=["a"])


def test_curves() -> None:
    axes = drawn(report.curves({"a": ([0, 1], [2, 3]), "b": ([0, 1], [1, 0])}, x="removed", y="f(x)"))
    assert [line.get_label() for line in axes.lines] == ["a", "b"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("removed", "f(x)")
    drawn(report.curves({}))


DRAWINGS: dict[str, Any] = {
    "waterfall": lambda ax: report.waterfall(table(), ax=ax),
    "bar": lambda ax: report.bar(table(), ax=ax),
    "beeswarm": lambda ax: report.beeswarm(table(), ax=ax),
    "image": lambda ax: report.image(digits(), ax=ax),
    "steps": lambda ax: report.steps(letters(), ax=ax),
    "logo": lambda ax: report.logo(letters(), ax=ax),
    "tokens": lambda ax: report.tokens(text(), ax=ax),
    "curves": lambda ax: report.curves({"a": ([0], [1])}, ax=ax),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_each_draws_where_it_is_told(name: str) -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    assert DRAWINGS[name](right) is figure
    assert right.has_data() or right.texts or right.patches
    assert not (left.has_data() or left.texts or left.patches)


def test_nothing_touches_pyplot() -> None:
    code = "import sys, irshap.report as r; r.curves({}); print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: report.waterfall(table(), 30), r"no sample 30 among 30. give a place from 0 to 29"),
        (lambda: report.waterfall(table(), rank=1), r"no class 1 among the 1 that are explained"),
        (lambda: report.waterfall(table("gradient")), r"have no base value to start from. draw bar"),
        (lambda: report.bar(table(), most=0), r"0 bars. draw at least 1"),
        (lambda: report.bar(two()), r"several tensors are attributed. name one of image, features"),
        (lambda: report.bar(two(), name="x"), r"no attributed tensor 'x'"),
        (lambda: report.image(table()), r"samples of shape \[5\] are no pictures"),
        (lambda: report.steps(digits()), r"samples of shape \[1, 8, 8\] are no steps"),
        (lambda: report.tokens(digits()), r"samples of shape \[1, 8, 8\] are no tokens"),
    ],
)
def test_what_cannot_be_drawn(draw: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        draw()


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"drawing needs matplotlib. install it: pip install"):
        report.bar(table())


_LARGE, _SMALL = np.finfo(np.float64).max, np.finfo(np.float64).smallest_subnormal
_N = np.random.default_rng(5).normal(size=8192)
ODD: dict[str, Any] = {
    "huge": np.sign(_N) * _LARGE,
    "3e38": np.float32(3e38) * np.sign(_N).astype(np.float32),
    "one is huge": np.where(np.abs(_N) > 2, np.float32(3e38), _N.astype(np.float32)),
    "denormal": np.sign(_N) * _SMALL,
    "huge and denormal": np.where(_N > 0, _LARGE, _SMALL),
    "equal": np.full(_N.size, 0.5),
    "positive": np.abs(_N),
    "negative": -np.abs(_N),
    "huge and negative": np.full(_N.size, -_LARGE),
    "zero": np.zeros(_N.size),
    "NaN": np.where(_N > 1, np.nan, _N),
    "infinite": np.where(_N > 1, np.inf, _N),
}
KINDS_DRAWN = {
    "image": (lambda: digits(1), ("image", "images", "bar")),
    "table": (table, ("waterfall", "bar", "beeswarm", "steps")),
    "sequence": (letters, ("logo", "steps")),
    "tokens": (text, ("tokens", "tokens_html")),
}


def oddly(e: irshap.Explanation, given: Any) -> irshap.Explanation:
    """The explanation with these numbers everywhere, but for ids and one-hot letters."""

    def like(array: Any) -> Any:
        return None if array is None else np.resize(given, array.shape)

    data = e.data if e.data.dtype.kind != "f" or e.data.shape[-1] == 4 else like(e.data)
    told = {"target_values": like(e.target_values), "base_values": like(e.base_values)}
    return replace(e, values=like(e.values), data=data, **told)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("kind", KINDS_DRAWN)
def test_any_numbers_are_drawn(kind: str, odd: str) -> None:
    explained, draws = KINDS_DRAWN[kind]
    e = oddly(explained(), ODD[odd])
    page = report.page(e, most=1, kinds={"": kind})
    # sums of such numbers are no certificate
    assert ("sum off by" in page) == ("sums up" not in page)
    if odd in ("NaN", "infinite"):
        assert ">nan<" in page or "nan %" in page or ">inf<" in page or "inf %" in page
    for name in draws:
        figure = getattr(report, name)(e)
        if isinstance(figure, Figure):
            drawn(figure)


def test_what_is_no_number_leaves_the_others_as_they_are() -> None:
    """It stays white, and infinity gets the colour of the largest."""
    e = digits(1)
    given = np.array(e.values)
    given[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    odd, plain = (replace(e, values=v) for v in (given, np.where(np.isfinite(given), given, 0)))
    one, other = (drawn(report.image(x)).images[-1] for x in (odd, plain))
    assert one.get_clim() == other.get_clim()
    shown, wanted = np.asarray(one.get_array()), np.asarray(other.get_array())
    np.testing.assert_array_equal(shown[1:], wanted[1:])
    assert shown[0, :3].tolist() == [0, one.get_clim()[1], -one.get_clim()[1]]


def test_one_class_that_does_not_add_up_is_not_hidden_by_another() -> None:
    e = digits()
    errors = np.array(e.completeness_error)
    errors[0, 1] = np.nan
    page = report.page(replace(e, completeness_error=errors), most=2)
    assert "sum off by nan %" in page and "sums up" in page


def test_the_same_bars_as_shap() -> None:
    shap = pytest.importorskip("shap")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    e = table()
    for sample in (3, None):
        given = e.to_shap() if sample is None else e.to_shap()[sample]
        theirs = shap.plots.bar(given, max_display=10, show=False)
        theirs.figure.canvas.draw()
        lengths = [p.get_width() for p in theirs.patches if isinstance(p, Rectangle)]
        ours = [length for _, length in bars(drawn(report.bar(e, sample))).values()]
        np.testing.assert_allclose(sorted(lengths)[-5:], sorted(ours), rtol=1e-5)
        pyplot.close("all")

"""An explanation as people use it: names, parts of it, other packages' types, files, a few lines of text."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from html.parser import HTMLParser
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from places import FIXTURES

import irshap
from irshap import demo
from irshap.errors import UserError

IMAGES = demo.digits()[0][:4]
TABLE = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3] x) => (float[N,4] y, float[4,N] turned, float[2] fixed)
<float[3,4] w = {1,-2,3,0.5,2,1,-1,0.3,0.7,0.1,-0.4,2}, float[2] fixed = {1,2}> {
    h = MatMul(x, w) y = Tanh(h) turned = Transpose(y)
}"""
NAMES: dict[str, Any] = {"features": ["age", "height", "weight"], "classes": ["ant", "bee", "cat", "dog"]}
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(5, 3)).astype(np.float32)


@cache
def table(target: str = "argmax", method: str = "deeplift", named: bool = True) -> irshap.CompiledModel:
    references = None if method == "gradient" else np.zeros((2, 3), np.float32)
    model, names = onnx.parser.parse_model(TABLE), NAMES if named else None
    return irshap.compile(model, references, target=target, method=method, names=names)


def explained(target: str = "argmax", method: str = "deeplift", named: bool = True) -> irshap.Explanation:
    return table(target, method, named).explainer()(ROWS)


@cache
def two() -> irshap.Explanation:
    data = np.load(FIXTURES / "two_inputs.npz")
    references, x = (
        {n: data[f"{kind}.{n}"] for n in ("image", "features")} for kind in ("references", "inputs")
    )
    names = {"features": {"features": list("abcdef")}}
    target = irshap.Target([3, 1])  # type: ignore[arg-type]
    compiled = irshap.compile(FIXTURES / "two_inputs.onnx", references, target=target, names=names)
    return compiled.explainer()({n: a[:3] for n, a in x.items()})


def same(found: irshap.Explanation, expected: irshap.Explanation) -> None:
    for name in ("values", "data", "outputs"):
        a, b = getattr(found, name), getattr(expected, name)
        pairs = [(a[k], b[k]) for k in b] if isinstance(b, dict) else [(a, b)]
        assert not isinstance(b, dict) or set(a) == set(b)
        for one, other in pairs:
            np.testing.assert_array_equal(one, other)
    for name in ("base_values", "target_index", "target_values", "completeness_error"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert (found.names, found.inputs) == (expected.names, expected.inputs)


def test_names_stand_in_the_file_and_come_back(tmp_path: Path) -> None:
    table().save(tmp_path / "e.onnx")
    explainer = irshap.Explainer(tmp_path / "e.onnx")
    assert explainer.names == irshap.Names(tuple(NAMES["classes"]), {"x": tuple(NAMES["features"])})
    found = explainer(ROWS)
    assert found.feature_names() == ["age", "height", "weight"]
    assert found.target_names.tolist() == [NAMES["classes"][i] for i in found.target_index]
    others = irshap.Explainer(tmp_path / "e.onnx", names={"classes": ["a", "b", "c", "d"]})
    assert others.names.classes == ("a", "b", "c", "d")
    assert others.names.features == explainer.names.features
    plain = explained(named=False)
    assert plain.feature_names() == ["x[0]", "x[1]", "x[2]"]
    assert plain.target_names.tolist() == list(map(str, plain.target_index))
    given = table(named=False).explainer(names=NAMES)(ROWS)
    assert given.feature_names() == NAMES["features"]
    assert "irshap.names" not in table(named=False).explainer().metadata


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"features": ["a", "b"]}, "names: 2 features of 'x', whose last axis has 3. give one for each"),
        ({"classes": ["a"]}, "names: 1 classes, but the explained output has 4"),
        ({"features": {"z": ["a"]}}, "features of 'z', which isn't attributed. attributed: x"),
        ({"clases": ["a"]}, r"names have no 'clases'. did you mean classes\?"),
        ({"classes": "abcd"}, "names of classes are no list"),
        (["a", "b"], "names of type list aren't a mapping"),
        ({"classes": ["a", "\ud800", "c", "d"]}, r"names of classes have '\\ud800', which is no text"),
        ({"features": ["a", "b", "\udc00"]}, r"names of features of '' have '\\udc00'"),
    ],
)
def test_names_that_do_not_fit(names: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        irshap.Explainer(table(), names=names)


def test_a_list_of_features_is_for_one_input() -> None:
    data = np.load(FIXTURES / "two_inputs.npz")
    references = {n: data[f"references.{n}"] for n in ("image", "features")}
    compiled = irshap.compile(FIXTURES / "two_inputs.onnx", references)
    with pytest.raises(UserError, match=r"one list of features, but 2 attributed tensors"):
        irshap.Explainer(compiled, names={"features": ["a"]})


def test_samples_of_an_explanation() -> None:
    whole = explained()
    for rows, places in ((3, [3]), (-1, [4]), (slice(1, 4), [1, 2, 3]), ([4, 0], [4, 0])):
        part = whole[rows]
        assert len(part) == len(places)
        again = table().explainer()(ROWS[places])
        np.testing.assert_allclose(part.values, again.values, atol=1e-6)
        np.testing.assert_array_equal(part.data, ROWS[places])
        np.testing.assert_array_equal(part.target_index, whole.target_index[places])
        # outputs with their samples on another axis, or on none
        np.testing.assert_allclose(part.outputs["turned"], again.outputs["turned"], atol=1e-6)
        np.testing.assert_array_equal(part.outputs["fixed"], [1, 2])
    np.testing.assert_array_equal(whole[ROWS[:, 0] > 0].data, ROWS[ROWS[:, 0] > 0])
    assert len(list(whole)) == 5  # a loop ends
    assert [len(part) for part in two()] == [1, 1, 1]
    assert two()[1:].values["image"].shape == (2, 2, 1, 8, 8)
    with pytest.raises(IndexError):
        whole[5]
    with pytest.raises(UserError, match=r"are no samples"):
        whole["age"]


def test_features_of_an_explanation() -> None:
    whole = explained()
    age = whole[:, "age"]
    np.testing.assert_array_equal(age.values, whole.values[:, :1])
    np.testing.assert_array_equal(age.data, ROWS[:, :1])
    assert age.feature_names() == ["age"]
    assert age.completeness_error is None
    some = whole[1:3, ["weight", 0]]
    np.testing.assert_array_equal(some.values, whole.values[1:3][:, [2, 0]])
    assert some.feature_names() == ["weight", "age"]
    assert whole[0, 1:].feature_names() == ["height", "weight"]
    assert whole[0, -1].feature_names() == ["weight"]
    assert explained("all")[0, "age"].values.shape == (1, 4, 1)
    with pytest.raises(UserError, match=r"no feature is called 'agee'. did you mean age\?"):
        whole[:, "agee"]
    with pytest.raises(UserError, match=r"there is no feature 3. give a name, or a place from 0 to 2"):
        whole[:, 3]
    with pytest.raises(UserError, match=r"None are no features. Use a name, a number"):
        whole[:, None]
    with pytest.raises(UserError, match=r"is no range of features. Use places"):
        whole[:, "age":"weight"]  # type: ignore[misc]
    with pytest.raises(UserError, match=r"there is no feature 1.5"):
        whole[:, [1.5]]
    with pytest.raises(UserError, match=r"several tensors are attributed. name one of image, features"):
        two()[:, "a"]
    with pytest.raises(UserError, match=r"3 indices"):
        whole[0, 0, 0]
    with pytest.raises(UserError, match=r"there is no feature True"):
        whole[:, True]
    with pytest.raises(UserError, match=r"True are no samples"):
        whole[True]


def test_a_name_of_several_is_refused() -> None:
    names = {"features": ["age", "age", "weight"], "classes": ["ant", "bee", "ant", "dog"]}
    model = onnx.parser.parse_model(TABLE)
    whole = irshap.compile(model, np.zeros((2, 3), np.float32), target="all", names=names).explainer()(ROWS)
    with pytest.raises(UserError, match=r"2 features are called 'age'. give their places"):
        whole[:, "age"]
    with pytest.raises(
        UserError, match=r"several of the explained classes are called 'ant'. give the number"
    ):
        whole.of_class("ant")
    np.testing.assert_array_equal(whole.of_class(2).values, whole.values[:, 2])
    np.testing.assert_array_equal(whole.of_class("bee").values, whole.values[:, 1])


def test_no_samples_are_shown() -> None:
    assert "Explanation of 0 samples" in explained("all")[1:1]._repr_html_()
    assert explained()[1:1].largest() == []


DAYS = [f"2020-01-0{i}" for i in range(1, 6)]
PEOPLE = ["ann.png", "bob.png", "cy.png", "<di>", "ann.png"]


def test_labels_of_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = explained("all")
    whole = plain.with_labels(PEOPLE)
    assert (plain.labels, plain.sample_names) == (None, list("01234"))
    assert whole[1:3].sample_names == whole[["bob.png", "cy.png"]].sample_names == ["bob.png", "cy.png"]
    assert whole[-2, "age"].of_class("cat").sample_names == ["<di>"]
    np.testing.assert_array_equal(whole["cy.png"].values, plain.values[2:3])
    assert whole[np.array(["cy.png"])].sample_names == ["cy.png"]
    assert repr(plain[0].with_labels(["\x1b[31m\n"])).splitlines()[1].startswith("  ?[31m?: ant, ")
    assert [r["label"] for r in whole.records()[::4]] == PEOPLE
    assert repr(whole).splitlines()[1].startswith("  ann.png: ant, ")
    assert "<td>&lt;di&gt;</td>" in whole[3]._repr_html_()
    for named in (whole, explained().with_labels(np.array(DAYS, dtype="datetime64[us]"))):
        named.save(tmp_path / "e.npz")
        again = irshap.Explanation.load(tmp_path / "e.npz")
        np.testing.assert_array_equal(again.labels, named.labels)
    assert again[2:].sample_names == DAYS[2:]
    assert again.with_labels(None).sample_names == list("01234")
    monkeypatch.setitem(sys.modules, "shap", Shap)  # type: ignore[arg-type]
    assert whole.to_shap()["instance_names"] == PEOPLE
    for which, message in (
        ("bo.png", r"no sample is called 'bo.png'. did you mean bob.png or "),
        ("ann.png", r"2 samples are called 'ann.png'. give their places"),
        (["cy.png", 1], "are no samples"),
        (slice("bob.png", "<di>"), "is no range of samples. Use places, as in 2:5"),
        (slice(0, 2, 0), "is no range of samples"),
    ):
        with pytest.raises(UserError, match=message):
            whole[which]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "b"], "2 labels for 5 samples. give one for each"),
        ("abcde", "labels of samples are no list"),
        (5, "labels of samples are no list"),
        (dict.fromkeys("abcde"), "labels of samples are no list"),
        (set("abcde"), "labels of samples are no list"),
        (np.array(5), "labels of samples are no list"),
        (np.zeros((5, 1)), "labels of samples are no list"),
        (["a", "b", "c", "d", "\ud800"], r"a label of a sample is '\\ud800', which is no text"),
    ],
)
def test_labels_that_do_not_fit(labels: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        explained().with_labels(labels)


def test_a_frame_names_rows_and_columns() -> None:
    """Columns in another order are not attributed to each other."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(ROWS, columns=NAMES["features"], index=list("vwxyz"))
    explainer = table().explainer()
    whole = explainer(frame)
    assert whole.sample_names == list("vwxyz") and whole.to_pandas().index.name == "sample"
    assert list(whole.to_pandas().index) == list("vwxyz")
    mixed = frame[["weight", "age", "height"]].assign(other=1.0)
    for given in (explainer(mixed), explainer(x=mixed), explainer({"x": mixed})):
        np.testing.assert_array_equal(given.values, whole.values)
        np.testing.assert_array_equal(given.data, ROWS)
    # other names than the file's say nothing of an order
    np.testing.assert_array_equal(explainer(frame.set_axis([0, 1, 2], axis=1)).values, whole.values)
    with pytest.raises(UserError, match=r"input: the DataFrame has no column 'weight'. give all of"):
        explainer(frame[["age", "height"]].assign(z=0.0))
    tuples = pandas.MultiIndex.from_product([["a"], range(5)])
    assert explainer(frame.set_axis(tuples, axis=0))[1].sample_names == ["('a', 1)"]
    several = table("all").explainer()(frame).to_pandas()
    np.testing.assert_array_equal(several.loc[("x", "cat")], explained("all").values[2, 2])


def test_one_class_of_several() -> None:
    whole = explained("all")
    for which in ("cat", 2):
        part = whole.of_class(which)
        alone = explained("2")
        np.testing.assert_allclose(part.values, alone.values, atol=1e-6)
        np.testing.assert_array_equal(part.target_index, alone.target_index)
        np.testing.assert_allclose(part.base_values, alone.base_values, atol=1e-6)
        np.testing.assert_allclose(part.total(), alone.total(), atol=1e-6)
    with pytest.raises(UserError, match=r"class 'cow' isn't explained for each sample"):
        whole.of_class("cow")
    with pytest.raises(UserError, match=r"a single class is explained"):
        explained().of_class("cat")


def test_as_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    frame = explained().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["age", "height", "weight"]
    np.testing.assert_array_equal(frame.to_numpy(), explained().values)
    several = explained("all").to_pandas()
    np.testing.assert_array_equal(several.loc[(3, "cat")], explained("all").values[3, 2])
    both = two().to_pandas()
    np.testing.assert_array_equal(both.loc[(1, "1"), ("features", "c")], two().values["features"][1, 1, 2])
    value = two().values["image"][2, 0, 0, 5, 1]
    assert both.loc[(2, "3"), ("image", "image[0, 5, 1]")] == value


def test_as_xarray() -> None:
    xarray = pytest.importorskip("xarray")
    found = explained("all").to_xarray()
    assert isinstance(found, xarray.Dataset)
    np.testing.assert_array_equal(found["x"].sel(x_0="height"), explained("all").values[..., 1])
    assert found["target_name"].to_numpy()[0].tolist() == NAMES["classes"]
    assert found["x_data"].dims == ("sample", "x_0")
    labelled = explained("all").with_labels(list("vwxyz")).to_xarray()
    np.testing.assert_array_equal(labelled["x"].sel(sample="x"), explained("all").values[2])
    both = two().to_xarray()
    assert both["image"].dims == ("sample", "class", "image_0", "image_1", "image_2")
    assert both["base_values"].shape == (3, 2)
    assert "base_values" not in explained(method="gradient").to_xarray()


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pandas", "xarray", "shap"):
        monkeypatch.setitem(sys.modules, package, None)  # type: ignore[arg-type]
        mend = r'install it: pip install "irshap\[interop\]"'
        with pytest.raises(UserError, match=f"this conversion needs {package}. {mend}"):
            getattr(explained(), f"to_{package}")()


class Shap:
    """What shap is given, where the package isn't there."""

    @staticmethod
    def Explanation(**given: Any) -> dict[str, Any]:  # noqa: N802
        return given


def test_as_shap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "shap", Shap)  # type: ignore[arg-type]
    single = explained().to_shap()
    np.testing.assert_array_equal(single["values"], explained().values)
    assert single["feature_names"] == NAMES["features"]
    assert "output_names" not in single
    several = explained("all").to_shap()
    assert several["values"].shape == (5, 3, 4)
    assert several["output_names"] == NAMES["classes"]
    top = explained("top-2")
    ranks = top.to_shap()
    assert ranks["output_names"].tolist() == [[NAMES["classes"][i] for i in row] for row in top.target_index]
    both = two().to_shap()
    assert list(both) == ["image", "features"]
    assert both["image"]["values"].shape == (3, 8, 8, 1, 2)
    assert both["image"]["data"].shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(both["image"]["values"][1, :, :, 0, 1], two().values["image"][1, 1, 0])
    assert both["features"]["feature_names"] == list("abcdef")
    assert two().to_shap("channels-last")["image"]["values"].shape == (3, 1, 8, 8, 2)
    with pytest.raises(UserError, match=r"no layout is called 'NCHW'"):
        two().to_shap("NCHW")
    with pytest.raises(UserError, match=r"layout 'channels-first' for samples of shape \[3\]"):
        explained().to_shap("channels-first")


def test_shap_draws_it() -> None:
    shap = pytest.importorskip("shap")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    compiled = irshap.compile(demo.model_path(), demo.references_path(), target="top-2")
    digits = compiled.explainer()(IMAGES[:2]).to_shap()
    assert isinstance(digits, shap.Explanation)
    shap.image_plot(digits, show=False)
    shapes = {i.get_array().shape[:2] for axes in pyplot.gcf().axes for i in axes.get_images()}
    assert (8, 8) in shapes and all(8 in s or 1 in s or s[0] > 50 for s in shapes)
    pyplot.close("all")
    axes = shap.plots.waterfall(explained().to_shap()[0], show=False)
    texts = " ".join(t.get_text() for t in axes.get_yticklabels())
    assert all(name in texts for name in NAMES["features"])
    pyplot.close("all")


def test_an_explanation_in_a_file(tmp_path: Path) -> None:
    tokens = np.load(FIXTURES / "families" / "text.npz")
    text = irshap.compile(
        FIXTURES / "families/text_torchscript.onnx", tokens["references.tokens"]
    ).explainer()
    for found in (explained(), explained("all"), explained(method="gradient"), two(), explained()[1:, "age"],
                  text(tokens["inputs.tokens"])):  # fmt: skip
        found.save(tmp_path / "e.npz")
        same(irshap.Explanation.load(tmp_path / "e.npz"), found)
    assert [f.name for f in tmp_path.iterdir()] == ["e.npz"]
    same(irshap.Explanation.load(tmp_path / "e.npz")[0], text(tokens["inputs.tokens"])[0])
    with pytest.raises(UserError, match=r"can't be written: No such file or directory"):
        explained().save(tmp_path / "none" / "e.npz")
    np.savez(tmp_path / "other.npz", x=ROWS)
    with pytest.raises(
        UserError, match=r"other.npz: is no explanation. give a file that Explanation.save wrote"
    ):
        irshap.Explanation.load(tmp_path / "other.npz")
    with pytest.raises(UserError, match=r"no such file"):
        irshap.Explanation.load(tmp_path / "missing.npz")
    explained().save(tmp_path / "e.npz")
    part = {name: array for name, array in np.load(tmp_path / "e.npz").items() if name != "values/x"}
    np.savez(tmp_path / "part.npz", **part)
    with pytest.raises(UserError, match=r"has attributions of \[\], and says that there are of \['x'\]"):
        irshap.Explanation.load(tmp_path / "part.npz")


@pytest.mark.parametrize(
    "change",
    [
        {"irshap": np.array("5")},
        {"irshap": np.array("{}")},
        {"irshap": np.array("[" * 100_000)},
        {"irshap": np.array('{"inputs": 5, "names": "", "axes": {}, "single": true}')},
        {"irshap": np.array('{"inputs": ["x"], "names": "{", "axes": {}, "single": true}')},
        {"irshap": np.array('{"inputs": ["x"], "names": 5, "axes": {}, "single": true}')},
        {"irshap": np.array('{"inputs": ["x"], "names": "", "axes": 5, "single": true}')},
        {"base_values": np.zeros(9)},
        {"target_index": np.array(3)},
        {"target_index": np.zeros((5, 4))},
        {"completeness_error": np.zeros(5)},
        {"labels": np.array(["a", "b"])},
        {"labels": np.array(3)},
        {"values/x": np.array(3.0)},
        {"values/x": np.array(["a"] * 5)},
    ],
)
def test_damaged_files_of_explanations(change: dict[str, Any], tmp_path: Path) -> None:
    explained("all").save(tmp_path / "e.npz")
    np.savez(tmp_path / "d.npz", **{**np.load(tmp_path / "e.npz"), **change})
    with pytest.raises(UserError, match=r"d.npz: .*give a file that Explanation.save wrote"):
        irshap.Explanation.load(tmp_path / "d.npz")


def test_a_few_lines() -> None:
    lines = repr(explained()).splitlines()
    assert lines[0] == "Explanation of 5 samples: x [3]"
    assert len(lines) == 6
    first = explained().records()[0]
    assert lines[1].startswith(
        f"  0: {first['target']}, {first['prediction']:.6g} = {first['base_value']:.6g} "
    )
    assert max(map(len, lines)) < 100
    many = irshap.Explainer(table())(np.zeros((200, 3), np.float32))
    assert repr(many).splitlines()[-1] == "  ... 190 more"
    assert "attributions sum to" in repr(explained(method="gradient"))
    assert repr(two()).startswith("Explanation of 3 samples: image [1, 8, 8], features [6]\n  0: 3, ")
    assert repr(explained()[0]).startswith("Explanation of 1 sample:")


def test_a_table_of_html() -> None:
    class Cells(HTMLParser):
        rows = 0
        text = ""

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.rows += tag == "tr"

        def handle_data(self, data: str) -> None:
            self.text += f"{data}|"

    for found, rows in (
        (explained(), 5),
        (explained("all"), 10),
        (two(), 6),
        (explained(method="gradient"), 5),
    ):
        cells = Cells()
        cells.feed(found._repr_html_())
        assert cells.rows == 1 + rows
    page = explained()
    largest = NAMES["features"][int(np.abs(page.values[0]).argmax())]
    assert f"<td>{largest} " in page._repr_html_()
    risky = irshap.Explainer(table(), names={"features": ["<b>", "&", "c"], "classes": ["<script>"] * 4})
    text = risky(ROWS)._repr_html_()
    assert "<script>" not in text and "<b>" not in text and "&lt;b&gt;" in text


def test_texts_of_tokens() -> None:
    data = np.load(FIXTURES / "families" / "text.npz")
    compiled = irshap.compile(FIXTURES / "families" / "text_torchscript.onnx", data["references.tokens"])
    words = [f"word{i}" for i in range(3)]
    found = irshap.Explainer(compiled, names={"tokens": words})(data["inputs.tokens"])
    ids = data["inputs.tokens"]
    assert found.tokens()[1].tolist() == [words[i] if i < 3 else str(i) for i in ids[1]]
    with pytest.raises(UserError, match=r"'x' is no input of token ids"):
        explained().tokens()


def test_an_explainer_goes_to_other_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table().save(tmp_path / "e.onnx")
    monkeypatch.chdir(tmp_path)
    explainer = irshap.Explainer("e.onnx", names={"classes": ["a", "b", "c", "d"]})
    monkeypatch.chdir("/")
    again = pickle.loads(pickle.dumps(explainer))
    same(again(ROWS), explainer(ROWS))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        parts = list(pool.map(explainer.__call__, [ROWS[i : i + 1] for i in range(5)]))
    found = np.concatenate([part.values for part in parts])
    np.testing.assert_allclose(found, explainer(ROWS).values, atol=1e-6)
    with pytest.raises(
        UserError, match=r"can't be pickled. save the model, and make the Explainer of its path"
    ):
        pickle.dumps(irshap.Explainer(table()))


def test_a_saved_explanation_has_the_rights_of_any_file(tmp_path: Path) -> None:
    """It is written beside and moved: private only until then."""
    explanation = explained()
    explanation.save(tmp_path / "e.npz")
    (tmp_path / "plain").touch()
    assert (tmp_path / "e.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode

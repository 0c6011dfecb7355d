"""Names that irshap uses itself are the model's own where the model has them, and are never misread."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import irshap
from irshap import contract
from irshap.contract import Metadata, Tensors, free
from irshap.errors import ModelError
from irshap.lowering import lift, lower
from irshap.training import train_step

PLAIN = """<ir_version: 10, opset_import: ["": 17]>
g (float[N,3] x, float[N,3] c, float[N,3] d) => (float[N,3] y, float[N,3] z, float[N] s)
<int64[1] last = {1}> {
    p = Mul(x, c)
    q = Add(p, d)
    y = Tanh(q)
    z = Exp(x)
    s = ReduceSum<keepdims = 0>(d, last)
}"""
X, C, D = np.random.default_rng(0).normal(size=(3, 4, 3)).astype(np.float32)
REFERENCES = np.zeros((2, 3), np.float32)
EMIT = "deeplift{emit=completeness_error}"
INPUTS = [
    "target",
    "x_references",
    "reference_weights",
    "x_attributions",
    "base_values",
    "completeness_error",
]
OUTPUTS = ["base_values", "x_attributions", "target_index", "target_value", "completeness_error", "x_adjoint"]
OUTPUTS += ["y_attributions", "x_references", "target", "x_source", "fixed_0"]


def renamed(**names: str) -> onnx.ModelProto:
    """The model with other names for some of its tensors."""
    model = parser.parse_model(PLAIN)
    for node in model.graph.node:
        node.input[:] = [names.get(n, n) for n in node.input]
        node.output[:] = [names.get(n, n) for n in node.output]
    for value in (*model.graph.input, *model.graph.output):
        value.name = names.get(value.name, value.name)
    return model


def explained(model: onnx.ModelProto, context: str, weights: Any = None, **given: Any) -> Any:
    target = irshap.Target(given.pop("target", "1"), context=context)
    return irshap.compile(model, irshap.References(REFERENCES, weights), target=target, method=EMIT, **given)


def same(found: Any, expected: Any, **names: str) -> None:
    for what in ("values", "base_values", "target_index", "target_values", "completeness_error"):
        np.testing.assert_array_equal(getattr(found, what), getattr(expected, what), what)
    assert set(found.outputs) == {names.get(n, n) for n in ("y", "z", "s")}
    for name in ("y", "z", "s"):
        np.testing.assert_array_equal(found.outputs[names.get(name, name)], expected.outputs[name], name)


@cache
def plain(passes: str | None) -> Any:
    return explained(renamed(), "c,d", passes=passes).explainer()({"x": X, "c": C, "d": D})


@pytest.mark.parametrize("name", INPUTS)
def test_an_input_of_that_name_stays_the_models(name: str) -> None:
    for passes in (None, "@naive") if name == "x_references" else (None,):
        compiled = explained(renamed(c=name), f"{name},d", passes=passes)
        assert [v.name for v in compiled.model.graph.input] == ["x", name, "d"]
        explainer = compiled.explainer()
        same(explainer({"x": X, name: C, "d": D}), plain(passes))
        same(explainer(X, **{name: C, "d": D}), plain(passes))
        assert explainer.attributed == ("x",)


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_of_that_name_stays_the_models(name: str) -> None:
    for own, passes in (("y", None), ("z", "@naive")):
        compiled = explained(renamed(**{own: name}), "c,d", passes=passes)
        same(compiled.explainer()({"x": X, "c": C, "d": D}), plain(passes), **{own: name})
        assert compiled.model.graph.output["yzs".index(own)].name == name


def test_an_attributed_input_of_that_name() -> None:
    all_three = irshap.compile(renamed(), dict.fromkeys("xcd", REFERENCES), target=0).explainer()
    expected = all_three({"x": X, "c": C, "d": D})
    for name in INPUTS[:4]:
        other = irshap.compile(
            renamed(c=name), dict.fromkeys(("x", name, "d"), REFERENCES), target=0
        ).explainer()
        found = other({"x": X, name: C, "d": D})
        assert list(found.values) == ["x", name, "d"]
        np.testing.assert_array_equal(found.values[name], expected.values["c"])
        np.testing.assert_array_equal(found.base_values, expected.base_values)


def test_run_time_inputs_get_free_names() -> None:
    steps = "lift,canonicalize,target{target=input},autodiff,deeplift{weights=true},dce,lower"
    names = {"c": "target", "d": "x_references", "s": "reference_weights"}
    model = renamed(**names)
    compiled = irshap.compile(
        model, target=irshap.Target("input", context="target,x_references"), passes=steps
    )
    explainer = compiled.explainer()
    added = ("target_1", "x_references_1", "reference_weights_1")
    assert explainer.input_names == ("x", "target", "x_references", *added)
    ours = {"target_1": np.array([0, 1, 2, 0]), "x_references_1": REFERENCES}
    found = explainer(x=X, target=C, x_references=D, reference_weights_1=np.float32([0.5, 0.5]), **ours)
    assert found.target_index.tolist() == [0, 1, 2, 0]
    picked = np.tanh(X * C + D)[np.arange(4), found.target_index]
    np.testing.assert_allclose(found.base_values + found.total(), picked, atol=1e-6)
    assert set(found.outputs) == {"y", "z", "reference_weights"}


def test_the_command_line_finds_the_target(tmp_path: Any) -> None:
    from irshap.cli import main

    file, data = tmp_path / "e.onnx", tmp_path / "x.npz"
    explained(renamed(c="target"), "target,d", target="input").save(file)
    np.savez(data, x=X, target=C, d=D)
    assert main(["run", str(file), str(data), "--target", "2", "--max-error", "1e-4"]) == 0


def test_an_explained_file_is_not_explained_again() -> None:
    """It would get a second set of attributions, by names with a 1, and a user would read the first."""
    once = explained(renamed(), "c,d").model
    given = (once, once.SerializeToString())
    says = "^the model is already explained. give the model that it was compiled from"
    for model in given:
        with pytest.raises(ModelError, match=says):
            irshap.compile(model, REFERENCES)
        with pytest.raises(ModelError, match=says):
            irshap.compile(model, method="feature-ablation", target=0)
        with pytest.raises(ModelError, match=says):
            train_step(model, loss="mse")
    # it is read and written as any other model
    assert [o.name for o in lower(lift(once)).graph.output] == [o.name for o in once.graph.output]


def test_what_says_nothing_of_being_explained_can_be_explained_again() -> None:
    """A model may have outputs of all these names, each of which it keeps."""
    once = explained(renamed(), "c,d")
    stripped = onnx.ModelProto()
    stripped.CopyFrom(once.model)
    del stripped.metadata_props[:]
    twice = explained(stripped, "c,d")
    feed = {"x": X, "c": C, "d": D}
    first, second = once.explainer()(feed), twice.explainer()(feed)
    assert set(first.raw) <= set(second.outputs)
    np.testing.assert_array_equal(second.values, first.values)
    np.testing.assert_array_equal(second.outputs["x_attributions"], first.values)


def test_names_that_say_all_are_not_written_down() -> None:
    keys = {p.key for p in explained(renamed(), "c,d").model.metadata_props}
    assert Metadata.TENSORS not in keys
    plain = lower(lift(renamed(z="x_attributions")))
    assert not plain.metadata_props
    with pytest.raises(ModelError, match="returns no attributions"):
        irshap.Explainer(explained_without_attributions())


def explained_without_attributions() -> onnx.ModelProto:
    model = renamed(z="x_attributions")
    text = Tensors(base_values="y").to_text()
    model.metadata_props.add(key=Metadata.TENSORS, value=text)
    return model


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "[" * 100_000),
        *('{"other": "x"}', '{"target": {}}', '{"attributions": []}', '{"attributions": null}'),
        '{"attributions": {"x": 3}}',
    ],
    ids=str.__len__,
)
def test_damaged_metadata_is_refused(text: str) -> None:
    model = renamed()
    model.metadata_props.add(key=Metadata.TENSORS, value=text)
    with pytest.raises(ModelError, match=r"irshap\.tensors is damaged"):
        irshap.Explainer(model)


def test_metadata_of_another_file_is_refused() -> None:
    model = renamed()
    helper.set_model_props(model, {Metadata.TENSORS: Tensors({"x": "nowhere"}).to_text()})
    with pytest.raises(ModelError, match=r"names tensors that it hasn't: \['nowhere'\]"):
        irshap.Explainer(model)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (Tensors({"x": "y"}, references={"x": "x"}), "input 'x' should take references, and has no axis R"),
        (
            Tensors({"x": "y"}, base_values="z", target_index="i"),
            r"don't fit together: i int64 \[4\], z float32",
        ),
        (Tensors({"x": "y"}, target_index="s"), r"don't fit together: s float32 \[4\]"),
        (Tensors({"x": "w"}, target_index="i"), r"don't fit together: .*w float32 \[3\]"),
        (Tensors({"x": "y"}, base_values="z"), "don't fit together: z"),
        (Tensors({"x": "y"}, target_index="i"), "it tells of a class 7, and its output has 3"),
    ],
)
def test_metadata_that_misleads_is_refused(tensors: Tensors, message: str) -> None:
    """It names tensors that are there, but are no such things."""
    model = parser.parse_model("""<ir_version: 10, opset_import: ["": 17]>
        g (float[N,3] x) => (float[N,3] y, float[N,3] z, float[N] s, int64[N] i, float[3] w)
        <int64[1] last = {1}, int64[1] first = {0}, int64 seven = {7}> {
            y = Tanh(x)
            z = Exp(x)
            s = ReduceSum<keepdims = 0>(x, last)
            w = ReduceSum<keepdims = 0>(x, first)
            r = Sub(s, s)
            j = Cast<to = 7>(r)
            i = Add(j, seven)
        }""")
    told = {Metadata.TENSORS: tensors.to_text(), Metadata.EXPLAINED_OUTPUT: "z"}
    helper.set_model_props(model, told)
    with pytest.raises(ModelError, match=message):
        irshap.Explainer(model)(X)


def test_tensors_as_text() -> None:
    given = Tensors(
        {"x": "x_attributions_1"}, base_values="b", target_index="t", target="target_1", references={"x": "r"}
    )
    assert Tensors.from_text(given.to_text()) == given
    assert given.outputs == {"x_attributions_1", "b", "t"}
    assert given.inputs == {"target_1", "r"}
    assert Tensors.by_name(["x", "x_references"], ["y", contract.BASE_VALUES]).references == {
        "x": "x_references"
    }
    assert [free("a", {"a", "a_1"}), free("b", {"a"})] == ["a_2", "b"]

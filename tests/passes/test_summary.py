"""Summaries in the file, against numpy on the Explanation of the same file."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx.parser
import onnxruntime
import pytest
from exactness import case
from onnx import numpy_helper
from shells import Shell

import irshap
from irshap import demo
from irshap.errors import IrshapError, ModelError, PipelineError, UserError
from irshap.ir.types import Array
from irshap.passes.summary import Summary

REFERENCES = np.load(demo.references_path())[:4]
IMAGES = demo.digits()[0]
GROUPS = np.array([7, 2, 7, -1])[np.arange(64).reshape(8, 8) // 16]
ALL = "top=5,sum=(1,-1),groups=true,normalize=max,heatmap=(13,5)"


def bilinear(picture: Array, size: tuple[int, int]) -> Array:
    """A picture [H, W] of another size; centres of pixels on centres, edges repeated."""

    def along(array: Array, new: int) -> Array:
        old = array.shape[0]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        part = (at - low)[:, None]
        return np.asarray(array[low] * (1 - part) + array[np.minimum(low + 1, old - 1)] * part)

    return along(along(picture, size[0]).T, size[1]).T


def check(values: Array, raw: dict[str, Array], rows: int, name: str = "image") -> None:
    """Each summary of attributions [..., C, H, W] whose first axes are samples and classes."""
    for place in np.ndindex(values.shape[:rows]):
        a = values[place].astype(np.float64)
        top = np.argsort(-np.abs(values[place].ravel()), kind="stable")[:5]
        np.testing.assert_array_equal(raw[f"{name}_top_indices"][place], top)
        np.testing.assert_array_equal(raw[f"{name}_top_values"][place], values[place].ravel()[top])
        np.testing.assert_allclose(raw[f"{name}_sums"][place], a.sum(axis=(0, 2)), atol=1e-5)
        whole = np.broadcast_to(GROUPS, a.shape)
        sums = [a[whole == group].sum() for group in (-1, 2, 7)]
        np.testing.assert_allclose(raw[f"{name}_group_sums"][place], sums, atol=1e-5)
        np.testing.assert_allclose(raw[f"{name}_normalized"][place], a / np.abs(a).max(), atol=1e-6)
        picture = bilinear(a.sum(axis=0), (13, 5))
        wanted = 128 + 127 * picture / np.abs(picture).max()
        found = raw[f"{name}_heatmap"][place]
        assert found.dtype == np.uint8
        assert np.abs(found - wanted).max() < 0.501  # halves may round to either side
        assert {found.min(), found.max()} & {1, 255}


@pytest.mark.parametrize("device", ["cpu", "any"])
@pytest.mark.parametrize(("target", "rows"), [("argmax", 1), ("top-2", 2)])
def test_it_is_what_numpy_makes_of_the_explanation(target: str, rows: int, device: str) -> None:
    compiled = irshap.compile(
        demo.model_path(), REFERENCES, target=target, groups=GROUPS, summary=ALL, device=device
    )
    found = compiled.explainer()(IMAGES[:3])
    check(found.values, found.raw, rows)
    assert list(found.outputs) == ["logits"]
    without = irshap.compile(demo.model_path(), REFERENCES, target=target, device=device).explainer()
    np.testing.assert_array_equal(found.values, without(IMAGES[:3]).values)


def test_with_a_fixed_batch_and_weights_of_a_path_method() -> None:
    model = irshap.Model(demo.model_path(), batch=1)
    method = "integrated-gradients{steps=3}"
    compiled = irshap.compile(model, REFERENCES, method=method, groups=GROUPS, summary=ALL)
    found = compiled.explainer()(IMAGES[:3])
    check(found.values, found.raw, 1)


def test_the_sum_of_sizes() -> None:
    summary = Summary(normalize="sum", heatmap=(0, 0))
    found = irshap.compile(demo.model_path(), REFERENCES, summary=summary).explainer()(IMAGES[:2])
    np.testing.assert_allclose(np.abs(found.raw["image_normalized"]).sum(axis=(1, 2, 3)), 1, rtol=1e-5)
    assert found.raw["image_heatmap"].shape == (2, 8, 8)


def test_nothing_is_attributed() -> None:
    summary = "normalize=max,heatmap=(4,4)"
    explainer = irshap.compile(demo.model_path(), REFERENCES[:1], summary=summary).explainer()
    found = explainer(REFERENCES[:1])
    assert not found.values.any()
    assert not found.raw["image_normalized"].any()
    assert (found.raw["image_heatmap"] == 128).all()


def test_channels_last_are_summed() -> None:
    graph = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 6, 5, 3] x) => (float[N, 2] y)
    <float[90, 2] w> { f = Flatten(x) y = MatMul(f, w) }"""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(graph)
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=(90, 2)).astype(np.float32), "w"))
    x = rng.normal(size=(2, 6, 5, 3)).astype(np.float32)
    found = irshap.compile(model, x[:1] * 0, summary="heatmap=(0,0)").explainer()(x)
    summed = found.values.sum(axis=3)
    wanted = 128 + 127 * summed / np.abs(summed).max(axis=(1, 2), keepdims=True)
    assert np.abs(found.raw["x_heatmap"] - wanted).max() < 0.501


def test_several_inputs_and_tokens() -> None:
    pair = case("two_inputs")
    found = irshap.compile(pair.path, pair.references, summary="top=2").explainer()(pair.inputs)
    for name, values in found.values.items():  # type: ignore[union-attr]
        flat = values.reshape(len(values), -1)
        order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :2]
        np.testing.assert_array_equal(found.raw[f"{name}_top_indices"], order)
    text = case("text_torchscript")
    tokens = irshap.compile(text.path, text.references, summary="top=3").explainer()(text.inputs)
    order = np.argsort(-np.abs(tokens.values), axis=1, kind="stable")[:, :3]
    np.testing.assert_array_equal(tokens.raw["tokens_top_indices"], order)


def test_attributions_may_be_left_out() -> None:
    compiled = irshap.compile(demo.model_path(), REFERENCES, summary="heatmap=(8,8),keep=false")
    session = onnxruntime.InferenceSession(bytes(compiled), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    assert names == ["logits", "base_values", "target_index", "image_heatmap"]
    kept = irshap.compile(demo.model_path(), REFERENCES, summary="heatmap=(8,8)").explainer()
    found = dict(zip(names, session.run(None, {"image": IMAGES[:2]}), strict=True))
    np.testing.assert_array_equal(found["image_heatmap"], kept(IMAGES[:2]).raw["image_heatmap"])
    with pytest.raises(ModelError, match="returns no attributions"):
        compiled.explainer()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"summary": "top=65"}, "no top 65 of 64"),
        ({"summary": "top=-1"}, "no top -1"),
        ({"summary": "sum=(4)"}, "the axes 1 to 3"),
        ({"summary": "sum=(0)"}, "the axes 1 to 3"),
        ({"summary": "groups=true"}, "no groups are given"),
        ({"summary": "groups=true", "groups": np.zeros((5, 5), int)}, r"\[5, 5\]"),
        ({"summary": "groups=true", "groups": np.zeros(8)}, "number the groups with integers"),
        ({"summary": "groups=true", "groups": {"picture": np.zeros(8, int)}}, "no attributed input"),
        ({"summary": "top=1", "groups": GROUPS}, "replaces no groups"),
        ({"summary": "best=3"}, "best"),
        ({"summary": "top=1},dce{"}, "no summary"),
        ({"summary": "heatmap=3"}, "heatmap"),
        ({"summary": "heatmap=(0,5)"}, r"no heat map has the size \(0, 5\)"),
        ({"summary": "heatmap=(-1,3)"}, r"no heat map has the size \(-1, 3\)"),
        ({"summary": "heatmap=(99999999999,5)"}, "from 1 to 16384"),
        ({"summary": "keep=false"}, "nothing is left of attributions"),
        ({"summary": "top=1", "passes": "@default{before=(lower, summary)}"}, "have summary already"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, PipelineError), match=message):
        irshap.compile(demo.model_path(), REFERENCES, **arguments)


def test_tokens_have_no_heat_map() -> None:
    text = case("text_torchscript")
    with pytest.raises(IrshapError, match="has no heat map"):
        irshap.compile(text.path, text.references, summary="heatmap=(0,0)")


def test_on_the_command_line(shell: Shell) -> None:
    np.save("r.npy", REFERENCES)
    np.save("g.npy", GROUPS)
    given = ("compile", demo.model_path(), "-r", "r.npy", "-o", "e.onnx")
    printed = shell.ok(*given, "--summary", "top=3,groups=true", "--groups", "g.npy")
    assert "image_top_indices : i64[N, 3]" in printed
    assert "image_group_sums : f32[N, 3]" in printed
    assert "no top 300 of 64" in shell.refused(*given, "--summary", "top=300")

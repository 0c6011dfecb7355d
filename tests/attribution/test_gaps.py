"""Ops without a complete rule: refused with node, op and reason, or their gap reported; never silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.cli import main
from irshap.errors import NotDifferentiable, PipelineError

PIPELINES = ("@naive", "@default")
WEIGHTS = """
    w = Constant <value = float[3,2] {1, -2, 3, 0.5, 2, 1}> () half = Constant <value = float {0.5}> ()
    turn = Constant <value = int64[3] {1, 2, 0}> () t = Gather <axis = 1> (x, turn)
    u = Gather <axis = 1> (t, turn) last = Constant <value = int64[1] {1}> ()
"""
X = np.float32([[0.2, 0.9, -1.4], [1.6, -0.3, 0.4], [0.1, 0.2, 0.3]])
R = np.float32([[0.1, 1.3, -0.2], [-0.7, 0.2, 0.6]])

CASES = {
    "integers that are added up": (
        """i = Cast <to = 7> (x) n = ReduceSum (i, last) f = Cast <to = 1> (n)
        s = Add (f, x) y = MatMul (s, w)""",
        "i",
        "its result jumps .i64",
    ),
    "a condition on two others": (
        "c = Greater (t, u) n = Neg (x) s = Where (c, x, n) y = MatMul (s, w)",
        "c",
        "a comparison jumps",
    ),
    "three that are compared": (
        """c = Greater (x, t) d = Greater (t, u) e = Or (c, d) z = Constant <value = float {0}> ()
        s = Where (e, half, z) y = MatMul (s, w)""",
        "c",
        "a comparison jumps",
    ),
    "a position": (
        "i = ArgMax <axis = 1> (x) f = Cast <to = 1> (i) s = Add (f, x) y = MatMul (s, w)",
        "i",
        "a position jumps",
    ),
}


def model(body: str) -> onnx.ModelProto:
    head = '<ir_version: 8, opset_import: ["" : 17]> toy (float[N,3] x) => (float[N,2] y)'
    parsed = onnx.parser.parse_model(f"{head} {{ {WEIGHTS} {body} }}")
    onnx.checker.check_model(parsed)
    return parsed


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("passes", PIPELINES)
def test_refused_with_node_op_and_reason(name: str, passes: str) -> None:
    body, node, reason = CASES[name]
    with pytest.raises(NotDifferentiable, match=rf"^{node} \(.*({reason}).*on-incomplete=residual"):
        irshap.compile(model(body), R, passes=passes)


@pytest.mark.parametrize("name", CASES)
def test_or_reported(name: str) -> None:
    body, node, _ = CASES[name]
    errors, values = [], []
    for passes in PIPELINES:
        compiled = flat.compile(model(body), R, passes=passes, on_incomplete="residual", verify="types")
        found = compiled.explainer()(X)
        gap = found.target_values.astype(np.float64) - found.base_values - found.values.sum(1)
        np.testing.assert_allclose(found.raw["completeness_error"], gap, atol=1e-5)
        assert np.abs(gap).max() > 0.01
        metadata = {p.key: p.value for p in compiled.model.metadata_props}
        listed = json.loads(metadata["irshap.incomplete"])
        assert any(e["where"].startswith(f"{node} (") for e in listed), listed
        assert len({e["where"] for e in listed}) == len(listed), listed
        errors.append(gap)
        values.append(found.values)
    np.testing.assert_allclose(errors[0], errors[1], atol=1e-5)
    np.testing.assert_allclose(values[0], values[1], atol=1e-5)


def test_only_what_jumps_is_lost() -> None:
    """Rows whose condition is the same in both worlds stay complete."""
    body = CASES["a condition on two others"][0]
    x = np.float32([[0.2, 0.3, -1.4], [1.6, 0.7, 0.9]])
    found = flat.compile(model(body), x[:1], on_incomplete="residual").explainer()(x)
    assert abs(found.completeness_error[0]) < 1e-6 < abs(found.completeness_error[1])


def test_a_complete_model_stays_as_it_is() -> None:
    body = "s = Sigmoid (x) y = MatMul (s, w)"
    plain, loose = (flat.compile(model(body), R, on_incomplete=way) for way in ("error", "residual"))
    assert [o.name for o in plain.model.graph.output] == [o.name for o in loose.model.graph.output]
    assert "irshap.incomplete" not in {p.key for p in loose.model.metadata_props}


def test_a_gradient_takes_jumps_as_flat() -> None:
    """A derivative doesn't see them, as in torch: a `where` passes on what its condition picks."""
    compiled = irshap.compile(model(CASES["a condition on two others"][0]), method="gradient", target=0)
    weights = np.float32([1, 3, 2])
    signs = np.where(np.roll(X, -1, 1) > np.roll(X, -2, 1), 1, -1)
    np.testing.assert_allclose(compiled.explainer()(X).values, signs * weights)


def test_other_values_of_the_option() -> None:
    with pytest.raises(PipelineError, match=r"can't be zero. it takes error.residual"):
        flat.compile(model("y = MatMul (x, w)"), R, on_incomplete="zero")
    with pytest.raises(
        PipelineError,
        match="on_incomplete=residual is no option of the method gradient",
    ):
        flat.compile(model("y = MatMul (x, w)"), method="gradient", on_incomplete="residual")


def test_the_command_line_warns(tmp_path: Path, capsys: Any) -> None:
    onnx.save(model(CASES["a condition on two others"][0]), tmp_path / "m.onnx")
    np.save(tmp_path / "r.npy", R)
    args = [
        "compile",
        str(tmp_path / "m.onnx"),
        "-r",
        str(tmp_path / "r.npy"),
        "-o",
        str(tmp_path / "o.onnx"),
    ]
    assert main(args) == 2
    assert "on-incomplete" in capsys.readouterr().err
    assert main([*args, "--on-incomplete", "residual"]) == 0
    printed = capsys.readouterr()
    assert "warning: attributions leave out what c (" in printed.err
    assert "completeness_error" in printed.out

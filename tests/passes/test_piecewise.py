"""Functions of one number that models spell out by choices and steps: each gets exactly what it adds."""

from __future__ import annotations

from typing import Any

import flat
import numpy as np
import onnx
import onnx.parser
import pytest

import irshap
from irshap.errors import NotDifferentiable
from irshap.ir.evaluator import evaluate
from irshap.ops.piecewise import Piecewise
from irshap.pipeline.manager import PassManager
from irshap.pipeline.named import PIPELINES
from irshap.text import parse_graph, print_graph

NUMBERS = {"zero": 0, "one": 1, "two": 2, "half": 0.5, "low": -0.5, "twenty": 20, "third": 0.3, "ten": 10}

FORMS = {
    "softplus": (
        "c = Greater (x, twenty) e = Exp (x) s = Add (one, e) l = Log (s) f = Where (c, x, l)",
        "softplus",
    ),
    "softplus op": ("c = Greater (x, twenty) l = Softplus (x) f = Where (c, x, l)", "softplus"),
    "softplus, other way": (
        "e = Exp (x) s = Add (e, one) l = Log (s) c = LessOrEqual (x, twenty) f = Where (c, l, x)",
        "softplus",
    ),
    "softplus with a gap": (
        "v = Mul (x, two) c = Greater (v, half) s = Softplus (v) l = Div (s, two) f = Where (c, x, l)",
        "piecewise",
    ),
    "elu": (
        "c = Greater (x, zero) e = Exp (x) s = Sub (e, one) l = Mul (s, half) f = Where (c, x, l)",
        "elu",
    ),
    "elu of scaled": ("c = Less (zero, x) v = Mul (x, two) s = Elu (v) f = Where (c, x, s)", "piecewise"),
    "relu": ("c = Less (x, zero) f = Where (c, zero, x)", "relu"),
    "leaky relu": ("c = GreaterOrEqual (x, zero) l = Mul (third, x) f = Where (c, x, l)", "leaky_relu"),
    "threshold": ("c = Greater (x, half) f = Where (c, x, zero)", "thresholded_relu"),
    "threshold, closed": ("c = GreaterOrEqual (x, half) f = Where (c, x, zero)", "piecewise"),
    "threshold, another value": ("c = LessOrEqual (x, half) f = Where (c, twenty, x)", "piecewise"),
    "bounded above": ("c = Greater (x, half) f = Where (c, half, x)", "clip"),
    "bounded below": ("c = Greater (x, low) f = Where (c, x, low)", "clip"),
    "hard shrink": ("a = Abs (x) c = LessOrEqual (a, half) f = Where (c, zero, x)", "piecewise"),
    "hard shrink by or": (
        "u = Greater (x, half) d = Less (x, low) c = Or (u, d) f = Where (c, x, zero)",
        "piecewise",
    ),
    "soft shrink": (
        """a = Abs (x) c = Greater (a, half) s = Sign (x) h = Mul (s, half) d = Sub (x, h)
        z = Mul (x, zero) f = Where (c, d, z)""",
        "piecewise",
    ),
    "clipped in two steps": (
        "c = Greater (x, half) u = Where (c, half, x) d = Less (x, low) f = Where (d, low, u)",
        "piecewise",
    ),
    "huber": (
        """a = Abs (x) c = Less (a, half) q = Mul (x, x) h = Mul (q, half) l = Mul (a, half) k = Sub (l, half)
        f = Where (c, h, k)""",
        "piecewise",
    ),
    "mask times number": ("c = Greater (x, half) m = Cast <to = 1> (c) f = Mul (x, m)", "piecewise"),
    "floor": ("f = Floor (x)", "piecewise"),
    "sign": ("f = Sign (x)", "piecewise"),
    "round and back": ("d = Mul (x, ten) r = Round (d) f = Div (r, ten)", "piecewise"),
    "truncated by a cast": ("i = Cast <to = 7> (x) f = Cast <to = 1> (i)", "piecewise"),
    "fraction": ("f = Mod <fmod = 1> (x, half)", "piecewise"),
    "root where positive": ("c = Greater (x, zero) r = Sqrt (x) f = Where (c, r, zero)", "piecewise"),
    "sinc": ("c = Equal (x, zero) s = Sin (x) q = Div (s, x) f = Where (c, one, q)", "piecewise"),
    "no infinity": (
        "e = Exp (x) l = Log (e) i = IsInf (l) f = Where (i, x, l)",
        "piecewise",
    ),
    "softplus as logaddexp": (
        """d = Sub (x, zero) i = IsNaN (d) m = Max (x, zero) a = Abs (d) n = Neg (a) e = Exp (n)
        p = Add (e, one) l = Log (p) s = Add (m, l) t = Add (x, zero) f = Where (i, t, s)""",
        "piecewise",
    ),
    "only what is finite": (
        "i = IsInf (x) j = IsNaN (x) o = Or (i, j) n = Not (o) f = Where (n, x, zero)",
        "piecewise",
    ),
    "by channel": (
        "t = Constant <value = float[4] {0.5, -0.5, 1, 0}> () c = Greater (x, t) f = Where (c, x, t)",
        "piecewise",
    ),
    "many bounds": (
        """b = Constant <value = float[3,1] {0.5, -0.5, 1}> () v = Unsqueeze (x, middle) c = Greater (v, b)
        m = Cast <to = 1> (c) f = ReduceSum <keepdims = 0> (m, middle)""",
        "piecewise",
    ),
}
"""What computes f from x, float[N, 4], and the op that stands for it."""

X = np.array([[-30.0, -1.5, -0.25, 0.0], [0.25, 0.5, 0.75, 30.0], [100.0, -0.5, 3.0, 19.9]])
R = {
    "other": np.array([[-0.75, 2.5, 0.25, -0.1], [40.0, -0.5, 0.5, 20.1]]),
    "the same": X[:1],
    "nearly the same": X[:1] + np.array([[1e-9, -1e-9, 1e-12, 1e-9]]),
    "zero": np.zeros((1, 4)),
}


def model(body: str, *, outputs: int = 1, end: str = "") -> onnx.ModelProto:
    """y = the sum of f's elements, so that each gets what it adds."""
    parsed = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> toy (float[N,4] x) => (float[N,1] y)
        {{ {body} {end or "y = ReduceSum <keepdims = 1> (f, middle)"} }}"""
    )
    for name, number in NUMBERS.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(np.array(number, np.float32), name))
    turn = np.float32([[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, -1], [0.5, 0, 0, 0]])
    arrays = {"middle": np.array([1]), "turn": turn, "flat": np.diag(np.float32([1, 0, 0.5, 1]))}
    for name, array in arrays.items():
        parsed.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(parsed)
    return parsed


def wide(passes: str) -> str:
    """A pipeline in float64, to its last graph."""
    return PIPELINES[passes].replace("lift,", "lift,widen,").removesuffix(",lower")


def function(body: str, x: Any) -> Any:
    """f of the elements of x."""
    graph = PassManager.from_text("lift,widen,canonicalize").run(model(body, end="y = Identity (f)"))
    return evaluate(graph, {"x": x})["y"]


@pytest.mark.parametrize("name", FORMS)
def test_what_it_becomes(name: str) -> None:
    graph = PassManager.from_text("lift,target,canonicalize,piecewise").run(model(FORMS[name][0]))
    assert FORMS[name][1] in [node.op.mnemonic for node in graph.nodes]
    assert print_graph(parse_graph(print_graph(graph))) == print_graph(graph)


@pytest.mark.parametrize("values", R)
@pytest.mark.parametrize("name", FORMS)
def test_each_element_gets_what_it_adds(name: str, values: str) -> None:
    body, r = FORMS[name][0], R[values]
    share = (function(body, X)[:, None] - function(body, r)[None]).mean(1)
    for passes in ("naive", "default"):
        graph = flat.run_passes(wide(passes), model(body), r)
        found = evaluate(graph, {"x": X})["x_attributions"]
        np.testing.assert_allclose(found, share, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", FORMS)
def test_complete_in_float32(name: str) -> None:
    x, r = X.astype(np.float32), R["other"].astype(np.float32)
    for how in ({"passes": "@naive"}, {}, {"device": "cuda"}, {"strategy": "recompute"}, {"fp16": True}):
        found = irshap.compile(model(FORMS[name][0]), r, **how).explainer()(x)
        scale = np.abs(found.values).sum(1) + np.abs(found.target_values)
        loose = 1e-2 if "fp16" in how else 1e-5
        assert np.all(np.abs(found.completeness_error) <= loose * scale), how


@pytest.mark.parametrize("name", FORMS)
def test_the_derivative_is_that_of_the_piece(name: str) -> None:
    """Also where another piece, which wasn't chosen, has none that is finite."""
    body = FORMS[name][0]
    x = X + np.float64(1e-3)
    graph = flat.run_passes(wide("gradient"), model(body), None)
    found = evaluate(graph, {"x": x})["x_attributions"]
    h = 1e-6
    np.testing.assert_allclose(
        found, (function(body, x + h) - function(body, x - h)) / (2 * h), atol=1e-6, rtol=1e-6
    )


def test_no_digits_are_lost_near_the_sample() -> None:
    """The quotient of differences would be wrong by a tenth here."""
    body, x = FORMS["softplus with a gap"][0], np.float32([[-0.1, -0.3, 3.0, -2.0]])
    found = irshap.compile(model(body), x - np.float32(1e-6)).explainer()(x)
    slope = np.where(x > 0.25, 1.0, 1 / (1 + np.exp(-2 * x.astype(np.float64))))
    d = x.astype(np.float64) - (x - np.float32(1e-6))
    np.testing.assert_allclose(found.values / d, slope, rtol=1e-4)


def test_ops_without_jumps_stay_as_they_are() -> None:
    body = "c = Greater (zero, one) s = Softplus (x) g = Sigmoid (x) f = Where (c, s, g)"
    before = PassManager.from_text("lift,target,canonicalize").run(model(body))
    assert PassManager.from_text("piecewise").run(before) is before


PAIRS = {
    "the larger": "v = MatMul (x, turn) c = Greater (x, v) f = Where (c, x, v)",
    "one as a mask": "v = MatMul (x, turn) c = Greater (v, half) f = Where (c, x, zero)",
    "no division by zero": "v = MatMul (x, flat) c = Equal (v, zero) d = Div (x, v) f = Where (c, zero, d)",
    "no division by zero, broadcast": """v = ReduceSum <keepdims = 1> (x, middle) c = Equal (v, zero)
        d = Div (x, v) f = Where (c, zero, d)""",
    "not a number": "v = Mul (x, zero) d = Div (v, x) i = IsNaN (d) f = Where (i, half, d)",
    "a quotient that isn't one": """q = Mul (x, x) v = ReduceSum <keepdims = 1> (q, middle) d = Div (x, v)
        i = IsNaN (d) f = Where (i, zero, d)""",
    "a remainder": "v = MatMul (x, turn) a = Abs (v) d = Add (a, half) f = Mod <fmod = 1> (x, d)",
    "both, and a number between": """v = MatMul (x, turn) p = Mul (x, v) c = Greater (p, half) s = Add (x, v)
        f = Where (c, p, s)""",
}
ZEROS = np.array([[0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 2.0, -2.0], [0.5, 0.25, 0.0, -0.75]])


@pytest.mark.parametrize("name", PAIRS)
def test_functions_of_two_numbers(name: str) -> None:
    """Complete in both pipelines, and equal; with rows of zeros in either world, or in both."""
    body = PAIRS[name]
    for x, r in ((X[:2], R["other"]), (ZEROS, R["other"]), (X[:2], ZEROS), (ZEROS, ZEROS)):
        results: list[Any] = []
        for passes in ("naive", "default"):
            text = flat.pipeline_text(passes=wide(passes), emit="completeness_error")
            raw = evaluate(flat.run_passes(text, model(body), r), {"x": x})
            assert np.isfinite(raw["x_attributions"]).all()
            scale = np.abs(raw["x_attributions"]).sum(1) + np.abs(raw["y"])[:, 0] + 1e-9
            assert np.all(np.abs(raw["completeness_error"]) <= 1e-10 * scale)
            results.append(raw["x_attributions"])
        scale = np.abs(results[0]).max() + 1e-9
        np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-10 * scale)


def test_two_numbers_share_as_two_players() -> None:
    """max(a, b), as rules.md section 4 has it."""
    body = "a, b = Split <axis = 1> (x) c = Greater (a, b) f = Where (c, a, b)"
    x, r = np.array([[3.0, 0.0, 1.0, 5.0]]), np.array([[-1.0, 2.0, 2.0, 1.0]])
    found = evaluate(flat.run_passes(wide("default"), model(body), r), {"x": x})["x_attributions"]
    as_max = model("a, b = Split <axis = 1> (x) f = Max (a, b)")
    expected = evaluate(flat.run_passes(wide("default"), as_max, r), {"x": x})["x_attributions"]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    "body",
    [
        """v = MatMul (x, turn) s = ReduceSum <keepdims = 1> (x, middle) c = Greater (x, v)
        f = Where (c, s, zero)""",
        "i = Cast <to = 7> (x) s = ReduceSum <keepdims = 1> (i, middle) f = Cast <to = 1> (s)",
    ],
)
def test_functions_of_three_numbers_are_refused(body: str) -> None:
    with pytest.raises(NotDifferentiable, match="without a complete rule"):
        irshap.compile(model(body), R["other"].astype(np.float32))


def test_one_number_is_found_behind_two() -> None:
    body = "a = Exp (x) b = Mul (x, two) c = Greater (a, b) f = Cast <to = 1> (c)"
    graph = PassManager.from_text("lift,target,canonicalize,piecewise").run(model(body))
    (found,) = (node for node in graph.nodes if isinstance(node.op, Piecewise))
    assert [v.name for v in found.operands] == ["x"]


def test_a_source_inside_is_no_part_of_it() -> None:
    """What goes through an attributed tensor counts there."""
    body, r = "h = Mul (x, two) a = Abs (h) c = Greater (a, half) f = Where (c, h, zero)", R["other"]
    x, r = X.astype(np.float32), r.astype(np.float32)
    found = irshap.compile(model(body), r, target=irshap.Target(wrt="h")).explainer()(x)
    assert np.abs(found.completeness_error).max() < 1e-4
    with pytest.raises(NotDifferentiable):
        irshap.compile(model(body), r, target=irshap.Target(wrt="a"))


def test_other_methods() -> None:
    body = FORMS["hard shrink"][0]
    x, r = X.astype(np.float32), R["other"].astype(np.float32)
    for method in ("deeplift{rule=reveal-cancel}", "deeplift{rule=mixed}"):
        found = irshap.compile(model(body), r, method=method).explainer()(x)
        assert np.abs(found.completeness_error).max() < 1e-4
    lrp = irshap.compile(model(body), method="epsilon-lrp{epsilon=1e-6}").explainer()(x)
    np.testing.assert_allclose(lrp.values, np.where(np.abs(x) > 0.5, x, 0), rtol=1e-4, atol=1e-6)
    for method in ("gradient", "input-x-gradient", "epsilon-lrp"):
        assert np.isfinite(
            irshap.compile(model(PAIRS["the larger"]), method=method).explainer()(x).values
        ).all()
    with pytest.raises(NotDifferentiable, match="RevealCancel"):
        irshap.compile(model(PAIRS["the larger"]), r, method="deeplift{rule=reveal-cancel}")


def test_programs_are_told_apart_by_what_they_compute() -> None:
    ops = []
    for bound in ("half", "half", "third"):
        body = f"a = Abs (x) c = Greater (a, {bound}) f = Where (c, x, zero)"
        graph = PassManager.from_text("lift,target,canonicalize,piecewise").run(model(body))
        ops += [node.op for node in graph.nodes if isinstance(node.op, Piecewise)]
    assert ops[0] == ops[1] != ops[2]
    assert hash(ops[0]) == hash(ops[1])

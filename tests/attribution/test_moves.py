"""Token ids that are moved before they are looked up: what the lookups get goes back to the tokens."""

from __future__ import annotations

import flat
import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import numpy_helper

import irshap

LENGTH, IDS, WIDTH = 4, 6, 3

SHIFTS = {
    "concatenated": """
        start = Expand (one, column)  front = Slice (ids, zeros1, last1, axis1)
        moved = Concat <axis = 1> (start, front)""",
    "scattered": """
        blank = Expand (zero, whole)  front = Slice (ids, zeros1, last1, axis1)
        turned = Transpose <perm = [1, 0]> (blank)  part = Transpose <perm = [1, 0]> (front)
        filled = ScatterND (turned, behind, part)  back = Transpose <perm = [1, 0]> (filled)
        first = Expand (one, column)  at = Expand (zero, column)
        started = ScatterElements <axis = 1> (back, at, first)
        off = Equal (started, five)  moved = Where (off, zero, started)""",
    "the last that is no padding first": """
        here = Equal (ids, zero)  there = Not (here)  k = Cast <to = 7> (there)
        count = ReduceSum <keepdims = 1> (k, axis1)  place = Sub (count, one)
        start = GatherElements <axis = 1> (ids, place)
        front = Slice (ids, zeros1, last1, axis1)  moved = Concat <axis = 1> (start, front)""",
}


def model(shift: str) -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    found = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        decoder (int64[N, {LENGTH}] ids) => (float[N, 2] y) {{
            shape = Shape (ids)  n = Slice (shape, zeros1, axis1, zeros1)
            column = Concat <axis = 0> (n, axis1)  whole = Concat <axis = 0> (n, length)
            {SHIFTS[shift]}
            e = Gather <axis = 0> (table, ids)
            d = Gather <axis = 0> (table, moved)
            t = Tanh (d)  h = Mul (e, t)  a = Tanh (h)
            s = ReduceSum <keepdims = 0> (a, axis1)  y = MatMul (s, out)
        }}"""
    )
    held = {
        "table": rng.standard_normal((IDS, WIDTH)).astype(np.float32),
        "out": rng.standard_normal((WIDTH, 2)).astype(np.float32),
        "one": np.int64(1),
        "zero": np.int64(0),
        "five": np.int64(5),
        "zeros1": np.array([0]),
        "axis1": np.array([1]),
        "last1": np.array([-1]),
        "length": np.array([LENGTH]),
        "behind": np.array([[1], [2], [3]]),
    }
    found.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in held.items())
    return found


X = np.array([[1, 4, 2, 3], [5, 2, 3, 0], [2, 3, 0, 0]])
R = np.array([[2, 2, 4, 0], [3, 1, 1, 5]])


def came_from(shift: str, x: np.ndarray) -> np.ndarray:
    """For each moved position of each sample the position that it came from; -1: none."""
    last = (x != 0).sum(1, keepdims=True) - 1
    start = last if shift == "the last that is no padding first" else np.full((len(x), 1), -1)
    return np.concatenate([start, np.tile(np.arange(LENGTH - 1), (len(x), 1))], axis=1)


@pytest.mark.parametrize("passes", ["@naive", "@default"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_back_where_they_came_from(shift: str, passes: str) -> None:
    raw = model(shift)
    found = flat.compile(raw, R, target="1", passes=passes).explainer()(X)
    each = flat.compile(raw, R, target="1", passes=passes, wrt="e, d").explainer()(X)
    expected = each.values["e"].sum(-1)
    for row, at in enumerate(came_from(shift, X)):
        for position, source in enumerate(at):
            if source >= 0:
                expected[row, source] += each.values["d"][row, position].sum()
    np.testing.assert_allclose(found.values, expected, atol=1e-6)
    assert found.values.shape == X.shape


@pytest.mark.parametrize("shift", SHIFTS)
def test_sums_to_the_whole_difference(shift: str) -> None:
    """Nothing of the ids is held: the base is f of the references."""
    compiled = irshap.compile(model(shift), R)
    found = compiled.explainer()(X)
    np.testing.assert_allclose(found.total(), found.target_values - found.base_values, atol=1e-6)


@pytest.mark.parametrize("shift", SHIFTS)
def test_every_class(shift: str) -> None:
    one = [irshap.compile(model(shift), R, target=str(c)).explainer()(X).values for c in range(2)]
    found = irshap.compile(model(shift), R, target="all").explainer()(X)
    np.testing.assert_allclose(found.values, np.stack(one, axis=1), atol=1e-6)


@pytest.mark.parametrize("method", ["input-x-gradient", "integrated-gradients", "epsilon-lrp"])
@pytest.mark.parametrize("shift", SHIFTS)
def test_with_every_method(shift: str, method: str) -> None:
    """The tokens' numbers add up to those of the lookups."""
    given = R if method == "integrated-gradients" else None
    whole = flat.compile(model(shift), given, target="1", method=method).explainer()(X).values
    each = flat.compile(model(shift), given, target="1", method=method, wrt="e, d").explainer()(X).values
    came = came_from(shift, X)
    moved = [sum(each["d"][n, i].sum() for i in range(LENGTH) if came[n, i] >= 0) for n in range(len(X))]
    np.testing.assert_allclose(whole.sum(1), each["e"].sum((1, 2)) + moved, atol=1e-5)

"""References and weights: what is taken, what is converted, and what each refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irshap.compiler.references import check_references, check_weights
from irshap.errors import ReferencesError
from irshap.ir.dims import N, symbol
from irshap.ir.types import DType, TensorType

IMAGE = {"image": TensorType(DType.F32, (N, 1, 2, 2))}
TWO = {**IMAGE, "features": TensorType(DType.F64, (N, 3))}
GOOD = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)


def check(source: Any, inputs: dict[str, TensorType] = IMAGE) -> dict[str, Any]:
    return check_references(source, inputs, list(inputs))


@pytest.mark.parametrize("form", ["array", "list", "dict", "npy", "npz", "unnamed npz", "path as text"])
def test_forms(form: str, tmp_path: Path) -> None:
    npy, npz, unnamed = (tmp_path / name for name in ("r.npy", "r.npz", "u.npz"))
    np.save(npy, GOOD)
    np.savez(npz, image=GOOD)
    np.savez(unnamed, GOOD)
    source: Any = {
        "array": GOOD,
        "list": GOOD.tolist(),
        "dict": {"image": GOOD},
        "npy": npy,
        "npz": npz,
        "unnamed npz": unnamed,
        "path as text": str(npy),
    }[form]
    found = check(source)
    assert list(found) == ["image"]
    assert found["image"].dtype == np.float32
    np.testing.assert_array_equal(found["image"], GOOD)


def test_floats_of_another_width_are_converted() -> None:
    found = check({"image": GOOD.astype(np.float16), "features": np.ones((3, 3), np.float32)}, TWO)
    assert [a.dtype for a in found.values()] == [np.float32, np.float64]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "no references for input 'image'"),
        ({}, "no references for input 'image'"),
        ({"imag": GOOD}, "the model has no such input 'imag'. did you mean image"),
        (GOOD[:, 0], r"has shape \[3, 2, 2\], the model wants \[R, 1, 2, 2\]"),
        (GOOD[0], r"has shape \[1, 2, 2\].* the leading axis counts the samples: .* array\[None\]"),
        (GOOD.reshape(3, 1, 4, 1), r"has shape \[3, 1, 4, 1\]"),
        (GOOD[:0], "there is no reference: the first axis is empty. give at least one"),
        (GOOD.astype(np.uint8), r"has dtype uint8, the model wants float32. convert it with array.astype\("),
        (GOOD.astype(bool), "has dtype bool"),
        (GOOD.astype(complex), "has dtype complex128"),
        (GOOD.astype(str), "has dtype <U"),
        (GOOD.astype(object), "has dtype object"),
        (np.float32(3), r"has shape \[\]"),
        (GOOD.astype(np.float64) * 1e300, "has values beyond the range of float32"),
        ([[1.0], [1.0, 2.0]], "is no array"),
    ],
)
def test_refusals(source: Any, message: str) -> None:
    with pytest.raises(ReferencesError, match=message) as caught:
        check(source)
    assert caught.value.exit_code == 2
    assert "references" in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value: float) -> None:
    bad = GOOD.copy()
    bad[1, 0, 1, 0] = value
    message = r"'image': 1 of 12 values are NaN or infinite, the first at \[1, 0, 1, 0\]. drop reference 1"
    with pytest.raises(ReferencesError, match=message):
        check(bad)


def test_several_inputs() -> None:
    features = np.zeros((3, 3))
    assert list(check({"image": GOOD, "features": features}, TWO)) == ["image", "features"]
    with pytest.raises(
        ReferencesError, match=r"one array, but the model has 2 inputs .* give a dict or an .npz"
    ):
        check(GOOD, TWO)
    with pytest.raises(ReferencesError, match="no references for input 'features'"):
        check({"image": GOOD}, TWO)
    with pytest.raises(ReferencesError, match=r"different numbers of references \(image: 3, features: 2\)"):
        check({"image": GOOD, "features": features[:2]}, TWO)


def test_free_dimensions_must_agree() -> None:
    length = symbol("L")
    inputs = {"a": TensorType(DType.F32, (N, length)), "b": TensorType(DType.F32, (N, length))}
    rows = np.zeros((2, 5), np.float32)
    assert check({"a": rows, "b": rows}, inputs)["b"].shape == (2, 5)
    with pytest.raises(
        ReferencesError, match="'b': axis 1 has size 4, but L is 5 in the references for input 'a'"
    ):
        check({"a": rows, "b": rows[:, :4]}, inputs)


def test_integer_inputs() -> None:
    inputs = {"ids": TensorType(DType.I64, (N, 2))}
    found = check(np.array([[1, 2]], dtype=np.int32), inputs)
    assert found["ids"].dtype == np.int64
    with pytest.raises(ReferencesError, match="has dtype float64, the model wants int64"):
        check(np.array([[1.0, 2.0]]), inputs)
    with pytest.raises(ReferencesError, match="beyond the range of int64"):
        check(np.array([[2**63, 0]], dtype=np.uint64), inputs)


def test_an_input_without_a_batch() -> None:
    with pytest.raises(ReferencesError, match="no axis for the batch"):
        check(np.zeros(3, np.float32), {"t": TensorType(DType.F32, ())})


BAD_FILES = {
    "missing.npy": "no such file",
    ".": "is a folder",
    "objects.npy": "holds Python objects",
    "objects.npz": "holds Python objects",
    "short.npy": "is damaged",
    "short.npz": "is damaged",
    "head.npy": "is damaged",
    "text.npy": "is neither .npy nor .npz",
    "empty.npy": "is neither .npy nor .npz",
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "objects.npz", image=np.array([{}], dtype=object))
    np.save(tmp_path / "whole.npy", GOOD)
    np.savez(tmp_path / "whole.npz", image=GOOD)
    for kind in ("npy", "npz"):
        (tmp_path / f"short.{kind}").write_bytes((tmp_path / f"whole.{kind}").read_bytes()[:-5])
    (tmp_path / "head.npy").write_bytes(b"\x93NUMPY")
    (tmp_path / "text.npy").write_text("1, 2, 3")
    (tmp_path / "empty.npy").write_bytes(b"")
    path = tmp_path / name
    with pytest.raises(ReferencesError, match=BAD_FILES[name]) as caught:
        check(path)
    assert str(path) in str(caught.value)


def test_weights() -> None:
    assert check_weights(None, 3) is None
    found = check_weights([1, 1, 2], 3)
    assert found is not None
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [0.25, 0.25, 0.5])


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, 1], r"have dtype int64 and shape \[2\], wanted are 3 numbers. one weight for each"),
        ([[1, 1, 1]], r"shape \[1, 3\]"),
        ([1, -1, 1], "must not be negative"),
        ([0, 0, 0], "nor all zero"),
        ([1, np.nan, 1], "NaN"),
        (["a", "b", "c"], "dtype <U1"),
    ],
)
def test_bad_weights(weights: Any, message: str) -> None:
    with pytest.raises(ReferencesError, match=message):
        check_weights(weights, 3)

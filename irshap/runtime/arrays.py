"""Arrays from users: read from files without running anything, and brought to the type a model wants."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from irshap.errors import UserError, near
from irshap.runtime.frames import column_names, in_order, is_frame
from irshap.runtime.npy import Unreadable, read_npy

__all__ = ["DTYPES", "Array", "Arrays", "Source", "as_arrays", "conform", "unknown_names"]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

Source: TypeAlias = Any
"""An array(-like) such as a torch tensor or a list, a DataFrame, a mapping from names to arrays, or the path
of a .npy or .npz file."""

Arrays: TypeAlias = dict[str, Array]


def as_arrays(
    source: Source,
    names: Sequence[str],
    error: type[UserError],
    what: str,
    features: Mapping[str, Sequence[str]] | None = None,
) -> Arrays:
    """The arrays in `source` by the names of the inputs that they belong to.

    Args:
        source: a mapping, or the path of an .npz file, with an array for each name; where there is only one
            name also a plain array, or the path of a .npy file.  A DataFrame is an array, or where several
            inputs are columns of it, [rows, 1] for each.
        names: the inputs that can be meant.
        error: what to raise.
        what: what the arrays are, for messages ("references", "input").
        features: by input what is known of its columns' names: a DataFrame's are put in that order.

    Raises:
        UserError: as `error`: the file can't be read, or a plain array where several inputs could be meant,
            or a DataFrame that lacks some columns.
    """
    where, features = what, features or {}
    if isinstance(source, (str, os.PathLike)):
        where = f"{what} {os.fspath(source)}"
        source = _load(Path(source), error, where)
    if len(names) > 1 and is_frame(source) and set(names) <= set(column_names(source)):
        source = {name: in_order(source, [name], error, where) for name in names}
    if isinstance(source, Mapping):
        ordered = {
            str(name): _in_order(value, features.get(str(name)), error, f"{where} {name!r}")
            for name, value in source.items()
        }
        result = {name: _array(value, error, f"{where} {name!r}") for name, value in ordered.items()}
        if set(result) == {"arr_0"} and len(names) == 1:  # np.savez(file, array) names it so
            return {names[0]: result["arr_0"]}
        return result
    if len(names) != 1:
        mend = f"give a dict or an .npz file with {', '.join(names)}" if names else None
        raise error(
            f"one array, but the model has {len(names)} inputs that it could be for", where=where, mend=mend
        )
    return {names[0]: _array(_in_order(source, features.get(names[0]), error, where), error, where)}


def _in_order(value: Any, known: Sequence[str] | None, error: type[UserError], where: str) -> Any:
    return in_order(value, known, error, where) if known and is_frame(value) else value


def _load(path: Path, error: type[UserError], where: str) -> Any:
    try:
        return read_npy(path)
    except FileNotFoundError:
        raise error("no such file", where=where) from None
    except IsADirectoryError:
        raise error("is a folder", where=where, mend="give a .npy or .npz file") from None
    except OSError as problem:
        raise error(f"can't be read: {problem.strerror or problem}", where=where) from None
    except Unreadable as problem:
        raise error(str(problem), where=where, mend=problem.mend) from None


def _array(value: Any, error: type[UserError], where: str) -> Array:
    if value is None:
        raise error("is None", where=where, mend="give an array, or a file of one")
    try:
        array = np.asarray(_off_device(value))
    except (ValueError, TypeError, RuntimeError) as problem:
        mend = "give numbers, in rows of equal length"
        raise error(f"is no array: {problem}", where=where, mend=mend) from None
    if array.dtype == object and not array.ndim and not isinstance(array.item(), str):
        raise error(f"is no array, but of type {type(value).__name__}", where=where, mend="give an array")
    return array


def _off_device(value: Any) -> Any:
    """A torch tensor, or a list of them, as what numpy reads: on the CPU, apart from gradients."""
    if isinstance(value, list | tuple) and any(hasattr(v, "detach") for v in value):
        return [_off_device(v) for v in value]
    if not hasattr(value, "detach"):
        return value
    tensor = value.detach().cpu()
    return tensor.float() if "bfloat16" in str(tensor.dtype) else tensor  # numpy has no bfloat16


def conform(
    array: Array,
    dtype: np.dtype[Any],
    shape: Sequence[int | str | None] | None,
    error: type[UserError],
    where: str,
) -> Array:
    """`array` as the model wants it.

    Floats of any width are converted, when every finite value stays finite.  Integers are not taken for
    floats: pixels in 0..255 where a model wants 0..1 are the usual reason for them.

    Args:
        dtype, shape: what the model declares; a shape's entries are sizes, or names of free dimensions.

    Raises:
        UserError: as `error`.
    """
    converted = _as_dtype(array, dtype, error, where)
    if shape is None:
        return converted
    wanted = [d if isinstance(d, int) else str(d or "?") for d in shape]
    listed = f"[{', '.join(map(str, wanted))}]"
    if not _fits(array.shape, wanted):
        single = bool(wanted) and _fits(array.shape, wanted[1:])
        mend = "the leading axis counts the samples: for a single one give array[None]" if single else None
        raise error(f"has shape {list(array.shape)}, the model wants {listed}", where=where, mend=mend)
    return converted


def _fits(shape: tuple[int, ...], wanted: Sequence[int | str]) -> bool:
    return len(shape) == len(wanted) and all(
        not isinstance(w, int) or w == d for w, d in zip(wanted, shape, strict=True)
    )


def _as_dtype(array: Array, dtype: np.dtype[Any], error: type[UserError], where: str) -> Array:
    if array.dtype == dtype:
        return array
    if dtype == np.dtype(object) and array.dtype.kind in "US":
        return array.astype(object)
    wants_float, is_float = (_is_float(d) for d in (dtype, array.dtype))
    if wants_float and is_float:
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if np.any(np.isfinite(array) & ~np.isfinite(converted)):
            raise error(f"has values beyond the range of {dtype}", where=where, mend="mend or scale them")
        return converted
    if dtype.kind in "iu" and array.dtype.kind in "iu":
        converted = array.astype(dtype)
        if not np.array_equal(converted, array):
            raise error(f"has values beyond the range of {dtype}", where=where, mend="mend or scale them")
        return converted
    mend = None
    if wants_float and array.dtype.kind in "iub":
        mend = f"convert it with array.astype(numpy.{dtype}), scaled as in training"
    elif wants_float and array.dtype == object:
        mend = f"give numbers alone: array.astype(numpy.{dtype})"
    raise error(f"has dtype {array.dtype}, the model wants {dtype}", where=where, mend=mend)


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def unknown_names(given: Iterable[str], known: Sequence[str], error: type[UserError], what: str) -> None:
    """Refuses names in `given` that aren't `known`."""
    for name in given:
        if name not in known:
            raise error(f"the model has no such input {name!r}", where=what, mend=near(name, known))


def _dtypes() -> dict[str, np.dtype[Any]]:
    names = {
        "float": "float32",
        "double": "float64",
        "float16": "float16",
        "bool": "bool",
        "string": "object",
    }
    names |= {f"{u}int{bits}": f"{u}int{bits}" for u in ("", "u") for bits in (8, 16, 32, 64)}
    return {f"tensor({name})": np.dtype(dtype) for name, dtype in names.items()}


DTYPES = _dtypes()
"""By the names that ONNX Runtime has for the types of tensors, what numpy calls their elements."""

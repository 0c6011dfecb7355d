"""Models as people have them, as ONNX: exported where the package that exports them is there."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np
import onnx

from irshap.compiler.compiled import CompiledModel
from irshap.contract import ONLY
from irshap.errors import ModelError, printable
from irshap.ir.types import Array

__all__ = ["Readable", "fitted_names", "readable", "refuse_arrays"]

Readable: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto
"""What `lift` takes."""

_WHERE = "the model"
_TORCH = (
    'torch.onnx.export(model, (x,), "model.onnx", dynamo=True, '
    'dynamic_shapes=({0: "N"},)); irshap.compile("model.onnx", ...)'
)
_SKLEARN = (
    "onnx_model = skl2onnx.to_onnx(model, X[:1].astype(numpy.float32)); irshap.compile(onnx_model, ...)"
)
_KERAS = 'model.export("model.onnx", format="onnx"); irshap.compile("model.onnx", ...)'


def readable(model: Any, example: Mapping[str, Array]) -> Readable:
    """`model` as ONNX.

    Args:
        model: a path, bytes or an `onnx.ModelProto`, which stay; an `ONNXProgram` of torch or an `onnx_ir`
            model; an ONNX Runtime session; a module or exported program of torch; an estimator of
            scikit-learn.
        example: the references by input, "" for one array without a name.  An export runs the model on two
            of them; its batch stays open.

    Raises:
        ModelError: it is none of these, or can't be exported; the message has the lines that export it.
    """
    if isinstance(model, str | os.PathLike | bytes | onnx.ModelProto):
        return model
    if isinstance(model, bytearray | memoryview):
        return bytes(model)
    if isinstance(model, CompiledModel):
        mend = "run it: compiled.explainer()(x); or compile the model that it was made from"
        raise ModelError("the model is already explained", mend=mend)
    for known, read in _KNOWN:
        if known(model):
            return read(model, example)
    mend = "give the path of an ONNX file, its bytes, an onnx.ModelProto, or a model of torch or scikit-learn"
    raise ModelError(f"{_kind(model)} is no model that irshap can read", where=_WHERE, mend=mend)


def refuse_arrays(model: Any) -> None:
    """Refuses samples in the model's place.

    Raises:
        ModelError: it is an array, a list, a mapping or a DataFrame.
    """
    if hasattr(model, "__array__") or isinstance(model, list | Mapping):
        mend = "references come behind the model: irshap.compile(model, references)"
        raise ModelError(f"{_kind(model)} is no model that irshap can read", where=_WHERE, mend=mend)


def fitted_names(model: Any) -> tuple[str, ...]:
    """What an estimator of scikit-learn calls its features, where it was fitted on a DataFrame."""
    return tuple(map(str, getattr(model, "feature_names_in_", ()))) if _is_sklearn(model) else ()


def _kind(model: Any) -> str:
    return "None" if model is None else f"an object of type {type(model).__name__}"


def _made_by(package: str, *names: str) -> Callable[[Any], bool]:
    """Whether a model's class, or one above it, comes from a package and has one of these names."""

    def known(model: Any) -> bool:
        classes = ((c.__module__.partition(".")[0], c.__name__) for c in type(model).__mro__)
        return any(root == package and name in names for root, name in classes)

    return known


_is_sklearn = _made_by("sklearn", "BaseEstimator")


def _program(model: Any, example: Mapping[str, Array]) -> Readable:
    proto: onnx.ModelProto = model.model_proto
    return proto


def _onnx_ir(model: Any, example: Mapping[str, Array]) -> Readable:
    proto: onnx.ModelProto = import_module("onnx_ir").to_proto(model)
    return proto


def _session(model: Any, example: Mapping[str, Array]) -> Readable:
    # what a session was made from is in no public attribute
    found = getattr(model, "_model_path", None) or getattr(model, "_model_bytes", None)
    if not isinstance(found, str | bytes):
        mend = "give the path or the bytes that the session was made from"
        raise ModelError("the session doesn't hold its model", where=_WHERE, mend=mend)
    return found


def _torch_program(model: Any, example: Mapping[str, Array]) -> Readable:
    return _exported(lambda torch: torch.onnx.export(model, verbose=False), "torch.export's program")


def _torch_module(module: Any, example: Mapping[str, Array]) -> Readable:
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    names = list(inspect.signature(module.forward).parameters)
    given = {name or (names[0] if names else ""): array for name, array in example.items()}
    if not given or not set(given) <= set(names):
        has = f"forward takes {', '.join(names) or 'nothing'}"
        raise ModelError(
            f"a torch module is exported by running it on references, which are given for "
            f"{', '.join(given) or 'no input'}; {has}",
            where=_WHERE,
            mend=f"name references as forward does, or export it: {_TORCH}",
        )

    def export(torch: Any) -> Any:
        like = next((p for p in module.parameters() if p.is_floating_point()), torch.zeros(()))
        tensors = {name: _tensor(torch, given[name], like) for name in names if name in given}
        sizes = {name: {0: torch.export.Dim.DYNAMIC} for name in tensors}
        training = [m for m in module.modules() if m.training]
        module.eval()
        try:
            return torch.onnx.export(module, (), kwargs=tensors, dynamic_shapes=sizes, verbose=False)
        finally:
            for part in training:
                part.training = True

    return _exported(export, f"the torch module {type(module).__name__}")


def _tensor(torch: Any, array: Array, like: Any) -> Any:
    """Two rows, because a batch of one is taken for a constant."""
    rows = torch.from_numpy(np.ascontiguousarray(np.resize(array, (2, *array.shape[1:]))))
    return rows.to(device=like.device, dtype=like.dtype if rows.is_floating_point() else rows.dtype)


def _exported(export: Callable[[Any], Any], what: str) -> Readable:
    try:
        proto: onnx.ModelProto = export(import_module("torch")).model_proto
    except ImportError as error:  # torch itself is there, or there would be no module
        mend = f"pip install onnxscript; or export it elsewhere: {_TORCH}"
        raise ModelError(f"{what} can't be exported: {_line(error)}", where=_WHERE, mend=mend) from error
    except Exception as error:  # whatever the user's own code raises
        mend = f"export it: {_TORCH}"
        raise ModelError(f"{what} can't be exported: {_line(error)}", where=_WHERE, mend=mend) from error
    return proto


def _sklearn(model: Any, example: Mapping[str, Array]) -> Readable:
    what = f"the scikit-learn estimator {type(model).__name__}"
    try:
        skl2onnx = import_module("skl2onnx")
    except ImportError as error:
        mend = f"pip install skl2onnx; or export it elsewhere: {_SKLEARN}"
        raise ModelError(
            f"{what} is exported by skl2onnx, which is missing", where=_WHERE, mend=mend
        ) from error
    names = fitted_names(model)
    forms = [_as_array] if set(example) == {ONLY} else []
    # what was fitted on a DataFrame may choose columns by name, and then takes each as an input
    forms += [_by_columns] if names and set(example) in ({ONLY}, set(names)) else []
    if not forms:
        mend = f"give one array of references, or export it: {_SKLEARN}"
        raise ModelError(f"{what} is exported for one input", where=_WHERE, mend=mend)
    failed: list[Exception] = []
    for form in forms:
        try:
            proto: onnx.ModelProto = form(skl2onnx, model, example, names)
        except Exception as error:  # skl2onnx raises many kinds, and so do converters of others
            failed.append(error)
        else:
            return proto
    mend = f"see whether skl2onnx can: {_SKLEARN}"
    raise ModelError(f"{what} can't be exported: {_line(failed[0])}", where=_WHERE, mend=mend) from failed[0]


def _as_array(skl2onnx: Any, model: Any, example: Mapping[str, Array], names: Sequence[str]) -> Any:
    rows = example[ONLY][:1]
    return skl2onnx.to_onnx(model, rows.astype(np.float32) if rows.dtype == np.float64 else rows)


def _by_columns(skl2onnx: Any, model: Any, example: Mapping[str, Array], names: Sequence[str]) -> Any:
    kinds = import_module("skl2onnx.common.data_types")
    table = example.get(ONLY)
    columns = dict(example) if table is None else {name: table[:, i] for i, name in enumerate(names)}
    types = [(name, _kind_of(kinds, columns[name])([None, 1])) for name in names]
    return skl2onnx.to_onnx(model, initial_types=types)


def _kind_of(kinds: Any, column: Array) -> Any:
    """What skl2onnx calls a column's type: categories are texts, all else are numbers."""
    text = column.dtype.kind in "OU" and any(isinstance(value, str) for value in column.flat)
    return kinds.StringTensorType if text else kinds.FloatTensorType


def _keras(model: Any, example: Mapping[str, Array]) -> Readable:
    raise ModelError(f"{type(model).__name__} is a Keras model", where=_WHERE, mend=f"export it: {_KERAS}")


def _line(error: BaseException) -> str:
    """The first line that says something, of the first error: exporters wrap those of a model."""
    while error.__cause__ is not None and str(error.__cause__).strip():
        error = error.__cause__
    lines = [printable(line.strip()).rstrip(".") for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


_KNOWN: tuple[tuple[Callable[[Any], bool], Callable[[Any, Mapping[str, Array]], Readable]], ...] = (
    (lambda model: isinstance(getattr(model, "model_proto", None), onnx.ModelProto), _program),
    (_made_by("onnx_ir", "Model"), _onnx_ir),
    (_made_by("onnxruntime", "InferenceSession"), _session),
    (_made_by("torch", "ExportedProgram"), _torch_program),
    (_made_by("torch", "Module"), _torch_module),
    (_is_sklearn, _sklearn),
    (_made_by("keras", "Model", "Layer"), _keras),
    (_made_by("tensorflow", "Module"), _keras),
)

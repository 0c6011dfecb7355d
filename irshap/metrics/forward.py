"""A model's own function of samples: what measures ask again and again, without any attribution."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, SupportsBytes

import numpy as np
import onnx
from onnx import helper

from irshap import contract
from irshap.errors import ModelError, TargetError, UserError, near
from irshap.lowering.files.cut import cut_to
from irshap.lowering.files.load import open_model
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.runtime.arrays import Array, Arrays, Source, as_arrays, conform, unknown_names

__all__ = ["Forward"]

_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)


class Forward:
    """Runs a model, or what an explained file has of one.  Arrays have samples on their first axis.

    Args:
        source: a path, bytes, an `onnx.ModelProto` or a `CompiledModel`.  Of an explained file the explained
            output is taken, of another one its first float output.
        batch: the most samples in one run.

    Attributes:
        model: the ONNX model, cut down to that output.
        output: the output's name.
        digest: that of the source model of an explained file, "" where there is none.
        tensors: what irshap added to the file, None where it isn't an explained one.
        picks: whether one of the output's numbers is explained for each sample (a class), or it is itself
            what is explained.

    Raises:
        ModelError: it can't be read or run, or has no float output.
        TargetError: the explained number is none of an output's, or there are several for a sample.
    """

    def __init__(self, source: Any, batch: int = 64) -> None:
        opened = open_model(source if isinstance(source, (str, onnx.ModelProto)) else _content(source))
        model, self._weights = opened
        metadata = contract.metadata_of(model)
        names = [o.name for o in model.graph.output]
        self.digest = metadata.get(contract.Metadata.MODEL_SHA256, "")
        self.tensors: contract.Tensors | None = None
        self.output, self.picks = _first_float(model), True
        if contract.Metadata.VERSION in metadata:
            self.tensors = _tensors(metadata, [i.name for i in model.graph.input], names)
            self.output, self.picks = _explained(self.tensors, metadata, names)
        self.model = cut_to(model, [self.output])
        # what is left explains nothing, and may be compiled
        told = [p for p in model.metadata_props if p.key != contract.Metadata.EXPLAINED_OUTPUT]
        del model.metadata_props[:]
        model.metadata_props.extend(told)
        self._inputs = {v.name: v.type.tensor_type for v in self.model.graph.input}
        self.axes = {name: _sample_axis(kind) for name, kind in self._inputs.items()}
        (out,) = self.model.graph.output
        self._out = _sample_axis(out.type.tensor_type) or 0
        fixed = {_sizes(kind)[axis] for n, kind in self._inputs.items() if (axis := self.axes[n]) is not None}
        self._batch = 1 if fixed == {1} else batch
        try:
            self._session = Session(self.model, threads=0, arena=True)
        except RuntimeRefusal as error:
            raise ModelError(f"ONNX Runtime can't load it: {error}", where="the measured model") from error

    def read(self, source: Source, features: Mapping[str, Sequence[str]] | None = None) -> Arrays:
        """Samples for the inputs, in their types; what else stands in a mapping is left out.

        Args:
            features: what those of each input are called, where that is known.

        Raises:
            UserError: a missing or unknown input, a wrong shape or dtype, or different numbers of samples.
        """
        given = as_arrays(source, list(self._inputs), UserError, "input", features)
        if self.tensors is None:
            unknown_names(given, list(self._inputs), UserError, "input")
        if missing := [n for n in self._inputs if n not in given]:
            mend = "give an array [N, ...] for each"
            raise UserError(f"no value for input {', '.join(map(repr, missing))}", mend=mend)
        found = {}
        for name, kind in self._inputs.items():
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type))
            array, sizes = given[name], _sizes(kind)
            if (axis := self.axes[name]) is not None:
                sizes[axis] = "N"
            array = conform(array, dtype, sizes, UserError, f"input {name!r}")
            found[name] = array if axis is None else np.moveaxis(array, axis, 0)
        counts = {name: len(array) for name, array in found.items() if self.axes[name] is not None}
        if not counts:
            said = "Model(batch='none'), --batch none, say"
            mend = f"measure an explained file of it, compiled with what its samples are ({said})"
            raise UserError("no input of the measured model counts samples", mend=mend)
        if len(set(counts.values())) != 1 or 0 in counts.values():
            listed = ", ".join(f"{n}: {c}" for n, c in counts.items())
            mend = "give arrays of the same number of samples"
            raise UserError(f"the inputs need samples, and equally many ({listed})", mend=mend)
        return found

    def laid_out(self, inputs: Mapping[str, Array]) -> Arrays:
        """Samples with their axis where the model has it."""
        places = ((name, array, self.axes.get(name)) for name, array in inputs.items())
        return {name: np.moveaxis(array, 0, axis) if axis else array for name, array, axis in places}

    def slices(self, inputs: Arrays) -> Iterator[slice]:
        """All samples, some of them at a time."""
        count = next(len(inputs[name]) for name, axis in self.axes.items() if axis is not None)
        for start in range(0, count, self._batch):
            yield slice(start, start + self._batch)

    def rows(self, inputs: Arrays, which: slice) -> Arrays:
        """Some of the samples."""
        return {n: array if self.axes[n] is None else array[which] for n, array in inputs.items()}

    def __call__(self, inputs: Arrays) -> Array:
        """The output in float64: [N, C], or [N, 1] where it is one number.

        Raises:
            UserError: ONNX Runtime fails on these samples.
        """
        parts = []
        for which in self.slices(inputs):
            some = self.rows(inputs, which)
            try:
                (found,) = self._session.run(self.laid_out(some))
            except RuntimeRefusal as error:
                raise UserError(f"ONNX Runtime failed: {error}", where="the measured model") from error
            first = np.moveaxis(np.asarray(found, np.float64), self._out, 0)
            parts.append(first.reshape(len(first), -1))
        return np.concatenate(parts)


def _content(source: Any) -> bytes | str:
    if hasattr(source, "__fspath__"):
        return str(source)
    if not isinstance(source, (bytes, SupportsBytes)):
        mend = "give a path, bytes, a CompiledModel or an onnx.ModelProto"
        raise ModelError(f"{type(source).__name__} is no model", where="the measured model", mend=mend)
    return bytes(source)


def _first_float(model: onnx.ModelProto) -> str:
    kinds = ((o.name, o.type.tensor_type.elem_type) for o in model.graph.output)
    found = next((name for name, kind in kinds if kind in _FLOATS), None)
    if found is None:
        raise ModelError("has no float output", where="the measured model")
    return found


def _tensors(metadata: Mapping[str, str], inputs: list[str], outputs: list[str]) -> contract.Tensors:
    text = metadata.get(contract.Metadata.TENSORS)
    try:
        by_name = contract.Tensors.by_name(inputs, outputs)
        return by_name if text is None else contract.Tensors.from_text(text)
    except (AttributeError, TypeError, ValueError) as error:
        what = f"its metadata {contract.Metadata.TENSORS} is damaged: {error}"
        raise ModelError(what, mend="compile the model again") from error


def _explained(
    tensors: contract.Tensors, metadata: Mapping[str, str], outputs: list[str]
) -> tuple[str, bool]:
    """The output with what is explained, and whether a class of it is picked."""
    name = metadata.get(contract.Metadata.EXPLAINED_OUTPUT, "")
    if tensors.target_values is not None:
        if tensors.target_index is not None:
            mend = "compile for a class of an output, or for a sum over one"
            raise TargetError("explains a class that is picked of no output", mend=mend)
        return tensors.target_values, False
    if name not in outputs:
        raise ModelError(f"explains {name!r}, which isn't an output of it", mend=near(name, outputs))
    return name, True


def _sizes(kind: Any) -> list[int | str]:
    if not kind.HasField("shape"):
        raise ModelError("an input's rank isn't known", where="the measured model")
    return [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]


def _sample_axis(kind: Any) -> int | None:
    """The axis that counts samples: the one called N, or else the first if it is open, or of size 1."""
    sizes = _sizes(kind)
    if "N" in sizes:
        return sizes.index("N")
    return 0 if sizes and (not isinstance(sizes[0], int) or sizes[0] == 1) else None

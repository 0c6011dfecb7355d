"""Runs an explained model in ONNX Runtime.  Nothing of the compiler is needed or imported here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irshap.errors import ModelError, TargetError, UserError
from irshap.runtime.arrays import Arrays, Source, as_arrays, conform, unknown_names

if TYPE_CHECKING:
    import onnx

    from irshap.compiler.compile import CompiledModel
    from irshap.ir.types import Array

__all__ = ["Explainer", "Explanation"]

_SUFFIX = "_attributions"
_BASE, _INDEX, _ERROR = "base_values", "target_index", "completeness_error"
_MAX_PROTO = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Explanation:
    """Attributions of N samples; shapes and names as in SHAP, so that its plots take `to_shap()`.

    Attributes:
        values: attributions, an array [N, ...] of the attributed input's shape, or for several attributed
            inputs a dict of them; with K classes at once [N, K, ...].  In the unit of the explained output.
        base_values: mean output of the target over the references, [N] or [N, K]; None for the gradient.
        data: the samples, as `values` (an attributed tensor that is no input is left out).
        outputs: the model's own outputs by name.
        target_index: the explained class (int64), [N] or [N, K].
        target_values: the explained outputs f(x), [N] or [N, K]; None when the file doesn't say which it is.
        completeness_error: f(x) - base_values - sum of attributions, [N] or [N, K]: 0 up to rounding; None
            where that sum has no meaning (the gradient).
        raw: everything that the explained model returned, by output name.
    """

    values: Array | Arrays
    base_values: Array | None
    data: Array | Arrays
    outputs: Arrays
    target_index: Array | None
    target_values: Array | None
    completeness_error: Array | None
    raw: Arrays = field(repr=False)

    def __len__(self) -> int:
        return len(next(iter(self.raw.values())))

    def total(self) -> Array:
        """The sum of each sample's attributions over all attributed inputs, in float64: [N] or [N, K]."""
        values = self.values if isinstance(self.values, dict) else {"": self.values}
        return _total(values, self._classes)

    @property
    def _classes(self) -> int:
        """How many axes for classes stand behind the batch."""
        return 0 if self.target_index is None or self.target_index.ndim < 2 else 1

    def to_shap(self) -> Any:
        """A `shap.Explanation` (one attributed input; the package shap must be installed)."""
        if isinstance(self.values, dict):
            raise UserError("shap's Explanation holds one input", mend="take one of .values apart")
        import shap  # type: ignore[import-not-found, unused-ignore]

        values = np.moveaxis(self.values, 1, -1) if self._classes else self.values
        return shap.Explanation(values=values, base_values=self.base_values, data=self.data)


class Explainer:
    """Runs an explained model on samples.

    Args:
        model: the path of an explained model, an `onnx.ModelProto`, its bytes, or a `CompiledModel`.
        providers: ONNX Runtime's execution providers, in order of preference; None: the CPU.  CUDA's without
            options is told not to use TF32, whose rounding attributions don't survive (docs/gpu.md).

    Attributes:
        input_names: what must be given, in the model's order: its own inputs, then run-time ones (`target`,
            `<input>_references`) where the model was compiled with such.
        attributed: the names of the attributed tensors.
        metadata: what irshap wrote about the compilation (version, pipeline, digests).

    Raises:
        ModelError: the file can't be read, isn't ONNX, or was not made by irshap.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | bytes | onnx.ModelProto | CompiledModel,
        providers: Sequence[Any] | None = None,
    ) -> None:
        self._session, where = _session(
            model, ["CPUExecutionProvider"] if providers is None else list(providers)
        )
        self._inputs = {v.name: v for v in self._session.get_inputs()}
        self._outputs = [v.name for v in self._session.get_outputs()]
        self.input_names = tuple(self._inputs)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.attributed = tuple(n.removesuffix(_SUFFIX) for n in self._outputs if n.endswith(_SUFFIX))
        if not self.attributed or _INDEX not in self._outputs:
            mend = "compile it first: irshap compile MODEL --references REFS --output EXPLAINED"
            raise ModelError("returns no attributions", where=where, mend=mend)

    def __call__(self, *arrays: Source, **named: Source) -> Explanation:
        """Explains samples.

        Args:
            arrays: one array for each input, in order, or one mapping from input names to arrays (or an .npz
                file); N samples each.  Floats of another width are converted, integers for floats refused.
            named: inputs by name.

        Raises:
            UserError: a missing or unknown input, a wrong shape or dtype, or no sample.
            TargetError: a run-time target out of range.
        """
        feed = self._feed(arrays, named)
        try:
            results = self._session.run(self._outputs, feed)
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            if "target" in feed and "target" in self._inputs:
                raise TargetError(
                    f"the run failed, perhaps a class that doesn't exist: {_line(error)}"
                ) from error
            raise UserError(f"ONNX Runtime failed: {_line(error)}", where="explained model") from error
        return self._explanation(feed, dict(zip(self._outputs, map(np.asarray, results), strict=True)))

    def _feed(self, arrays: tuple[Source, ...], named: Mapping[str, Source]) -> Arrays:
        names = list(self._inputs)
        given: Arrays = {}
        if len(arrays) == 1:
            # A plain array is the model's own input; run-time inputs come by name beside it.
            free = [n for n in self._own_inputs() if n not in named] or names
            given = as_arrays(arrays[0], free, UserError, "input")
        elif len(arrays) > len(names):
            raise UserError(
                f"{len(arrays)} arrays for {len(names)} inputs", mend=f"inputs: {', '.join(names)}"
            )
        else:
            for name, array in zip(names, arrays, strict=False):
                given |= as_arrays(array, [name], UserError, "input")
        for name, array in named.items():
            if name in given:
                raise UserError(f"input {name!r} is given twice")
            given |= as_arrays({name: array}, [name], UserError, "input")
        unknown_names(given, names, UserError, "input")
        if missing := [n for n in names if n not in given]:
            raise UserError(f"no value for input {', '.join(map(repr, missing))}")
        feed = {n: self._conform(n, given[n]) for n in names}
        # an input whose first axis is fixed is the same for all samples
        batched = [n for n in self._own_inputs() if not isinstance(next(iter(self._inputs[n].shape), 1), int)]
        counts = {n: len(feed[n]) for n in batched}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{n}: {c}" for n, c in counts.items())
            raise UserError(f"the inputs have different numbers of samples ({listed})")
        if 0 in counts.values():
            raise UserError("there is no sample: the first axis is empty", mend="give at least one")
        return feed

    def _own_inputs(self) -> list[str]:
        extra = {"target", "reference_weights"} if "irshap.pipeline" in self.metadata else set()
        return [n for n in self._inputs if n not in extra and not n.endswith("_references")]

    def _conform(self, name: str, array: Array) -> Array:
        meta = self._inputs[name]
        dtype = _DTYPES.get(meta.type)
        if dtype is None:
            raise UserError(f"input {name!r} has type {meta.type}, which irshap can't feed")
        shape = [d if isinstance(d, int) and d >= 0 else str(d or "?") for d in meta.shape]
        return conform(array, dtype, shape, UserError, f"input {name!r}")

    def _explanation(self, feed: Arrays, raw: Arrays) -> Explanation:
        own = {f"{n}{_SUFFIX}" for n in self.attributed} | {_BASE, _INDEX, _ERROR}
        outputs = {n: a for n, a in raw.items() if n not in own}
        values = {n: raw[f"{n}{_SUFFIX}"] for n in self.attributed}
        data = {n: feed[n] for n in self.attributed if n in feed}
        index, base, error = raw.get(_INDEX), raw.get(_BASE), raw.get(_ERROR)
        explained = self._explained(outputs, index)
        if error is None and base is not None and explained is not None:
            classes = 0 if index is None or index.ndim < 2 else 1
            error = explained.astype(np.float64) - base - _total(values, classes)
        single = len(values) == 1
        return Explanation(
            values=next(iter(values.values())) if single else values,
            base_values=base,
            data=next(iter(data.values())) if single and data else data,
            outputs=outputs,
            target_index=index,
            target_values=explained,
            completeness_error=error,
            raw=raw,
        )

    def _explained(self, outputs: Arrays, index: Array | None) -> Array | None:
        name = self.metadata.get("irshap.explained_output", "")
        if name not in outputs or index is None:
            return None
        rows = outputs[name].reshape(len(index), -1)
        columns = index if index.ndim == 2 else index[:, None]
        picked = np.take_along_axis(rows, columns, axis=1)
        return picked if index.ndim == 2 else picked[:, 0]


def _total(values: Mapping[str, Array], classes: int) -> Array:
    total: Any = 0.0
    for array in values.values():
        total = total + array.sum(axis=tuple(range(1 + classes, array.ndim)), dtype=np.float64)
    return np.asarray(total)


_FLOAT32 = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""The options with which a provider computes float32 as such."""


def _with_options(provider: Any) -> Any:
    """A provider as given, or where it is only named, with the options for float32."""
    return (provider, _FLOAT32[provider]) if isinstance(provider, str) and provider in _FLOAT32 else provider


def _session(model: Any, providers: list[Any]) -> tuple[Any, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # patterns hold one block for all tensors beside the arena: up to twice the memory, and no time saved
    options.enable_mem_pattern = False
    proto = getattr(model, "model", model)
    with tempfile.TemporaryDirectory(prefix="irshap-") as folder:
        if isinstance(proto, (str, os.PathLike)):
            where = os.fspath(proto)
            content: Any = where
            if not Path(where).is_file():
                problem = "is a folder" if Path(where).is_dir() else "no such file"
                raise ModelError(problem, where=where)
        elif isinstance(proto, bytes):
            where, content = "the model's bytes", proto
        else:
            where, content = "the model in memory", _serialized(proto, Path(folder))
        try:
            chosen = [_with_options(provider) for provider in providers]
            return onnxruntime.InferenceSession(content, options, providers=chosen), where
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            raise ModelError(f"ONNX Runtime can't load it: {_line(error)}", where=where) from error


def _serialized(proto: onnx.ModelProto, folder: Path) -> bytes | str:
    if proto.ByteSize() <= _MAX_PROTO:
        return bytes(proto.SerializeToString())
    from irshap.lowering.files.save import save_model

    save_model(proto, folder / "model.onnx", check=False)
    return str(folder / "model.onnx")


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("[ONNXRuntimeError] : ") if lines else type(error).__name__


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


_DTYPES = _dtypes()

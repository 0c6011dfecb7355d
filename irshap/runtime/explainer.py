"""An explained model, ready to run in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, Protocol, SupportsBytes, TypeAlias

import numpy as np
import onnxruntime

from irshap import contract
from irshap.errors import ModelError, TargetError, UserError
from irshap.runtime.arrays import DTYPES, Array, Arrays, Source, as_arrays, conform, unknown_names
from irshap.runtime.bfloat16 import BFLOAT16, run
from irshap.runtime.explanation import Explanation
from irshap.runtime.frames import columns_by_input, row_names
from irshap.runtime.labels import fitting
from irshap.runtime.samples import class_indices, require_finite_results, require_own, require_references
from irshap.runtime.sessions import opened
from irshap.runtime.sizes import is_whole

__all__ = ["ExplainedModel", "Explainer", "Message", "content_of", "known_providers", "session_of"]

_MAX_PROTO = 2**31 - 1


class Message(Protocol):
    """A protobuf message, such as an `onnx.ModelProto`, as far as this module knows it."""

    def ByteSize(self) -> int: ...  # noqa: N802
    def SerializeToString(self) -> bytes: ...  # noqa: N802


ExplainedModel: TypeAlias = str | os.PathLike[str] | SupportsBytes | Message
"""A path; bytes, or what gives them (a `CompiledModel`); an `onnx.ModelProto`."""


class Explainer:
    """Runs an explained model on samples.

    Args:
        model: the path of an explained model, its bytes, a `CompiledModel`, or an `onnx.ModelProto`.  Bytes
            and messages end at 2 GiB; a path has no limit, and weights in a data file beside it are mapped.
        providers: ONNX Runtime's execution providers, in order of preference; None: the CPU.  CUDA's without
            options is told not to use TF32, whose rounding attributions don't survive (docs/gpu.md).
        names: what people call features, classes and tokens (`Names`, or a mapping such as
            `{"features": [...], "classes": [...]}`), over what stands in the file.
        threads: how many work on one run; None: ONNX Runtime's choice.

    Attributes:
        input_names: what must be given, in the model's order: its own inputs, then run-time ones (`target`,
            `target_weights`, `<input>_references`) where the model was compiled with such.
        output_names: what it returns.
        attributed: the names of the attributed tensors.
        sample_axes: for each input that counts samples, on which axis.
        tensors: which inputs and outputs are irshap's, and what they are: all others are the model's own.
        names: what people call features, classes and tokens.
        metadata: what irshap wrote about the compilation (version, pipeline, digests).

    Raises:
        ModelError: the file can't be read, isn't ONNX, or was not made by irshap.
        UserError: a provider that isn't there, a number of threads that is none, names that don't fit.
    """

    def __init__(
        self,
        model: ExplainedModel,
        providers: Sequence[Any] | None = None,
        names: Any = None,
        threads: int | None = None,
    ) -> None:
        content, where = content_of(model)
        # as it is now: another process may work in another folder
        self._path = str(Path(content).absolute()) if isinstance(content, str) else None
        self._given = (providers, names, threads)
        if threads is not None and not is_whole(threads, 1):
            raise UserError(f"threads={threads!r}", mend="give 1 or more, or None for ONNX Runtime's choice")
        chosen = ["CPUExecutionProvider"] if providers is None else known_providers(providers)
        self._session = session_of(content, where, chosen, threads)
        self._inputs = {v.name: v for v in self._session.get_inputs()}
        self.output_names = tuple(v.name for v in self._session.get_outputs())
        self.input_names = tuple(self._inputs)
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.tensors = _tensors(self.metadata, self.input_names, self.output_names, where)
        self._batch, self._axes = _fixed_batch(self.metadata, where)
        ends = (*self._session.get_inputs(), *self._session.get_outputs())
        counted = [v for v in ends if v.name in self._axes]
        if strange := [v.name for v in counted if not 0 <= self._axes[v.name] < len(v.shape)]:
            what = f"its metadata {contract.Metadata.BATCH} names an axis that {strange[0]!r} hasn't"
            raise ModelError(what, where=where, mend="compile the model again")
        references = {name: self._inputs[name].shape for name in self.tensors.references.values()}
        if alone := [name for name, shape in references.items() if "R" not in shape]:
            what = f"its input {alone[0]!r} should take references, and has no axis R for them"
            raise ModelError(what, where=where, mend="compile the model again")
        self._references = {name: shape.index("R") for name, shape in references.items()}
        # an input without such an axis is the same for all samples
        own = {name for name in references if "N" in self._shape(self._inputs[name])}
        theirs = self.tensors.inputs - {self.tensors.target_weights} - own
        if self._batch:
            theirs = theirs - set(self._axes)
        rows = {n: _rows(self._shape(v)) for n, v in self._inputs.items() if n not in theirs}
        self.sample_axes = {n: axis for n, axis in rows.items() if axis is not None}
        self.attributed = tuple(self.tensors.attributions)
        if not self.attributed:
            mend = "compile it first: irshap compile MODEL --references REFS --output EXPLAINED"
            raise ModelError("returns no attributions", where=where, mend=mend)
        self.names = self._named(contract.Names.of(names))

    def __call__(self, /, *arrays: Source, **named: Source) -> Explanation:
        """Explains samples.

        Args:
            arrays: one array for each input, in order, or one mapping from input names to arrays (or an .npz
                file); N samples each.  Floats of another width are converted, integers for floats refused.
            named: inputs by name.

        A DataFrame's columns are put in the order in which the file names an input's features, and its index
        names the samples.

        Raises:
            UserError: a missing or unknown input, a wrong shape or dtype, no sample, or one with NaN or
                infinity that reaches its attributions.
            TargetError: a run-time target that isn't one class for each sample, or for all, or out of range.
        """
        feed = self.feed(*arrays, **named)
        raw = self.results(feed)
        own = {n: feed[n] for n in self._own_inputs() if n in self.sample_axes}
        require_finite_results(own, self.sample_axes, [raw[n] for n in self.tensors.outputs])
        found = self.explanation(feed, raw)
        rows = row_names(
            [*arrays, *(value for name, value in named.items() if name not in self.tensors.inputs)]
        )
        counted = rows is not None and not any(self.sample_axes.values()) and len(rows) == len(found)
        return found.with_labels(rows) if counted else found

    def results(self, feed: Arrays, names: Sequence[str] | None = None) -> Arrays:
        """What the file returns for a feed, by the names of its outputs.

        Args:
            feed: what `feed` gave, or the same rows of each of its arrays that have some.
            names: of the outputs that are wanted; None: all.

        Raises:
            UserError: ONNX Runtime fails.
        """
        wanted = self.output_names if names is None else names
        try:
            results = self._run(feed, wanted)
        except Exception as error:  # ONNX Runtime's errors have no common base but this
            if self.tensors.target is not None:
                what = f"the run failed, perhaps a class that doesn't exist: {_line(error)}"
                raise TargetError(what, mend="give classes that the output has, from 0 on") from error
            raise UserError(f"ONNX Runtime failed: {_line(error)}", where="explained model") from error
        return dict(zip(wanted, map(np.asarray, results), strict=True))

    def explanation(self, feed: Arrays, raw: Arrays) -> Explanation:
        """What a feed and its results mean; NaN is no error here."""
        name = self.metadata.get(contract.Metadata.EXPLAINED_OUTPUT)
        return Explanation.of(raw, feed, name, self.tensors, self.axes, self.names)

    @property
    def axes(self) -> dict[str, int | None]:
        """On which axis each input and output counts samples; None: on none."""
        ends = (*self._inputs.values(), *self._session.get_outputs())
        return {v.name: _rows(self._shape(v)) for v in ends}

    @property
    def sample_shapes(self) -> dict[str, tuple[int | None, ...]]:
        """What has a row for each sample, and the shape of such a row, None for a free size.

        The class to explain is among them, where it is given at run time.
        """
        found = {}
        for name, axis in self.row_axes.items():
            shape = self._shape(self._inputs[name])
            row = shape[:axis] + shape[axis + 1 :]
            found[name] = tuple(d if isinstance(d, int) else None for d in row)
        return found

    @property
    def row_axes(self) -> dict[str, int]:
        """As `sample_axes`, with the class to explain, where it is given at run time."""
        target = self.tensors.target
        return self.sample_axes if target is None else {**self.sample_axes, target: 0}

    def features(self, *taken: tuple[Source, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        """What the features of each input are called: as the file says, or as columns of samples are.

        References at run time have those of the input that they are for.

        Args:
            taken: samples, with the inputs that they may be for.
        """
        found: dict[str, tuple[str, ...]] = {}
        for source, names in taken:
            found |= columns_by_input(source, names[0] if len(names) == 1 else contract.ONLY)
        found |= self.names.features
        return found | {given: found[n] for n, given in self.tensors.references.items() if n in found}

    @property
    def batch(self) -> int | None:
        """How many samples the file takes at a time; None: any number."""
        return self._batch

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's execution providers that the model runs on, the preferred first."""
        return tuple(self._session.get_providers())

    def _shape(self, end: Any) -> list[Any]:
        """The shape of an input or output, N where it counts samples, also where their number is fixed."""
        shape = list(end.shape)
        if (axis := self._axes.get(end.name)) is not None:
            shape[axis] = "N"
        return shape

    def feeds(self, /, *arrays: Source, **named: Source) -> list[Arrays]:
        """What the file is given for these samples: arrays by input, checked and converted.

        One feed, or of a file for a fixed number of samples one for each so many.

        Raises:
            UserError: as when it explains them.
        """
        return self._parts(self.feed(*arrays, **named))

    def _parts(self, feed: Arrays) -> list[Arrays]:
        if self._batch is None:
            return [feed]
        count = next(feed[n].shape[axis] for n, axis in self.sample_axes.items())
        if count % self._batch:
            what = f"{count} samples, for a file that takes {self._batch} at a time"
            raise UserError(what, mend="give a multiple, or compile with another batch= (--batch)")
        parts = []
        for start in range(0, count, self._batch):
            rows = range(start, start + self._batch)
            parts.append({**feed, **{n: np.take(feed[n], rows, a) for n, a in self.sample_axes.items()}})
        return parts

    def _run(self, feed: Arrays, names: Sequence[str]) -> list[Any]:
        """These outputs, in order."""
        rounds = [run(self._session, names, part) for part in self._parts(feed)]
        if len(rounds) == 1:
            return rounds[0]
        axes = (self._axes.get(name) for name in names)
        return [
            each[0] if axis is None else np.concatenate(each, axis)
            for axis, *each in zip(axes, *rounds, strict=True)
        ]

    def __reduce__(self) -> tuple[Any, ...]:
        """By the path of its file, which another process reads again."""
        if self._path is None:
            mend = "save the model, and make the Explainer of its path"
            raise UserError("an Explainer of a model in memory can't be pickled", mend=mend)
        return type(self), (self._path, *self._given)

    def _named(self, given: contract.Names) -> contract.Names:
        inner = {v.name: v.shape for v in (*self._inputs.values(), *self._session.get_outputs())}
        shapes = {n: inner.get(n, inner[out]) for n, out in self.tensors.attributions.items()}
        sizes = {n: s[-1] if len(s) > 1 and isinstance(s[-1], int) else None for n, s in shapes.items()}
        try:
            stored = contract.Names.from_text(self.metadata.get(contract.Metadata.NAMES, ""))
        except ValueError as error:
            what = f"its metadata {contract.Metadata.NAMES} is damaged: {error}"
            raise ModelError(what, mend="compile the model again") from error
        fit = partial(fitting, sizes=sizes, classes=self._classes())
        return fit(given).over(fit(stored))

    def feed(self, /, *arrays: Source, **named: Source) -> Arrays:
        """What samples are to the file: arrays by input, checked and converted, as when it explains them.

        Raises:
            UserError: as when it explains them.
        """
        names = list(self._inputs)
        if len(arrays) > len(names):
            raise UserError(
                f"{len(arrays)} arrays for {len(names)} inputs", mend=f"inputs: {', '.join(names)}"
            )
        # A plain array is the model's own input; run-time inputs come by name beside it.
        free = [n for n in self._own_inputs() if n not in named] or names
        meant = [free] if len(arrays) == 1 else [[name] for name in names]
        taken: list[tuple[Source, list[str]]] = [*zip(arrays, meant, strict=False)]
        taken += [({name: array}, [name]) for name, array in named.items()]
        features, given = self.features(*taken), Arrays()
        for source, wanted in taken:
            found = as_arrays(source, wanted, UserError, "input", features)
            if twice := [name for name in found if name in given]:
                raise UserError(f"input {twice[0]!r} is given twice", mend="give it once")
            given |= found
        unknown_names(given, names, UserError, "input")
        if missing := [n for n in names if n not in given]:
            added = [n for n in missing if n in self.tensors.inputs]
            mend = f"say it beside the samples: {added[0]}=... (--target, --references)" if added else None
            raise UserError(f"no value for input {', '.join(map(repr, missing))}", mend=mend)
        self.spread_weights(given)
        self._spread_target(given)
        feed = {n: self._conform(n, given[n]) for n in names}
        require_references({n: feed[n] for n in self._references}, self._references)
        counts = {n: feed[n].shape[axis] for n, axis in self.sample_axes.items()}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{n}: {c}" for n, c in counts.items())
            mend = "give as many for each input"
            raise UserError(f"the inputs have different numbers of samples ({listed})", mend=mend)
        if 0 in counts.values():
            raise UserError("there is no sample: the first axis is empty", mend="give at least one")
        self._stretch_references(feed)
        return feed

    def spread_weights(self, given: Arrays) -> None:
        """Gives each sample the weights of the explained output, where `given` has them once for all."""
        name = self.tensors.target_weights
        if name not in given or given[name].ndim != len(self._inputs[name].shape) - 1:
            return
        shapes = ((axis, given[n].shape) for n, axis in self.sample_axes.items() if n != name and n in given)
        count = next((shape[axis] for axis, shape in shapes if len(shape) > axis), 1)
        given[name] = np.broadcast_to(given[name], (count, *given[name].shape))

    def _stretch_references(self, feed: Arrays) -> None:
        """Gives references the sizes of the samples on open axes, where theirs is 1."""
        for name, place in self.tensors.references.items():
            if (axis := self.sample_axes.get(name)) is None:
                continue
            sizes = tuple(np.delete(feed[name].shape, axis).tolist())
            head = feed[place].shape[: self._references[place] + 1]
            own = feed[place].shape[len(head) :]
            if len(own) != len(sizes) or any(o not in (1, s) for o, s in zip(own, sizes, strict=True)):
                what = f"references of shape {list(own)} for samples of {list(sizes)}"
                raise UserError(what, where=f"input {place!r}", mend="give the same sizes, or 1 for any")
            feed[place] = np.broadcast_to(feed[place], head + sizes)

    def _spread_target(self, given: Arrays) -> None:
        """The class to explain of each sample, where it is chosen at run time."""
        name = self.tensors.target
        if name is None:
            return
        shapes = ((n, axis, given[n].shape) for n, axis in self.sample_axes.items() if n != name)
        count = next((shape[axis] for _, axis, shape in shapes if len(shape) > axis), 1)
        given[name] = class_indices(given[name], count, self._classes(), f"input {name!r}")

    def _classes(self) -> int | None:
        """How many classes the explained output has, if it is one of the model's and says so."""
        explained = self.metadata.get(contract.Metadata.EXPLAINED_OUTPUT)
        shape = next((v.shape for v in self._session.get_outputs() if v.name == explained), None)
        if shape is None:
            return None
        batch = self._axes.get(str(explained), _rows(shape) or 0)
        sizes = [size for axis, size in enumerate(shape) if axis != batch]
        return prod(sizes) if all(isinstance(size, int) for size in sizes) else None

    def _own_inputs(self) -> list[str]:
        return [n for n in self._inputs if n not in self.tensors.inputs]

    def _conform(self, name: str, array: Array) -> Array:
        meta = self._inputs[name]
        # numpy has no bfloat16: it comes as float32, and is rounded on its way in
        dtype = np.dtype(np.float32) if meta.type == BFLOAT16 else DTYPES.get(meta.type)
        if dtype is None:
            raise UserError(f"input {name!r} has type {meta.type}, which irshap can't feed")
        shape = [d if isinstance(d, int) and d >= 0 else str(d or "?") for d in self._shape(meta)]
        if self._references.get(name):
            require_own(array, len(shape), f"input {name!r}")
        return conform(array, dtype, shape, UserError, f"input {name!r}")


def _tensors(
    metadata: Mapping[str, str], inputs: Sequence[str], outputs: Sequence[str], where: str
) -> contract.Tensors:
    text = metadata.get(contract.Metadata.TENSORS)
    if text is None:
        return contract.Tensors.by_name(inputs, outputs)
    try:
        found = contract.Tensors.from_text(text)
        strange = (found.inputs - set(inputs)) | (found.outputs - set(outputs))
    except (AttributeError, TypeError, ValueError) as error:
        what = f"its metadata {contract.Metadata.TENSORS} is damaged: {error}"
        raise ModelError(what, where=where, mend="compile the model again") from error
    if strange:
        what = f"its metadata {contract.Metadata.TENSORS} names tensors that it hasn't: {sorted(strange)}"
        raise ModelError(what, where=where, mend="compile the model again")
    return found


def _fixed_batch(metadata: Mapping[str, str], where: str) -> tuple[int | None, dict[str, int]]:
    """How many samples a file takes at a time, if that is fixed, and by tensor the axis that counts them."""
    text = metadata.get(contract.Metadata.BATCH)
    if text is None:
        return None, {}
    try:
        told = contract.said(text)
        size, axes = int(told["size"]), {str(name): int(axis) for name, axis in told["axes"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"its metadata {contract.Metadata.BATCH} is damaged: {error}"
        raise ModelError(what, where=where, mend="compile the model again") from error
    return size, axes


def _rows(shape: Sequence[Any]) -> int | None:
    """The axis that counts samples: the one called N, or else the first if its size is open."""
    if "N" in shape:
        return list(shape).index("N")
    return 0 if shape and not isinstance(shape[0], int) else None


_FLOAT32 = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""The options with which a provider computes float32 as such."""


def _with_options(provider: Any) -> Any:
    """A provider as given, or where it is only named, with the options for float32."""
    return (provider, _FLOAT32[provider]) if isinstance(provider, str) and provider in _FLOAT32 else provider


def content_of(model: ExplainedModel) -> tuple[str | bytes, str]:
    """What ONNX Runtime loads, a path or bytes, and what messages call it."""
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        if not Path(path).is_file():
            raise ModelError("is a folder" if Path(path).is_dir() else "no such file", where=path)
        return path, path
    if isinstance(model, (bytes, SupportsBytes)):  # Python 3.10's bytes have no __bytes__
        return bytes(model), "the model's bytes"
    where = "the model in memory"
    if not hasattr(model, "SerializeToString"):
        mend = "give a path, bytes, a CompiledModel or an onnx.ModelProto"
        raise ModelError(f"{type(model).__name__} is no model", where=where, mend=mend)
    if model.ByteSize() > _MAX_PROTO:
        mend = "save it with its weights as external data (irshap.lowering.save_model), and give the path"
        raise ModelError("is over 2 GiB, more than one message holds", where=where, mend=mend)
    return model.SerializeToString(), where


def session_of(
    content: str | bytes,
    where: str,
    providers: Sequence[Any],
    threads: int | None,
    profile: str | None = None,
) -> Any:
    """ONNX Runtime's session of what `content_of` gave.

    Args:
        threads: None: ONNX Runtime's choice.
        profile: how the file begins to whose end it writes what it ran.

    Raises:
        ModelError: it can't load the model.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: as many as there are cores
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, profile
    # what goes wrong comes as an exception; the log would go to the terminal
    options.log_severity_level = 4
    # patterns hold one block for all tensors beside the arena: up to twice the memory, and no time saved
    options.enable_mem_pattern = False
    chosen = [_with_options(provider) for provider in providers]
    try:
        return opened(content, options, chosen)
    except Exception as error:  # ONNX Runtime's errors have no common base but this
        mend = "its .data file, if it has one, lies beside it; ONNX Runtime must not be older than its opset"
        raise ModelError(f"ONNX Runtime can't load it: {_line(error)}", where=where, mend=mend) from error


def known_providers(given: Any) -> list[Any]:
    """Providers that this ONNX Runtime has; it would go on with the CPU in place of one that it hasn't.

    Raises:
        UserError: it is no list, or one isn't there.
    """
    known = onnxruntime.get_available_providers()
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UserError(f"providers={given!r} is no list", mend=f"give some of {', '.join(known)} in a list")
    for provider in (listed := list(given)):
        name = provider if isinstance(provider, str) else next(iter(provider), None)
        if name not in known:
            mend = f"there are {', '.join(known)}; irshap doctor tells more"
            raise UserError(f"this ONNX Runtime has no provider {name!r}", mend=mend)
    return listed


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].removeprefix("[ONNXRuntimeError] : ") if lines else type(error).__name__

"""Reading ONNX models, which are untrusted: the outcome is a valid model in memory or one `ModelError`."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, checker, inliner

from irshap.errors import ModelError
from irshap.ir.types import Array
from irshap.lowering.files.external import read_external_data
from irshap.lowering.files.protos import (
    first_line,
    has_broken_text,
    is_outlined,
    messages,
    nbytes,
    nodes,
    on_outline,
    outline,
    tensors,
)
from irshap.lowering.files.weights import Weights
from irshap.lowering.files.wire import resident

__all__ = ["Opened", "infer_shapes", "inline_functions", "load_model", "open_model"]

OLDEST_OPSET = 7
MAX_PROTO = 2**31 - 1  # protobuf's limit for one message
_DEFAULT_DOMAIN = ("", "ai.onnx")
_MOST_NODES = 100_000
"""With functions written out.  Compiling takes about 10 ms a node: more would take hours."""

_MOST_AXES = 2**16
"""No tensor has so many."""

_RUNTIMES_OWN = ("LayerNormalization", "SimplifiedLayerNormalization")
"""Ops that ONNX Runtime's optimizers write into ONNX's domain, in opsets that don't have them."""

# What people pass by mistake, by the file's first bytes.
_LOOKALIKES = {
    b"\x89PNG": ("a PNG image", None),
    b"\x89HDF": ("an HDF5 file (Keras?)", "export the model to ONNX first"),
    b"PK\x03\x04": ("a zip archive (a PyTorch checkpoint?)", "export the model to ONNX first"),
    b"version https://git-lfs": ("a Git LFS pointer, not the model itself", "run: git lfs pull"),
}


class Opened(NamedTuple):
    """A model that was read.

    Attributes:
        model: valid, and without external data.
        arrays: the data of large weights, which the model's tensors have while these are held.
    """

    model: onnx.ModelProto
    arrays: Sequence[Array]


def load_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> onnx.ModelProto:
    """Read a model and check it; the result is valid, holds all its weights and shares nothing with `source`.

    As `open_model`, all in memory.
    """
    opened = open_model(source)
    return resident(opened.model)


def open_model(source: str | os.PathLike[str] | bytes | onnx.ModelProto) -> Opened:
    """Read a model and check it; the result is valid and shares nothing with `source`.

    Large weights are copied to a temporary file and mapped from it, so that they take no memory but what is
    read of them for a moment; a file that is written anew meanwhile does no harm.

    Args:
        source: a path, a serialized model, or a model in memory, which stays as it is.

    The model file may be a symbolic link; its external data, looked for in the folder of the given path, may
    not (see `read_external_data`).  A model given as bytes or in memory has no folder, so that its external
    data must be loaded already.

    Raises:
        ModelError: no such file, not ONNX, truncated, invalid, over 2 GiB in one message, an opset below 7 or
            newer than the installed onnx, or external data that is refused, missing or of the wrong size.
    """
    folder, weights = None, Weights()
    if isinstance(source, onnx.ModelProto):
        where = "the model in memory"
        model = weights.copied(source)
    elif isinstance(source, bytes):
        where = "the model's bytes"
        model = _parse(source, where, weights)
    else:
        # Names are untrusted too: a control character in one must not reach the terminal.
        where = first_line(ValueError(os.fspath(source)))
        model = _parse(_read(Path(source), where), where, weights)
        folder = Path(source).parent
    _check_versions(model, where)
    read_external_data(model, folder, where, weights)
    weights.hold()
    _check(model, where)
    _require_few_nodes(model, where)
    for node in messages(model):
        if isinstance(node, onnx.NodeProto):
            _refuse_fatal(node)
            _cut_blanks(node)
    return Opened(model, weights.arrays)


def _require_few_nodes(model: onnx.ModelProto, where: str) -> None:
    """Refuses more nodes than can be compiled: functions that call others twice double with each of them."""
    calls = {(f.domain, f.name, f.overload): _called(f) for f in model.functions}
    sizes: dict[tuple[str, str, str], int] = {}

    def size(called: Counter[tuple[str, str, str]]) -> int:
        return sum(sizes.get(kind, 1) * times for kind, times in called.items())

    try:
        for kind in TopologicalSorter(calls).static_order():
            if kind in calls:
                sizes[kind] = size(calls[kind])
    except CycleError:  # which the checker refuses, too, where it looks at overloads
        raise ModelError("its functions call themselves", where=where) from None
    if size(_called(model.graph)) > _MOST_NODES:
        what = f"has more than {_MOST_NODES} nodes, functions written out: the most that irshap compiles"
        raise ModelError(what, where=where)


def _called(body: onnx.GraphProto | onnx.FunctionProto) -> Counter[tuple[str, str, str]]:
    """How often each op or function stands in it."""
    return Counter((n.domain, n.op_type, n.overload) for n in nodes(body))


def _cut_blanks(node: onnx.NodeProto) -> None:
    """Leaves out absent inputs that nothing follows, which says the same: DFT of ONNX Runtime reads them."""
    while node.input and not node.input[-1]:
        del node.input[-1]


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with the calls of its local functions replaced by their bodies, and no functions left.

    A body is read at the model's opset, as ONNX Runtime does; the checker has made sure that this doesn't
    change any of its ops.  So no version conversion is needed, which onnx's inliner otherwise wants whenever
    the numbers differ: without it, it leaves such a call in place without a word.

    Raises:
        ModelError: the functions can't be inlined, or the result isn't valid.
    """
    if not model.functions:
        return model

    def tool(shell: onnx.ModelProto) -> onnx.ModelProto:
        imports = _align_opsets(shell)
        # Runtimes prefer the standard op to a function of the same name; onnx's inliner does not.
        for f in list(shell.functions):
            if onnx.defs.has(f.name, imports.get(f.domain, 1), f.domain):
                shell.functions.remove(f)
        _bind_defaults(shell)
        return inliner.inline_local_functions(shell)

    where = "local functions"
    try:
        inlined = on_outline(tool, model)
    except (EncodeError, DecodeError, checker.ValidationError, RuntimeError, ValueError) as error:
        raise ModelError(f"can't be inlined: {first_line(error)}", where=where) from error
    if inlined.functions:
        names = ", ".join(repr(f"{f.domain}.{f.name}") for f in inlined.functions)
        raise ModelError(f"can't be inlined: {names}", where=where)
    _check(inlined, "the model after inlining its functions")
    return inlined


def infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with the types in `value_info` that onnx's shape inference finds.

    Inference is best effort: what it can't tell, or what contradicts a declared shape, it leaves out.

    Raises:
        ModelError: inference fails as a whole.
    """
    try:
        return on_outline(_inferred, model)
    except (EncodeError, DecodeError, onnx.shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise ModelError(f"shape inference fails: {first_line(error)}", where="the model") from error


def _refuse_fatal(node: onnx.NodeProto) -> None:
    """Refuses what onnx's inference doesn't look at before it ends the process in a fault."""
    where = f"{node.name or next(iter(node.output), '')!r} ({node.op_type})"
    numbers = {a.name: a.i for a in node.attribute if a.type == onnx.AttributeProto.INT}
    if abs(axis := numbers.get("axis", 0)) > _MOST_AXES:
        raise ModelError(f"no tensor has an axis {axis}", where=where)
    if node.op_type == "Split" and numbers.get("num_outputs", len(node.output)) != len(node.output):
        raise ModelError(
            f"has {len(node.output)} outputs, and num_outputs={numbers['num_outputs']}", where=where
        )


def _inferred(shell: onnx.ModelProto) -> onnx.ModelProto:
    """Without values propagated: onnx lists each vector in arithmetic element by element, however long.

    Two numbers of 2^19 that are multiplied may say how long, so a look at the model's numbers bounds nothing;
    what irshap has an op for has its own shape arithmetic.  A negative size, which some exporters write for
    one that they don't know, would end the process in an assertion.
    """
    for part in messages(shell):
        if isinstance(part, onnx.TensorShapeProto.Dimension) and part.dim_value < 0:
            part.Clear()
    return onnx.shape_inference.infer_shapes(shell)


def _read(path: Path, where: str) -> bytes:
    try:
        info = path.stat()
        if stat.S_ISDIR(info.st_mode):
            raise ModelError("is a folder", where=where, mend="give the .onnx file in it")
        if not stat.S_ISREG(info.st_mode):  # reading a pipe or a device could wait for ever
            raise ModelError("is not a regular file", where=where)
        if info.st_size > MAX_PROTO:
            raise _too_large(where)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError("no such file", where=where) from error
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ModelError(f"can't be read: {reason}", where=where) from error


def _too_large(where: str) -> ModelError:
    mend = "save it with its weights as external data: onnx.save(model, path, save_as_external_data=True)"
    return ModelError("is over 2 GiB, the limit of one ONNX message", where=where, mend=mend)


_EXPORT = "give the .onnx file that torch.onnx.export, skl2onnx or tf2onnx writes"
"""How what is no model becomes one."""


def _parse(data: bytes, where: str, weights: Weights) -> onnx.ModelProto:
    if not data:
        raise ModelError("is empty, not an ONNX model", where=where, mend=_EXPORT)
    if len(data) > MAX_PROTO:
        raise _too_large(where)
    for magic, (what, mend) in _LOOKALIKES.items():
        if data.startswith(magic):
            raise ModelError(f"is {what}", where=where, mend=mend or "give an ONNX model")
    try:
        model = weights.parsed(data)
    except DecodeError as error:
        # Writers put the field ir_version first, so its tag tells a damaged model from something else.
        if data[:1] == b"\x08":
            mend = "copy or export it again"
            raise ModelError("is a truncated or damaged ONNX model", where=where, mend=mend) from error
        raise ModelError("is not an ONNX model", where=where, mend=_EXPORT) from error
    if not model.HasField("graph"):
        what = "is not an ONNX model, or truncated: it has no graph"
        raise ModelError(what, where=where, mend=_EXPORT)
    if has_broken_text(model):
        mend = "copy or export it again"
        raise ModelError("is damaged: it has names that are not UTF-8", where=where, mend=mend)
    return model


def _check_versions(model: onnx.ModelProto, where: str) -> None:
    upgrade = "upgrade the package onnx, or export the model for an older version"
    if model.ir_version > onnx.IR_VERSION:
        what = f"has IR version {model.ir_version}; the installed onnx knows up to {onnx.IR_VERSION}"
        raise ModelError(what, where=where, mend=upgrade)
    opsets = {entry.version for entry in model.opset_import if entry.domain in _DEFAULT_DOMAIN}
    if len(opsets) > 1:
        raise ModelError(f"imports several opsets at once: {sorted(opsets)}", where=where)
    opset = opsets.pop() if opsets else OLDEST_OPSET if model.ir_version >= 3 else 1
    if opset < OLDEST_OPSET:
        mend = "convert it with onnx.version_converter.convert_version(model, 13)"
        raise ModelError(f"has opset {opset}; irshap reads {OLDEST_OPSET} and up", where=where, mend=mend)
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ModelError(
            f"has opset {opset}; the installed onnx knows up to {newest}", where=where, mend=upgrade
        )


def _check(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError unless onnx.checker accepts the model.  Needs all weights in memory."""
    for tensor in tensors(model):
        place = f"{where}, tensor {tensor.name!r}"
        if tensor.data_type not in TensorProto.DataType.values():  # the checker lets it pass
            raise ModelError(f"has the unknown element type {tensor.data_type}", where=place)
        if tensor.HasField("raw_data") and (held := len(tensor.raw_data)) != nbytes(tensor):
            what = f"holds {held} bytes of data; its type and dims need {nbytes(tensor)}"
            raise ModelError(what, where=place)
    shell = outline(model)
    for tensor, light in zip(model.graph.initializer, shell.graph.initializer, strict=True):
        if is_outlined(tensor):
            light.dims[:] = [0]  # the only shape whose data may be empty
    _leave_out_runtimes_own(shell)
    try:
        checker.check_model(shell)
    except EncodeError as error:
        raise _too_large(f"{where}, without its initializers,") from error
    except (checker.ValidationError, RuntimeError, ValueError) as error:
        mend = "export it again, with a newer exporter or for another opset"
        what = f"is not a valid ONNX model: {first_line(error)}"
        raise ModelError(what, where=where, mend=mend) from error
    _check_inputs(model, where)


def _leave_out_runtimes_own(shell: onnx.ModelProto) -> None:
    """Moves ops of ONNX Runtime out of ONNX's domain, whose checker doesn't know them."""
    opset = max((o.version for o in shell.opset_import if o.domain in _DEFAULT_DOMAIN), default=1)
    own = [k for k in _RUNTIMES_OWN if not onnx.defs.has(k, opset, "")]
    moved = [n for n in nodes(shell.graph) if n.domain in _DEFAULT_DOMAIN and n.op_type in own]
    for node in moved:
        node.domain = "com.microsoft"
    if moved and all(o.domain != "com.microsoft" for o in shell.opset_import):
        shell.opset_import.add(domain="com.microsoft", version=1)


def _check_inputs(model: onnx.ModelProto, where: str) -> None:
    """Raise ModelError for a node that lacks one of any number of inputs (Einsum): runtimes crash on it.

    The checker sees to all others.
    """
    opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
    for node in nodes(model.graph):
        domain = "" if node.domain == "ai.onnx" else node.domain
        if "" not in node.input or not onnx.defs.has(node.op_type, opsets.get(domain, 1), domain):
            continue
        formal = onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain).inputs
        for i in (i for i, name in enumerate(node.input) if not name):
            one = formal[min(i, len(formal) - 1)]
            if one.option == onnx.defs.OpSchema.FormalParameterOption.Variadic and one.is_homogeneous:
                place = f"{where}, node {node.name or next(filter(None, node.output), '')!r} ({node.op_type})"
                raise ModelError(f"lacks its input {i} ({one.name})", where=place)


def _align_opsets(model: onnx.ModelProto) -> dict[str, int]:
    """Give functions the model's opsets, and the model those that only a function imports; the imports."""
    functions = [entry for function in model.functions for entry in function.opset_import]
    for entry in (*model.opset_import, *functions):
        if entry.domain == "ai.onnx":
            entry.domain = ""  # two spellings of one domain
    imports = {entry.domain: entry.version for entry in model.opset_import}
    for entry in functions:
        if entry.domain not in imports:
            model.opset_import.add().CopyFrom(entry)
        entry.version = imports.setdefault(entry.domain, entry.version)
    return imports


def _bind_defaults(model: onnx.ModelProto) -> None:
    """Write the default attributes of functions into the calls: onnx 1.23's inliner forgets them."""
    defaults = {(f.domain, f.name, f.overload): f.attribute_proto for f in model.functions}
    bodies: list[onnx.GraphProto | onnx.FunctionProto] = [model.graph, *model.functions]
    for body in bodies:
        for node in nodes(body):
            given = {attribute.name for attribute in node.attribute}
            for default in defaults.get((node.domain, node.op_type, node.overload), ()):
                if default.name not in given:
                    node.attribute.add().CopyFrom(default)

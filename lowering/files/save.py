"""Writing ONNX models: all of it or nothing, and the same bytes for the same model."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, checker

from irshap.errors import ModelError, UserError
from irshap.lowering.files.held import data_of, held
from irshap.lowering.files.protos import first_line, is_outlined, nbytes, outline, tensors
from irshap.lowering.files.wire import pieces

__all__ = ["MAX_PROTO", "save_model"]

MAX_PROTO = 2**31 - 1
_TAG_BYTES = 16  # what protobuf writes around one tensor's raw data, at most
_PAGE = 4096  # ONNX asks for offsets at which a runtime can map a tensor into memory


def save_model(
    model: onnx.ModelProto,
    path: str | os.PathLike[str],
    *,
    external_over: int = MAX_PROTO,
    check: bool = True,
) -> None:
    """Write `model` to `path`, and its large weights to `<path>.data` if it is over `external_over` bytes.

    Everything is written, synced and checked in a hidden folder beside `path` and then renamed into place.
    So on any error or interrupt an existing output stays as it was.  One file is replaced atomically.  With
    two, the old ones move aside first: a process killed between these renames leaves a model whose data is
    missing, or none, but never one that runs with another's weights.  A symbolic link at `path` is replaced.
    A data file that an earlier, larger output left is not removed.

    Args:
        model: stays as it is; its weights are its own, or held (irshap.lowering.files.held).
        path: the file to write; its folder exists.
        external_over: the size in bytes above which weights become external data.
        check: run onnx.checker with full check on what was written before it takes its place.

    Raises:
        UserError: the folder doesn't exist or isn't writable, the path is a folder, or the disk is full.
        ModelError: the model isn't valid, refers to external data, or is over 2 GiB without its initializers.
        MemoryError: it can't be put together in one piece.
    """
    path = Path(path)
    where = first_line(ValueError(str(path)))
    if "\0" in str(path):
        raise UserError("has a zero byte in its name", where=where)
    try:
        if not path.parent.is_dir():
            raise UserError("its folder does not exist", where=where, mend="create it first")
        if path.is_dir():
            raise UserError("is a folder", where=where, mend="give a file name in it")
        if path.exists() and not path.is_file():
            raise UserError("is not a regular file", where=where)
        # The folder is beside the output, since a rename is atomic only within one file system.
        with tempfile.TemporaryDirectory(prefix=f".{path.name[:50]}.", dir=path.parent) as stage:
            names = _write(model, Path(stage), path.name, external_over, where)
            if check:
                _check(Path(stage, path.name), where)
            _move(Path(stage), path.parent, names)
            _sync(path.parent)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror or first_line(error)}", where=where) from error


def _write(model: onnx.ModelProto, stage: Path, name: str, external_over: int, where: str) -> Sequence[str]:
    """Write the model's file, and its data file if needed, into `stage`; the names of what was written."""
    external = (t for t in tensors(model) if t.data_location == TensorProto.EXTERNAL)
    if any(held(t) is None for t in external):
        raise ModelError("refers to external data", where=where, mend="read it with load_model first")
    shell = outline(model)
    large = [tensor for tensor in model.graph.initializer if is_outlined(tensor)]
    try:
        rest = sum(map(len, pieces(shell)))
    except EncodeError:
        rest = MAX_PROTO + 1
    if rest > MAX_PROTO:
        mend = "keep large constants in initializers, not in nodes"
        raise ModelError("is over 2 GiB without its initializers", where=where, mend=mend)
    size = rest + sum(nbytes(tensor) + _TAG_BYTES for tensor in large)
    if not large or size <= min(external_over, MAX_PROTO):
        try:
            _write_file(stage / name, pieces(model))
        except EncodeError as error:  # protobuf says no more of a message that would fit
            raise MemoryError(f"{where} has {size / 2**30:.1f} GiB, which are put together first") from error
        return [name]
    _write_data(large, shell, stage / f"{name}.data")
    _write_file(stage / name, pieces(shell))
    return [name, f"{name}.data"]


def _write_data(large: Sequence[TensorProto], shell: onnx.ModelProto, file: Path) -> None:
    """Write the tensors' data to `file`, each at a page of its own, and refer to it from the outline."""
    targets = {tensor.name: tensor for tensor in shell.graph.initializer}
    with file.open("xb") as stream:
        for tensor in large:
            offset = -(-stream.tell() // _PAGE) * _PAGE
            stream.write(b"\0" * (offset - stream.tell()))
            length = nbytes(tensor)
            stream.write(data_of(tensor))
            target = targets[tensor.name]
            target.ClearField("raw_data")
            target.ClearField("external_data")
            target.data_location = TensorProto.EXTERNAL
            for key, value in (("location", file.name), ("offset", str(offset)), ("length", str(length))):
                target.external_data.add(key=key, value=value)
        stream.flush()
        os.fsync(stream.fileno())


def _write_file(file: Path, content: Iterable[bytes | memoryview]) -> None:
    with file.open("xb") as stream:
        stream.writelines(content)
        stream.flush()
        os.fsync(stream.fileno())


def _check(file: Path, where: str) -> None:
    try:
        checker.check_model(file, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelError(f"is not a valid ONNX model: {first_line(error)}", where=where) from error


def _move(stage: Path, folder: Path, names: Sequence[str]) -> None:
    """Rename the staged files into `folder`; on an error put back what was there."""
    if len(names) == 1:
        (stage / names[0]).replace(folder / names[0])
        return
    aside = stage / "old"
    aside.mkdir()
    try:
        for name in names:
            if (folder / name).exists():
                (folder / name).replace(aside / name)
        for name in names:
            (stage / name).replace(folder / name)
    except BaseException:
        for name in names:
            if (aside / name).exists():
                (aside / name).replace(folder / name)
            elif not (stage / name).exists():
                (folder / name).unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    """Make the renames themselves last.  Only POSIX systems can open a folder for that."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        with suppress(OSError):  # some network file systems refuse; the output is complete all the same
            os.fsync(handle)
        os.close(handle)

"""Writing ONNX models: all of it or nothing, and the same bytes for the same model."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

import onnx
from google.protobuf.message import EncodeError
from onnx import TensorProto, checker

from irshap.errors import ModelError, UserError
from irshap.files import TEMPORARY, own_data, sync, sync_folder
from irshap.lowering.files.held import data_of, held
from irshap.lowering.files.protos import first_line, is_outlined, nbytes, outline, tensors
from irshap.lowering.files.wire import pieces

if sys.platform != "win32":
    import fcntl

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
    """Write `model` to `path`, and its large weights to a file beside it if it is over `external_over` bytes.

    Everything is written, synced and checked in a hidden folder beside `path` and then renamed into place,
    the model last.  Its data's name has the digest of its content, so that no other model's data is
    overwritten: whenever a process is killed, `path` is the old model with its data or the new one with its
    own.  What was of the old one, or stayed behind a kill, goes with the next output of that name; so a copy
    of a model under another name needs a folder, and a copy of the data, of its own.  A symbolic link at
    `path` is replaced.

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
        with _stage(path) as stage:
            data = _write(model, stage, path.name, external_over, where)
            if check:
                _check(stage / path.name, where)
            _move(stage, path, data)
    except OSError as error:
        raise UserError(f"can't be written: {error.strerror or first_line(error)}", where=where) from error


@contextmanager
def _stage(path: Path) -> Iterator[Path]:
    """A hidden folder beside the output, since a rename is atomic only within one file system.

    Those of processes that were killed go: a living one has its folder locked.
    """
    prefix = f"{TEMPORARY}save-{path.name[:50]}-"
    for old in path.parent.glob(f"{glob.escape(prefix)}*"):
        with _locked(old, wait=False) as free:
            if free:
                shutil.rmtree(old, ignore_errors=True)
    while True:
        stage = Path(tempfile.mkdtemp(prefix=prefix, dir=path.parent))
        with _locked(stage):
            if not stage.exists():  # taken for one that was left, before it was locked
                continue
            try:
                yield stage
            finally:
                shutil.rmtree(stage, ignore_errors=True)
            return


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[bool]:
    """Holds a lock on a folder, if the system can; False where that isn't so, or another has it."""
    held, handle = False, None
    if sys.platform != "win32":
        with suppress(OSError):  # some network file systems have none
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
    try:
        yield held
    finally:
        if handle is not None:
            os.close(handle)


def _write(model: onnx.ModelProto, stage: Path, name: str, external_over: int, where: str) -> str | None:
    """Write the model's file, and its data file if needed, into `stage`; the data file's name."""
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
        return None
    data = _write_data(large, shell, stage, name)
    _write_file(stage / name, pieces(shell))
    return data


def _write_data(large: Sequence[TensorProto], shell: onnx.ModelProto, stage: Path, name: str) -> str:
    """Write the tensors' data, each at a page of its own, and refer to it from the outline; its name."""
    targets = {tensor.name: tensor for tensor in shell.graph.initializer}
    file, digest, places = stage / "data", sha256(), []
    with file.open("xb") as stream:
        for tensor in large:
            blank = b"\0" * (-stream.tell() % _PAGE)
            for piece in (blank, data_of(tensor)):
                stream.write(piece)
                digest.update(piece)
            places.append((stream.tell() - nbytes(tensor), nbytes(tensor)))
        sync(stream)
    found = f"{name}.{digest.hexdigest()[:16]}.data"
    file.rename(stage / found)
    for tensor, (offset, length) in zip(large, places, strict=True):
        target = targets[tensor.name]
        target.ClearField("raw_data")
        target.ClearField("external_data")
        target.data_location = TensorProto.EXTERNAL
        for key, value in (("location", found), ("offset", str(offset)), ("length", str(length))):
            target.external_data.add(key=key, value=value)
    return found


def _write_file(file: Path, content: Iterable[bytes | memoryview]) -> None:
    with file.open("xb") as stream:
        stream.writelines(content)
        sync(stream)


def _check(file: Path, where: str) -> None:
    try:
        checker.check_model(file, full_check=True)
    except (checker.ValidationError, onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise ModelError(f"is not a valid ONNX model: {first_line(error)}", where=where) from error


def _move(stage: Path, path: Path, data: str | None) -> None:
    """Rename the staged files into place, the model last; on an error there is what was before.

    Then data goes that no model of this name refers to any more.  Only one process at a time does this in a
    folder, so that none takes what another has just moved there.
    """
    with _locked(path.parent):
        if data is None:
            (stage / path.name).replace(path)
        else:
            place = path.with_name(data)
            known = place.exists()
            try:
                (stage / data).replace(place)
                _noted(path.parent)
                (stage / path.name).replace(path)
            except BaseException:
                if not known:
                    place.unlink(missing_ok=True)
                raise
        _noted(path.parent)
        for old in own_data(path):
            if old.name != data:
                with suppress(OSError):  # Windows keeps what somebody reads
                    old.unlink()


def _noted(folder: Path) -> None:
    """Has the disk keep the renames themselves."""
    with suppress(OSError):  # some network file systems refuse; the output is complete all the same
        sync_folder(folder)

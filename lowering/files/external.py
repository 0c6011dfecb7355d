"""External data of untrusted models: what may be read, and from where."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
from onnx import TensorProto, checker
from onnx.external_data_helper import ExternalDataInfo, load_external_data_for_tensor

from irshap.errors import ModelError
from irshap.lowering.files.protos import first_line, nbytes, tensors
from irshap.lowering.files.weights import HELD_FROM, Weights

__all__ = ["locations", "read_external_data", "require_own"]

_PIECE = 16 * 2**20


def locations(model: onnx.ModelProto) -> set[str]:
    """Where external data of a model lies, as it says: relative to its folder."""
    outside = (t for t in tensors(model) if t.data_location == TensorProto.EXTERNAL)
    return {ExternalDataInfo(tensor).location for tensor in outside}


def require_own(location: str, folder: Path, where: str) -> os.stat_result:
    """The state of the file of external data at `location` in `folder`, which may be read.

    Args:
        where: names the tensor or the model in errors.

    Raises:
        ModelError: it is missing, or may be another file than the model's own (see `read_external_data`).
    """
    relative = Path(location)
    if relative.anchor or ".." in relative.parts or not relative.parts:
        what = f"external data must lie in the model's folder, not at {location!r}"
        raise ModelError(what, where=where, mend="move the file there and name it relative to the model")
    file = folder
    for part in relative.parts:
        file = file / part
        if file.is_symlink():
            what = f"external data {location!r} is, or is reached through, a symbolic link"
            raise ModelError(what, where=where, mend="copy the model with cp -rL and give the copy")
    try:
        info = file.stat()
    except (OSError, ValueError) as error:
        mend = "put it beside the model"
        raise ModelError(f"external data {location!r} is missing", where=where, mend=mend) from error
    if not stat.S_ISREG(info.st_mode):
        raise ModelError(f"external data {location!r} is not a regular file", where=where)
    if info.st_nlink > 1:
        what = f"external data {location!r} has several hard links"
        raise ModelError(what, where=where, mend="copy the file and give the copy")
    return info


def read_external_data(model: onnx.ModelProto, folder: Path | None, where: str, weights: Weights) -> None:
    """Load all external data of `model` into its tensors, in place, or hand it over to `weights`.

    It is read only from regular files in `folder` or below.  Refused, like by the newest onnx, are absolute
    locations, `..`, files that are, or are reached through, symbolic links, also when these point to the
    inside, and files with several hard links: an unpacked archive can link to whatever its user may read.

    Args:
        model: may hold external data anywhere: initializers, attributes, subgraphs, functions.
        folder: the model's; None when it has none, which makes any external data an error.
        where: names the model in errors.
        weights: takes that of large initializers.

    Raises:
        ModelError: data that is refused, missing, or whose size doesn't fit the tensor's type and dims.
    """
    outside = [t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    if sum(map(nbytes, outside)) > HELD_FROM:
        for tensor in filter(weights.takes, outside):
            with _reading(tensor, folder, where) as place:
                weights.take(tensor, _pieces(tensor, place))
                _forget_place(tensor)
    for tensor in tensors(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            with _reading(tensor, folder, where) as place:
                load_external_data_for_tensor(tensor, os.fspath(place))
                _forget_place(tensor)


@contextmanager
def _reading(tensor: TensorProto, folder: Path | None, where: str) -> Iterator[Path]:
    """The folder that a tensor's data is read from, as far as it may be."""
    place = f"{where}, tensor {tensor.name!r}"
    if folder is None:
        mend = "give the model's path, or load its data first"
        raise ModelError("uses external data, but has no folder", where=place, mend=mend)
    _confine(tensor, folder, place)
    try:
        yield folder
    except (OSError, ValueError, RuntimeError, MemoryError, checker.ValidationError) as error:
        raise ModelError(f"external data can't be read: {first_line(error)}", where=place) from error


def _forget_place(tensor: TensorProto) -> None:
    tensor.ClearField("data_location")
    del tensor.external_data[:]


def _pieces(tensor: TensorProto, folder: Path) -> Iterator[bytes]:
    """A tensor's data, a piece at a time, by onnx's reader.

    It opens the file without following links, which closes the gap between check and use.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    start, length = int(entries["offset"]), int(entries["length"])
    for at in range(0, length, _PIECE):
        size = min(_PIECE, length - at)
        piece = TensorProto(data_type=TensorProto.UINT8, dims=[size], data_location=TensorProto.EXTERNAL)
        given = {"location": entries["location"], "offset": str(start + at), "length": str(size)}
        for key, value in given.items():
            piece.external_data.add(key=key, value=value)
        load_external_data_for_tensor(piece, os.fspath(folder))
        yield piece.raw_data


def _confine(tensor: TensorProto, folder: Path, place: str) -> None:
    """Check where a tensor's data lies and how long it is, and write both down for onnx's reader."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    info = require_own(location, folder, place)
    need = nbytes(tensor)
    offset, length = (_number(entries, key, place) for key in ("offset", "length"))
    sized = need > 0 or 0 in tensor.dims  # strings and unknown types have no size, so no external data
    if not sized or length not in (None, need):
        what = f"external data has {length} bytes; the tensor's type and dims need {need}"
        raise ModelError(what, where=place)
    end = (offset or 0) + need
    if end > info.st_size:
        what = f"external data {location!r} is truncated: {info.st_size} bytes of at least {end}"
        raise ModelError(what, where=place, mend="copy it again")
    # An explicit length keeps onnx from reading on to the end of a file that many tensors share.
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset or 0)), ("length", str(need))):
        tensor.external_data.add(key=key, value=value)


def _number(entries: dict[str, str], key: str, place: str) -> int | None:
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ModelError(f"external data has {key} {text[:40]!r}, not a size in bytes", where=place)
    return int(text)

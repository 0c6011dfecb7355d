"""What an explained file takes and gives: names, types and shapes, without its weights."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from irshap.contract import Metadata, metadata_of
from irshap.errors import ModelError, UserError
from irshap.lowering.files.external import locations, require_own

__all__ = ["Explained", "Port", "safe_name"]

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}", re.ASCII)


@dataclass(frozen=True)
class Port:
    """An input or output.

    Attributes:
        name: as the file has it, which is any text.
        dtype: the name of its element type, as numpy has it.
        dims: its sizes, None for an open one.
        batch: the axis that counts samples where their number is open, None where there is none.
    """

    name: str
    dtype: str
    dims: tuple[int | None, ...]
    batch: int | None

    @property
    def batched(self) -> bool:
        """Whether samples are counted by an open first axis."""
        return self.batch == 0


@dataclass(frozen=True)
class Explained:
    """An explained file, as far as a server must know it.

    Attributes:
        path: of the file.
        data: the names of files beside it that hold its weights.
    """

    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    data: tuple[str, ...]

    @classmethod
    def of(cls, path: Path) -> Explained:
        """Reads a file's head.

        Raises:
            ModelError: it can't be read, was not made by irshap, takes or gives what is no tensor, or has
                weights in a file that isn't its own.
        """
        where = str(path)
        if not path.is_file():
            raise ModelError("is a folder" if path.is_dir() else "no such file", where=where)
        try:
            model = onnx.load(path, load_external_data=False)
        except (DecodeError, OSError) as error:
            mend = "give what irshap compile wrote"
            raise ModelError(f"is no ONNX file: {error}", where=where, mend=mend) from error
        metadata = metadata_of(model)
        if Metadata.PIPELINE not in metadata and Metadata.VERSION not in metadata:
            mend = "compile it first: irshap compile MODEL --references REFS --output EXPLAINED"
            raise ModelError("was not compiled by irshap", where=where, mend=mend)
        constants = {t.name for t in model.graph.initializer}
        inputs = tuple(_port(v, where) for v in model.graph.input if v.name not in constants)
        outputs = tuple(_port(v, where) for v in model.graph.output)
        return cls(path, inputs, outputs, _data_files(model, path))

    @property
    def batches(self) -> bool:
        """Whether a server may join requests: every tensor counts samples on its first axis."""
        return all(port.batched for port in (*self.inputs, *self.outputs))


def safe_name(given: str | None, path: Path) -> str:
    """The name of the served model: a folder's and a part of addresses.

    Raises:
        UserError: a given one that can't be such.
    """
    if given is None:
        stem = re.sub(r"[^A-Za-z0-9_\-]", "_", path.name.removesuffix(".onnx"))[:100]
        return stem if _SAFE.fullmatch(stem) else f"model{stem}"[:100]
    if not _SAFE.fullmatch(given):
        raise UserError(f"{given!r} is no name for a served model", mend="use letters, digits, _, - and .")
    return given


def _port(value: onnx.ValueInfoProto, where: str) -> Port:
    if not value.type.HasField("tensor_type"):
        mend = "explain a model whose outputs are tensors: remove the ZipMap behind a classifier"
        raise ModelError(f"{value.name!r} is no tensor, which servers take alone", where=where, mend=mend)
    kind = value.type.tensor_type
    dims = [d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim]
    texts = [d.dim_param for d in kind.shape.dim]
    batch = texts.index("N") if "N" in texts else None
    code = kind.elem_type
    text = code == onnx.TensorProto.STRING
    dtype = "str" if text else str(onnx.helper.tensor_dtype_to_np_dtype(code).name)
    return Port(value.name, dtype, tuple(dims), batch)


def _data_files(model: onnx.ModelProto, path: Path) -> tuple[str, ...]:
    """The files of weights, which stand beside the model and may be copied.

    One named `app.py` would take the place of the server's program: they are called as irshap calls them.
    """
    where = str(path)
    names = locations(model)
    for name in names:
        if Path(name).name != name or name in ("", ".", ".."):
            what = f"its weights are in {name!r}, which isn't beside it"
            raise ModelError(what, where=where, mend="save it by irshap, which puts them there")
        if not name.endswith(".data"):
            mend = "save it by irshap, which calls them MODEL.onnx.DIGEST.data"
            raise ModelError(f"its weights are in {name!r}, not in a .data file", where=where, mend=mend)
        require_own(name, path.parent, where)
    return tuple(sorted(names))

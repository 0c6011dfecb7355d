"""The files of commands, named by their content: the same command is then one on the same bytes."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["OUT", "Files", "options"]

OUT = "--output={out}"
"""Asks for the file that is compared."""
WORDS = {"output": "output-name", "device": "for", "context_inputs": "context"}
DROPPED = ("model", "references", "verify", "print_after", "time_passes", "progress")
"""Arguments of `irshap.compile` that stand apart, or change nothing in what it gives."""


class Files:
    """A folder of files, which arguments name as {cases}/FILE."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, content: bytes, ending: str) -> str:
        """Writes a file and returns how arguments name it."""
        name = sha256(content).hexdigest()[:16] + ending
        if not (self.folder / name).exists():
            (self.folder / name).write_bytes(content)
        return f"{{cases}}/{name}"

    def copy(self, path: str | os.PathLike[str]) -> str:
        return self.add(Path(path).read_bytes(), Path(path).suffix)

    def model(self, model: onnx.ModelProto) -> str:
        return self.add(model.SerializeToString(deterministic=True), ".onnx")

    def arrays(self, given: Any) -> str:
        """One array as .npy, or several by name as .npz: under any names, which numpy.savez can't."""
        stream = io.BytesIO()
        if not isinstance(given, Mapping):
            np.save(stream, np.asarray(given), allow_pickle=False)
            return self.add(stream.getvalue(), ".npy")
        with zipfile.ZipFile(stream, "w") as archive:
            for name, array in given.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)
        return self.add(stream.getvalue(), ".npz")


def options(arguments: Mapping[str, Any], arrays: Callable[[Any], str]) -> Iterator[str]:
    """The options of `irshap compile` that arguments of `irshap.compile` mean."""
    for argument, value in arguments.items():
        option = "--" + WORDS.get(argument, argument).replace("_", "-")
        if value is None or argument in DROPPED:
            continue
        if argument == "fp16":
            yield "--fp16" if value else "--no-fp16"
        elif argument in ("context_inputs", "emit"):
            yield from (f"{option}={v}" for v in ([value] if isinstance(value, str) else value) if v)
        elif argument == "weights" and not isinstance(value, str):
            yield f"{option}={arrays(value)}"
        else:
            yield f"{option}={value}"

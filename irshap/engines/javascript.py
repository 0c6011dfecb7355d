"""ONNX Runtime in JavaScript: the WebAssembly of browsers, and the native addon of Node.js.

Both run under Node.js.  The same WebAssembly runs in a browser (docs/runtimes.md measures it in Chromium).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from irshap.engines.base import Engine, EngineFailed, first_line
from irshap.errors import UserError
from irshap.runtime.arrays import Array, Arrays

__all__ = ["Node", "Web", "read_arrays", "write_arrays"]

_SCRIPT = Path(__file__).with_name("run.mjs")

_MISSING = 3
"""The script's exit status where the package isn't there."""

_TYPES = {
    "float32": np.float32, "float64": np.float64, "float16": np.float16, "int64": np.int64, "int32": np.int32,
    "int16": np.int16, "int8": np.int8, "uint64": np.uint64, "uint32": np.uint32, "uint16": np.uint16,
    "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip


class _JavaScript(Engine):
    package: ClassVar[str]

    def version(self) -> str:
        return self._script("version").strip()

    def run(self, model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Arrays]:
        with tempfile.TemporaryDirectory(prefix="irshap-") as folder:
            job = Path(folder, "job.json")
            jobs = [write_arrays(feed, Path(folder), f"in{i}_") for i, feed in enumerate(feeds)]
            job.write_text(json.dumps({"model": str(model.absolute()), "feeds": jobs, "out": folder}))
            self._script("run", str(job))
            told = json.loads(Path(folder, "results.json").read_text())
            return [read_arrays(listed, Path(folder)) for listed in told]

    def _script(self, *arguments: str) -> str:
        node = shutil.which("node")
        if node is None:
            raise UserError(f"{self.title} needs Node.js", mend="install it, so that `node` is found")
        done = subprocess.run(
            [node, str(_SCRIPT), self.package, *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode == _MISSING:
            mend = f"install it here: npm install {self.package}"
            raise UserError(f"{self.title} isn't installed", mend=mend)
        if done.returncode:
            raise EngineFailed(f"{self.title} failed: {first_line(done.stderr)}")
        return done.stdout


class Web(_JavaScript):
    """The WebAssembly that browsers run."""

    name = "web"
    title = "onnxruntime-web"
    package = "onnxruntime-web"


class Node(_JavaScript):
    """The native addon."""

    name = "node"
    title = "onnxruntime-node"
    package = "onnxruntime-node"


def write_arrays(arrays: Mapping[str, Any], folder: Path, prefix: str) -> list[dict[str, Any]]:
    """Writes each array's bytes to a file of its own, and says which: name, type, dims, file.

    Raises:
        UserError: texts, which have no bytes.
    """
    listed = []
    for i, (name, array) in enumerate(arrays.items()):
        kind = np.asarray(array).dtype.name
        if kind not in _TYPES:
            raise UserError(f"input {name!r} has type {kind}, which isn't passed to other programs")
        file = f"{prefix}{i}.bin"
        (folder / file).write_bytes(np.ascontiguousarray(array).tobytes())
        listed.append({"name": name, "type": kind, "dims": list(np.shape(array)), "file": file})
    return listed


def read_arrays(listed: Sequence[Mapping[str, Any]], folder: Path) -> Arrays:
    """The arrays that a script listed in the same way."""

    def read(entry: Mapping[str, Any]) -> Array:
        flat: Array = np.frombuffer((folder / entry["file"]).read_bytes(), _TYPES[entry["type"]])
        return flat.reshape(entry["dims"])

    return {entry["name"]: read(entry) for entry in listed}

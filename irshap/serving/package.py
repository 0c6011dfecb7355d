"""One door to all kinds of packages."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from irshap.errors import UserError, near
from irshap.serving.docker import write_docker
from irshap.serving.kserve import write_kserve
from irshap.serving.mlflow import write_mlflow
from irshap.serving.ports import Explained, safe_name
from irshap.serving.triton import write_triton

__all__ = ["KINDS", "Packed", "package"]

KINDS = {
    "triton": "tritonserver --model-repository={folder}",
    "kserve": "cd {folder} && mlserver start .",
    "mlflow": "mlflow models serve -m {folder} --env-manager local",
    "docker": "docker build -t {name} {folder} && docker run -p 8000:8000 {name}",
}
"""Each kind of package, and how it is started."""


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        files: relative to the folder.
        start: the command that serves it.
    """

    folder: Path
    name: str
    files: tuple[str, ...]
    start: str


def package(
    explained: str | os.PathLike[str],
    kind: str,
    folder: str | os.PathLike[str],
    *,
    name: str | None = None,
    batch: int = 8,
    instances: int = 1,
    gpu: bool = False,
    uri: str | None = None,
) -> Packed:
    """Writes the folder that a server takes: all of it or nothing.

    Args:
        explained: the path of an explained file; weights beside it are copied, too.
        kind: "triton" (a model repository), "kserve" (MLServer and KServe), "mlflow", or "docker" (FastAPI).
        folder: a new one, or an empty one.
        name: of the served model; by default the file's.
        batch: how many samples Triton may join.
        instances, gpu: how often Triton loads the model, and where.
        uri: where KServe finds the folder; by default `pvc://models/NAME`.

    Raises:
        ModelError: the file can't be read, was not made by irshap, takes or gives what is no tensor, or has
            weights in a file that isn't its own.
        UserError: no such kind, a name or folder that won't do, or MLflow is missing.
    """
    if kind not in KINDS:
        raise UserError(f"no package is called {kind!r}", mend=near(kind, KINDS))
    if batch < 1 or instances < 1:
        raise UserError(f"batch={batch}, instances={instances}", mend="give 1 or more of each")
    path, target = Path(explained), Path(folder)
    model, called = Explained.of(path), safe_name(name, path)
    if not target.parent.is_dir():
        raise UserError("its folder doesn't exist", where=os.fspath(folder), mend="create it first")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError("is there already", where=os.fspath(folder), mend="give a new or an empty folder")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as outer:
        made = Path(outer, "package")
        if kind == "mlflow":
            write_mlflow(model, made)
        else:
            made.mkdir()
            if kind == "triton":
                place = write_triton(model, called, made, batch=batch, instances=instances, gpu=gpu)
            elif kind == "kserve":
                place = write_kserve(model, called, made, uri=uri or f"pvc://models/{called}")
            else:
                place = write_docker(model, called, made)
            _copy(model, made / place)
        if target.exists():
            target.rmdir()
        made.rename(target)
    files = tuple(sorted(p.relative_to(target).as_posix() for p in target.rglob("*") if p.is_file()))
    start = KINDS[kind].format(folder=target, name=called.lower())
    return Packed(target, called, files, start)


def _copy(model: Explained, place: Path) -> None:
    """The file under its new name, and its weights under theirs."""
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model.path, place)
    for name in model.data:
        shutil.copyfile(model.path.parent / name, place.parent / name)

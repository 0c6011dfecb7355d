"""A container: a FastAPI app on ONNX Runtime that speaks the open inference protocol."""

from __future__ import annotations

import json
from pathlib import Path

from irshap.serving.kserve import read_file, v2_type
from irshap.serving.ports import Explained

__all__ = ["write_docker"]


def write_docker(model: Explained, name: str, folder: Path) -> str:
    """Writes a Dockerfile, the app, and what it requires.  Returns where the model goes."""
    for port in (*model.inputs, *model.outputs):
        v2_type(port)
    (folder / "settings.json").write_text(json.dumps({"name": name}) + "\n", encoding="utf-8")
    for file in ("Dockerfile", "app.py", "explained_model.py", "requirements.txt"):
        (folder / file).write_text(read_file(file), encoding="utf-8")
    with (folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
        requirements.write("fastapi>=0.110\nuvicorn>=0.29\n")
    return "model.onnx"

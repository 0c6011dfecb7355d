"""MLflow: a model of its ONNX flavor, with signature and input example, written by MLflow itself."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from irshap.extras import optional
from irshap.serving.ports import Explained, Port

__all__ = ["write_mlflow"]


def write_mlflow(model: Explained, folder: Path) -> None:
    """Writes the whole folder.

    Raises:
        UserError: MLflow isn't installed.
    """
    modules = ("mlflow.onnx", "mlflow.types", "mlflow.models")
    mlflow, types, models = (optional(m, "mlflow", "mlflow", "packaging for MLflow") for m in modules)

    def schema(ports: Sequence[Port]) -> Any:
        specs = [types.TensorSpec(np.dtype(p.dtype), [_size(d) for d in p.dims], p.name) for p in ports]
        return types.Schema(specs)

    example = {p.name: np.zeros([d or 1 for d in p.dims], p.dtype) for p in model.inputs}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        mlflow.save_model(
            onnx.load(model.path),
            str(folder),
            signature=models.ModelSignature(schema(model.inputs), schema(model.outputs)),
            input_example=example if all(None not in p.dims[1:] for p in model.inputs) else None,
            pip_requirements=["mlflow", "numpy", "onnx", "onnxruntime"],
        )


def _size(size: int | None) -> int:
    return -1 if size is None else size

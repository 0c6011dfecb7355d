"""KServe and MLServer: model-settings.json, a runtime of ours for MLServer, an InferenceService."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irshap.errors import UserError
from irshap.serving.ports import Explained, Port

__all__ = ["read_file", "v2_type", "write_kserve"]

_TYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16",
    "float32": "FP32", "float64": "FP64", "str": "BYTES",
}  # fmt: skip

_SERVICE = """# kubectl apply -f inference-service.yaml, once this folder is where storageUri says
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {name}
spec:
  predictor:
    model:
      modelFormat:
        name: mlserver
      protocolVersion: v2
      storageUri: {uri}
      env:
        - name: MLSERVER_MODEL_IMPLEMENTATION
          value: explained_mlserver.ExplainedModel
"""


def write_kserve(model: Explained, name: str, folder: Path, *, uri: str) -> str:
    """Writes what `mlserver start` takes, and an InferenceService.  Returns where the model goes."""
    settings: dict[str, Any] = {
        "name": name,
        "implementation": "explained_mlserver.ExplainedModel",
        "parameters": {"uri": "./model.onnx"},
        "inputs": [_metadata(port) for port in model.inputs],
        "outputs": [_metadata(port) for port in model.outputs],
    }
    if model.batches:
        settings |= {"max_batch_size": 8, "max_batch_time": 0.001}
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    for file in ("explained_model.py", "explained_mlserver.py", "requirements.txt"):
        (folder / file).write_text(read_file(file), encoding="utf-8")
    # a text in JSON is one in YAML; Kubernetes' names are small, without _ and .
    service = _SERVICE.format(name=json.dumps(_resource_name(name)), uri=json.dumps(uri))
    (folder / "inference-service.yaml").write_text(service, encoding="utf-8")
    return "model.onnx"


def _resource_name(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-").strip("-")[:60]


def _metadata(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "datatype": v2_type(port),
        "shape": [-1 if d is None else d for d in port.dims],
    }


def v2_type(port: Port) -> str:
    """The element type as the protocol calls it."""
    if port.dtype not in _TYPES:
        raise UserError(f"the inference protocol has no type for {port.dtype}, which {port.name!r} is of")
    return _TYPES[port.dtype]


def read_file(name: str) -> str:
    """A file of those that are copied into packages."""
    return (Path(__file__).parent / "files" / f"{name}.txt").read_text(encoding="utf-8")

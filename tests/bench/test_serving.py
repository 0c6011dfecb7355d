"""Packages in real servers, asked over HTTP on loopback: answers equal ONNX Runtime's.  The extra `bench`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

import irshap
from irshap import demo
from irshap.engines import own_results
from irshap.serving import package

IMAGES = demo.digits()[0][:3]
PATIENCE = 180


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "digits.onnx"
    irshap.compile(demo.model_path(), np.load(demo.references_path())[:5], summary="top=3").save(path)
    return path


def wanted(explained: Path) -> dict[str, Any]:
    return own_results(explained, [{"image": IMAGES}])[0]


def needs(*packages: str) -> None:
    """Skips without importing: MLServer's messages and Triton's don't get along in one process."""
    if missing := [name for name in packages if find_spec(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        text = answer.read()
        return json.loads(text) if text.strip() else None


@contextmanager
def served(
    command: list[str], folder: Path, ready: str, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server, from when `ready` answers until the block ends."""
    log = folder.parent / "server.log"
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=folder, stdout=out, stderr=out, env={**os.environ, "PATH": path, **environment}
        )
        try:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    ask(ready)
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()[-3000:]
                    assert time.monotonic() < end, log.read_text()[-3000:]
                    time.sleep(0.3)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def request() -> dict[str, Any]:
    data = IMAGES.ravel().tolist()
    return {"inputs": [{"name": "image", "shape": list(IMAGES.shape), "datatype": "FP32", "data": data}]}


def check(answer: Any, explained: Path) -> None:
    right = wanted(explained)
    assert {o["name"] for o in answer["outputs"]} == set(right)
    for output in answer["outputs"]:
        found = np.array(output["data"], right[output["name"]].dtype).reshape(output["shape"])
        np.testing.assert_allclose(found, right[output["name"]], rtol=1e-6, atol=1e-6)


def test_triton_reads_its_configuration(explained: Path, tmp_path: Path) -> None:
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    made = package(explained, "triton", tmp_path / "models", batch=16, instances=2)
    config = text_format.Parse((made.folder / "digits" / "config.pbtxt").read_text(), pb2.ModelConfig())
    assert (config.name, config.platform, config.max_batch_size) == ("digits", "onnxruntime_onnx", 16)
    session = onnxruntime.InferenceSession(str(explained), providers=["CPUExecutionProvider"])
    for told, there in ((config.input, session.get_inputs()), (config.output, session.get_outputs())):
        assert [t.name for t in told] == [v.name for v in there]
        for port, value in zip(told, there, strict=True):
            behind = list(value.shape[1:])
            assert list(port.dims) == (behind or [1])
            assert port.HasField("reshape") == (not behind)
            assert not port.reshape.shape
            kind = {"tensor(float)": pb2.TYPE_FP32, "tensor(int64)": pb2.TYPE_INT64}[value.type]
            assert port.data_type == kind
    assert config.instance_group[0].count == 2
    assert config.instance_group[0].kind == pb2.ModelInstanceGroup.KIND_CPU
    assert config.HasField("dynamic_batching")
    assert config.model_warmup[0].inputs["image"].zero_data


def test_triton_reads_any_name(tmp_path: Path) -> None:
    pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs tritonclient[grpc]")
    from irshap.serving.ports import Explained, Port
    from irshap.serving.triton import write_triton

    name = 'a"] }\n# \\ {x: é\x07'
    (tmp_path / "out").mkdir()
    port = Port(name, "float32", (None, 3), 0)
    model = Explained(tmp_path / "x.onnx", (port,), (port,), ())
    write_triton(model, "m", tmp_path / "out", batch=2, instances=1, gpu=True)
    config = text_format.Parse((tmp_path / "out" / "m" / "config.pbtxt").read_text(), pb2.ModelConfig())
    assert [v.name for v in (*config.input, *config.output)] == [name, name]
    assert config.instance_group[0].kind == pb2.ModelInstanceGroup.KIND_GPU


def test_mlserver_answers(explained: Path, tmp_path: Path) -> None:
    needs("mlserver")
    made = package(explained, "kserve", tmp_path / "out")
    http, grpc, metrics = (free_port() for _ in range(3))
    ports = {
        "MLSERVER_HTTP_PORT": str(http),
        "MLSERVER_GRPC_PORT": str(grpc),
        "MLSERVER_METRICS_PORT": str(metrics),
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_PARALLEL_WORKERS": "0",
    }
    here = f"http://127.0.0.1:{http}/v2/models/digits"
    with served(["mlserver", "start", "."], made.folder, f"{here}/ready", **ports):
        check(ask(f"{here}/infer", request()), explained)
        told = ask(here)
        assert [v["name"] for v in told["inputs"]] == ["image"]


def test_the_container_s_app_answers(explained: Path, tmp_path: Path) -> None:
    needs("fastapi", "uvicorn")
    made = package(explained, "docker", tmp_path / "out")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", str(port)]
    here = f"http://127.0.0.1:{port}/v2"
    with served(command, made.folder, f"{here}/health/ready"):
        check(ask(f"{here}/models/digits/infer", request()), explained)
        one = request() | {"outputs": [{"name": "image_top_indices"}]}
        assert [o["name"] for o in ask(f"{here}/models/digits/infer", one)["outputs"]] == [
            "image_top_indices"
        ]
        wrong = request()
        wrong["inputs"][0]["name"] = "picture"
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(f"{here}/models/digits/infer", wrong)
        assert error.value.code == 400
        assert "no input is called 'picture'" in error.value.read().decode()
    with served(command, made.folder, f"{here}/health/ready", QUEUE="0"):
        with pytest.raises(urllib.error.HTTPError) as error:
            ask(f"{here}/models/digits/infer", request())
        assert error.value.code == 503 and error.value.headers["Retry-After"] == "1"


def test_mlflow_answers(explained: Path, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs mlflow")
    made = package(explained, "mlflow", tmp_path / "out")
    model = mlflow.pyfunc.load_model(str(made.folder))
    assert [s.name for s in model.metadata.signature.inputs.inputs] == ["image"]
    right = wanted(explained)
    assert {s.name for s in model.metadata.signature.outputs.inputs} == set(right)
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", ".", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    here = f"http://127.0.0.1:{port}"
    with served(command, made.folder, f"{here}/ping"):
        answer = ask(f"{here}/invocations", {"inputs": {"image": IMAGES.tolist()}})["predictions"]
    for name, array in right.items():
        found = np.array(answer[name], array.dtype)
        np.testing.assert_allclose(found, array, rtol=1e-6, atol=1e-6)

"""Packages for servers: what is in them, whatever a model's tensors are called, and what is refused."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import threading
from concurrent.futures import wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, Mock

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
from google.protobuf import text_format
from onnx import numpy_helper
from shells import Shell

import irshap
from irshap import demo
from irshap.cli import package as command
from irshap.errors import ModelError, UserError
from irshap.files import data_file, own_data
from irshap.serving import KINDS, package
from irshap.serving.triton import quoted

REFERENCES = np.load(demo.references_path())[:3]
HOSTILE = 'a"] }\n# \\ {x: é\x07'
"""A tensor's name that would end strings, lines and lists."""


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explained") / "digits explained.onnx"
    compiled = irshap.compile(demo.model_path(), REFERENCES, target="input")
    compiled.save(path)
    return path


def hostile(folder: Path) -> Path:
    """An explained model whose input has that name."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 2] y) <float[3, 2] w>'
        "{ y = MatMul(x, w) }"
    )
    del model.graph.initializer[:]
    model.graph.initializer.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "w"))
    model.graph.input[0].name = model.graph.node[0].input[0] = HOSTILE
    irshap.compile(model, np.zeros((1, 3), np.float32)).save(folder / "hostile.onnx")
    return folder / "hostile.onnx"


def test_a_triton_repository(explained: Path, tmp_path: Path) -> None:
    made = package(explained, "triton", tmp_path / "models", batch=4)
    assert made.name == "digits_explained"
    assert made.files == ("digits_explained/1/model.onnx", "digits_explained/config.pbtxt")
    assert (made.folder / made.files[0]).read_bytes() == explained.read_bytes()
    lines = (made.folder / made.files[1]).read_text().splitlines()
    assert lines == [
        'name: "digits_explained"',
        'platform: "onnxruntime_onnx"',
        "max_batch_size: 4",
        'input [ { name: "image" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] } ]',
        'input [ { name: "target" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } } ]',
        'output [ { name: "logits" data_type: TYPE_FP32 dims: [ 10 ] } ]',
        'output [ { name: "image_attributions" data_type: TYPE_FP32 dims: [ 1, 8, 8 ] } ]',
        'output [ { name: "base_values" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } } ]',
        'output [ { name: "target_index" data_type: TYPE_INT64 dims: [ 1 ] reshape { shape: [ ] } } ]',
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        "dynamic_batching { max_queue_delay_microseconds: 500 }",
        'model_warmup [ { name: "zeros" batch_size: 1 '
        'inputs { key: "image" value { data_type: TYPE_FP32 dims: [ 1, 8, 8 ] zero_data: true } } '
        'inputs { key: "target" value { data_type: TYPE_INT64 dims: [ 1 ] zero_data: true } } } ]',
    ]


def test_a_fixed_batch_is_not_joined(tmp_path: Path) -> None:
    irshap.compile(irshap.Model(demo.model_path(), batch=2), REFERENCES).save(tmp_path / "two.onnx")
    made = package(tmp_path / "two.onnx", "triton", tmp_path / "models")
    text = (made.folder / "two" / "config.pbtxt").read_text()
    assert "max_batch_size: 0\n" in text
    assert "dims: [ 2, 1, 8, 8 ]" in text
    assert "dynamic_batching" not in text


def test_names_are_quoted(tmp_path: Path) -> None:
    entry = text_format.Parse(f'key: "{quoted(HOSTILE)}"', onnx.StringStringEntryProto())
    assert entry.key == HOSTILE
    path = hostile(tmp_path)
    made = package(path, "triton", tmp_path / "triton")
    text = (made.folder / "hostile" / "config.pbtxt").read_text()
    assert text.count("\n") == len(re.findall(r"^[a-z_]+[: ]", text, re.MULTILINE))
    settings = package(path, "kserve", tmp_path / "kserve", uri='s3://x" \n').folder
    told = json.loads((settings / "model-settings.json").read_text())
    assert told["inputs"] == [{"name": HOSTILE, "datatype": "FP32", "shape": [-1, 3]}]
    service = (settings / "inference-service.yaml").read_text()
    assert '      storageUri: "s3://x\\" \\n"\n' in service


@pytest.mark.parametrize("kind", ["kserve", "docker"])
def test_its_files_run_the_model(kind: str, explained: Path, tmp_path: Path) -> None:
    made = package(explained, kind, tmp_path / "out", name="digits.v2")
    texts = {name: (made.folder / name).read_text() for name in made.files if name.endswith(".py")}
    for name, text in texts.items():
        compile(text, name, "exec")
    space: dict[str, Any] = {"__name__": "explained_model"}
    exec(texts["explained_model.py"], space)
    model = space["Explained"](made.folder / "model.onnx")
    images = demo.digits()[0][:2]
    feeds = {
        "image": model.feed("image", [2, 1, 8, 8], images.ravel().tolist()),
        "target": model.feed("target", [2], [3, 8]),
    }
    session = onnxruntime.InferenceSession(str(explained), providers=["CPUExecutionProvider"])
    wanted = session.run(["image_attributions"], {"image": images, "target": np.array([3, 8])})[0]
    np.testing.assert_array_equal(model.run(feeds, ["image_attributions"])["image_attributions"], wanted)
    for wrong in (("picture", [1], [1]), ("image", [3], [1.0]), ("target", [1], ["a"])):
        with pytest.raises(space["BadRequest"]):
            model.feed(*wrong)
    with pytest.raises(space["BadRequest"], match="no value for input target"):
        model.run({"image": feeds["image"]})


def test_a_session_for_each_thread(explained: Path, tmp_path: Path) -> None:
    """Two runs at once in one session slow each other down; where there are more threads, they share."""
    made = package(explained, "docker", tmp_path / "out")
    space: dict[str, Any] = {"__name__": "explained_model"}
    exec((made.folder / "explained_model.py").read_text(), space)
    model, seen = space["Explained"](made.folder / "model.onnx", 1, 2), []
    for _ in range(3):
        thread = threading.Thread(target=lambda: seen.append({model.session, model.session}))
        thread.start()
        thread.join()
    assert [len(found) for found in seen] == [1, 1, 1]
    assert seen[0] != seen[1] and seen[0] == seen[2]


class Refused(Exception):
    """Stands for fastapi's."""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What app.py defines, without fastapi."""
    made = package(hostile(tmp_path), "docker", tmp_path / "out")
    routes = MagicMock()
    routes.return_value.get.return_value = routes.return_value.post.return_value = lambda function: function
    web = Mock(FastAPI=routes, HTTPException=Refused, Response=lambda *given, **named: (given, named))
    monkeypatch.setitem(sys.modules, "fastapi", web)
    monkeypatch.setitem(sys.modules, "pydantic", Mock(BaseModel=object))
    monkeypatch.setitem(sys.modules, "explained_model", ModuleType("explained_model"))
    exec((made.folder / "explained_model.py").read_text(), vars(sys.modules["explained_model"]))
    space: dict[str, Any] = {"__file__": str(made.folder / "app.py"), "__name__": "app"}
    exec((made.folder / "app.py").read_text(), space)
    return space


def asked(*values: float) -> SimpleNamespace:
    tensor = SimpleNamespace(name=HOSTILE, shape=[1, 3], data=values)
    return SimpleNamespace(id="7", inputs=[tensor], outputs=None)


def test_the_app_answers_no_json_that_is_none(app: dict[str, Any]) -> None:
    """A NaN in it is refused by strict readers of JSON."""
    assert json.loads(app["answer"](asked(1.0, 2.0, 3.0)))["outputs"][0]["data"] == [6.0, 6.0]
    with pytest.raises(Refused, match="NaN or infinity"):
        app["answer"](asked(1.0, 2.0, float("nan")))


def test_what_waits_goes_with_its_client(app: dict[str, Any]) -> None:
    """Else clients who ask again in vain fill the queue with what nobody reads."""
    ended = asyncio.Event()

    async def ask(receive: Any) -> Any:
        return await app["infer"](app["NAME"], asked(1.0, 2.0, 3.0), SimpleNamespace(receive=receive))

    async def gone() -> None:
        pass

    async def ask_two() -> tuple[Any, Any]:
        busy = threading.Event()
        held = [app["workers"].submit(busy.wait, 30) for _ in range(app["WORKERS"])]
        left = await ask(gone)
        busy.set()
        wait(held)
        return left, await ask(ended.wait)

    left, answered = asyncio.run(ask_two())
    assert left[1]["status_code"] == 499 and app["asked"] == 0
    assert json.loads(answered[0][0])["id"] == "7"


def test_weights_beside_the_file_come_along(tmp_path: Path) -> None:
    irshap.compile(demo.model_path(), REFERENCES).save(tmp_path / "big.onnx", external_data=True)
    made = package(tmp_path / "big.onnx", "triton", tmp_path / "models")
    (data,) = own_data(tmp_path / "big.onnx")
    assert f"big/1/{data.name}" in made.files
    copied = made.folder / "big" / "1" / "model.onnx"
    assert data_file(copied) == copied.with_name(data.name)
    onnxruntime.InferenceSession(made.folder / "big" / "1" / "model.onnx", providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("../big.onnx.data", "isn't beside it"),
        ("link.data", "symbolic link"),
        ("hard.data", "several hard links"),
        ("folder.data", "not a regular file"),
        ("none.data", "is missing"),
        ("app.py", "not in a .data file"),
        ("model-settings.json", "not in a .data file"),
    ],
)
def test_weights_that_are_not_its_own(kind: str, location: str, expected: str, tmp_path: Path) -> None:
    """A package holds no file that only its maker may read, and none of the model in a program's place."""
    irshap.compile(demo.model_path(), REFERENCES).save(tmp_path / "big.onnx", external_data=True)
    (data,) = own_data(tmp_path / "big.onnx")
    (tmp_path / "secret").write_bytes(data.read_bytes())
    (tmp_path / "link.data").symlink_to(tmp_path / "secret")
    (tmp_path / "hard.data").hardlink_to(tmp_path / "secret")
    (tmp_path / "folder.data").mkdir()
    for name in ("app.py", "model-settings.json"):
        (tmp_path / name).write_bytes(data.read_bytes())
    model = onnx.load(tmp_path / "big.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    onnx.save(model, tmp_path / "big.onnx")
    with pytest.raises(ModelError, match=expected):
        package(tmp_path / "big.onnx", kind, tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_refused(explained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean triton"):
        package(explained, "tritn", tmp_path / "out")
    with pytest.raises(ModelError, match="was not compiled by irshap"):
        package(demo.model_path(), "triton", tmp_path / "out")
    with pytest.raises(ModelError, match="no such file"):
        package(tmp_path / "none.onnx", "triton", tmp_path / "out")
    with pytest.raises(UserError, match="is no name"):
        package(explained, "triton", tmp_path / "out", name="../up")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UserError, match="is there already"):
        package(explained, "triton", tmp_path / "full")
    with pytest.raises(UserError, match="folder doesn't exist"):
        package(explained, "triton", tmp_path / "a" / "b")
    monkeypatch.setitem(sys.modules, "mlflow.onnx", None)
    with pytest.raises(UserError, match=r'pip install "irshap\[mlflow\]"'):
        package(explained, "mlflow", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["full"]


def test_on_the_command_line(explained: Path, shell: Shell) -> None:
    Path("out").mkdir()
    command = ("package", explained, "--kind", "docker", "-o", "out")
    assert "docker build -t digits_explained" in shell.ok(*command)
    assert "is there already" in shell.refused(*command)


def test_the_command_lists_all_kinds() -> None:
    assert set(command.KINDS) == set(KINDS)

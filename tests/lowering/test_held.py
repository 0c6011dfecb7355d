"""Weights that stand in memory once: held by messages, and read and written without copies."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from exactness import case
from onnx import TensorProto, helper, numpy_helper

import irshap
from irshap import demo
from irshap.errors import ModelError
from irshap.lowering.files import external, session, weights
from irshap.lowering.files.arrays import array_of
from irshap.lowering.files.held import held, hold
from irshap.lowering.files.load import load_model, open_model
from irshap.lowering.files.save import save_model
from irshap.lowering.files.session import Session
from irshap.lowering.files.wire import bare, pieces, resident
from irshap.lowering.lift import lift
from irshap.lowering.lower import lower, lowered


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """All weights are large."""
    for module in (weights, external, session):
        monkeypatch.setattr(module, "HELD_FROM", 0)


def model(rows: int = 2000) -> onnx.ModelProto:
    """y = (x + a) b, where b has a neighbour that is too small to be held; a in a loop's body, too."""
    rng = np.random.default_rng(0)
    arrays = {"a": rng.random((1, rows), np.float32), "b": rng.random((rows, 2), np.float32)}
    arrays |= {"small": np.ones(2, np.float32), "trips": np.array(3)}
    inside = helper.make_graph(
        [helper.make_node("Add", ["s", "c"], ["t"]), helper.make_node("Identity", ["on"], ["still"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("on", 9, []),
            helper.make_tensor_value_info("s", 1, ["N", rows]),
        ],
        [helper.make_tensor_value_info("still", 9, []), helper.make_tensor_value_info("t", 1, ["N", rows])],
        [numpy_helper.from_array(rng.random((1, rows), np.float32), "c")],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "a"], ["s0"]),
            helper.make_node("Loop", ["trips", "", "s0"], ["u"], body=inside),
            helper.make_node("MatMul", ["u", "b"], ["v"]),
            helper.make_node("Add", ["v", "small"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", rows])],
        [helper.make_tensor_value_info("y", 1, ["N", 2])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    made.metadata_props.add(key="what", value="comes behind the graph")
    return made


def _held(tensors: Any) -> Iterator[str]:
    return (t.name for t in tensors if held(t) is not None)


def _all_held(made: onnx.ModelProto) -> list[np.ndarray[Any, Any]]:
    """Holds all weights of a model, those of bodies included."""
    inside = made.graph.node[1].attribute[0].g
    arrays = []
    for tensor in (*made.graph.initializer, *inside.initializer):
        arrays.append(numpy_helper.to_array(tensor))
        hold(tensor, arrays[-1])
    return arrays


@pytest.mark.parametrize("way", ["path", "bytes", "message", "data file"])
def test_large_weights_are_held(way: str, tmp_path: Path, always: None) -> None:
    source, path = model(), tmp_path / "m.onnx"
    given: Any = source
    if way in ("path", "data file"):
        save_model(source, path, external_over=0 if way == "data file" else 2**31 - 1)
        given = path
    elif way == "bytes":
        given = source.SerializeToString()
    opened = open_model(given)
    assert set(_held(opened.model.graph.initializer)) == {"a", "b"}
    if way != "message":
        for file in tmp_path.iterdir():  # what is written anew meanwhile does no harm
            file.write_bytes(b"\0" * file.stat().st_size)
    for tensor, original in zip(opened.model.graph.initializer, source.graph.initializer, strict=True):
        np.testing.assert_array_equal(array_of(tensor), numpy_helper.to_array(original))
    assert resident(opened.model) == source
    assert b"".join(pieces(opened.model)) == source.SerializeToString(deterministic=True)
    x = np.ones((2, 2000), np.float32)
    wanted, found = (Session(m).run({"x": x})[0] for m in (source, opened.model))
    np.testing.assert_array_equal(wanted, found)


def test_a_model_that_is_loaded_whole_depends_on_nothing(always: None) -> None:
    source = model()
    loaded = load_model(source)
    assert not [*_held(loaded.graph.initializer)]
    assert loaded == source


def test_what_is_written_is_what_protobuf_writes() -> None:
    """Also of tensors in bodies, and of lengths that take another number of bytes."""
    for rows in (3, 40, 5000):
        source, light = model(rows), model(rows)
        arrays = _all_held(light)
        assert light.ByteSize() < source.ByteSize() or rows < 40
        assert b"".join(pieces(light)) == source.SerializeToString(deterministic=True)
        assert resident(light) == source
        del arrays


def test_what_nobody_holds_is_refused(tmp_path: Path) -> None:
    light = model()
    arrays = _all_held(light)
    save_model(light, tmp_path / "m.onnx")
    assert onnx.load(tmp_path / "m.onnx") == model()
    del arrays
    gc.collect()
    with pytest.raises(ModelError, match="refers to external data"):
        save_model(light, tmp_path / "n.onnx")
    assert not (tmp_path / "n.onnx").exists()


def test_a_lowered_graph_holds_its_constants() -> None:
    graph = lift(model())
    light = lowered(graph)
    assert light.ByteSize() < 20_000 < lower(graph).ByteSize()
    assert not [*_held(lower(graph).graph.initializer)]
    assert b"".join(pieces(light)) == lower(graph).SerializeToString(deterministic=True)


@pytest.mark.parametrize("cut", range(0, 400, 7))
def test_broken_messages_are_left_to_protobuf(cut: int, always: None) -> None:
    data = model().SerializeToString()
    broken = data[: len(data) * cut // 400]
    with pytest.raises(ModelError):
        open_model(broken)


@pytest.mark.parametrize("seed", range(200))
def test_bytes_that_turned_over(seed: int, always: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """One byte of a model that isn't a weight's is another: read as protobuf does, or refused."""
    rng = np.random.default_rng(seed)
    data = bytearray(model(1200).SerializeToString())
    places = [i for i in range(len(data)) if i < 400 or i > len(data) - 400]
    data[places[rng.integers(len(places))]] = rng.integers(256)

    def outcome() -> str | onnx.ModelProto:
        try:
            opened = open_model(bytes(data))
            return resident(opened.model)
        except ModelError as error:
            return str(error)

    found = outcome()
    monkeypatch.setattr(weights, "HELD_FROM", 2**40)
    assert found == outcome()


def test_raw_data_of_another_size_is_told(always: None) -> None:
    source = model()
    source.graph.initializer[0].raw_data += b"1234"
    with pytest.raises(ModelError, match="holds 8004 bytes of data; its type and dims need 8000"):
        open_model(source.SerializeToString())


def test_what_is_packed_stays_in_the_message(always: None) -> None:
    """Of elements of four bits numpy has another form."""
    source = model()
    packed = TensorProto(name="p", data_type=TensorProto.INT4, dims=[20000], raw_data=b"\x21" * 10000)
    source.graph.initializer.append(packed)
    source.opset_import[0].version, source.ir_version = 21, 10
    opened = open_model(source.SerializeToString())
    assert "p" not in [*_held(opened.model.graph.initializer)]
    assert resident(opened.model) == source


def test_without_the_data() -> None:
    source = model()
    shell, found = bare(memoryview(source.SerializeToString()), 4096)
    assert [None if f is None else len(f) for f in found] == [8000, 16000, None, None]
    parsed = onnx.ModelProto.FromString(shell)
    assert [len(t.raw_data) for t in parsed.graph.initializer] == [0, 0, 8, 8]
    assert parsed.metadata_props == source.metadata_props


def test_compiling_is_the_same(always: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compiled() -> Any:
        return irshap.compile(demo.model_path(), case("digits").references["image"][:8])

    held_bytes = bytes(compiled())
    for module in (weights, external, session):
        monkeypatch.setattr(module, "HELD_FROM", 2**40)
    assert held_bytes == bytes(compiled())

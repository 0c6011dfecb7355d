"""Reading models: what is valid comes back whole, the rest is one ModelError saying what and where."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper, parser

import irshap.lowering.files.load as load
from irshap.errors import ModelError
from irshap.lowering.files.load import infer_shapes, inline_functions, load_model

WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
HEADER = '<ir_version: 10, opset_import: ["": 17, "loc": 1]>'
LINEAR = """<ir_version: 10, opset_import: ["": 17]>
g (float[N,3] x) => (float[N,4] y) <float[3,4] w = {0,1,2,3,4,5,6,7,8,9,10,11}> {
    [mm] h = MatMul(x, w)
    y = Relu(h)
}"""


def linear() -> onnx.ModelProto:
    model = parser.parse_model(LINEAR)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(WEIGHTS, "w"))
    return model


def large(rows: int = 3, columns: int = 4096) -> onnx.ModelProto:
    """A model whose one weight is large enough to be left out of the outline."""
    model = parser.parse_model(LINEAR.replace("[N,4]", f"[N,{columns}]"))
    weights = np.ones((rows, columns), np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    return model


def externalize(model: onnx.ModelProto, location: str, **entries: object) -> onnx.ModelProto:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return model


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def refusal(source: str | Path | bytes | onnx.ModelProto) -> str:
    with pytest.raises(ModelError) as caught:
        load_model(source)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


# --- what is read ---------------------------------------------------------------------------------


def test_reads_paths_bytes_and_models(tmp_path: Path) -> None:
    model = linear()
    file = tmp_path / "m.onnx"
    file.write_bytes(model.SerializeToString())
    for source in (file, str(file), file.read_bytes(), model):
        assert load_model(source) == model


def test_shares_nothing_with_a_model_in_memory() -> None:
    model = linear()
    load_model(model).graph.name = "other"
    assert model == linear()


def test_model_file_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(linear().SerializeToString())
    (tmp_path / "link.onnx").symlink_to("m.onnx")
    assert load_model(tmp_path / "link.onnx") == linear()


def test_relative_path_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("w").write_bytes(WEIGHTS.tobytes())
    Path("m.onnx").write_bytes(externalize(linear(), "w").SerializeToString())
    assert load_model("m.onnx") == linear()


def test_custom_domains_pass() -> None:
    model = linear()
    model.graph.node[1].domain = "com.zoo"
    model.opset_import.add(domain="com.zoo", version=1)
    assert load_model(model) == model


# --- what isn't a model ---------------------------------------------------------------------------


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no.onnx") == f"{tmp_path / 'no.onnx'}: no such file"
    assert "is a folder" in refusal(tmp_path)
    assert "can't be read" in refusal("a\0b") or "no such file" in refusal("a\0b")
    assert "\x1b" not in refusal("\x1b[31mred")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"x")
    (tmp_path / "m.onnx").chmod(0)
    assert "can't be read: Permission denied" in refusal(tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty, not an ONNX model. give the .onnx file that torch.onnx.export"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "PNG image"),
        (b"PK\x03\x04" + bytes(64), "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
        (b"hello, this is text\n", "not an ONNX model. give the .onnx file"),
        (bytes(100), "not an ONNX model. give the .onnx file"),
        (onnx.ModelProto(ir_version=10).SerializeToString(), "it has no graph. give the .onnx file"),
    ],
)
def test_other_formats(content: bytes, expected: str) -> None:
    assert expected in refusal(content)


@pytest.mark.parametrize("model", [linear(), large()], ids=["small", "large"])
def test_every_truncation_is_refused(model: onnx.ModelProto) -> None:
    data = model.SerializeToString()
    for end in {*range(1, min(len(data), 300)), *range(1, len(data), 997), len(data) - 1}:
        assert re.search("truncated|not a valid|not an ONNX|has opset", refusal(data[:end])), end


@given(st.binary(max_size=64), st.integers(0, 200))
@settings(max_examples=200)
def test_garbage_raises_nothing_else(noise: bytes, at: int) -> None:
    data = linear().SerializeToString()
    for source in (noise, data[:at] + noise + data[at + len(noise) :]):
        with suppress(ModelError):
            infer_shapes(inline_functions(load_model(source)))


def test_names_that_are_not_utf8() -> None:
    data = linear().SerializeToString().replace(b"MatMul", b"Mat\xfful")
    assert "names that are not UTF-8" in refusal(data)


def test_two_gibibytes_in_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "m.onnx").open("wb") as stream:
        stream.truncate(2**31)  # sparse: takes no room
    assert "over 2 GiB" in refusal(tmp_path / "m.onnx")
    monkeypatch.setattr(load, "MAX_PROTO", 10)
    assert "over 2 GiB" in refusal(linear().SerializeToString())


# --- invalid models -------------------------------------------------------------------------------


def set_(path: str, value: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        *parents, name = re.findall(r"\w+", path)
        target: object = model
        for parent in parents:
            target = target[int(parent)] if parent.isdigit() else getattr(target, parent)  # type: ignore[index]
        setattr(target, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_("graph.node[0].op_type", "Zoo"), "No Op registered for Zoo"),
        (set_("graph.node[0].domain", "com.zoo"), "No opset import for domain 'com.zoo'"),
        (set_("graph.initializer[0].raw_data", b"abc"), "3 bytes of data; its type and dims need 48"),
        (set_("graph.initializer[0].data_type", 99), "unknown element type 99"),
        (set_("opset_import[0].version", 5), "opset 5; irshap reads 7 and up. convert it"),
        (set_("opset_import[0].version", 999), "opset 999; the installed onnx knows up to"),
        (set_("ir_version", 999), "IR version 999; the installed onnx knows up to"),
        (lambda model: model.opset_import.pop(), "opset_import"),
        (lambda model: model.opset_import.add(domain="ai.onnx", version=13), "several opsets"),
        (lambda model: model.graph.node[0].input.__setitem__(0, "zz"), "'zz'"),
        (lambda model: model.graph.initializer[0].dims.__setitem__(0, -3), "need -48"),
        (lambda model: model.graph.initializer.append(model.graph.initializer[0]), "not unique"),
    ],
)
def test_invalid_models(change: Callable[[onnx.ModelProto], None], expected: str) -> None:
    model = linear()
    change(model)
    assert expected in refusal(model)


def test_large_weights_are_checked_too() -> None:
    model = large()
    assert load_model(model) == model
    model.graph.initializer[0].raw_data = b"abc"
    assert "tensor 'w': holds 3 bytes of data; its type and dims need 49152" in refusal(model)


# --- external data --------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the weights in several places, inside and outside."""
    inside = tmp_path / "model"
    (inside / "sub").mkdir(parents=True)
    for file in (inside / "w", inside / "sub" / "w", inside / "twin", tmp_path / "secret"):
        file.write_bytes(WEIGHTS.tobytes())
    (inside / "padded").write_bytes(bytes(16) + WEIGHTS.tobytes() + bytes(100))
    (inside / "link").symlink_to("w")
    (inside / "link_out").symlink_to(tmp_path / "secret")
    (inside / "up").symlink_to(tmp_path)
    (inside / "sub_link").symlink_to("sub")
    (inside / "hard").hardlink_to(tmp_path / "secret")
    return inside


def external(folder: Path, location: str, **entries: object) -> Path:
    file = folder / "m.onnx"
    file.write_bytes(externalize(linear(), location, **entries).SerializeToString())
    return file


@pytest.mark.parametrize(
    ("location", "entries"),
    [
        ("w", {}),
        ("./w", {"offset": 0, "length": 48}),
        ("sub/w", {"length": 48}),
        ("padded", {"offset": 16}),
        ("padded", {"offset": 16, "length": 48, "checksum": "ignored"}),
    ],
)
def test_external_data(folder: Path, location: str, entries: dict[str, object]) -> None:
    assert load_model(external(folder, location, **entries)) == linear()


@pytest.mark.parametrize(
    ("location", "entries", "expected"),
    [
        ("/etc/hostname", {}, "must lie in the model's folder"),
        ("../secret", {}, "must lie in the model's folder"),
        ("sub/../../secret", {}, "must lie in the model's folder"),
        ("", {}, "must lie in the model's folder"),
        (".", {}, "must lie in the model's folder"),
        ("link", {}, "symbolic link"),
        ("link_out", {}, "symbolic link"),
        ("up/secret", {}, "symbolic link"),
        ("sub_link/w", {}, "symbolic link"),
        ("hard", {}, "several hard links"),
        ("none", {}, "'none' is missing"),
        ("w/w", {}, "is missing"),
        ("n\0ne", {}, "is missing"),
        ("sub", {}, "not a regular file"),
        ("w", {"offset": 4}, "truncated: 48 bytes of at least 52"),
        ("w", {"offset": 10**18}, "truncated"),
        ("w", {"length": 100}, "has 100 bytes; the tensor's type and dims need 48"),
        ("w", {"length": 8}, "has 8 bytes"),
        ("w", {"offset": -1}, "offset '-1'"),
        ("w", {"offset": "1e3"}, "offset '1e3'"),
        ("w", {"length": "9" * 5000}, "length '999"),
    ],
)
def test_external_data_refused(
    folder: Path, location: str, entries: dict[str, object], expected: str
) -> None:
    message = refusal(external(folder, location, **entries))
    assert expected in message
    assert message.startswith(f"{folder / 'm.onnx'}, tensor 'w': ")


def test_external_data_needs_a_folder() -> None:
    model = externalize(linear(), "w")
    assert "has no folder" in refusal(model)
    assert "has no folder" in refusal(model.SerializeToString())


def test_external_strings_are_refused(folder: Path) -> None:
    model = externalize(linear(), "w")
    model.graph.initializer[0].data_type = TensorProto.STRING
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert "type and dims need 0" in refusal(folder / "m.onnx")


def test_external_empty_tensor(folder: Path) -> None:
    model = externalize(linear(), "w", length=0)
    model.graph.initializer[0].dims[:] = [0, 4]
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    assert load_model(folder / "m.onnx").graph.initializer[0].raw_data == b""


def test_external_data_everywhere(folder: Path) -> None:
    """In attributes, subgraphs and functions, where the loop of the package onnx doesn't look either."""
    weights = externalize(linear(), "w").graph.initializer[0]
    model = parser.parse_model(
        HEADER
        + """
    g (float[3,4] x, bool c) => (float[3,4] y) {
        k = Constant()
        p = If(c) <then_branch = a () => (float[3,4] t) { t = Identity(s) },
                   else_branch = b () => (float[3,4] e) { e = Neg(x) }>
        q = loc.F(p)
        y = Add(k, q)
    }
    <domain: "loc", opset_import: ["": 17]>
    F (a) => (b) { k = Constant() b = Add(a, k) }"""
    )
    for node in (model.graph.node[0], model.functions[0].node[0]):
        node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR, t=weights)
    branch = model.graph.node[1].attribute[0].g
    branch.initializer.append(weights)
    branch.initializer[0].name = "s"
    (folder / "m.onnx").write_bytes(model.SerializeToString())
    loaded = inline_functions(load_model(folder / "m.onnx"))
    assert b"EXTERNAL" not in str(loaded).encode()
    session = ort.InferenceSession(loaded.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": WEIGHTS, "c": np.array(True)})
    np.testing.assert_array_equal(y, 3 * WEIGHTS)


# --- functions ------------------------------------------------------------------------------------


def inlined(text: str) -> onnx.ModelProto:
    return inline_functions(load_model(parser.parse_model(text)))


CALLS = (
    HEADER
    + """
g (float[N,3] x) => (float[N,3] y) { [first] h = loc.F <k = 0.5> (x) y = loc.F (h) }
<domain: "loc", opset_import: ["": 17, "loc": 1]>
F <k: float = 0.1> (a) => (b) { [leaky] t = LeakyRelu <alpha: float = @k> (a) b = loc.G(t) }
<domain: "loc", opset_import: ["": 17]>
G (a) => (b) { b = LeakyRelu <alpha = 2.0> (a) }"""
)


def test_functions_are_inlined_with_their_default_attributes() -> None:
    source = parser.parse_model(CALLS)
    model = inlined(CALLS)
    assert [node.op_type for node in model.graph.node] == ["LeakyRelu"] * 4 and not model.functions
    x = np.array([[-1, 2, -3]], np.float32)
    np.testing.assert_allclose(run(model, x), run(source, x), rtol=1e-6)
    np.testing.assert_allclose(run(model, x), [[-0.2, 2, -0.6]], rtol=1e-6)
    assert source == parser.parse_model(CALLS)


def test_inlining_without_functions_is_free() -> None:
    model = linear()
    assert inline_functions(model) is model


def test_inlining_keeps_large_weights() -> None:
    model = large()
    model.graph.node[1].CopyFrom(onnx.helper.make_node("F", ["h"], ["y"], domain="loc"))
    body = [onnx.helper.make_node("Relu", ["a"], ["b"])]
    model.functions.append(onnx.helper.make_function("loc", "F", ["a"], ["b"], body, model.opset_import))
    model.opset_import.add(domain="loc", version=1)
    result = inline_functions(load_model(model))
    assert result.graph.initializer == large().graph.initializer
    assert [node.op_type for node in result.graph.node] == ["MatMul", "Relu"]


@pytest.mark.parametrize("opset", [15, 21])
def test_a_function_of_another_opset_with_the_same_ops(opset: int) -> None:
    text = CALLS.replace('["": 17, "loc": 1]>\nF', f'["": {opset}, "loc": 1]>\nF')
    assert text != CALLS
    model = inlined(text.replace("LeakyRelu <alpha: float = @k>", "Tanh"))
    assert not model.functions and model.opset_import[0].version == 17


def test_a_function_of_another_opset_with_changed_ops_is_refused() -> None:
    text = HEADER + (
        'g (float[N,3] x) => (float[N,3] y) { y = loc.F(x) } <domain: "loc", opset_import: ["": 11]>'
        "F (a) => (b) { b = Softmax(a) }"
    )
    assert "FunctionOp imports version 11" in refusal(parser.parse_model(text))


def test_a_domain_that_only_a_function_imports() -> None:
    model = inlined(
        HEADER + "g (float[N,3] x) => (float[N,3] y) { y = loc.F(x) }"
        '<domain: "loc", opset_import: ["ai.onnx": 17, "com.zoo": 2]> F (a) => (b) { b = com.zoo.Magic(a) }'
    )
    assert ("com.zoo", 2) in [(entry.domain, entry.version) for entry in model.opset_import]
    assert [entry.domain for entry in model.opset_import].count("") == 1


def test_a_function_named_like_a_standard_op_is_ignored_as_runtimes_do() -> None:
    text = HEADER + (
        "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"
        '<domain: "", opset_import: ["": 17]> Relu (a) => (b) { b = Neg(a) }'
    )
    x = np.array([[-1, 2, -3]], np.float32)
    np.testing.assert_array_equal(run(inlined(text), x), run(parser.parse_model(text), x))


def test_recursive_functions_are_refused() -> None:
    text = HEADER + (
        "g (float[N,3] x) => (float[N,3] y) { y = loc.F(x) }"
        '<domain: "loc", opset_import: ["": 17, "loc": 1]> F (a) => (b) { b = loc.F(a) }'
    )
    assert "Cycle detected" in refusal(parser.parse_model(text))


def test_functions_that_double_are_refused_before_they_are_written_out() -> None:
    text = HEADER + "g (float[N,3] x) => (float[N,3] y) { y = loc.F0(x) }"
    for i in range(40):
        calls = f"c = loc.F{i + 1}(a) b = loc.F{i + 1}(c)" if i < 39 else "c = Relu(a) b = Relu(c)"
        text += f'<domain: "loc", opset_import: ["": 17, "loc": 1]> F{i} (a) => (b) {{ {calls} }}'
    assert "has more than 100000 nodes, functions written out" in refusal(parser.parse_model(text))


def test_too_many_nodes() -> None:
    model = parser.parse_model(HEADER + "g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    last = model.graph.node.pop()
    names = ["x", *(f"h{i}" for i in range(100_000)), "y"]
    for a, b in pairwise(names):
        last.input[:], last.output[:] = [a], [b]
        model.graph.node.append(last)
    assert "has more than 100000 nodes" in refusal(model)


# --- shapes ---------------------------------------------------------------------------------------


def dims(model: onnx.ModelProto, name: str) -> list[int | str]:
    (info,) = (info for info in model.graph.value_info if info.name == name)
    return [dim.dim_value or dim.dim_param for dim in info.type.tensor_type.shape.dim]


def test_shapes_with_large_weights_left_out() -> None:
    model = infer_shapes(large())
    assert dims(model, "h") == ["N", 4096]
    assert model.graph.initializer == large().graph.initializer


def test_shapes_that_contradict_are_left() -> None:
    model = parser.parse_model(LINEAR.replace("[N,4]", "[N,5]"))
    assert infer_shapes(model).graph.output == model.graph.output

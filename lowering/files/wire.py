"""Models as they are serialized, large tensors' data apart: read and written without a copy of it in memory.

A message is a sequence of fields: a tag (number and wire type), then a number, or a length and as many bytes.
Of tensors' raw data alone the bytes are left where they are.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

import onnx
from onnx import TensorProto

from irshap.lowering.files.held import data_of, held

__all__ = ["bare", "pieces", "resident"]

_VARINT, _WIDE, _BYTES, _NARROW = 0, 1, 2, 5
_TENSOR = TensorProto.DESCRIPTOR
_RAW = TensorProto.RAW_DATA_FIELD_NUMBER
_ELSEWHERE = (TensorProto.EXTERNAL_DATA_FIELD_NUMBER, TensorProto.DATA_LOCATION_FIELD_NUMBER)

Data = bytes | memoryview


def _inside(message: type, *fields: str) -> Mapping[int, object]:
    """By number, the fields of a message that tensors are in, with the messages that these hold."""
    found = message.DESCRIPTOR.fields_by_name  # type: ignore[attr-defined]
    return {found[name].number: found[name].message_type for name in fields}


_PATHS: Mapping[object, Mapping[int, object]] = {
    onnx.ModelProto.DESCRIPTOR: _inside(onnx.ModelProto, "graph"),
    onnx.GraphProto.DESCRIPTOR: _inside(onnx.GraphProto, "node", "initializer"),
    onnx.NodeProto.DESCRIPTOR: _inside(onnx.NodeProto, "attribute"),
    onnx.AttributeProto.DESCRIPTOR: _inside(onnx.AttributeProto, "g", "graphs"),
}
"""Where tensors may be held: the initializers of a graph, and of those inside it."""


def _varint(data: Data, at: int) -> tuple[int, int]:
    """The number that stands at a place, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number has more than 64 bits")


def _encoded(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _fields(data: Data, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Each field of a message: its number, its wire type, where it begins, where its bytes do, and its end.

    Raises:
        ValueError, IndexError: it isn't well formed, or has groups, which ONNX doesn't have.
    """
    at = start
    while at < end:
        first = at
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            _, after = _varint(data, at)
        elif kind == _BYTES:
            length, at = _varint(data, at)
            after = at + length
        elif kind in (_WIDE, _NARROW):
            after = at + (8 if kind == _WIDE else 4)
        else:
            raise ValueError("a group")
        if after > end:
            raise ValueError("a field goes on behind its message")
        yield tag >> 3, kind, first, at, after
        at = after


def bare(data: memoryview, over: int) -> tuple[bytes, list[memoryview | None]]:
    """A serialized model without the raw data of its graph's initializers that has more than `over` bytes.

    Returns:
        The model, and for each initializer its raw data, None where that is still in it.

    Raises:
        ValueError, IndexError: the model isn't well formed.
    """
    found: list[memoryview | None] = []
    shell = bytearray()
    graph = onnx.ModelProto.GRAPH_FIELD_NUMBER
    for number, kind, first, start, end in _fields(data, 0, len(data)):
        if (number, kind) == (graph, _BYTES):
            part = _bare_graph(data, start, end, over, found)
            shell += _tagged(number, len(part)) + part
        else:
            shell += data[first:end]
    return bytes(shell), found


def _bare_graph(
    data: memoryview, start: int, end: int, over: int, found: list[memoryview | None]
) -> bytearray:
    shell = bytearray()
    for number, kind, first, inner, after in _fields(data, start, end):
        if (number, kind) != (onnx.GraphProto.INITIALIZER_FIELD_NUMBER, _BYTES):
            shell += data[first:after]
            continue
        parts = [*_fields(data, inner, after)]
        raw = [data[a:b] for n, k, _, a, b in parts if (n, k) == (_RAW, _BYTES)]
        large = raw[0] if len(raw) == 1 and len(raw[0]) > over else None
        tensor = data[inner:after]
        if large is not None:
            tensor = memoryview(b"".join(data[f:b] for n, _, f, _, b in parts if n != _RAW))
        found.append(large)
        shell += _tagged(number, len(tensor)) + tensor
    return shell


def _tagged(number: int, length: int) -> bytes:
    return _encoded(number << 3 | _BYTES) + _encoded(length)


def pieces(model: onnx.ModelProto, *, apart: Container[str] = ()) -> list[Data]:
    """The bytes of a model, one after another, with the data of tensors that are held: as if it were theirs.

    The same as protobuf gives for the model with all its data in it, and always the same.

    Args:
        apart: tensors that go without their data.
    """
    data = memoryview(model.SerializeToString(deterministic=True))
    if all(held(t) is None for t in _tensors(model.graph)):
        return [data]
    return _filled(data, 0, len(data), onnx.ModelProto.DESCRIPTOR, apart)


def resident(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with all its data in it: itself, or a copy where some is held."""
    if all(held(t) is None for t in _tensors(model.graph)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in _tensors(copy.graph):
        if held(tensor) is not None:
            data = bytes(data_of(tensor))
            tensor.ClearField("data_location")
            del tensor.external_data[:]
            tensor.raw_data = data
    return copy


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from _tensors(inner)


def _filled(data: memoryview, start: int, end: int, message: object, apart: Container[str]) -> list[Data]:
    if message is _TENSOR:
        return _filled_tensor(data, start, end, apart)
    paths, found = _PATHS.get(message, {}), list[Data]()
    kept = start  # what stays as it is goes over in one piece
    for number, kind, first, inner, after in _fields(data, start, end):
        if kind != _BYTES or number not in paths:
            continue
        part = _filled(data, inner, after, paths[number], apart)
        if (size := sum(map(len, part))) != after - inner:
            found += [data[kept:first], _tagged(number, size), *part]
            kept = after
    return [*found, data[kept:end]]


def _filled_tensor(data: memoryview, start: int, end: int, apart: Container[str]) -> list[Data]:
    tensor = TensorProto.FromString(bytes(data[start:end]))
    if held(tensor) is None or tensor.name in apart:
        return [data[start:end]]
    raw = data_of(tensor)
    before, after = list[Data](), list[Data]()
    for number, _, first, _, last in _fields(data, start, end):
        if number not in _ELSEWHERE:
            (before if number < _RAW else after).append(data[first:last])
    return [*before, _tagged(_RAW, len(raw)), raw, *after]

"""Small walks over ONNX messages that reading and writing share.

The tools of the package onnx take a model as one serialized message, which ends at 2 GiB and costs two copies
of all weights.  `on_outline` runs them on the model without its large weights and puts those back afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from math import prod
from typing import Any, TypeVar

import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from irshap.errors import ModelError, printable
from irshap.lowering.files.held import held

__all__ = [
    "OUTLINE_OVER",
    "decoded",
    "first_line",
    "has_broken_text",
    "is_outlined",
    "messages",
    "nbytes",
    "nodes",
    "on_outline",
    "outline",
    "tensors",
]

# Shape inference reads small constants (the operand of a Reshape), so those stay in the outline.
OUTLINE_OVER = 4096
_TENSOR_FIELDS = [field for field in TensorProto.DESCRIPTOR.fields if field.name != "raw_data"]
_PLACE = ("data_location", "external_data")
_M = TypeVar("_M", bound=Message)
_SUB_BYTE_BITS = {"FLOAT4E2M1": 4, "INT2": 2, "INT4": 4, "UINT2": 2, "UINT4": 4}


def first_line(error: BaseException) -> str:
    """The first line of a message, printable and at most 200 characters: names in it are untrusted."""
    line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    line = printable(line).strip().rstrip(".")
    return line if len(line) <= 200 else line[:197] + "..."


def decoded(kind: type[_M], content: bytes, what: str) -> _M:
    """A message from its bytes, which a text of the IR may have brought.

    Raises:
        ModelError: they are none of its kind; names `what` they should be.
    """
    try:
        return kind.FromString(content)
    except DecodeError:
        raise ModelError(f"the bytes of {what} are none", mend="lift the model anew") from None


def _fields(message: Message) -> Iterator[tuple[Any, Any]]:
    """The fields that are set, without tensors' raw data: protobuf would copy all weights to show them."""
    if not isinstance(message, TensorProto):
        yield from message.ListFields()
        return
    for field in _TENSOR_FIELDS:
        value = getattr(message, field.name)
        if message.HasField(field.name) if isinstance(value, (str, bytes, int, Message)) else len(value):
            yield field, value


def messages(message: Message) -> Iterator[Message]:
    """`message` and every message anywhere in it."""
    yield message
    for _, value in _fields(message):
        if isinstance(value, Message):
            yield from messages(value)
        elif hasattr(value, "extend") and isinstance(value[0], Message):
            for item in value:
                yield from messages(item)


def tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor anywhere in `message`: initializers, sparse parts, attributes, subgraphs and functions."""
    return (part for part in messages(message) if isinstance(part, TensorProto))


def has_broken_text(message: Message) -> bool:
    """Whether a string in `message` isn't UTF-8.  protobuf parses those, and hands them out as bytes."""
    for part in messages(message):
        for field, value in _fields(part):
            if field.type == FieldDescriptor.TYPE_STRING:
                texts = (value,) if isinstance(value, (str, bytes)) else value
                if any(isinstance(text, bytes) for text in texts):
                    return True
    return False


def nodes(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph or function, those of nested subgraphs included."""
    for node in body.node:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from nodes(graph)


def nbytes(tensor: TensorProto) -> int:
    """The size of the tensor's raw data as its dims and type declare it; 0 for strings and unknown types."""
    try:
        name = TensorProto.DataType.Name(tensor.data_type)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except (KeyError, ValueError):
        return 0
    bits = 0 if dtype.kind == "O" else _SUB_BYTE_BITS.get(name, 8 * dtype.itemsize)
    return (prod(tensor.dims) * bits + 7) // 8


def is_outlined(tensor: TensorProto) -> bool:
    """Whether `outline` leaves out this initializer's data."""
    return (tensor.HasField("raw_data") or held(tensor) is not None) and nbytes(tensor) > OUTLINE_OVER


def outline(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` whose large initializers have their names, types and dims, but empty raw data."""
    copy = onnx.ModelProto()
    _copy_fields(model, copy, skip={"graph"})
    _copy_fields(model.graph, copy.graph, skip={"initializer"})
    for tensor in model.graph.initializer:
        target = copy.graph.initializer.add()
        if is_outlined(tensor):
            _copy_fields(tensor, target, skip=_PLACE)
            target.raw_data = b""
        else:
            target.CopyFrom(tensor)
    return copy


def on_outline(tool: Callable[[onnx.ModelProto], onnx.ModelProto], model: onnx.ModelProto) -> onnx.ModelProto:
    """`tool(model)` for a tool that needs no large weights and keeps initializers; `model` stays as it is."""
    large = {tensor.name: tensor for tensor in model.graph.initializer if is_outlined(tensor)}
    result = tool(outline(model))
    for tensor in result.graph.initializer:
        if tensor.name in large:
            tensor.CopyFrom(large[tensor.name])
    return result


def _copy_fields(source: Message, target: Message, skip: Container[str] = ()) -> None:
    """Copies all fields but those in `skip` and the raw data of a tensor."""
    for field, value in _fields(source):
        if field.name in skip:
            continue
        if isinstance(value, Message):
            getattr(target, field.name).CopyFrom(value)
        elif hasattr(value, "extend"):
            getattr(target, field.name).extend(value)
        else:
            setattr(target, field.name, value)

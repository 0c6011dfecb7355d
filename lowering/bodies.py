"""Ops that the standard defines by a function: what irshap has no rule for is lifted through that body."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from irshap.ir.core import Value
from irshap.lowering.emitter import onnx_type
from irshap.lowering.files.protos import nodes
from irshap.lowering.files.scopes import rename_nodes
from irshap.lowering.opaque import is_unknown

__all__ = ["body_of"]

_RANDOM = {"Bernoulli"}
"""Ops that draw lots: their bodies do, too, but others than the op itself."""


def body_of(
    node: onnx.NodeProto, inputs: Sequence[Value | None], opset: int, taken: Container[str]
) -> tuple[Sequence[onnx.NodeProto], int] | None:
    """The nodes that compute what a node of the standard does, between its own tensors, and their opset.

    `taken`: names that tensors within must not have.  None for an op without a body, and where the types of
    inputs, on which the body depends, are unknown.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type in _RANDOM:
        return None
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
        found = _function(schema, node, inputs, opset)
        if found is None:
            return None
        function = onnx.FunctionProto.FromString(found)
    except (DecodeError, RuntimeError, onnx.defs.SchemaError, onnx.shape_inference.InferenceError):
        return None
    stem = f"{next(filter(None, node.output), node.op_type)}/"
    while any(f"{stem}{name}" in taken for inner in nodes(function) for name in inner.output):
        stem += "/"
    _bind(function, _attributes(schema, function, node))
    given = dict.fromkeys(function.input, "") | dict(zip(function.input, node.input, strict=False))
    wanted = {formal: name for formal, name in zip(function.output, node.output, strict=False) if name}
    rename_nodes(function.node, given, wanted, lambda name: f"{stem}{name}")
    for inner in function.node:
        inner.name = node.name or stem[:-1]
    return function.node, max((o.version for o in function.opset_import if not o.domain), default=opset)


def _function(schema: Any, node: onnx.NodeProto, inputs: Sequence[Value | None], opset: int) -> bytes | None:
    """The body for the opset, or one nearby: it says itself of which opset its ops are."""
    # onnx's stubs leave out these members of OpSchema
    if schema.has_function:
        version = _nearest(schema.function_opset_versions, opset)
        return bytes(schema.get_function_with_opset_version(version))
    if not schema.has_context_dependent_function or any(v is not None and is_unknown(v.type) for v in inputs):
        return None
    version = _nearest(schema.context_dependent_function_opset_versions, opset)
    types = [(onnx.TypeProto() if v is None else onnx_type(v.type)).SerializeToString() for v in inputs]
    made = schema.get_context_dependent_function_with_opset_version
    try:
        return bytes(made(version, node.SerializeToString(), types)) or None
    except (RuntimeError, ValueError):  # the inputs aren't of the kinds that its definition has
        return None


def _nearest(versions: Sequence[int], opset: int) -> int:
    return max((v for v in versions if v <= opset), default=min(versions))


def _attributes(
    schema: onnx.defs.OpSchema, function: onnx.FunctionProto, node: onnx.NodeProto
) -> Mapping[str, onnx.AttributeProto]:
    """The values of the attributes that a body refers to: the node's, or their defaults."""
    found = {a.name: a.default_value for a in schema.attributes.values() if a.default_value.name}
    found.update({a.name: a for a in function.attribute_proto})
    found.update({a.name: a for a in node.attribute})
    return found


def _bind(function: onnx.FunctionProto, values: Mapping[str, onnx.AttributeProto]) -> None:
    """Puts values in the place of references to attributes; without one, the attribute isn't given."""
    for inner in nodes(function):
        bound = []
        for attribute in inner.attribute:
            if not attribute.ref_attr_name:
                bound.append(attribute)
            elif attribute.ref_attr_name in values:
                value = onnx.AttributeProto()
                value.CopyFrom(values[attribute.ref_attr_name])
                value.name = attribute.name
                bound.append(value)
        kept = onnx.NodeProto(attribute=bound)
        del inner.attribute[:]
        inner.attribute.extend(kept.attribute)

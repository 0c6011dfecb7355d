"""ONNX nodes that irshap doesn't model: carried through as they are, or in the form of the opset written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from math import prod
from typing import cast

import numpy as np
import onnx
from onnx import helper, numpy_helper

from irshap.errors import IRError, ModelError
from irshap.ir.core import Node, Value
from irshap.ir.dims import symbols_of
from irshap.ir.types import Array, DType, ForeignType, TensorType
from irshap.lowering.emitter import Emitter, onnx_type, tensor_proto
from irshap.lowering.files.convert import (
    Unconvertible,
    changed_kind,
    convert_node,
    default_opset,
    ir_version_for,
)
from irshap.lowering.files.protos import decoded, nodes
from irshap.lowering.files.scopes import rename_nodes
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.ops.program import Constant, Opaque

__all__ = ["emit_opaque", "is_unknown", "used_domains"]

_SMALL = 4096
"""Constants up to this size are shown to the version converter, which makes attributes of some."""

_LARGEST_TRIAL = 2**20
"""A converted node is tried on tensors of up to this many elements."""


def used_domains(node: onnx.NodeProto) -> list[str]:
    """The operator sets that a node and its subgraphs use."""
    found = (inner.domain for inner in nodes(onnx.GraphProto(node=[node])))
    return sorted({"" if domain == "ai.onnx" else domain for domain in found})


def emit_opaque(emitter: Emitter, node: Node, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Writes an opaque node back with its tensors' new names.

    Raises:
        ModelError: the op's definition changed between the source's opset and the one written, and onnx
            can't convert it.
    """
    op = cast(Opaque, node.op)
    proto, names = _placed(op, inputs)
    results = dict(zip((n for n in proto.output if n), outputs, strict=True))
    parts, initializers = [proto], list[onnx.TensorProto]()
    opset = default_opset(op.opsets)
    kind = changed_kind(proto, opset, emitter.opset) if opset else None
    if kind is not None:
        values = (*node.operands, *node.results)
        known = dict(zip((*_operand_names(op, proto), *results), values, strict=True))
        types = {n: onnx_type(v.type) for n, v in known.items() if not is_unknown(v.type)}
        constants = [
            tensor_proto(array, n)
            for n, v in known.items()
            if (array := _constant(v.node)) is not None and array.size <= _SMALL
        ]
        try:
            operands = {n: known[n] for n in _operand_names(op, proto)}
            trials = _trials(operands, {t.name for t in constants})
            parts, initializers = convert_node(proto, op.opsets, emitter.opset, types, constants, trials)
        except Unconvertible as error:
            raise ModelError(
                f"{kind} changed between opset {opset} and {emitter.opset}, which the model is written at, "
                f"and can't be converted: {error}",
                where=node.label,
                mend=f"Export the model at opset {emitter.opset}",
            ) from error
    for tensor in initializers:
        if tensor.name not in names:
            names[tensor.name] = emitter.constant(numpy_helper.to_array(tensor), tensor.name)
    rename_nodes(parts, names, results, emitter.fresh)
    for part in parts:
        emitter.append(part, node.origin)


def _placed(op: Opaque, inputs: Sequence[str]) -> tuple[onnx.NodeProto, dict[str, str]]:
    """The node with a name of its own for each operand, and those names' meaning in the lowered model.

    A tensor that the source's node reads twice may have become two different ones.

    Raises:
        ModelError: its bytes, which a text of the IR may have brought, aren't those of the node.
    """
    proto = decoded(onnx.NodeProto, op.proto, f"the node {op.kind}")
    if proto.op_type != op.kind or len(proto.input) < len(op.present):
        raise ModelError(f"the bytes of the node {op.kind} are another's", mend="lift the model anew")
    given = iter(inputs)
    names: dict[str, str] = {}
    for i, present in enumerate(op.present):
        if present:
            proto.input[i] = f"{proto.input[i]}/operand{i}"
            names[proto.input[i]] = next(given)
    names.update(zip(op.captures, given, strict=True))
    return proto, names


def _operand_names(op: Opaque, proto: onnx.NodeProto) -> list[str]:
    return [*(n for n in proto.input if n), *op.captures]


def is_unknown(type: object) -> bool:
    """Whether nothing tells the type of an opaque node's result."""
    return isinstance(type, ForeignType) and not type.serialized


def _trials(operands: Mapping[str, Value], fixed: Set[str]) -> list[dict[str, Array]]:
    """Values to try a node on: constants as they are, small random numbers for others; none if that won't do.

    Truth values are all false first and then all true, for conditions.
    """
    generator = np.random.default_rng(0)
    trials: list[dict[str, Array]] = [{}, {}]
    for name, value in operands.items():
        kind = value.type
        if not isinstance(kind, TensorType) or kind.shape is None or kind.dtype.numpy.kind not in "fiub":
            return []
        shape = kind.substitute(dict.fromkeys(symbols_of(kind.shape), 3)).dims
        sizes = [int(d) for d in shape if isinstance(d, int) and d >= 0]
        if len(sizes) < len(shape) or prod(sizes) > _LARGEST_TRIAL:
            return []
        array = _constant(value.node)
        for truth, feeds in zip((False, True), trials, strict=True):
            if name in fixed:
                continue
            if array is not None:
                feeds[name] = array
            elif kind.dtype is DType.BOOL:
                feeds[name] = np.full(sizes, truth)
            elif kind.dtype.is_float:
                feeds[name] = np.asarray(generator.standard_normal(sizes), kind.dtype.numpy)
            else:
                feeds[name] = np.asarray(generator.integers(0, 2, sizes), kind.dtype.numpy)
    return trials


def _constant(node: Node) -> Array | None:
    return node.op.value.array if isinstance(node.op, Constant) else None


def _run(op: Opaque, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """Runs one opaque node on arrays, with ONNX Runtime.

    Raises:
        IRError: ONNX Runtime has no kernel for it.
    """
    proto, _ = _placed(op, [""] * len(arrays))
    feeds = dict(zip(_operand_names(op, proto), arrays, strict=True))
    graph = helper.make_graph(
        [proto],
        "opaque",
        [helper.make_value_info(n, onnx_type(TensorType(DType.of(a), a.shape))) for n, a in feeds.items()],
        [onnx.ValueInfoProto(name=n) for n in proto.output if n],
    )
    imports = [helper.make_opsetid(*pair) for pair in op.opsets]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version_for(imports))
    try:
        return tuple(Session(model).run(feeds))
    except RuntimeRefusal as error:
        raise IRError(f"ONNX Runtime can't run {op.kind}: {error}", where="opaque node") from error


Opaque.runner = _run

"""Single ONNX nodes from one opset to a later one, by onnx's own version converter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import TensorProto, checker, helper, version_converter

from irshap.ir.types import Array
from irshap.lowering.files.protos import first_line, nodes
from irshap.lowering.files.scopes import captured_names
from irshap.lowering.files.session import RuntimeRefusal, Session

__all__ = ["Unconvertible", "changed_kind", "convert_node", "default_opset", "ir_version_for"]

_DEFAULT_DOMAIN = ("", "ai.onnx")
_OLDEST_IR = 4  # from here on an initializer need not be an input, too

# What onnx's converter turns into something else: until opset 8 Scan had a batch axis, and until opset 12
# Hardmax flattened around its axis.
_MISCONVERTED = {"Scan": 9, "Hardmax": 13}
_TOLERANCE = 1e-3


class Unconvertible(Exception):
    """Why a node has no form at the wanted opset."""


def default_opset(opsets: Sequence[tuple[str, int]]) -> int:
    """The version of the standard operator set, 0 if none is used."""
    return max((version for domain, version in opsets if domain in _DEFAULT_DOMAIN), default=0)


def ir_version_for(imports: Sequence[onnx.OperatorSetIdProto]) -> int:
    """The lowest IR version that goes with these operator sets."""
    return max(_OLDEST_IR, helper.find_min_ir_version_for(list(imports), ignore_unknown=True))


def changed_kind(node: onnx.NodeProto, opset: int, target: int) -> str | None:
    """The op of `node`, or of its subgraphs, whose definition at `target` isn't that at `opset`."""
    for inner in nodes(onnx.GraphProto(node=[node])):
        if inner.domain in _DEFAULT_DOMAIN and _since(inner.op_type, opset) != _since(inner.op_type, target):
            return inner.op_type
    return None


def _since(kind: str, opset: int) -> tuple[int, bool]:
    try:
        schema = onnx.defs.get_schema(kind, opset, "")
    except onnx.defs.SchemaError:
        return 0, False
    return schema.since_version, schema.deprecated


_ERRORS = (
    checker.ValidationError,
    onnx.shape_inference.InferenceError,
    version_converter.ConvertError,
    DecodeError,
    EncodeError,
    RuntimeError,
    ValueError,
)
"""What onnx raises on nodes that it can't make sense of: its own errors have no common base."""


def convert_node(
    node: onnx.NodeProto,
    opsets: Sequence[tuple[str, int]],
    target: int,
    types: Mapping[str, onnx.TypeProto],
    constants: Sequence[TensorProto] = (),
    trials: Sequence[Mapping[str, Array]] = (),
) -> tuple[list[onnx.NodeProto], list[TensorProto]]:
    """The nodes and initializers that compute at opset `target` what `node` computes at its own opset.

    Args:
        opsets: the operator sets that the node and its subgraphs use.
        types: of the node's inputs, captured tensors and outputs, as far as they are known.
        constants: those of its inputs that are known: attributes may be made of them.
        trials: values for the other inputs, to compare both forms on.

    Raises:
        Unconvertible: the converter doesn't know how, or what it gives isn't valid, or isn't the same.
    """
    opset = default_opset(opsets)
    for inner in nodes(onnx.GraphProto(node=[node])):
        if opset < _MISCONVERTED.get(inner.op_type, 0) <= target:
            raise Unconvertible(f"{inner.op_type} means something else since {_MISCONVERTED[inner.op_type]}")
    fixed = {t.name for t in constants}
    inputs = [n for n in dict.fromkeys([*node.input, *captured_names(node)]) if n]
    graph = helper.make_graph(
        [node],
        "node",
        [onnx.ValueInfoProto(name=n, type=types.get(n)) for n in inputs if n not in fixed],
        [onnx.ValueInfoProto(name=n, type=types.get(n)) for n in node.output if n],
        list(constants),
    )
    imports = [helper.make_opsetid(*pair) for pair in opsets]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version_for(imports))
    try:
        converted = version_converter.convert_version(model, target)
        _check(converted)
        if not all(_agree(model, converted, feeds) for feeds in trials):
            raise Unconvertible("what onnx converts it to gives other numbers")
    except _ERRORS as error:
        raise Unconvertible(first_line(error)) from error
    return list(converted.graph.node), list(converted.graph.initializer)


def _check(model: onnx.ModelProto) -> None:
    """Raises what onnx.checker does, also where tensors have no shape: it wants one of inputs and outputs."""
    shell = onnx.ModelProto()
    shell.CopyFrom(model)
    graph = shell.graph
    del graph.output[:]
    shapeless = [v for v in graph.input if not v.type.tensor_type.HasField("shape")]
    if shapeless:
        # results of a node that the checker doesn't know may have any type
        graph.node.insert(0, helper.make_node("Anything", [], [v.name for v in shapeless], domain="irshap"))
        shell.opset_import.append(helper.make_opsetid("irshap", 1))
        for value in shapeless:
            graph.input.remove(value)
    checker.check_model(shell, full_check=True)


def _agree(before: onnx.ModelProto, after: onnx.ModelProto, feeds: Mapping[str, Array]) -> bool:
    """Whether both give the same for `feeds`, as far as ONNX Runtime runs them and they don't draw lots."""
    try:
        old = Session(before)
        expected, again = old.run(feeds), old.run(feeds)
        found = Session(after).run(feeds)
    except RuntimeRefusal:
        return True  # nothing is known: made-up values can be out of an input's range
    for a, b, c in zip(expected, again, found, strict=True):
        if not (isinstance(a, np.ndarray) and isinstance(c, np.ndarray)):
            continue
        if a.dtype != c.dtype or a.shape != c.shape:
            return False
        if a.dtype.kind in "fiub" and not np.allclose(c, a, _TOLERANCE, _TOLERANCE, equal_nan=True):
            return not np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return True

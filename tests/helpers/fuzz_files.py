"""Broken ONNX files by seed: valid models with bytes flipped, inputs dropped or doubled, types swapped.

Whatever a file is, irshap compiles it or refuses it with a reason: any other exception is a fault of irshap.
`mutated(models, seed)` gives the same file each time.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from fuzz_graphs import generate
from fuzz_workers import Outcome, judged
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, TensorProto
from places import FIXTURES

import irshap
from irshap.attribution.sources import model_inputs
from irshap.errors import UserError
from irshap.ir.core import Graph
from irshap.lowering import lift

__all__ = ["MUTATIONS", "Outcome", "fixtures", "generated", "mutated", "node_models", "outcome"]

Random = np.random.Generator
NUMBERS = (0, 1, -1, 2, 3, 7, -(2**31), 2**31 - 1, 2**31, 2**40, -(2**63), 2**63 - 1)
TYPES = TensorProto.DataType.values()
MOST_ELEMENTS = 1e6
"""Of references for one input."""


def fixtures(most_bytes: int = 40_000) -> list[bytes]:
    """The models of tests/fixtures up to a size."""
    found = sorted(Path(FIXTURES).rglob("*.onnx"))
    return [path.read_bytes() for path in found if path.stat().st_size <= most_bytes]


def generated(count: int) -> list[bytes]:
    """Random valid models of all kinds of ops."""
    cases = (generate(seed) for seed in range(count))
    return [case.model.SerializeToString() for case in cases if case is not None]


def node_models() -> list[bytes]:
    """The models of one node that onnx tests its backends with."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = sorted(load_model_tests(kind="node"), key=lambda test: test.name)
    # before 1.23 they stand in files
    models = (test.model or onnx.load(Path(test.model_dir) / "model.onnx") for test in found)
    return [model.SerializeToString() for model in models]


def mutated(models: Sequence[bytes], seed: int) -> bytes:
    """One of the models with one to three mutations."""
    rng = np.random.default_rng(seed)
    content = models[int(rng.integers(len(models)))]
    for _ in range(1 + int(rng.integers(3))):
        mutation = MUTATIONS[int(rng.integers(len(MUTATIONS)))]
        if mutation is flip_bytes:
            content = flip_bytes(content, rng)
            continue
        try:
            model = onnx.ModelProto.FromString(content)
            mutation(model, rng)
            content = model.SerializeToString()
        except (DecodeError, EncodeError, IndexError, TypeError, ValueError):
            continue  # bytes flipped before: no message any more, or one that protobuf can't write
    return content


def outcome(content: bytes, *, whole: bool = True, reraise: bool = False) -> Outcome:
    """Lifts a file and, for the `whole` way, compiles it with references, as a user would.

    It ends as "compiled", "lifted" (compiling was refused), "refused", or with a fault.
    """
    return judged(_steps(content, whole), reraise)


def _steps(content: bytes, whole: bool) -> Iterator[str]:
    graph = lift(content)
    yield "lifted"
    if whole:
        with suppress(UserError):
            lift(content, batch="none")
        irshap.compile(content, _references(graph))
        yield "compiled"


def _references(graph: Graph) -> dict[str, Any]:
    """Two references for each input that takes some; where lifting says nothing of a size, 3."""
    rng = np.random.default_rng(0)
    found = {}
    for value in model_inputs(graph):
        shape = getattr(value.type, "shape", None)
        if shape:
            sizes = [max(d, 0) if isinstance(d, int) else 3 for d in shape[1:]]
            number = value.dtype.is_float or value.dtype.is_integer
            if not number or np.prod(sizes, dtype=float) > MOST_ELEMENTS:
                continue
            array = rng.standard_normal((2, *sizes))
            array = array if value.dtype.is_float else np.abs(array)
            found[str(value.name)] = array.astype(value.dtype.numpy)
    return found


# --- mutations ------------------------------------------------------------------------------------


def _one(rng: Random, items: Sequence[Any]) -> Any:
    if not items:
        raise ValueError("nothing to mutate")
    return items[int(rng.integers(len(items)))]


def _graphs(graph: onnx.GraphProto) -> list[onnx.GraphProto]:
    inner = [a.g for n in graph.node for a in n.attribute if a.HasField("g")]
    return [graph, *(g for sub in inner for g in _graphs(sub))]


def _nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [n for g in _graphs(model.graph) for n in g.node] + [n for f in model.functions for n in f.node]


def _tensors(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    held = [a.t for n in _nodes(model) for a in n.attribute if a.HasField("t")]
    return [t for g in _graphs(model.graph) for t in g.initializer] + held


def _infos(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    return [v for g in _graphs(model.graph) for v in (*g.input, *g.output, *g.value_info)]


def _names(model: onnx.ModelProto) -> list[str]:
    return [n for node in _nodes(model) for n in (*node.input, *node.output)]


def flip_bytes(content: bytes, rng: Random) -> bytes:
    """Bits flipped, bytes set, removed or put in."""
    data = bytearray(content)
    for _ in range(1 + int(rng.integers(4))):
        at = int(rng.integers(len(data))) if data else 0
        kind = int(rng.integers(4))
        if not data or kind == 0:
            data.insert(at, int(rng.integers(256)))
        elif kind == 1:
            del data[at]
        elif kind == 2:
            data[at] ^= 1 << int(rng.integers(8))
        else:
            data[at] = int(rng.integers(256))
    return bytes(data)


def _drop_input(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, [n for n in _nodes(model) if n.input])
    at = int(rng.integers(len(node.input)))
    if rng.random() < 0.5:
        node.input[at] = ""
    else:
        del node.input[at]


def _double_input(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, [n for n in _nodes(model) if n.input])
    node.input.append(_one(rng, list(node.input)))


def _other_input(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, [n for n in _nodes(model) if n.input])
    node.input[int(rng.integers(len(node.input)))] = _one(rng, _names(model))


def _swap_inputs(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, [n for n in _nodes(model) if len(n.input) > 1])
    names = list(node.input)
    rng.shuffle(names)
    node.input[:] = names


def _change_outputs(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, _nodes(model))
    if node.output and rng.random() < 0.5:
        del node.output[int(rng.integers(len(node.output)))]
    else:
        node.output.append(f"more_{int(rng.integers(9))}")


def _attribute_type(model: onnx.ModelProto, rng: Random) -> None:
    attribute = _one(rng, [a for n in _nodes(model) for a in n.attribute])
    kept = attribute.name
    if rng.random() < 0.3:
        attribute.type = _one(rng, AttributeProto.AttributeType.values())
        return
    made = [
        lambda: onnx.helper.make_attribute(kept, int(_one(rng, NUMBERS))),
        lambda: onnx.helper.make_attribute(kept, float(rng.normal())),
        lambda: onnx.helper.make_attribute(kept, [_one(rng, NUMBERS) for _ in range(rng.integers(1, 5))]),
        lambda: onnx.helper.make_attribute(kept, b"\xff" if rng.random() < 0.5 else "text"),
        lambda: onnx.helper.make_attribute(kept, [1.5, float("nan")]),
        lambda: onnx.helper.make_attribute(kept, onnx.helper.make_tensor("t", 1, [0], [])),
        lambda: onnx.helper.make_attribute(kept, ["a", "b"]),
    ]
    attribute.CopyFrom(_one(rng, made)())


def _attribute_value(model: onnx.ModelProto, rng: Random) -> None:
    attribute = _one(rng, [a for n in _nodes(model) for a in n.attribute])
    if attribute.type == AttributeProto.INT:
        attribute.i = _one(rng, NUMBERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = _one(rng, (0.0, -1.0, 1e30, float("nan"), float("inf")))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = _one(rng, (b"", b"\xff\xfe", b"linear", b"SAME_UPPER"))
    elif attribute.ints and rng.random() < 0.6:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = _one(rng, NUMBERS)
    elif attribute.ints:
        del attribute.ints[int(rng.integers(len(attribute.ints)))]
    else:
        attribute.ints.append(1)


def _drop_attribute(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, [n for n in _nodes(model) if n.attribute])
    del node.attribute[int(rng.integers(len(node.attribute)))]


def _steal_attribute(model: onnx.ModelProto, rng: Random) -> None:
    taken = AttributeProto()
    taken.CopyFrom(_one(rng, [a for n in _nodes(model) for a in n.attribute]))
    _one(rng, _nodes(model)).attribute.append(taken)


def _element_type(model: onnx.ModelProto, rng: Random) -> None:
    if rng.random() < 0.5:
        _one(rng, _tensors(model)).data_type = _one(rng, TYPES)
    else:
        _one(rng, _infos(model)).type.tensor_type.elem_type = _one(rng, TYPES)


def _converted_tensor(model: onnx.ModelProto, rng: Random) -> None:
    """A valid tensor of another element type."""
    tensor = _one(rng, _tensors(model))
    dtype = _one(rng, (np.float16, np.float64, np.int32, np.int64, np.uint8, np.bool_, np.float32))
    with np.errstate(all="ignore"):
        array = onnx.numpy_helper.to_array(tensor).astype(dtype)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _tensor_shape(model: onnx.ModelProto, rng: Random) -> None:
    """A tensor with other dims, mostly with as many elements as they say."""
    tensor = _one(rng, _tensors(model))
    array = onnx.numpy_helper.to_array(tensor)
    kind = int(rng.integers(5))
    if kind == 0:
        tensor.dims.append(_one(rng, (0, 1, 2, -1, 2**40)))
        return
    axes = (lambda: array.reshape(-1), lambda: array[None], lambda: array[:0], lambda: array[..., None])
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(axes[kind - 1]()), tensor.name))


def _tensor_number(model: onnx.ModelProto, rng: Random) -> None:
    """Another number in an integer tensor: shapes, axes and indices are made of them."""
    tensor = _one(rng, [t for t in _tensors(model) if t.data_type == TensorProto.INT64])
    array = np.atleast_1d(onnx.numpy_helper.to_array(tensor).copy())
    array.reshape(-1)[int(rng.integers(max(array.size, 1)))] = _one(rng, NUMBERS)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array.reshape(tuple(tensor.dims)), tensor.name))


def _dimension(model: onnx.ModelProto, rng: Random) -> None:
    info = _one(rng, _infos(model))
    shape = info.type.tensor_type.shape
    kind = int(rng.integers(4))
    if kind == 0:
        info.type.tensor_type.ClearField("shape")
    elif kind == 1:
        shape.dim.add().dim_value = _one(rng, NUMBERS)
    elif shape.dim and kind == 2:
        _one(rng, list(shape.dim)).dim_value = _one(rng, NUMBERS)
    elif shape.dim:
        _one(rng, list(shape.dim)).dim_param = _one(rng, ("N", "R", "", "a*b", "lambda", "?", "-1"))


def _kind_of_node(model: onnx.ModelProto, rng: Random) -> None:
    node = _one(rng, _nodes(model))
    kinds = [s.name for s in onnx.defs.get_all_schemas() if not s.domain] if rng.random() < 0.3 else []
    node.op_type = _one(rng, kinds or [n.op_type for n in _nodes(model)])


def _drop_node(model: onnx.ModelProto, rng: Random) -> None:
    graph = _one(rng, [g for g in _graphs(model.graph) if g.node])
    del graph.node[int(rng.integers(len(graph.node)))]


def _bypass_node(model: onnx.ModelProto, rng: Random) -> None:
    """What a node would give is its input: types behind it change."""
    graph = _one(rng, [g for g in _graphs(model.graph) if g.node])
    at = int(rng.integers(len(graph.node)))
    node = graph.node[at]
    kind = "Identity" if rng.random() < 0.5 else "Shape"
    graph.node[at].CopyFrom(onnx.helper.make_node(kind, [node.input[0]], [node.output[0]]))


def _output_of_graph(model: onnx.ModelProto, rng: Random) -> None:
    graph = _one(rng, _graphs(model.graph))
    _one(rng, list(graph.output)).name = _one(rng, _names(model))


def _type_of_info(model: onnx.ModelProto, rng: Random) -> None:
    info = _one(rng, _infos(model))
    if rng.random() < 0.3:
        info.ClearField("type")
    else:
        make = _one(rng, (onnx.helper.make_sequence_type_proto, onnx.helper.make_optional_type_proto))
        info.type.CopyFrom(make(onnx.helper.make_tensor_type_proto(1, [2])))


def _opset(model: onnx.ModelProto, rng: Random) -> None:
    _one(rng, list(model.opset_import)).version = int(rng.integers(6, 28))


MUTATIONS: list[Callable[..., Any]] = [
    flip_bytes,
    _drop_input,
    _double_input,
    _other_input,
    _swap_inputs,
    _change_outputs,
    _attribute_type,
    _attribute_value,
    _drop_attribute,
    _steal_attribute,
    _element_type,
    _converted_tensor,
    _tensor_shape,
    _tensor_number,
    _dimension,
    _kind_of_node,
    _drop_node,
    _bypass_node,
    _output_of_graph,
    _type_of_info,
    _opset,
]
"""What can happen to a file; all but the first work on the message, so that what they give can be read."""

"""Small networks to train, and training steps run by the evaluator or by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array
from irshap.training import TrainingStep

Arrays = dict[str, Array]

Layer = tuple[str, list[Any], dict[str, Any]]


def network(shape: Sequence[int], classes: int, layers: Sequence[Layer], seed: int = 0) -> onnx.ModelProto:
    """A chain of ONNX nodes from `x` [N, *shape] to `y`, float64; an array among inputs is an initializer."""
    nodes, initializers, last = [], [], "x"
    rng = np.random.default_rng(seed)
    for i, (kind, arrays, attributes) in enumerate(layers):
        names = []
        for j, given in enumerate(arrays):
            array = rng.normal(size=given) * 0.5 if isinstance(given, tuple) else np.asarray(given)
            initializers.append(numpy_helper.from_array(array, f"p{i}.{j}"))
            names.append(f"p{i}.{j}")
        out = "y" if i == len(layers) - 1 else f"h{i}"
        nodes.append(helper.make_node(kind, [last, *names], [out], name=f"{kind}{i}", **attributes))
        last = out
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, ["N", *shape])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["N", classes])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def mlp(kind: str = "Tanh", *, bias: bool = True, last: int = 3) -> onnx.ModelProto:
    """5 features, 7 and 6 hidden."""

    def dense(inputs: int, outputs: int) -> Layer:
        return ("Gemm", [(inputs, outputs), *([(outputs,)] if bias else [])], {})

    layers = [dense(5, 7), (kind, [], {}), dense(7, 6), (kind, [], {}), dense(6, last)]
    return network((5,), last, layers)


def cnn(*, bias: bool = True, normalized: bool = True) -> onnx.ModelProto:
    """[2, 6, 6]: convolution, batch norm, ReLU, overlapping max pooling, a strided grouped convolution."""
    moments = [np.array([0.1, -0.2, 0.0, 0.3]), np.array([0.5, 1.0, 2.0, 1.5])]
    layers: list[Layer] = [
        ("Conv", [(4, 2, 3, 3), *([(4,)] if bias else [])], {"pads": [1, 1, 1, 1]}),
        *([("BatchNormalization", [(4,), (4,), *moments], {})] if normalized else []),
        ("Relu", [], {}),
        ("MaxPool", [], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Conv", [(4, 2, 2, 2)], {"strides": [2, 2], "pads": [0, 0, 1, 1], "group": 2}),
        ("Relu", [], {}),
        ("Flatten", [], {}),
        ("Gemm", [(16, 3), *([(3,)] if bias else [])], {}),
    ]
    return network((2, 6, 6), 3, layers)


def lstm(steps: int | str) -> onnx.ModelProto:
    """An LSTM over [N, steps, 3], and what its last state says."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 16, 3), "R": (1, 16, 4), "B": (1, 32), "head": (4, 2)}
    tensors = [numpy_helper.from_array(rng.normal(size=s), n) for n, s in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([0]), "axis"))
    nodes = [
        helper.make_node("Transpose", ["x"], ["first"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["first", "W", "R", "B"], ["", "h"], hidden_size=4, name="lstm"),
        helper.make_node("Squeeze", ["h", "axis"], ["state"]),
        helper.make_node("Gemm", ["state", "head"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info("x", onnx.TensorProto.DOUBLE, ["N", steps, 3]),
        helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, ["N", 2]),
    ]
    graph = helper.make_graph(nodes, "lstm", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def initial(model: onnx.ModelProto) -> Arrays:
    """A model's initializers by name."""
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def feeds(step: TrainingStep, model: onnx.ModelProto, rows: int = 6, seed: int = 1, **given: Any) -> Arrays:
    """Something for every input of a step: data and labels drawn, parameters as the model has them."""
    rng = np.random.default_rng(seed)
    training, values = step.training, initial(model)
    role = {name: of for of, name in training.given.items()}
    found: Arrays = {}
    for value in step.model.graph.input:
        kind = value.type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        sizes = {"N": rows, "R": 3}
        shape = [d.dim_value or sizes[d.dim_param] for d in kind.shape.dim]
        name, of = value.name, role.get(value.name, "")
        if of in given or name in given:
            array = np.asarray(given.get(of, given.get(name)))
        elif name in values:
            array = values[name]
        elif name in training.states:
            array = np.zeros(shape)
        elif dtype == np.int64 or of == "events":
            array = rng.integers(0, 2, shape)
        elif of in ("sample_weights", "labels") or name in training.places.values():
            array = rng.random(shape)
        elif shape:
            array = rng.normal(size=shape)
        else:
            array = np.array(0.3)
        found[name] = array.astype(dtype)
    return found


def evaluated(step: TrainingStep, inputs: Mapping[str, Array]) -> Arrays:
    """The outputs of a step, in numpy."""
    return evaluate(step.graph, inputs)


def run(step: TrainingStep, inputs: Mapping[str, Array]) -> Arrays:
    """The outputs of a step, in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(step.model.SerializeToString(), options)
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))

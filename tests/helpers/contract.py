"""What the contract test stands on: samples as cases, evaluation, ONNX Runtime, and what ops can't do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Output, Sample, Value
from irshap.ir.dims import Dim, N
from irshap.ir.types import Array, DType, Tensor, TensorType
from irshap.lowering import lower
from irshap.ops import OPS
from irshap.ops.program import Constant, Input
from irshap.ops.quantized import StraightThrough

NO_SAMPLES = {
    "input": "its value is given from outside",
    "opaque": "only lifting makes one; tested with the light models",
    "pullback": "a method replaces it before anything runs",
}
NOT_EXPORTED = {
    "constant": "becomes an initializer",
    "input": "becomes an input",
    "opaque": "carries its own node",
    "pullback": "a method replaces it before lowering",
}
LIFTS_AS_OTHERS = {
    "arange": "a known number of positions lifts as a constant",
    "celu f64": "ONNX has it for float32 only",
    "batch_moments": "internal: the statistics of training, lifts as its parts",
    "conv_weights": "internal: the adjoint of conv in its weights, lifts as its parts",
    "constant": "an initializer's value, already compared",
    "dequantize f64": "ONNX has it not for float64",
    "dilate": "internal: the adjoint of a strided slice, lifts as its parts",
    "dropout": "an identity for the runtime; a training step decides what it drops",
    "dims": "shape arithmetic that lifting evaluates",
    "full": "a small one lifts as a constant",
    "dynamic_fake_quantize": "internal: the explained form of dynamic_quantize, lifts as its parts",
    "dynamic_quantize": "ONNX's own looks for one range in all samples, lifts as its parts",
    "even": "internal: lifts as its parts",
    "fake_quantize": "internal: the explained form of quantize and dequantize, lifts as these",
    "floored_div": "internal: a division with a guard, lifts as its parts",
    "gelu f64": "ONNX Runtime has no double kernel, and expands it with float32 constants",
    "logistic": "internal: 1/(1 + e^-x) as models spell it out, lifts as its parts",
    "masked_softmax": "internal: a softmax with a guard, lifts as its parts",
    "by_row": "internal: what a model spells out, lifts as its parts",
    "part_of_sum": "internal: a division of a term by its sum, lifts as div",
    "odd": "internal: lifts as its parts",
    "piecewise": "internal: what a model spells out, lifts as its parts",
    "quantize f64": "ONNX has it not for float64",
    "ratio": "internal: the chord of relu and the like, lifts as div",
    "hold": "an identity for the runtime, and only for it",
    "tap": "an identity for the runtime, and only for it",
    "repeat_rows": "internal: pairs samples with references, lifts as its parts",
    "share": "internal: what max-pooling shares out, lifts as div",
    "scan": "a loop lifts as an opaque node",
    "scatter_add": "internal: the adjoint of a gather, lifts as its parts",
    "scatter_rows": "internal: the adjoint of a gather, lifts as its parts",
    "unpool": "MaxUnpool isn't modeled: elsewhere its indices may be equal",
    "tile_rows": "internal: pairs samples with references, lifts as its parts",
    "top_k_indices": "internal: the target's classes",
}
RULES_DIFFER_AT_REST = {
    "max": "elements that are the same in both worlds get nothing (rules.md section 4)",
    "max_pool": "elements that are the same in both worlds get nothing (rules.md section 3)",
    "min": "elements that are the same in both worlds get nothing (rules.md section 4)",
    "reduce_max": "elements that are the same in both worlds get nothing (rules.md section 3)",
    "reduce_min": "elements that are the same in both worlds get nothing (rules.md section 3)",
    "top_k": "elements that are the same in both worlds get nothing (rules.md section 3) for k = 1",
}
"""Ops whose secant doesn't tend to the derivative where the two worlds meet."""
SINGLE_ONLY = {
    "conv": "ONNX Runtime has no double ConvTranspose, and onnx's reference none with groups",
    "conv_transpose": "ONNX Runtime has no double ConvTranspose, and onnx's reference none with groups",
    "conv_weights": "ONNX Runtime has no double Conv",
    "erf": "ONNX Runtime has no double Erf, and onnx's reference is off by 1e-7",
    "gelu": "as erf",
    "gru": "ONNX Runtime has no double GRU, and onnx's reference none with two directions",
    "lrn": "ONNX Runtime has no double LRN, and onnx's reference takes the wrong channels",
    "lstm": "as gru",
}
"""Ops whose float64 form runs nowhere in full; the float32 form always does."""
if tuple(map(int, onnx.__version__.split(".")[:2])) < (1, 23):
    SINGLE_ONLY["rnn"] = "onnx's reference takes steps for samples, and every direction for forward"
WHOLE_SINCE = {
    "gelu": 20,
    "group_norm": 21,
    "hard_swish": 14,
    "layer_norm": 17,
    "mish": 18,
    "rms_norm": 23,
    "swish": 24,
}
"""The opset from which on an op is written as such, and not as its parts."""
LIFTED_RESULTS = {"max_pool": 1}
"""How many results lift again, where ONNX has no more."""


@dataclass(frozen=True)
class Case:
    """A sample, with its operands' types once with the number of samples N and once without."""

    sample: Sample
    rows: int
    types: tuple[TensorType, ...]

    @property
    def binding(self) -> dict[Any, Dim]:
        return {N: self.rows}

    @property
    def op(self) -> Any:
        return self.sample.op

    def with_arrays(self, arrays: Sequence[Array]) -> Case:
        """This case in another precision."""
        types = (t.with_dtype(DType.of(a)) for t, a in zip(self.types, arrays, strict=True))
        return Case(self.sample, self.rows, tuple(types))

    def results(self, arrays: Sequence[Array], rows: int | None = None) -> tuple[Array, ...]:
        op = self.op.substitute({N: self.rows if rows is None else rows})
        return tuple(op.evaluate(*arrays))

    def explained(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """What the local map is that of: the results, or what these step around."""
        op = self.op.substitute({N: self.rows})
        return tuple(op.around(*arrays)) if isinstance(op, StraightThrough) else self.results(arrays)

    def build(self, extra: Callable[[Builder, tuple[Value, ...]], Mapping[str, Value]]) -> Graph:
        """A graph with the operands as inputs and the outputs that `extra` emits."""
        with Builder() as builder:
            operands = tuple(given(builder, f"x{i}", t) for i, t in enumerate(self.types))
            outputs = extra(builder, operands)
            return builder.build("case", [Output(k, v) for k, v in outputs.items()])


def given(builder: Builder, name: str, type: TensorType) -> Value:
    return builder.emit(Input(name), types=(type,), names=(name,))[0]


def concrete(array: Array) -> TensorType:
    return TensorType(DType.of(array), array.shape)


def case_of(sample: Sample) -> Case:
    axes = sample.batch or (None,) * len(sample.operands)
    counts = [a.shape[axis] for a, axis in zip(sample.operands, axes, strict=True) if axis is not None]
    rows = min(counts, default=2)
    types = []
    for array, axis in zip(sample.operands, axes, strict=True):
        dims: list[Dim] = list(array.shape)
        if axis is not None:
            dims[axis] = N * (array.shape[axis] // rows)
        types.append(concrete(array).with_shape(tuple(dims)))
    return Case(sample, rows, tuple(types))


def run(graph: Graph, feeds: Mapping[str, Array], binding: Mapping[Any, Dim]) -> dict[str, Array]:
    """The outputs in numpy; on the way, each value has the type that was inferred for it."""
    values = {v: feeds[str(v.name)] for v in graph.inputs}
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            found = node.op.substitute(binding).evaluate(*(values[v] for v in node.operands))
            for value, array in zip(node.results, found, strict=True):
                assert concrete(array) == value.type.substitute(binding), f"{node.op}: inferred {value.type}"
                values[value] = array
    return {o.name: values[o.value] for o in graph.outputs}


def feeds_of(**groups: Sequence[Array]) -> dict[str, Array]:
    return {f"{prefix}{i}": a for prefix, arrays in groups.items() for i, a in enumerate(arrays)}


def in_precision(case: Case, precision: str) -> tuple[Case, tuple[Array, ...]]:
    """The case and its operands, in float32 if asked."""
    arrays = case.sample.operands
    if precision == "f32":
        arrays = tuple(a.astype(np.float32) if a.dtype == np.float64 else a for a in arrays)
    return case.with_arrays(arrays), arrays


def session_outputs(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array] | None:
    """What ONNX Runtime gives, or None where it has no kernel."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return None
    try:
        return list(session.run(None, {v.name: feeds[v.name] for v in model.graph.input}))
    except onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException as error:
        if "does not support double yet" in str(error):  # recurrent layers say so only now
            return None
        raise


def check_in_onnx(
    graph: Graph, feeds: Mapping[str, Array], expected: Mapping[str, Array], name: str, opset: int = 0
) -> onnx.ModelProto:
    """The lowered graph is valid, and runs with the same results."""
    model = lower(graph, opset=opset)
    onnx.checker.check_model(model, full_check=True)
    found = session_outputs(model, feeds)
    if found is None:
        kinds = [n.op_type for n in model.graph.node]
        assert any(a.dtype == np.float64 for a in feeds.values()), f"ONNX Runtime has no kernel for {kinds}"
        if name in SINGLE_ONLY:
            return model
        found = list(ReferenceEvaluator(model).run(None, dict(feeds)))
    for (output, a), b in zip(expected.items(), found, strict=True):
        assert concrete(a) == concrete(np.asarray(b)), output
        loose = 2e-4 if a.dtype == np.float32 else 1e-9
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, output)
            continue
        scale = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
        np.testing.assert_allclose(b, a, rtol=loose, atol=loose * scale, err_msg=output)
    return model


def assert_same_graph(a: Graph, b: Graph) -> None:
    """The same ops between the same inputs, constants and outputs."""

    numbers: dict[Any, int] = {}
    found: dict[Value, int] = {}

    def key(value: Value) -> int:
        """One number for all that is computed in the same way: a value used often is looked at once."""
        if value not in found:
            node: Node = value.node
            formula = (node.op, value.index, value.type, *map(key, node.operands))
            found[value] = numbers.setdefault(formula, len(numbers))
        return found[value]

    assert [v.name for v in a.inputs] == [v.name for v in b.inputs]
    assert [(o.name, key(o.value)) for o in a.outputs] == [(o.name, key(o.value)) for o in b.outputs]


def collected() -> Iterator[Any]:
    for mnemonic, cls in sorted(OPS.items()):
        for i, sample in enumerate(cls.samples()):
            yield pytest.param(case_of(sample), id=f"{mnemonic}-{i}")


DIFFERENTIABLE = [p for p in collected() if any(a.dtype.kind == "f" for a in p.values[0].sample.operands)]


def op_graph(case: Case, results: int | None = None) -> Graph:
    """The op alone, with its integer operands after the first as constants, as lifting needs some of them."""
    axes = case.sample.batch or (None,) * len(case.types)

    def body(builder: Builder, operands: tuple[Value, ...]) -> dict[str, Value]:
        values = [
            builder.emit(Constant(Tensor(a)))[0] if i and a.dtype.kind == "i" and axes[i] is None else v
            for i, (v, a) in enumerate(zip(operands, case.sample.operands, strict=True))
        ]
        return {f"y{i}": v for i, v in enumerate(builder.emit(case.op, *values)[:results])}

    return case.build(body)

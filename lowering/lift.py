"""ModelProto -> Graph."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import sympy
from onnx import helper, numpy_helper

from irshap.builder import Builder
from irshap.dims import Dim, N, Shape, symbol
from irshap.errors import IRError, ModelError
from irshap.graph import Graph, Output, Source, Value
from irshap.lowering import importers
from irshap.lowering.importer import IMPORTERS, Import, Unmodeled
from irshap.lowering.load import OLDEST_OPSET, infer_shapes, inline_functions, load_model
from irshap.lowering.opaque import used_domains
from irshap.lowering.scopes import captured_names
from irshap.lowering.shape_arithmetic import worked_out
from irshap.ops.base import TypeMismatch
from irshap.ops.program import Constant, Input, Opaque
from irshap.pass_base import Context, Pass, Semantics
from irshap.types import DType, ForeignType, Tensor, TensorType, Type

__all__ = ["Lift", "lift"]

_ = importers  # importing them registers the importers


@dataclass(frozen=True)
class Lift(Pass):
    """Reads an ONNX model into a graph; nodes that irshap has no op for become opaque.

    `batch`: "auto" makes the leading axis of the inputs the symbolic number of samples N, also where the
    model was exported with a batch of 1 (which is then checked against the original by running both);
    "keep" leaves every dimension as the model says.
    """

    batch: str = "auto"
    name = "lift"
    semantics = Semantics.PRESERVES
    takes = "model"

    def run(self, ir: Any, context: Context) -> Graph:
        if self.batch not in ("auto", "keep"):
            raise ModelError(f"lift knows no batch={self.batch!r}", mend="Use batch=auto or batch=keep")
        model = load_model(ir)
        context.source = model
        return lift(model, batch=self.batch)


def lift(source: Any, *, batch: str = "auto") -> Graph:
    """Lifts an ONNX model.

    Args:
        source: a path, the bytes of a model, or a ModelProto.
        batch: as in `Lift`.

    Raises:
        ModelError: the model can't be read, or isn't valid.
    """
    model = inline_functions(load_model(source))
    if batch == "keep":
        return _Lifter(infer_shapes(model), rebatched=False).run()
    renamed, fixed = _name_batch(model)
    if not fixed:
        return _Lifter(infer_shapes(renamed), rebatched=False).run()
    from irshap.lowering.rebatch import rebatched_or_kept

    return rebatched_or_kept(model, renamed, lambda m, again: _Lifter(infer_shapes(m), rebatched=again).run())


def _name_batch(model: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
    """The model with its inputs' leading axis called N, and whether that axis was fixed at 1 before.

    Only where all float inputs agree on it; initializers listed as inputs don't count.
    """
    constants = {t.name for t in model.graph.initializer}
    inputs = [v for v in model.graph.input if v.name not in constants and v.type.HasField("tensor_type")]
    batched = [v.type.tensor_type.shape.dim for v in inputs if len(v.type.tensor_type.shape.dim) >= 1]
    leading = {
        (d[0].dim_param or None, d[0].dim_value if d[0].HasField("dim_value") else None) for d in batched
    }
    if len(leading) != 1:
        return model, False
    ((old, size),) = leading
    if size not in (None, 1):
        return model, False
    named = onnx.ModelProto()
    named.CopyFrom(model)
    every = [v for v in (*named.graph.input, *named.graph.output, *named.graph.value_info)]
    for value in every:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == str(N) != old:
                dim.dim_param = f"{N}_"
            elif old is not None and dim.dim_param == old:
                dim.dim_param = str(N)
    for value in named.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in constants and dims:
            dims[0].Clear()
            dims[0].dim_param = str(N)
    if size == 1:
        del named.graph.value_info[:]
        for value in named.graph.output:
            value.type.tensor_type.ClearField("shape")
    return named, size == 1


class _Lifter:
    """One model's way in: tensor names to values."""

    def __init__(self, model: onnx.ModelProto, *, rebatched: bool) -> None:
        self.model, self.rebatched = model, rebatched
        self.builder = Builder()
        self.values: dict[str, Value] = {}
        self.symbols: dict[str, sympy.Expr] = {}
        graph = model.graph
        self.opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        self.opset = self.opsets.get("", OLDEST_OPSET)
        self.declared = {v.name: v.type for v in (*graph.value_info, *graph.output, *graph.input)}
        self.unknown = 0

    def run(self) -> Graph:
        graph = self.model.graph
        constants = {t.name: t for t in graph.initializer}
        with self.builder:
            for value in graph.input:
                if value.name not in constants:
                    type = self._type(value.type)
                    self.values[value.name] = self.builder.emit(
                        Input(value.name), types=(type,), names=(value.name,)
                    )[0]
            for tensor in graph.initializer:
                self.values[tensor.name] = self._constant(numpy_helper.to_array(tensor), tensor.name)
            for sparse in graph.sparse_initializer:
                self.values[sparse.values.name] = self._constant(_dense(sparse), sparse.values.name)
            for node in graph.node:
                self._node(node)
            outputs = [Output(v.name, self.values[v.name]) for v in graph.output]
            built = self.builder.build(graph.name or "model", outputs)
        return replace(built, source=self._source())

    def _source(self) -> Source:
        model = self.model
        producer = f"{model.producer_name} {model.producer_version}".strip()
        # a key may stand there twice; the last one counts, as in ONNX Runtime
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        return Source(self.opset, producer, model.doc_string, "", tuple(sorted(metadata.items())))

    def _constant(self, array: np.ndarray[Any, Any], name: str) -> Value:
        value = Tensor.wrap(array.astype(object) if array.dtype.kind in "US" else array)
        return self.builder.emit(Constant(value), names=(name,))[0]

    def _node(self, proto: onnx.NodeProto) -> None:
        inputs = [self.values[name] if name else None for name in proto.input]
        origin = (proto.name or proto.output[0],)
        why = "irshap has no rule for this op"
        with self.builder.at(origin):
            results = None
            if proto.op_type in IMPORTERS and proto.domain in ("", "ai.onnx"):
                try:
                    view = Import(proto, inputs, self.opset, self.builder, self.rebatched)
                    found = IMPORTERS[proto.op_type](view)
                    results = [found] if isinstance(found, Value) else list(found)
                    results = [worked_out(v, self.builder) for v in results]
                except (Unmodeled, TypeMismatch, IRError) as error:
                    why = str(error)
            if results is None:
                results = self._opaque(proto, inputs, origin, why)
        for name, value in zip(proto.output, results, strict=False):
            if name:
                self.values[name] = self._named(value, name)

    def _named(self, value: Value, name: str) -> Value:
        # the first ONNX name of a value is its name; a constant or an input keeps its own
        if value.name is None:
            object.__setattr__(value, "name", name)
        return value

    def _opaque(
        self, proto: onnx.NodeProto, inputs: list[Value | None], origin: tuple[str, ...], why: str
    ) -> list[Value]:
        captured = [n for n in captured_names(proto) if n in self.values]
        stripped = onnx.NodeProto()
        stripped.CopyFrom(proto)
        stripped.name = ""
        op = Opaque(
            proto.op_type,
            "" if proto.domain == "ai.onnx" else proto.domain,
            tuple((domain, self.opsets.get(domain, 1)) for domain in used_domains(proto)),
            stripped.SerializeToString(deterministic=True),
            tuple(v is not None for v in inputs),
            tuple(bool(name) for name in proto.output),
            tuple(captured),
            why,
        )
        operands = [v for v in inputs if v is not None] + [self.values[n] for n in captured]
        types = tuple(self._type(self.declared.get(n), of=n) for n in proto.output if n)
        found = iter(self.builder.emit(op, *operands, types=types, origin=origin))
        return [next(found) if name else operands[0] for name in proto.output]

    def _type(self, proto: onnx.TypeProto | None, of: str = "") -> Type:
        if proto is None or not proto.WhichOneof("value"):
            # not inferred: a foreign type that lowers without a declaration
            return ForeignType("unknown", b"")
        if not proto.HasField("tensor_type"):
            return ForeignType(
                str(proto.WhichOneof("value")).removesuffix("_type"), proto.SerializeToString()
            )
        tensor = proto.tensor_type
        dtype = DType.STR if tensor.elem_type == onnx.TensorProto.STRING else _dtype(tensor.elem_type)
        if not tensor.HasField("shape"):
            return TensorType(dtype, None)
        return TensorType(dtype, self._shape(tensor.shape.dim))

    def _shape(self, dims: Iterable[Any]) -> Shape:
        result: list[Dim] = []
        for dim in dims:
            if dim.HasField("dim_value"):
                result.append(int(dim.dim_value))
            elif dim.dim_param:
                result.append(self._symbol(dim.dim_param))
            else:
                self.unknown += 1
                result.append(self._symbol(f"unknown_{self.unknown}"))
        return tuple(result)

    def _symbol(self, name: str) -> sympy.Expr:
        if name not in self.symbols:
            clean = re.sub(r"\W", "_", name)
            clean = clean if re.match(r"[A-Za-z_]", clean) else f"d{clean}"
            taken = {str(s) for s in self.symbols.values()} | {"R"}
            while clean in taken:
                clean += "_"
            self.symbols[name] = symbol(clean)
        return self.symbols[name]


def _dtype(code: int) -> DType:
    return DType.of(np.empty(0, helper.tensor_dtype_to_np_dtype(code)))


def _dense(sparse: onnx.SparseTensorProto) -> np.ndarray[Any, Any]:
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    dense = np.zeros(tuple(sparse.dims), values.dtype)
    if indices.ndim == 1:
        dense.reshape(-1)[indices] = values
    else:
        dense[tuple(indices.T)] = values
    return dense

"""ModelProto -> Graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, NamedTuple

import onnx
from onnx import helper

from irshap.contract import Metadata, metadata_of
from irshap.errors import IRError, ModelError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Output, Source, TypeMismatch, Value
from irshap.ir.dims import Dim
from irshap.ir.types import Array, DType, ForeignType, Tensor, TensorType, Type
from irshap.ir.walks import is_float, live
from irshap.lowering.batch_plan import BatchPlan, named_batch, with_more_rows, with_shared_axes
from irshap.lowering.bodies import body_of
from irshap.lowering.computed import MOST_COMPUTED, require_bounded
from irshap.lowering.control_flow import inlined
from irshap.lowering.emitter import onnx_type, tensor_proto
from irshap.lowering.files.arrays import array_of, dense, dtype_of
from irshap.lowering.files.load import OLDEST_OPSET, infer_shapes, inline_functions, open_model
from irshap.lowering.files.protos import first_line, outline
from irshap.lowering.files.scopes import captured_names
from irshap.lowering.given import named_pairs, open_axes, with_sizes, with_values
from irshap.lowering.importer import IMPORTERS, NO_RULE, Failing, Import, Unmodeled, kind_of
from irshap.lowering.one_sample import with_samples, without_batch_name
from irshap.lowering.opaque import is_unknown, used_domains
from irshap.lowering.ops.sequence import SEQUENCES
from irshap.lowering.parameters import chosen_initializers, own_statistics
from irshap.lowering.rebatch import check_axis, has_rows, why_not_row_by_row
from irshap.lowering.row_wise import rows_of_node
from irshap.lowering.shape_arithmetic import KNOWN_LIMIT, Facts
from irshap.lowering.sizes import Symbols, open_sizes
from irshap.lowering.unbatch import follows_batch, with_samples_in_front
from irshap.ops.program import Constant, Input, Opaque, new_input
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Lift", "lift"]

# importers unpack inputs and attributes freely: what they stumble over isn't what they expect
_STUMBLES = (ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError)


_NONE: Mapping[str, str] = MappingProxyType({})


class _Wanted(NamedTuple):
    """What is asked of every way to lift a model: initializers as inputs, and the limit of what grows."""

    trained: Mapping[str, str] = _NONE
    constants: int = MOST_COMPUTED


@dataclass(frozen=True)
class Lift(Pass):
    """Reads an ONNX model into a graph; nodes that irshap has no op for become opaque.

    `batch`: "auto" makes the leading axis of the inputs the symbolic number of samples N, also where the
    model was exported with a batch of 1 (which is then checked against the original by running both);
    "none" is for a model whose whole input is one sample, such as a graph's nodes: it gets an axis of N in
    front of its float inputs; "keep" leaves every dimension as the model says.
    `set`: values of inputs of one element, as "rate=16000, ...": they become constants, and what follows from
    them is decided.
    `dims`: sizes of open axes, as "t=128, ..."; one without a name is called after its place, "x[1]=128".
    What references say of open axes is bound, too.
    `batch_axes`: where the batch is in inputs and outputs, as "states=1, ...", where it isn't found.
    `parameters`: initializers that become inputs, to be trained: names with wildcards, comma-separated, "!"
    before those that stay; "*" is every float tensor with an axis but for statistics of batch normalizations,
    which `statistics` makes inputs, too.
    `constants`: bytes that what the model computes from its constants alone may take.
    """

    batch: str = "auto"
    set: str = ""
    dims: str = ""
    batch_axes: str = ""
    parameters: str = ""
    statistics: bool = False
    constants: int = MOST_COMPUTED
    name = "lift"
    semantics = Semantics.PRESERVES
    takes = "model"

    def run(self, ir: Any, context: Context) -> Graph:
        model, context.weights_of_source = open_model(ir)
        context.source = model
        graph, sizes = _lifted(model, self, context.given)
        if sizes:
            context.metadata[Metadata.SIZES] = json.dumps(sizes, ensure_ascii=False)
        return graph


def lift(source: Any, *, batch: str = "auto", set: str = "", dims: str = "", batch_axes: str = "") -> Graph:
    """Lifts an ONNX model.

    Inputs keep their names, order and types, also where nothing reads them.  An initializer that is listed as
    an input, too, is the constant that it holds: its default can't be overridden any more.  What no output
    depends on is left out.  `graph.source` has what the model says of itself, and, where its batch could not
    be made symbolic, the reason.

    Args:
        source: a path, the bytes of a model, or a ModelProto.
        batch: as in `Lift`, as are the others.

    Raises:
        ModelError: the model can't be read, isn't valid, or has no such input or axis.
    """
    opened = open_model(source)
    return _lifted(opened.model, Lift(batch, set, dims, batch_axes), {})[0]


def _lifted(
    model: onnx.ModelProto, reading: Lift, given: Mapping[str, Array]
) -> tuple[Graph, dict[str, int]]:
    """The graph, and the sizes of open axes that it holds for alone."""
    if reading.batch not in ("auto", "keep", "none"):
        what = f"lift knows no batch={reading.batch!r}"
        raise ModelError(what, mend="Use batch=auto, batch=none or batch=keep")
    asked = named_pairs(reading.dims, "the size of an axis", int)
    axes = named_pairs(reading.batch_axes, "the axis of a batch", int)
    model = inline_functions(with_values(model, named_pairs(reading.set, "the value of an input", str)))
    if reading.parameters or reading.statistics:
        model = own_statistics(model)
    # types are all that has to be worked out here, and for that no copy of the weights is needed
    types = outline(model)
    wanted = _Wanted(chosen_initializers(types, reading.parameters, reading.statistics), reading.constants)
    trained = wanted.trained
    open_axes(types)
    if reading.batch == "keep":
        sizes = with_sizes(types, asked, given, {})
        return _Lifter(model, types, wanted).run(), sizes
    if trained and reading.batch == "none":
        raise ModelError("a model whose whole input is one sample can't be trained", mend="Use batch=auto")
    if reading.batch == "none":
        named = without_batch_name(types)
        sizes = with_sizes(named, asked, given, {})
        return with_samples(model, _Lifter(model, named, wanted).run()), sizes
    plan = named_batch(types, axes)
    sizes = with_sizes(plan.model, asked, given, plan.axes)
    graph, why = _batched(model, plan, wanted)
    for supposed in (with_shared_axes, with_more_rows) if graph is not None and _unmodeled(graph) else ():
        other, told = (None, "") if (more := supposed(plan)) is None else _batched(model, more, wanted)
        if graph is not None and other is not None and _unmodeled(other) < _unmodeled(graph):
            graph, why = other, told
    whole = not plan.changes_shapes or len(plan.axes) == len(plan.model.graph.input)
    apart = plan.axes and whole
    lifted = partial(_run, model, wanted.constants)
    if apart and (graph is None or _unmodeled(graph) or not all(map(has_rows, graph.outputs))):
        with suppress(IRError, ModelError):
            alone = with_samples_in_front(model, plan, lifted, trained, stacked=True)
            graph, why = alone, ""
    if graph is None:
        with_sizes(types, asked, given, plan.axes)
        graph = _Lifter(model, types, wanted).run()
    for output in graph.outputs:
        if output.name in axes:
            check_axis(output, axes[output.name], why)
    return replace(graph, source=replace(graph.source, batch=why)), sizes


def _unmodeled(graph: Graph) -> int:
    return sum(not n.op.modeled for n in graph.nodes)


def _batched(model: onnx.ModelProto, plan: BatchPlan, wanted: _Wanted) -> tuple[Graph | None, str]:
    """The graph for any batch, or None, and why it has none; what was only supposed is tried.

    Where initializers are inputs, it is the same graph: what is tried is tried with their values.
    """
    supposed = plan.changes_shapes or plan.unites
    found: Graph | None
    if supposed:
        found, why = _tried(model, plan, wanted, rebatched=plan.changes_shapes)
    else:
        found, why = _Lifter(model, plan.model, wanted, batched=bool(plan.axes)).run(), plan.why
    if found is not None and not why and follows_batch(found):
        return found, ""
    apart = ""
    if plan.axes:
        try:
            return with_samples_in_front(
                model, plan, partial(_run, model, wanted.constants), wanted.trained
            ), ""
        except (IRError, ModelError) as error:
            apart = f"computing it for one sample and then for several fails: {error}"
    if found is not None and not supposed and not why and not all(map(has_rows, found.outputs)):
        # shapes inside may still be written for one sample, whatever the inputs promise
        found = _tried(model, plan, wanted, rebatched=True)[0] or found
    return found, plan.why or why or apart if found is None or not supposed else ""


def _tried(
    model: onnx.ModelProto, plan: BatchPlan, wanted: _Wanted, *, rebatched: bool
) -> tuple[Graph | None, str]:
    """The graph for any batch, if rows alone and together are the same, or why there is none."""
    try:
        given = wanted._replace(trained=_NONE)
        graph = _Lifter(model, plan.model, given, batched=True, rebatched=rebatched).run()
        why = why_not_row_by_row(model, graph, plan.axes)
        if wanted.trained:
            graph = _Lifter(model, plan.model, wanted, batched=True, rebatched=rebatched).run()
    except (IRError, ModelError) as error:
        return None, str(error)
    return (None, why) if why else (graph, "")


def _run(model: onnx.ModelProto, constants: int, types: onnx.ModelProto, trained: Mapping[str, str]) -> Graph:
    return _Lifter(model, types, _Wanted(trained, constants)).run()


class _Lifter:
    """One model's way in: tensor names to values.

    `types` has the types of inputs; its weights may be missing.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        types: onnx.ModelProto,
        wanted: _Wanted,
        *,
        batched: bool = False,
        rebatched: bool = False,
    ) -> None:
        self.model, self.batched, self.rebatched, self.wanted = model, batched, rebatched, wanted
        self.builder = Builder()
        self.values: dict[str, Value] = {}
        self.opsets = {"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import}
        self.opset = self.opsets.get("", OLDEST_OPSET)
        self.types, self.inputs = types, types.graph.input
        self.symbols = Symbols()
        self.facts = Facts()
        self.failing: dict[Node, str] = {}

    def run(self) -> Graph:
        graph = self.model.graph
        constants = {t.name for t in graph.initializer}
        with self.builder:
            for value in self.inputs:
                if value.name not in constants:
                    op, kind = Input(value.name), self._type(value.type)
                    self.values[value.name] = self.builder.emit(op, types=(kind,), names=(value.name,))[0]
            self.statements(graph)
            outputs = [Output(v.name, self.values[v.name]) for v in graph.output]
            built = self.builder.build(graph.name or "model", outputs)
        mend = "If that is meant, allow more: --constants SIZE, Model(..., constants=), lift{constants=BYTES}"
        require_bounded(built, self.wanted.constants, mend)
        # shape arithmetic that is worked out leaves nodes behind that no output needs
        nodes = tuple(live(built.nodes, (o.value for o in built.outputs)))
        for node in nodes:
            if node in self.failing:
                mend = "Export the model again: no runtime can run it"
                raise ModelError(self.failing[node], where=node.label, mend=mend)
        return replace(built, nodes=nodes, source=self._source())

    @cached_property
    def _declared(self) -> Mapping[str, onnx.TypeProto]:
        """What the model says of its values' types, or onnx finds: asked for what irshap has no op for."""
        inferred = infer_shapes(self.types).graph
        return {v.name: v.type for v in (*inferred.value_info, *inferred.output)}

    def _source(self) -> Source:
        model = self.model
        producer = f"{model.producer_name} {model.producer_version}".strip()
        # a key may stand there twice; the last one counts, as in ONNX Runtime
        metadata = metadata_of(model)
        pairs = tuple(sorted(metadata.items()))
        return Source(self.opset, producer, model.doc_string, "", pairs, self._aliases())

    def _aliases(self) -> tuple[tuple[str, str], ...]:
        """Float tensors under a second name: users may ask for any tensor of the model."""
        computed = {n: v for n, v in self.values.items() if v.name and v.name != n and is_float(v)}
        return tuple((n, str(v.name)) for n, v in computed.items() if not isinstance(v.node.op, Constant))

    def _constant(self, array: Array, name: str) -> Value:
        value = Tensor.wrap(array.astype(object) if array.dtype.kind in "US" else array)
        return self.builder.emit(Constant(value), names=(name,))[0]

    def _given(self, name: str, array: Array, kind: str) -> Value:
        """An initializer as an input: each by itself, also where several hold the same numbers."""
        return new_input(name, TensorType(DType.of(array), array.shape), kind, builder=self.builder)

    def _node(self, proto: onnx.NodeProto) -> None:
        inputs = [self.values[name] if name else None for name in proto.input]
        if (found := inlined(self, proto, inputs)) is not None:
            self.values.update({name: v for name, v in zip(proto.output, found, strict=True) if name})
            return
        with self.builder.at((proto.name or next(filter(None, proto.output), proto.op_type),)):
            batch = (self.batched, self.rebatched)
            trained = bool(self.wanted.trained)
            view = Import(proto, inputs, self.opset, self.builder, batch, self.facts, trained=trained)
            results, why = self._modeled(view)
            if results is None:
                results, why = self._through_body(proto, inputs, why)
            if results is None:
                results = self._opaque(proto, view.inputs, why)
                if view.fails:
                    self.failing |= {v.node: why for v in results}
                self._note_items(view, results[0] if results else None)
        for name, value in zip(proto.output, results, strict=False):
            if name:
                self.values[name] = _named(value, name)

    def _note_items(self, view: Import, sequence: Value | None) -> None:
        """What is in a sequence, if it is known."""
        if sequence is not None and view.proto.op_type in SEQUENCES and not view.proto.domain:
            with suppress(Unmodeled, TypeMismatch, IRError, *_STUMBLES):
                self.facts.items[sequence] = tuple(SEQUENCES[view.proto.op_type](view))

    def statements(self, graph: onnx.GraphProto) -> None:
        """Lifts what a graph computes; its names are added to those of the scope."""
        for tensor in graph.initializer:
            array, kind = array_of(tensor), self.wanted.trained.get(tensor.name)
            self.values[tensor.name] = (
                self._constant(array, tensor.name) if kind is None else self._given(tensor.name, array, kind)
            )
        for sparse in graph.sparse_initializer:
            self.values[sparse.values.name] = self._constant(dense(sparse), sparse.values.name)
        for node in graph.node:
            self._node(node)

    def _modeled(self, view: Import) -> tuple[Sequence[Value] | None, str]:
        """The results of a node that irshap has ops for, or None and the reason."""
        proto = view.proto
        if kind_of(proto) not in IMPORTERS:
            return None, NO_RULE.get(proto.domain, "irshap has no rule for this op")
        try:
            found = IMPORTERS[kind_of(proto)](view)
            results = [found] if isinstance(found, Value) else list(found)
            missing = len([n for n in proto.output[len(results) :] if n])
            if missing:
                return None, f"its last {missing} outputs have no form in the IR"
            return [self.facts.worked_out(v, self.builder) for v in results], ""
        except Unmodeled as error:
            view.fails = isinstance(error, Failing)
            return None, str(error)
        except (TypeMismatch, IRError) as error:
            return None, f"{error}{open_sizes(view)}"
        except _STUMBLES as error:
            return None, f"its inputs and attributes don't fit together: {first_line(error)}"

    def _through_body(
        self, proto: onnx.NodeProto, inputs: Sequence[Value | None], why: str
    ) -> tuple[Sequence[Value] | None, str]:
        """The results of a node through the body that the standard gives its op, or None and the reason."""
        found = body_of(proto, inputs, self.opset, self.values)
        if found is None:
            return None, why
        body, opset = found
        outer, start = (self.values, self.opset, self.opsets), len(self.builder.nodes)
        self.values = dict(self.values)
        self.opset, self.opsets = opset, {**self.opsets, "": opset}
        try:
            for node in body:
                self._node(node)
            results = [self.values[name] for name in proto.output if name]
        except KeyError as error:
            return None, f"the body of its definition makes no {error}"
        except ModelError as error:
            return None, f"the body of its definition doesn't fit its inputs: {error}"
        finally:
            self.values, self.opset, self.opsets = outer
        made = live(self.builder.nodes[start:], results)
        opaque = (n.op for n in made if isinstance(n.op, Opaque))
        unmodeled = next((op for op in opaque if op.kind not in SEQUENCES), None)
        if unmodeled is not None:
            return None, f"the body of its definition has {unmodeled.kind}: {unmodeled.why}"
        for name, value in zip(filter(None, proto.output), results, strict=True):
            if value.node in made:  # the model's name comes before one within the body
                object.__setattr__(value, "name", name)
        wanted = iter(results)
        return [next(wanted) if name else results[0] for name in proto.output], ""

    def _opaque(self, proto: onnx.NodeProto, inputs: list[Value | None], why: str) -> list[Value]:
        captured = {n: self.values[n] for n in captured_names(proto) if n in self.values}
        stripped = onnx.NodeProto()
        stripped.CopyFrom(proto)
        stripped.name = ""
        given = [v for v in inputs if v is not None]
        domains, rows = used_domains(proto), rows_of_node(proto, given, len(captured))
        op = Opaque(
            proto.op_type,
            "" if proto.domain == "ai.onnx" else proto.domain,
            tuple((domain, self.opsets.get(domain, 1)) for domain in domains),
            stripped.SerializeToString(deterministic=True),
            tuple(v is not None for v in inputs),
            tuple(bool(name) for name in proto.output),
            tuple(captured),
            why,
            rows.elementwise,
            rows.axes,
        )
        operands = [*given, *captured.values()]
        named = {n: v for n, v in zip(proto.input, inputs, strict=True) if v is not None}
        types = rows.of(operands, self._result_types(proto, {**captured, **named}))
        found = iter(self.builder.emit(op, *operands, types=tuple(types)))
        # a result that isn't wanted has no value; nothing can ask for the one that stands in its place
        return [next(found) if name else operands[0] for name in proto.output]

    def _result_types(self, proto: onnx.NodeProto, operands: Mapping[str, Value]) -> list[Type]:
        """The types of an opaque node's results, from its operands' types and what the model declares.

        In a re-batched model declarations hold for a batch of 1 only.
        """
        found = self._inferred(proto, operands)
        result = []
        for name in filter(None, proto.output):
            kind = found.get(name)
            if not self.rebatched and (kind is None or _is_vague(kind)):
                declared = self._type(self._declared.get(name))
                kind = declared if kind is None or _tells_more(declared, kind) else kind
            result.append(kind or ForeignType("unknown", b""))
        return result

    def _inferred(self, proto: onnx.NodeProto, operands: Mapping[str, Value]) -> dict[str, Type]:
        """By onnx's shape inference for this one node, in the IR's own dimensions, as far as it can tell.

        Raises:
            ModelError: the node's operands are of types that its op doesn't take.
        """
        if any(is_unknown(v.type) for v in operands.values()):
            return {}  # inference wants the types of all
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        dims = {str(d): d for v in operands.values() for d in getattr(v.type, "shape", None) or ()}
        data = {}
        for name, value in operands.items():
            op = value.node.op
            if isinstance(op, Constant) and op.value.array.size <= KNOWN_LIMIT:
                data[name] = tensor_proto(op.value.array, name)
        try:
            types = {n: onnx_type(v.type) for n, v in operands.items()}
            schema = onnx.defs.get_schema(proto.op_type, self.opsets.get(domain, 1), domain)
            imports = [helper.make_opsetid(*pair) for pair in self.opsets.items()]
            found = onnx.shape_inference.infer_node_outputs(schema, proto, types, data, opset_imports=imports)
        except onnx.checker.ValidationError as error:
            where = f"{proto.name or next(filter(None, proto.output), proto.op_type)!r} ({proto.op_type})"
            mend = "export the model again, and run onnx.checker.check_model(model, full_check=True) on it"
            raise ModelError(f"is not a valid node: {first_line(error)}", where=where, mend=mend) from error
        except (onnx.defs.SchemaError, onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return {}
        return {name: self._type(kind, dims) for name, kind in found.items() if kind.WhichOneof("value")}

    def _type(self, proto: onnx.TypeProto | None, known: Mapping[str, Dim] | None = None) -> Type:
        """A type; `known` are dimensions that stand in it as texts."""
        if proto is None or not proto.WhichOneof("value"):
            # not inferred: a foreign type that lowers without a declaration
            return ForeignType("unknown", b"")
        if not proto.HasField("tensor_type"):
            kind = str(proto.WhichOneof("value")).removesuffix("_type")
            return ForeignType(kind, proto.SerializeToString(deterministic=True))
        tensor = proto.tensor_type
        dtype = DType.STR if tensor.elem_type == onnx.TensorProto.STRING else dtype_of(tensor.elem_type)
        if not tensor.HasField("shape"):
            return TensorType(dtype, None)
        return TensorType(dtype, self.symbols.shape(tensor.shape.dim, known or {}))


def _named(value: Value, name: str) -> Value:
    # the first ONNX name of a value is its name; a constant or an input keeps its own
    if value.name is None:
        object.__setattr__(value, "name", name)
    return value


def _is_vague(type: Type) -> bool:
    """Whether a declaration may tell more than this type."""
    return not (
        isinstance(type, TensorType)
        and type.shape is not None
        and all(isinstance(d, int) for d in type.shape)
    )


def _tells_more(declared: Type, inferred: Type) -> bool:
    if isinstance(declared, ForeignType):
        # of what is no tensor, inference gives the element types without their shapes
        return isinstance(inferred, ForeignType) and not is_unknown(declared)
    return not _is_vague(declared) or (isinstance(inferred, TensorType) and inferred.shape is None)

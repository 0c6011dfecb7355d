"""Collects the nodes and initializers of the ONNX graph that is being lowered to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence, Set
from copy import copy
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import onnx
import sympy
from onnx import helper, numpy_helper

from irshap.errors import UserError
from irshap.ir.core import Node, Op, Output, Value
from irshap.ir.dims import Dim, as_dim, same, symbols_of
from irshap.ir.types import Array, DType, Tensor, TensorType, Type
from irshap.lowering.files.held import hold
from irshap.lowering.files.protos import OUTLINE_OVER, decoded

__all__ = ["EXPORTERS", "FLOOR", "Emission", "Emitter", "Export", "Exporter", "FreshNames", "exporter"]
__all__ += ["fill_tensor", "onnx_dtype", "onnx_type", "tensor_proto"]

FLOOR = 13
"""The lowest opset that irshap writes: from here on axes of Squeeze, Unsqueeze and ReduceSum are inputs."""


class Export:
    """One IR node on its way out: what an exporter looks at and calls."""

    def __init__(
        self, emitter: Emitter, node: Node, inputs: list[str], outputs: list[str], used: Set[Value]
    ) -> None:
        self.emitter, self.node, self.inputs, self.outputs = emitter, node, inputs, outputs
        self._used = used

    def used(self, i: int) -> bool:
        """Whether anything reads the i-th result."""
        return self.node.results[i] in self._used

    @property
    def opset(self) -> int:
        """The opset that is written."""
        return self.emitter.opset

    def operand(self, i: int = 0) -> Value:
        """The i-th operand."""
        return self.node.operands[i]

    def add(
        self, kind: str, inputs: Sequence[str], *, into: Sequence[str] | None = None, **attributes: Any
    ) -> str:
        """Adds an ONNX node; without `into` its one result gets a fresh name.  Returns the first result."""
        names = [self.emitter.fresh(self.outputs[0])] if into is None else list(into)
        self.emitter.add(kind, inputs, names, self.node.origin, attributes)
        return names[0]

    def result(self, kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        """Adds the ONNX node that gives this IR node's results."""
        self.add(kind, inputs, into=self.outputs, **attributes)

    def wide(self, i: int = 0) -> str:
        """The i-th operand, in float32 where it is float16: for what has no kernel or no form in that."""
        if self.operand(i).dtype is not DType.F16:
            return self.inputs[i]
        return self.add("Cast", [self.inputs[i]], to=onnx.TensorProto.FLOAT)

    def narrow(self, kind: str, inputs: Sequence[str], **attributes: Any) -> None:
        """As `result`, where the inputs are `wide`."""
        if self.node.results[0].dtype is not DType.F16:
            self.result(kind, inputs, **attributes)
        else:
            self.result("Cast", [self.add(kind, inputs, **attributes)], to=onnx.TensorProto.FLOAT16)

    def zeros(self, shape: Sequence[Dim]) -> str:
        """A tensor of zeros, of the type of a `wide` first result."""
        dtype = self.node.results[0].dtype
        zero = np.zeros(1, (DType.F32 if dtype is DType.F16 else dtype).numpy)
        return self.add("ConstantOfShape", [self.shape(shape)], value=numpy_helper.from_array(zero))

    def constant(self, array: Any, dtype: Any = None) -> str:
        """The name of an initializer."""
        return self.emitter.constant(np.asarray(array, dtype=dtype))

    def number(self, value: float) -> str:
        """The name of a scalar initializer of the first operand's element type."""
        return self.constant(value, self.operand().dtype.numpy)

    def ints(self, values: Sequence[int]) -> str:
        """The name of an int64 vector initializer."""
        return self.constant(np.array(values, dtype=np.int64))

    def shape(self, dims: Sequence[Dim], *, infer: bool = False) -> str:
        """The name of an int64 vector with these dimensions; with `infer` a lone unknown one may be -1."""
        return self.emitter.shape(dims, infer=infer)


Exporter: TypeAlias = Callable[[Export, Any], None]

Lowest: TypeAlias = int | Callable[[Any], int]

EXPORTERS: dict[type[Op], tuple[Lowest, Exporter]] = {}
"""For each op class, the lowest opset its exporter needs (or how the op tells it) and the exporter."""

_F = TypeVar("_F", bound=Exporter)


def exporter(*classes: type[Op], opset: Lowest = FLOOR) -> Callable[[_F], _F]:
    """Registers how ops of these classes are written in ONNX."""

    def register(function: _F) -> _F:
        for cls in classes:
            if cls in EXPORTERS:
                raise TypeError(f"{cls.__name__} has two exporters")
            EXPORTERS[cls] = (opset, function)
        return function

    return register


@cache
def _made_up() -> frozenset[str]:
    """What runtimes may call tensors that they add: op names, and "reorder".

    ONNX Runtime takes such a name where the graph has none like it, but doesn't look at the graphs around it.
    A loop in a loop that captures a tensor of that name from outside of both would read the added one.
    """
    ops = {schema.name for schema in onnx.defs.get_all_schemas()}
    return frozenset({"reorder", *ops, *map(str.lower, ops)})


class FreshNames:
    """Names, each given once."""

    def __init__(self, taken: Sequence[str] = ()) -> None:
        self._taken = set(taken)
        self._tried: dict[str, int] = {}

    def fresh(self, hint: str) -> str:
        """`hint`, with a number behind it when it is taken."""
        name = hint
        while name in self._taken:
            self._tried[hint] = self._tried.get(hint, 0) + 1
            name = f"{hint}_{self._tried[hint]}"
        self._taken.add(name)
        return name


class Emitter:
    """Names, nodes and initializers, each initializer once."""

    def __init__(self, opset: int, reserved: Sequence[str]) -> None:
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[Tensor, tuple[str, Array]] = {}
        self._tensor_names, self._node_names = FreshNames([*reserved, *_made_up()]), FreshNames()
        self._sources: dict[sympy.Expr, tuple[str, int]] = {}
        self._dims: dict[Dim, str] = {}
        self._shapes: dict[tuple[Dim, ...], str] = {}
        self._outer: Emitter | None = None
        self._owned: set[str] = set()
        self.bodies: dict[str, Emission] = {}
        """What the subgraph of a node holds, by the node's name."""

    def inner(self, *, closed: bool = False) -> Emitter:
        """An emitter for a subgraph: it sees what is here by now, and has nodes and initializers of its own.

        Sizes that are known out here are computed out here, once; not for one that is `closed`.
        """
        child = copy(self)
        child.nodes, child.initializers, child._outer = [], {}, None if closed else self
        child._sources, child._dims, child._shapes = {}, {}, {}
        return child

    def fill(
        self, graph: onnx.GraphProto, inputs: Sequence[tuple[str, Type]], outputs: Sequence[Output]
    ) -> None:
        """Puts what was emitted into a graph, in place: helper.make_graph would copy all weights."""
        graph.node.extend(self.nodes)
        for name, array in self.initializers.values():
            fill_tensor(graph.initializer.add(), array, name, owned=name in self._owned)
        graph.input.extend(helper.make_value_info(name, onnx_type(type)) for name, type in inputs)
        graph.output.extend(helper.make_value_info(o.name, onnx_type(o.value.type)) for o in outputs)

    def fresh(self, hint: str) -> str:
        """A tensor name that nobody has, like `hint`."""
        return self._tensor_names.fresh(hint)

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        origin: Sequence[str] = (),
        attributes: dict[str, Any] | None = None,
        domain: str = "",
    ) -> None:
        """Adds a node; attributes that are None are left out."""
        given = {k: v for k, v in (attributes or {}).items() if v is not None}
        self.append(helper.make_node(kind, list(inputs), list(outputs), domain=domain, **given), origin)

    def append(self, node: onnx.NodeProto, origin: Sequence[str] = ()) -> None:
        """Adds a node whose tensors have their final names."""
        node.name = self._node_names.fresh(
            origin[0] if origin else next(filter(None, node.output), node.op_type)
        )
        self.nodes.append(node)

    def constant(self, array: Array, hint: str | None = None, *, owned: bool = False) -> str:
        """The name of an initializer with these values; `owned`: the graph has the array itself."""
        key = Tensor.wrap(array)
        if key not in self.initializers:
            name = self.fresh(hint or f"constant_{len(self.initializers)}")
            self.initializers[key] = (name, array)
            if owned:
                self._owned.add(name)
        return self.initializers[key][0]

    def know(self, name: str, type: object) -> None:
        """Notes that the tensor `name` exists from here on: its dimensions bind symbols."""
        if isinstance(type, TensorType) and type.shape is not None:
            for axis, dim in enumerate(type.shape):
                if isinstance(dim, sympy.Expr) and dim.is_Symbol:
                    self._sources.setdefault(dim, (name, axis))

    def tells(self, dims: Sequence[Dim]) -> bool:
        """Whether tensors that exist by now bind all symbols in `dims`."""
        told = symbols_of(dims) <= self._sources.keys()
        return told or (self._outer is not None and self._outer.tells(dims))

    def shape(self, dims: Sequence[Dim], *, infer: bool = False) -> str:
        """The name of an int64 vector holding `dims`, computed at run time where they are symbolic."""
        dims = tuple(dims)
        unknown = [i for i, d in enumerate(dims) if not isinstance(d, int)]
        if infer and len(unknown) == 1 and not any(same(d, 0) for d in dims):
            dims = tuple(-1 if i in unknown else d for i, d in enumerate(dims))
            unknown = []
        if not unknown:
            return self.constant(np.array(dims, dtype=np.int64))
        if self._outer is not None and self._outer.tells(dims):
            return self._outer.shape(dims)
        if dims not in self._shapes:
            parts: list[str] = []
            static: list[int] = []
            for dim in dims:
                if isinstance(dim, int):
                    static.append(dim)
                    continue
                if static:
                    parts.append(self.constant(np.array(static, dtype=np.int64)))
                    static = []
                parts.append(self.dim(dim))
            if static:
                parts.append(self.constant(np.array(static, dtype=np.int64)))
            self._shapes[dims] = parts[0] if len(parts) == 1 else self._computed("Concat", parts, axis=0)
        return self._shapes[dims]

    def dim(self, dim: Dim) -> str:
        """The name of an int64 vector of one element with this dimension's value."""
        if isinstance(dim, int):
            return self.constant(np.array([dim], dtype=np.int64))
        if self._outer is not None and self._outer.tells([dim]):
            return self._outer.dim(dim)
        if dim not in self._dims:
            self._dims[dim] = self._dim(dim)
        return self._dims[dim]

    def _dim(self, dim: sympy.Expr) -> str:
        if dim.is_Symbol:
            if dim not in self._sources:
                raise UserError(f"nothing tells the value of dimension {dim} at run time")
            name, axis = self._sources[dim]
            if self.opset >= 15:
                return self._computed("Shape", [name], start=axis, end=axis + 1)
            whole = self._computed("Shape", [name])
            return self._computed("Gather", [whole, self.constant(np.array([axis], dtype=np.int64))], axis=0)
        arguments = dim.args
        if dim.func in (sympy.Add, sympy.Mul):
            kind = "Add" if dim.func is sympy.Add else "Mul"
            quotient = dim.func is sympy.Mul and not all(a.is_integer for a in arguments)
            if not quotient:
                total = self.dim(as_dim(arguments[0]))
                for argument in arguments[1:]:
                    total = self._computed(kind, [total, self.dim(as_dim(argument))])
                return total
        if dim.func is sympy.floor:
            numerator, denominator = sympy.together(arguments[0]).as_numer_denom()
            above, below = self.dim(as_dim(numerator)), self.dim(as_dim(denominator))
            if not numerator.is_nonnegative:
                # integer division rounds toward zero; what Mod leaves divides exactly
                above = self._computed("Sub", [above, self._computed("Mod", [above, below])])
            return self._computed("Div", [above, below])
        if dim.func is sympy.ceiling:
            numerator, denominator = sympy.together(arguments[0]).as_numer_denom()
            return self.dim(as_dim(sympy.floor((numerator + denominator - 1) / denominator)))
        if dim.func is sympy.Pow and arguments[1].is_Integer and arguments[1] > 0:
            total = self.dim(as_dim(arguments[0]))
            for _ in range(int(arguments[1]) - 1):
                total = self._computed("Mul", [total, self.dim(as_dim(arguments[0]))])
            return total
        if dim.func in (sympy.Max, sympy.Min):
            return self._computed(
                "Max" if dim.func is sympy.Max else "Min", [self.dim(as_dim(a)) for a in arguments]
            )
        if dim.func is sympy.Mod:
            return self._computed("Mod", [self.dim(as_dim(a)) for a in arguments])
        numerator, denominator = sympy.together(dim).as_numer_denom()
        if denominator == 1:
            raise UserError(f"can't compute the dimension {dim} at run time")
        return self._computed("Div", [self.dim(as_dim(numerator)), self.dim(as_dim(denominator))])

    def _computed(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        name = self.fresh(f"shape_{kind.lower()}")
        self.add(kind, inputs, [name], (), attributes)
        return name


@dataclass(frozen=True)
class Emission:
    """A graph's ONNX nodes.

    Attributes:
        outputs: its published outputs.
        emitter: has the nodes; those of loops' bodies are in `emitter.bodies`.
        names: of values.
        starts: for each IR node the position of its first ONNX node.
    """

    outputs: list[Output]
    emitter: Emitter
    names: dict[Value, str]
    starts: list[tuple[Node, int]]


def onnx_dtype(dtype: DType) -> int:
    """The TensorProto.DataType of an element type."""
    if dtype is DType.STR:
        return onnx.TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(dtype.numpy)


def onnx_type(type: Type) -> onnx.TypeProto:
    """An IR type as ONNX writes it; symbolic dimensions by their text."""
    if isinstance(type, TensorType):
        shape = None if type.shape is None else [d if isinstance(d, int) else str(d) for d in type.shape]
        return helper.make_tensor_type_proto(onnx_dtype(type.dtype), shape)
    return decoded(onnx.TypeProto, type.serialized, f"the type {type.kind}")


def tensor_proto(array: Array, name: str) -> onnx.TensorProto:
    """An initializer."""
    proto = onnx.TensorProto()
    fill_tensor(proto, array, name)
    return proto


def fill_tensor(proto: onnx.TensorProto, array: Array, name: str, *, owned: bool = False) -> None:
    """Makes `proto` an initializer, in place, with a copy of the array, or a large one itself if `owned`."""
    if array.dtype == object:
        proto.name, proto.data_type = name, onnx.TensorProto.STRING
        proto.dims.extend(array.shape)
        proto.string_data.extend(v if isinstance(v, bytes) else str(v).encode() for v in array.ravel())
    elif array.dtype.isbuiltin == 1 and array.dtype.isnative and sys.byteorder == "little":
        proto.name, proto.data_type = name, onnx_dtype(DType.of(array))
        proto.dims.extend(array.shape)
        if owned and array.nbytes > OUTLINE_OVER:
            hold(proto, array)
        else:
            proto.raw_data = array.tobytes()
    else:
        proto.CopyFrom(numpy_helper.from_array(array, name))

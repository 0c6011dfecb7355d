"""fp16: mixed precision, with float16 for what bears it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from irshap.errors import ModelError, near
from irshap.ir.builder import Builder, current
from irshap.ir.core import OPS, Graph, Node, Output, Precision, Role, Value
from irshap.ir.types import Array, DType, Tensor, TensorType, Type
from irshap.ir.walks import is_float, readers_of
from irshap.ops.cast import Cast, cast, retyped
from irshap.ops.program import Constant, Input, Pullback
from irshap.ops.scan import Scan
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Fp16"]

_SMALLEST, _LARGEST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Fp16(Pass):
    """Computes the reverse pass in float16 where it bears that, and stores what only that reads so.

    The model's own outputs and the base values stay exact: going forward, a deep network can amplify a
    rounding a thousandfold; going back it is linear, and doesn't.  Layers with weights are in float16.  So is
    what else is safe there, unless all that reads it keeps float32: what is subtracted or divided there was
    not rounded just before.  Sums, exponentials, quotients, normalizations and steps keep float32; moves
    follow their operands.  What reads a constant that float16 doesn't hold (numbers above 65504, or none from
    6e-5 up) keeps float32, too: nothing saturates or vanishes unseen.  Only guards against 0/0 become
    float16's smallest number.

    `forward`: "half" treats the forward pass likewise: smaller files, and the way to make a plain model one
    of mixed precision.  `io`: "half" makes the model's own inputs and outputs float16, too; attributions and
    base values, which are sums and small, stay as they are.  `keep`: ops that keep float32, by their names
    in the IR.
    """

    forward: Literal["keep", "half"] = "keep"
    io: Literal["keep", "half"] = "keep"
    keep: tuple[str, ...] = ()
    name = "fp16"
    semantics = Semantics.APPROXIMATES
    tolerance = 2e-2

    def __post_init__(self) -> None:
        for mnemonic in self.keep:
            if mnemonic not in OPS:
                raise ValueError(f"no op is called {mnemonic!r}; {near(mnemonic, OPS)}")

    def run(self, ir: Graph, context: Context) -> Graph:
        narrow: set[Value] = set()
        if self.io == "half":
            inputs = [v for v in ir.inputs if isinstance(v.node.op, Input) and v.node.op.kind in _OWN]
            outputs = [o.value for o in ir.outputs if o.role is Role.MODEL]
            narrow = {v for v in (*inputs, *outputs) if is_float(v)}
        fixed: set[Value] = set()
        if self.forward == "keep":
            fixed = _behind(ir, {o.value for o in ir.outputs if o.role in (Role.MODEL, Role.BASE)})
        return _Halving(ir, self.keep, narrow, fixed, context.statistics).run()


_OWN = ("model", "references")
"""The kinds of inputs that have the type of the model's own."""


class _Halving:
    """One graph on its way to mixed precision.

    Attributes:
        narrow: inputs, and values of outputs, that are to be float16.
        fixed: the nodes that keep all their types.
        loops: the bodies of loops, halved.
        half: those that compute in float16.
        kept: those that compute in float32 whatever is around them.
        asked: those whose result something reads in float32, itself or after moves.
    """

    def __init__(
        self,
        graph: Graph,
        keep: Collection[str],
        narrow: Collection[Value],
        fixed: Collection[Value],
        counts: Counter[str],
    ) -> None:
        self.graph, self.keep, self.narrow, self.counts = graph, keep, narrow, counts
        self.fixed = {n for n in graph.nodes if n.results[0] in fixed or _has_fixed_types(n)}
        self.loops = {n: self._loop(n, fixed) for n in graph.nodes if n.op.bodies}
        self.readers = readers_of(graph.nodes)
        self.outputs = {o.value for o in graph.outputs}
        self.half: set[Node] = {v.node for v in graph.inputs if v in narrow}
        self.asked: set[Node] = set()
        held = {v: _holds(v.node.op.value.array) for v in graph.values() if isinstance(v.node.op, Constant)}
        self.kept = {
            n for n in graph.nodes if self._is_kept(n) or not all(held.get(v, True) for v in n.operands)
        }
        for node in reversed(graph.nodes):
            self._look_down(node)
        for node in graph.nodes:
            self._look_up(node)

    def _loop(self, node: Node, fixed: Collection[Value]) -> Graph:
        """The body of a loop: what it sees whole or slice by slice comes in as it is read there."""
        (body,) = node.op.bodies
        kept = _inside(node, [v in fixed for v in node.results])
        inside = _Halving(body, self.keep, (), kept, Counter())
        free = body.inputs[len(node.results) :]
        narrow = {v for v in free if is_float(v) and inside._reading_half(v).issuperset(inside.readers[v])}
        return _Halving(body, self.keep, narrow, kept, self.counts).run()

    def _reading_half(self, value: Value) -> set[Node]:
        """The readers of a value in float16; a loop's body may read it so, and a guard be lost on the way."""
        loops = (
            r
            for r in self.readers[value]
            if r in self.loops
            and all(
                t == _type_in(t, True)
                for v, t in zip(r.operands, self._operand_types(r), strict=True)
                if v is value
            )
        )
        return {*loops, *self.half.intersection(self.readers[value])}

    def _is_kept(self, node: Node) -> bool:
        """Whether a node is in float32 whatever is around it."""
        numbers = (getattr(node.op, f.name) for f in fields(node.op))  # type: ignore[arg-type]
        return (
            node.op.precision is Precision.FULL
            or node.op.mnemonic in self.keep
            or node in self.fixed
            or not all(_holds(np.asarray(n)) for n in numbers if isinstance(n, float))
        )

    def _look_down(self, node: Node) -> None:
        """In float16: layers, and what something reads in float16."""
        floats = [v for v in node.results if is_float(v)]
        readers = [r for v in floats for r in self.readers[v]]
        halved = {r for v in floats for r in self._reading_half(v)}
        moves = [r for r in readers if r.op.precision is Precision.DATA]
        if node not in self.kept:
            wanted = halved | {r for v in node.results for r in self.readers[v]} & self.half
            if wanted or any(v in self.narrow for v in floats) or node.op.layer is not None:
                self.half.add(node)
        if (
            not floats  # it decides something, and so should not be rounded before
            or any(v in self.outputs and v not in self.narrow for v in floats)
            or not halved.issuperset(readers)
            or not self.asked.isdisjoint(moves)
        ):
            self.asked.add(node)

    def _look_up(self, node: Node) -> None:
        """A move is in float16 if what it moves is; else in float32 if anything asks for that."""
        moved = [v.node for v in node.operands if is_float(v) and not isinstance(v.node.op, Constant)]
        if node.op.precision is not Precision.DATA or not moved or node in self.kept:
            return
        if self.half.issuperset(moved):
            self.half.add(node)
        elif node in self.asked:
            self.half.discard(node)

    def run(self) -> Graph:
        """The graph in mixed precision."""
        graph, forms = self.graph, _Precisions()
        for node in graph.nodes:
            for v, type in zip(node.operands, self._operand_types(node), strict=True):
                if _is_large_constant(v) and type == v.type:
                    forms.wide.add(v)
        with Builder() as b:
            b.extend(graph.statements, forms.made, lambda node, _: self._emit(b, node, forms))
            outputs = [replace(o, value=self._output(b, o, forms)) for o in graph.outputs]
            made = b.build(graph.name, outputs, graph.properties, like=graph)
        self.counts["casts"] += sum(map(_is_float_cast, made.nodes))
        return made

    def _emit(self, b: Builder, node: Node, forms: _Precisions) -> Sequence[Value | None]:
        op, half, names = node.op, node in self.half, tuple(v.name for v in node.results)
        if op.is_input:
            kinds = (v.tensor.with_dtype(DType.F16) if v in self.narrow else v.type for v in node.results)
            return b.emit(op, types=tuple(kinds), names=names)
        if isinstance(op, Pullback):
            raise ModelError("fp16 comes behind the method, which decides pullbacks", where=node.label)
        if isinstance(op, Constant):
            return [None]  # made by `_Precisions`, in the precision that somebody asks for
        if _is_float_cast(node):
            forms.same[node.results[0]] = node.operands[0]
            return [None]
        operands = [forms.of(v, t) for v, t in zip(node.operands, self._operand_types(node), strict=True)]
        if node in self.loops:
            op = op.with_bodies([self.loops[node]])
        elif node not in self.fixed:
            op = retyped(op, lambda dtype: _dtype_in(dtype, half))
        if any(map(is_float, node.results)):
            self.counts["in float16" if half else "in float32"] += 1
        return b.emit(op, *operands, types=node.types, names=names)

    def _operand_types(self, node: Node) -> list[Type]:
        if node in self.loops:
            return [v.type for v in self.loops[node].inputs]
        if node in self.fixed:
            return [v.type for v in node.operands]
        return [_type_in(v.type, node in self.half) for v in node.operands]

    def _output(self, b: Builder, output: Output, forms: _Precisions) -> Value:
        value = output.value
        with b.at(value.node.origin):
            return forms.of(value, _type_in(value.type, True) if value in self.narrow else value.type)


class _Precisions:
    """Where the values of the old graph went, in each precision that was asked for.

    Attributes:
        wide: the large constants that are stored as they are: one copy and a cast serve everyone.
        made: the new value of an old one.
        same: the old value that another one is up to precision: what a cast between floats gets.
    """

    def __init__(self) -> None:
        self.wide: set[Value] = set()
        self.made: dict[Value, Value] = {}
        self.same: dict[Value, Value] = {}

    def root(self, value: Value) -> Value:
        """The value behind casts."""
        while value in self.same:
            value = self.same[value]
        return value

    def of(self, value: Value, type: Type) -> Value:
        """The new form of a value in the precision of `type`."""
        value = self.root(value)
        if not isinstance(value.node.op, Constant):
            made = self.made[value]
        else:
            made = self._constant(value, value.type if value in self.wide else type)
        return cast(made, type.dtype) if is_float(made) and isinstance(type, TensorType) else made

    def _constant(self, value: Value, type: Type) -> Value:
        op = value.node.op
        assert isinstance(op, Constant)
        if is_float(value) and isinstance(type, TensorType) and type.dtype is not value.dtype:
            op = Constant(Tensor.wrap(_converted(op.value.array, type.dtype)))
        return current().emit(op, origin=value.node.origin, names=(value.name,))[0]


def _behind(graph: Graph, values: set[Value]) -> set[Value]:
    """These values and all that they are computed from; of a loop, what those of its results are."""
    found = {*values}
    for node in reversed(graph.nodes):
        if not found.isdisjoint(node.results):
            reads = _read(node, [v in found for v in node.results])
            found.update(v for v, read in zip(node.operands, reads, strict=True) if read)
    return found


def _read(node: Node, wanted: Sequence[bool]) -> Sequence[bool]:
    """Which operands a node reads for the results that are wanted."""
    if not isinstance(node.op, Scan):
        return [True] * len(node.operands)
    inside = _inside(node, wanted)
    return [v in inside for v in node.op.body.inputs]


def _inside(node: Node, wanted: Sequence[bool]) -> set[Value]:
    """What the wanted results of a node are computed from in its body; what a loop carries comes back."""
    (body,) = node.op.bodies
    found = _behind(body, {o.value for o, w in zip(body.outputs, wanted, strict=True) if w})
    carried = node.op.carried if isinstance(node.op, Scan) else 0
    more = [w or (i < carried and body.inputs[i] in found) for i, w in enumerate(wanted)]
    return found if more == [*wanted] else _inside(node, more)


def _has_fixed_types(node: Node) -> bool:
    """Whether a node needs the element types that it has."""
    floats = filter(is_float, (*node.operands, *node.results))
    return node.op.types_given or bool(node.op.bodies) or any(v.dtype is DType.BF16 for v in floats)


def _is_large_constant(value: Value) -> bool:
    """Whether it is worth a cast to store half of a constant."""
    op = value.node.op
    return isinstance(op, Constant) and is_float(value) and op.value.array.nbytes >= 4096


def _is_float_cast(node: Node) -> bool:
    return isinstance(node.op, Cast) and is_float(node.operands[0]) and is_float(node.results[0])


def _dtype_in(dtype: DType, half: bool) -> DType:
    """The element type that stands for a float: float16, or the one that it has, but at least float32."""
    if not dtype.is_float:
        return dtype
    return DType.F16 if half else DType.F32 if dtype is DType.F16 else dtype


def _type_in(type: Type, half: bool) -> Type:
    return type.with_dtype(_dtype_in(type.dtype, half)) if isinstance(type, TensorType) else type


def _holds(array: Array) -> bool:
    """Whether float16 holds the numbers of a constant: none above its range, and not all below it.

    The smallest number of the constant's own type is a guard, for which float16's is as good.
    """
    if array.dtype.kind != "f" or not array.size or _is_guard(array):
        return True
    largest = float(np.max(np.abs(array), where=np.isfinite(array), initial=0.0))
    return largest == 0.0 or _SMALLEST <= largest <= _LARGEST


def _is_guard(array: Array) -> bool:
    return bool(array.size == 1 and array.dtype.kind == "f" and array == np.finfo(array.dtype).tiny)


def _converted(array: Array, dtype: DType) -> Array:
    if _is_guard(array):
        return np.full_like(array, np.finfo(dtype.numpy).tiny, dtype=dtype.numpy)
    return array.astype(dtype.numpy)

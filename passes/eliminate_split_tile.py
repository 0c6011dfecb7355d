"""eliminate-split-tile: the joint batch falls apart into what depends on samples, on references, and on both.

The paper's central optimization (Zhao et al. 2023).  SHAP's form repeats every sample for each reference,
joins the copies with the references, runs the joint batch and splits it at every nonlinearity.  Here each
value of the joint batch is described instead by how its rows are made, and built only where an op truly
mixes both worlds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy

from irshap.ir.builder import Builder
from irshap.ir.core import Graph, MixesBatch, Node, Op, Value
from irshap.ir.dims import Dim, N, R, as_dim, divide, same, symbols_of
from irshap.ir.types import TensorType
from irshap.ops.rows import RepeatRows, TileRows
from irshap.ops.shape import Concat, Reshape, Split, concat
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["EliminateSplitTile"]


@dataclass(frozen=True, eq=False)
class Rows:
    """An ordinary value; `axis` holds its rows, None when it has none."""

    value: Value
    axis: int | None


@dataclass(frozen=True, eq=False)
class Copies:
    """Rows of `of`, copied by `op`: RepeatRows (samples) or TileRows (references), along `axis`."""

    of: Form
    op: RepeatRows | TileRows
    axis: int


@dataclass(frozen=True, eq=False)
class Halves:
    """The joint batch: the samples' half before the references' half."""

    first: Form
    second: Form
    axis: int


@dataclass(frozen=True, eq=False)
class Uniform:
    """Equal rows made from nothing (a seed of ones): `make(binding)` gives as many as N is bound to."""

    make: Callable[[dict[sympy.Expr, Dim]], Form]
    axis: int


Form: TypeAlias = Rows | Copies | Halves | Uniform


@dataclass(frozen=True)
class EliminateSplitTile(Pass):
    """Distributes batch-parallel ops over Concat, sinks copies below them, and cancels Split of Concat.

    Samples are then inferred once and references once; the halves of the backward pass that nobody reads
    become dead code.  Equal to the joint form row by row, so attributions stay the same.
    """

    name = "eliminate-split-tile"
    semantics = Semantics.PRESERVES
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        with Builder() as b:
            rewriter = _Rewriter(b)
            for value in ir.inputs:
                rewriter.forms[value] = Rows(b.copy(value.node, {})[0], _rows_of(value))
            for node in ir.nodes:
                with b.at(node.origin):
                    results = rewriter.node(node)
                rewriter.forms.update(zip(node.results, results, strict=True))
            mapping = {o.value: rewriter.build(rewriter.forms[o.value]) for o in ir.outputs}
            context.count("sunk", rewriter.sunk)
            context.count("distributed", rewriter.distributed)
            return b.rebuild(ir, mapping)


def _rows_of(value: Value) -> int | None:
    shape = getattr(value.type, "shape", None) or ()
    return next((i for i, d in enumerate(shape) if symbols_of([d]) & {N, R}), None)


class _Rewriter:
    """Gives each node's results a form; emits nodes only for ordinary rows."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder
        self.forms: dict[Value, Form] = {}
        self.sunk = self.distributed = 0
        self._built: dict[int, tuple[Form, Value]] = {}

    def node(self, node: Node) -> Sequence[Form]:
        """The forms of a node's results."""
        operands = [self.forms[v] for v in node.operands]
        op = node.op
        if isinstance(op, RepeatRows | TileRows) and operands[0].axis in (op.axis, None):
            return [Copies(_reframed(operands[0], op.times), op, op.axis)]
        if isinstance(op, Concat) and len(operands) == 2 and self._joins_halves(node, op):
            first, second = (_reframed(f, 2) for f in operands)
            return [Halves(first, second, op.axis)]
        if isinstance(op, Split) and self._cuts_halves(operands[0], op):
            joint = operands[0]
            halves = (joint.first, joint.second) if isinstance(joint, Halves) else (joint, joint)
            return [_reframed(f, sympy.Rational(1, 2)) for f in halves]
        return self.apply(node, operands, {})

    def _joins_halves(self, node: Node, op: Concat) -> bool:
        dims = [v.shape[op.axis] for v in node.operands]
        batched = all(self.forms[v].axis == op.axis for v in node.operands)
        return batched and same(dims[0], dims[1]) and N in symbols_of(dims)

    def _cuts_halves(self, form: Form, op: Split) -> bool:
        halved = len(op.sizes) == 2 and same(*op.sizes)
        return isinstance(form, Halves | Uniform) and form.axis == op.axis and halved

    def apply(self, node: Node, operands: Sequence[Form], binding: dict[sympy.Expr, Dim]) -> Sequence[Form]:
        """The node applied to operands in these forms, with N bound to what a row set is reduced to."""
        axes = self._result_axes(node, operands)
        if axes is None:
            return self._plain(node, operands, binding)
        rowed = [f for f in operands if f.axis is not None]
        if all(isinstance(f, Uniform) for f in rowed):
            # merged with another axis, the rows are no longer equal
            equal = not rowed or not self._merges_rows(node, operands, axes)
            if equal and any(a is not None for a in axes):
                return self._uniform(node, operands, axes, binding)
            return self._plain(node, operands, binding)
        shaped = [f for f in rowed if not isinstance(f, Uniform)]
        if all(isinstance(f, Halves) for f in shaped):
            return self._distribute(node, operands, axes, binding)
        copies = [f for f in shaped if isinstance(f, Copies)]
        if len(copies) == len(shaped):
            ops = self._copying(node, operands, axes)
            if ops is not None:
                return self._sink(node, operands, ops, axes, binding)
        return self._plain(node, operands, binding)

    def _copying(
        self, node: Node, operands: Sequence[Form], axes: Sequence[int | None]
    ) -> list[RepeatRows | TileRows] | None:
        """What copies each result as the operands are copied; None where that is no one thing.

        A reshape may merge each sample's rows with another axis, or part them from it: blocks grow or shrink.
        """
        known = [(v, f) for v, f in zip(node.operands, operands, strict=True) if f.axis is not None]
        value, form = next((v, f) for v, f in known if isinstance(f, Copies))
        assert isinstance(form, Copies)
        like, rows = form.op, value.shape[form.axis]
        for other, f in known:
            if isinstance(f, Copies) and replace(f.op, axis=like.axis) != like:
                return None
            if isinstance(like, RepeatRows) and not same(other.shape[f.axis or 0], rows):
                return None
        found: list[RepeatRows | TileRows] = []
        for result, axis in zip(node.results, axes, strict=True):
            at = 0 if axis is None else axis
            if isinstance(like, TileRows) or axis is None or same(result.shape[axis], rows):
                found.append(replace(like, axis=at))
                continue
            block = divide(result.shape[axis] * like.block, rows)
            if block is None or not isinstance(node.op, Reshape):
                return None
            found.append(RepeatRows(at, like.times, block))
        return found

    def _result_axes(self, node: Node, operands: Sequence[Form]) -> tuple[int | None, ...] | None:
        """Where the rows go, or None where the op isn't known to treat them apart."""
        types = [v.type for v in (*node.operands, *node.results)]
        tensors = [t for t in types if isinstance(t, TensorType) and t.shape is not None]
        if len(tensors) < len(types):
            return None
        try:
            split = len(node.operands)
            return node.op.batch_axes([f.axis for f in operands], tensors[:split], tensors[split:])
        except MixesBatch:
            return None

    def _distribute(
        self,
        node: Node,
        operands: Sequence[Form],
        axes: Sequence[int | None],
        binding: dict[sympy.Expr, Dim],
    ) -> Sequence[Form]:
        self.distributed += 1
        half = scaled(binding, 2)
        first = self.apply(node, [_half(f, 0) for f in operands], half)
        second = self.apply(node, [_half(f, 1) for f in operands], half)
        return [
            a if axis is None else Halves(a, b, axis) for a, b, axis in zip(first, second, axes, strict=True)
        ]

    def _sink(
        self,
        node: Node,
        operands: Sequence[Form],
        ops: Sequence[RepeatRows | TileRows],
        axes: Sequence[int | None],
        binding: dict[sympy.Expr, Dim],
    ) -> Sequence[Form]:
        self.sunk += 1
        once = scaled(binding, ops[0].times)
        inner = [
            f.of if isinstance(f, Copies) else f.make(once) if isinstance(f, Uniform) else f for f in operands
        ]
        results = self.apply(node, inner, once)
        return [
            r if axis is None else Copies(r, op, axis) for r, op, axis in zip(results, ops, axes, strict=True)
        ]

    def _merges_rows(self, node: Node, operands: Sequence[Form], axes: Sequence[int | None]) -> bool:
        """Whether a sample takes up several rows of a result: repeating single rows would be wrong there."""
        rows = {v.shape[f.axis] for v, f in zip(node.operands, operands, strict=True) if f.axis is not None}
        return {v.shape[a] for v, a in zip(node.results, axes, strict=True) if a is not None} != rows

    def _uniform(
        self,
        node: Node,
        operands: Sequence[Form],
        axes: Sequence[int | None],
        binding: dict[sympy.Expr, Dim],
    ) -> Sequence[Form]:
        def maker(index: int) -> Callable[[dict[sympy.Expr, Dim]], Form]:
            def make(bound: dict[sympy.Expr, Dim]) -> Form:
                made = [f.make(bound) if isinstance(f, Uniform) else f for f in operands]
                return self._plain(node, made, bound)[index]

            return make

        return [
            self._plain(node, operands, binding)[i] if axis is None else Uniform(maker(i), axis)
            for i, axis in enumerate(axes)
        ]

    def _plain(self, node: Node, operands: Sequence[Form], binding: dict[sympy.Expr, Dim]) -> Sequence[Form]:
        """The node itself, on operands that are built."""
        values = [self.build(f, binding) for f in operands]
        op: Op = node.op.substitute(binding) if binding else node.op
        types = tuple(t.substitute(binding) for t in node.types)
        names = tuple(v.name for v in node.results)
        results = self.builder.emit(op, *values, types=types, origin=node.origin, names=names)
        axes = self._result_axes(node, operands)
        known = [_symbolic_axis(v) for v in results] if axes is None else axes
        return [Rows(v, a) for v, a in zip(results, known, strict=True)]

    def build(self, form: Form, binding: dict[sympy.Expr, Dim] | None = None) -> Value:
        """The rows of a form as one value."""
        if isinstance(form, Rows):
            return form.value
        if isinstance(form, Uniform):
            return self.build(form.make(binding or {}))
        key = id(form)
        if key not in self._built:
            if isinstance(form, Copies):
                once = self.build(form.of, scaled(binding or {}, form.op.times))
                built = self.builder.emit(replace(form.op, axis=form.axis), once)[0]
            else:
                half = scaled(binding or {}, 2)
                built = concat([self.build(form.first, half), self.build(form.second, half)], form.axis)
            self._built[key] = (form, built)  # the form is kept so that its id stays its own
        return self._built[key][1]


def scaled(binding: dict[sympy.Expr, Dim], times: Dim) -> dict[sympy.Expr, Dim]:
    """The binding under which a shape counts `times` fewer rows."""
    return {N: as_dim(sympy.sympify(binding.get(N, N)) / times)}


def _reframed(form: Form, times: Dim) -> Form:
    """The form for a reader that counts `times` as many rows for each N as the node which made it.

    Only equal rows made from nothing depend on that: all others exist already.
    """
    if isinstance(form, Uniform):
        made = form.make
        return Uniform(lambda binding: made(scaled(binding, sympy.Integer(1) / times)), form.axis)
    if isinstance(form, Copies):
        inner = _reframed(form.of, times)
        return form if inner is form.of else Copies(inner, form.op, form.axis)
    if isinstance(form, Halves):
        first, second = _reframed(form.first, times), _reframed(form.second, times)
        same_parts = first is form.first and second is form.second
        return form if same_parts else Halves(first, second, form.axis)
    return form


def _half(form: Form, which: int) -> Form:
    if isinstance(form, Halves):
        return form.second if which else form.first
    return form


def _symbolic_axis(value: Value) -> int | None:
    shape = getattr(value.type, "shape", None) or ()
    return next((i for i, d in enumerate(shape) if N in symbols_of([d])), None)

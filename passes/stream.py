"""stream: references go through the program chunk by chunk, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import sympy

from irshap.errors import UserError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Precision, Value
from irshap.ir.dims import Dim, R, product, same
from irshap.ir.types import DType, TensorType
from irshap.ir.walks import ancestors, descendants, is_float
from irshap.ops.reduce import number
from irshap.ops.shape import Reshape
from irshap.passes.bind_references import reference_binding, reference_inputs, reference_values
from irshap.passes.fold_references import FoldReferences
from irshap.passes.references.chunks import Arrays, Chunks, Inputs, Plan, terms
from irshap.passes.references.fixed import check_size, fixed_values
from irshap.passes.references.levels import Level, divided, nbytes
from irshap.passes.references.light import recomputed, worthwhile
from irshap.passes.references.rows import ReferenceRows
from irshap.passes.references.trips import totals
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Loop", "Stream"]

_CACHED = 16 * 2**20
_FEWEST = 2
"""Fewer references at a time leave convolutions too little to do."""

_TOGETHER = 20
"""More references at a time hardly save nodes any more."""


@dataclass(frozen=True)
class Stream(Pass):
    """Binds the references, and puts all that depends on them and on samples into a loop over chunks of them.

    The sums over references are carried from chunk to chunk; the rest of the program stays outside.  Equal to
    the whole set at once, up to the order in which is summed.

    `chunk`: the most references at a time; 0: all where the largest tensor of the loop stays below 16 MiB for
    one sample, otherwise as many as keep it below 8 MiB, so that much stays in a cache, but at least 2. A
    number that divides the whole set is taken where there is one from half of this up; otherwise what is left
    over stands before the loop, and so do all where one chunk holds them. `together`: the most references at
    a time where tensors are so small that they make none larger than the loop's largest is for a chunk: near
    the output, where the cotangent begins; the rest is then a loop inside this one. 0: 20, or no more than
    `chunk` if that is set.

    `store`: "activations" computes what follows from the references alone while compiling, and stores it;
    "references" stores nothing else, and computes their forward pass again in each run. `dtype`: "float16"
    stores activations rounded, in half the room; the pass then approximates: within 1e-3 for networks with
    ReLU, but chords of SiLU divide differences of what is rounded apart (EfficientNetB0: off by percents).
    `light`: of several values that one light op makes of the same (relu(x) and |x| of x), "recompute" stores
    x alone and computes them in the loop, "store" stores each, and "auto" recomputes where layers do much
    more work. `otherwise`: a program whose references can't be taken one after another is an error, which
    names the node ("refuse"), or left to fold-references ("fold"). `limit`: bytes that may be stored; more is
    an error before anything is computed.
    """

    chunk: int = 0
    together: int = 0
    store: Literal["activations", "references"] = "activations"
    dtype: Literal["same", "float16"] = "same"
    light: Literal["auto", "recompute", "store"] = "auto"
    otherwise: Literal["refuse", "fold"] = "refuse"
    limit: int = 16 * 2**30
    name = "stream"
    semantics = Semantics.PRESERVES
    tolerance = 2e-2
    binds_references = True
    stores = True
    requires = frozenset({"decided"})

    def __post_init__(self) -> None:
        if self.dtype == "float16":
            object.__setattr__(self, "semantics", Semantics.APPROXIMATES)

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.chunk < 0:
            raise UserError(f"chunks of {self.chunk} references", mend="Use stream{chunk=1} or more")
        try:
            loop = Loop(ir, recompute=self.store == "references", half=self.dtype == "float16")
        except UserError:
            if self.otherwise == "refuse":
                raise
            context.count("folded instead")
            return FoldReferences(self.limit).run(ir, context)
        binding: Mapping[sympy.Expr, Dim] = {} if context.unbound else reference_binding(context)
        count = int(context.expected if context.unbound else binding.get(R, 0))
        most = self.chunk or loop.fitting(_CACHED)
        if not self.chunk and not 0 < count <= most:
            most = loop.fitting(_CACHED // 2)
        together = self.together or self.chunk or _TOGETHER
        exact = context.exact or not context.unbound
        if self.light != "store" and not 0 < count <= most:
            loop.recompute_light(always=self.light == "recompute")
        plan = Plan.of(count, most, together, stored=not loop.recompute, exact=exact)
        loop.divide(plan)
        chunks: Chunks
        if context.unbound:
            chunks = Inputs(loop)
        else:
            check_size(self.name, (loop.type(v, count) for v in loop.stored), self.limit)
            arrays = chunks = Arrays(loop, reference_values(ir, context))
            context.statistics.update(chunk=plan.size, stored_bytes=arrays.nbytes)
            context.statistics.update({f"nodes_for_{level.size}": len(level.nodes) for level in loop.levels})
        with Builder() as b:
            return b.rebuild(ir, loop.emit(b, chunks, binding))


class Loop:
    """Which nodes stand in the loop, and which values come into it.

    Attributes:
        nodes: the loop's, in order: what depends on references, but isn't computed while compiling.
        sums: the sums over references that end it; `known` are those that are computed while compiling.
        stored: the values with references that come into the loop, a chunk at a time.
        captured: the values without references that do.
        computed: what is needed of the references while compiling: what is stored, and what known sums add.
    """

    def __init__(self, graph: Graph, *, recompute: bool, half: bool) -> None:
        self.graph, self.given, self.recompute = graph, reference_inputs(graph), recompute
        self.rows = ReferenceRows(graph)
        live = ancestors(o.value for o in graph.outputs)
        self.live = [n for n in graph.nodes if live.intersection(n.results)]
        fixed = set(self.given) if recompute else fixed_values(graph, self.given, {R: 1})
        computed = fixed & descendants(self.live, self.given)
        self.nodes = [n for n in self.live if self._has_rows(n) and n.results[0] not in computed]
        sums = [n for n in self.live if n in self.rows.reductions]
        self.known = [n for n in sums if n.results[0] in computed]
        self.sums = [n for n in sums if n.results[0] not in computed]
        inside = {v for n in self.nodes for v in n.results}
        read = (v for n in (*self.nodes, *self.sums) for v in n.operands)
        entering = dict.fromkeys(v for v in read if v not in inside)
        self.stored = [v for v in entering if self.rows.place(v) is not None]
        self.captured = [v for v in entering if self.rows.place(v) is None]
        self.plan, self.levels = Plan(0, 1, 0, 0), list[Level]()
        self._fixed, self._half = computed, half
        self._check()

    @property
    def computed(self) -> list[Value]:
        return [*self.stored, *(n.operands[0] for n in self.known)]

    def recompute_light(self, *, always: bool) -> None:
        """Stores once what light ops make of one value, `always` or where the loop has much else to do."""
        again = recomputed(self.stored, self._fixed)
        if always or worthwhile(again.nodes, self.nodes):
            added = {*again.nodes, *self.nodes}
            self.stored, self.nodes = again.stored, [n for n in self.live if n in added]

    def fitting(self, most: int) -> int:
        """How many references keep each tensor of the loop below `most` bytes for one sample; at least 2."""
        largest = max((nbytes([v]) for n in self.nodes for v in n.results), default=1)
        return max(_FEWEST, most // max(largest, 1))

    def type(self, stored: Value, count: Dim) -> TensorType:
        """How a stored value is stored for this many references; positions take 32 bits."""
        kind = stored.tensor.substitute({R: count})
        if _is_position(stored):
            return kind.with_dtype(DType.I32)
        rounded = self._half and is_float(stored) and not _is_moved(stored)
        return kind.with_dtype(DType.F16) if rounded else kind

    def divide(self, plan: Plan) -> None:
        """Tells which nodes take how many references at a time: more where tensors are small."""
        self.plan = plan
        self.levels = divided(self.nodes, self.sums, {*self.captured}, plan.size, plan.groups)

    def trips(self, i: int) -> Dim:
        """How often level i runs for each time that the one around it does."""
        size = self.levels[i].size
        return self.levels[i - 1].size // size if i else self.plan.trips(size)

    def runs_once(self, i: int) -> bool:
        """Whether level i needs no loop; outside of one a load would compute and keep what isn't stored."""
        return same(self.trips(i), 1) and not self.recompute

    def stored_types(self) -> dict[Value, TensorType]:
        """How each stored value of all whole chunks is stored: [trips of the levels that are loops, ...]."""
        found = dict[Value, TensorType]()
        lead = list[Dim]()
        for i, level in enumerate(self.levels):
            if not self.runs_once(i):
                lead.append(self.trips(i))
            for value in level.stored:
                kind = self.type(value, level.size)
                found[value] = kind.with_shape((*lead, *kind.dims))
        return found

    def _has_rows(self, node: Node) -> bool:
        return any(self.rows.place(v) is not None for v in node.results)

    def _check(self) -> None:
        summed = descendants(self.live, {n.results[0] for n in self.sums})
        ready = descendants(self.live, {n.results[0] for n in self.rows.reductions})
        apart = {n for n in self.nodes if not summed.isdisjoint(n.operands)}
        apart |= {v.node for v in self.computed if v in ready}
        for node in self.live:
            if node in apart:
                raise UserError(
                    "it compares single references with a sum over all of them: that needs two loops",
                    where=node.label,
                    mend="Use the pass fold-references instead of stream",
                )
        for output in self.graph.outputs:
            if self.rows.place(output.value) is not None:
                raise UserError("it has a row for each reference", where=f"output {output.name!r}")

    def emit(self, b: Builder, chunks: Chunks, binding: Mapping[sympy.Expr, Dim]) -> dict[Value, Value]:
        """The whole program; returns where each value of the graph went."""
        mapping: dict[Value, Value] = {}
        for value in self.graph.inputs:
            if value not in self.given or not binding:
                mapping[value] = b.copy(value.node, {})[0]
        mapping.update(zip((n.results[0] for n in self.known), chunks.known(b), strict=True))
        late = descendants(self.live, {n.results[0] for n in self.sums})
        inside = {*self.nodes, *self.sums, *self.known}
        outside = [n for n in self.live if n not in inside and not self._has_rows(n)]
        for node in outside:
            if node.results[0] not in late:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
        sums = totals(b, self, mapping, chunks) if self.sums else ()
        for node, total in zip(self.sums, sums, strict=True):
            mapping[node.results[0]] = _mean(b, node, total, binding)
        for node in outside:
            if node.results[0] in late:
                mapping.update(zip(node.results, b.copy(node, mapping, binding), strict=True))
        return mapping


def _is_moved(value: Value) -> bool:
    """Whether a value is the references themselves, in another shape: these are never rounded."""
    return all(v.node.op.precision is Precision.DATA for v in ancestors([value]))


def _is_position(value: Value) -> bool:
    """Whether a value is positions in a tensor that 32 bits count, maybe in another shape."""
    while isinstance(value.node.op, Reshape):
        value = value.node.operands[0]
    node = value.node
    if node.results.index(value) not in node.op.positions:
        return False
    size = product(node.operands[0].shape[1:])
    return isinstance(size, int) and size < 2**31


def _mean(b: Builder, node: Node, total: Value, binding: Mapping[sympy.Expr, Dim]) -> Value:
    count = terms(node, binding)
    with b.at(node.origin):
        return total if same(count, 1) else total / number(count, total.dtype)

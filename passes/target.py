"""target: what is explained, and with respect to what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from irshap import contract
from irshap.attribution.gaps import why
from irshap.attribution.outputs import own_names, require_unexplained
from irshap.attribution.side_paths import states, with_side_paths_held
from irshap.attribution.sources import Attributed, find_sources, names_in, with_held, with_taps
from irshap.attribution.targets import (
    Class,
    Classes,
    Form,
    Region,
    Top,
    Word,
    behind_map,
    behind_nms,
    parse_form,
    split_names,
    target_text,
    text_of_names,
)
from irshap.errors import TargetError, near
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, Output, Role, Value
from irshap.ir.dims import Dim, N, as_dim, product, symbols_of
from irshap.ir.types import DType, TensorType
from irshap.ir.walks import is_float, live, upstream
from irshap.ops.cast import Cast
from irshap.ops.index import ArgMax, GatherElements, TopKIndices
from irshap.ops.program import Full, Hold, batch_from_shape, constant, new_input
from irshap.ops.reduce import Expand
from irshap.ops.rows import RepeatRows
from irshap.ops.shape import Slice, concat, reshape, to_front
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["Target"]


@graph_property("target", Role.TARGET, Role.SOURCE)
def _has_target(graph: Graph) -> str | None:
    targets, sources = graph.outputs_of(Role.TARGET), graph.outputs_of(Role.SOURCE)
    if not targets or not sources:
        return "it has no target or no source"
    for output in (*targets, *sources):
        if not is_float(output.value):
            return f"{output.role.value} {output.name!r} is {output.value.type}, no float tensor"
    if (dims := targets[0].value.tensor.shape) is not None and len(dims) != 1:
        return f"target {targets[0].name!r} is {targets[0].value.type}, not one number for each row"
    if not graph.outputs_of(Role.TARGET_INDEX) and not graph.outputs_of(Role.VALUES):
        return "no output tells what is explained"
    return None


@dataclass(frozen=True)
class Target(Pass):
    """Appends the explained number of each sample, and names the tensors that it is attributed to.

    `target`: "argmax" (the class that the model predicts), a class index, several ("3,7"), "top-K", "all", or
    "input" (the lowered model gets an int64 input `target` [N]); "sum[...]" or "mean[...]" of a region, an
    index on the axes after the batch; "weights" (an input `target_weights` of the output's shape, the
    explained number is the weighted sum).  With K classes at once every sample is repeated K times, so that
    all later passes see one class for each row.
    `output`: the explained output or interior float tensor, default the model's first float output.  With
    "a, b" what `target` says is explained of each, as K numbers; with "a + b" their sum.
    `wrt`: the tensors attributed, comma-separated, default every float input and every embedding lookup of an
    integer input.  Several are one cut: what goes through a later one counts there, not for an earlier one.
    `context`: inputs and interior tensors, comma-separated, that keep the sample's value in both worlds.
    "auto" among them, which is the default, are the integers and truth values that follow from an integer
    input past its embedding lookups (masks of padding, positions counted from them), and recurrent states
    that are inputs (f32[layers, N, H], from which an LSTM starts).  "none" holds nothing.
    In Python several may also be given as a list.
    """

    target: str = "argmax"
    output: str = ""
    wrt: str = ""
    context: str = "auto"
    name = "target"
    semantics = Semantics.EXTENDS
    ensures = once = frozenset({"target"})

    def __post_init__(self) -> None:
        # a list is how Python says several, commas how a pipeline's text does
        object.__setattr__(self, "target", target_text(self.target))
        for option in ("output", "wrt", "context"):
            object.__setattr__(self, option, text_of_names(getattr(self, option), option))

    def run(self, ir: Graph, context: Context) -> Graph:
        require_unexplained(ir)
        form = parse_form(self.target)
        held = names_in(self.context)
        ir = with_held(ir, [name for name in held if name not in ("auto", "none")])
        explained, joined = self._explained(ir)
        for output in explained:
            _check_batch(ir, output)
        told: list[str] = []
        if "auto" in held and not self.wrt:
            carried = states(ir, [o.value for o in explained])
            ir, told = with_held(ir, list(carried)), [f"{name}, {what}" for name, what in carried.items()]
            explained, joined = self._explained(ir)
        sources = _sources(ir, explained, names_in(self.wrt))
        if "auto" in held:
            ir, sources, paths = with_side_paths_held(ir, sources, [o.value for o in explained])
            told += [path.text for path in paths]
        if told:
            context.metadata[contract.Metadata.HELD] = "; ".join(told)
            context.count("held", len(told))
        ir, sources = with_taps(ir, sources)
        explained, _ = self._explained(ir)
        with Builder() as b:
            mapping, taken = b.graft(ir), own_names(ir)
            number = self._number(b, form, [_batch_first(mapping[o.value]) for o in explained], joined, taken)
            forward = mapping
            if number.count is not None:
                forward = _repeated(b, ir, [o.value for o in explained], number.count)
            target = number.rows([_batch_first(forward[o.value]) for o in explained])
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            names = {o.name for o in outputs}
            for s in sources:
                name = contract.free(f"{s.name}_source" if s.name in names else s.name, names)
                outputs.append(Output(name, forward[s.value], Role.SOURCE, s.of))
            outputs.append(Output(contract.free("target_value", names), target, Role.TARGET))
            if number.index is not None:
                name = contract.free(contract.TARGET_INDEX, taken)
                outputs.append(Output(name, number.index, Role.TARGET_INDEX))
            if number.index is None or joined or explained[0].name not in {o.name for o in ir.outputs}:
                name = contract.free(contract.TARGET_VALUES, taken)
                outputs.append(Output(name, number.values(), Role.VALUES))
            return b.build(ir.name, outputs, ir.properties, like=ir)

    def _explained(self, graph: Graph) -> tuple[list[Output], str]:
        """The explained outputs, and how several are joined: "," or "+"."""
        outputs = {o.name: o for o in graph.outputs_of(Role.MODEL)}
        if not self.output:
            found = next((o for o in outputs.values() if is_float(o.value)), None)
            maps = (_scores(o) for o in outputs.values()) if found is None else ()
            found = next((o for o in maps if o is not None), found)
            if found is None:
                behind = next((h for o in outputs.values() if (h := behind_nms(o.value))), None)
                raise TargetError("the model has no float output to explain", mend=behind)
            return [_unrounded(found)], ""
        names, joined = split_names(self.output, list(outputs))
        return [_unrounded(_float(graph, outputs, name)) for name in names], joined

    def _number(self, b: Builder, form: Form, ys: Sequence[Value], joined: str, taken: Set[str]) -> Number:
        """What is explained of these outputs [N, ...]."""
        if not joined:
            return self._of_one(b, form, ys[0], taken)
        if not isinstance(form, Region | Class) and form != Word("argmax"):
            raise TargetError(
                f"target {self.target!r} of several outputs",
                mend="Use a class, argmax, sum[...] or mean[...]",
            )
        if len({y.dtype for y in ys}) > 1:
            what = f"the outputs {self.output!r} have different element types"
            raise TargetError(what, mend="explain one of them at a time")
        parts = [self._of_one(b, form, y, taken) for y in ys]
        if joined == "+":
            return Number(
                None, None, lambda rows: _sum([p.rows([y]) for p, y in zip(parts, rows, strict=True)]), ys
            )
        return _each(parts, ys)

    def _of_one(self, b: Builder, form: Form, y: Value, taken: Set[str]) -> Number:
        if isinstance(form, Region):
            return Number(None, None, lambda rows: form.of(rows[0]), [y])
        if form == Word("weights"):
            name = contract.free(contract.TARGET_WEIGHTS, taken)
            weights = emit1(Hold(), new_input(name, y.type, "target weights", builder=b))
            whole = Region(self.target)
            return Number(None, None, lambda rows: whole.of(rows[0] * weights), [y])
        _check_classes(y, self.target)
        index, count = self._index(b, form, _flat(y), taken)
        return Number(index, count, lambda rows: _pick(_flat(rows[0]), index), [y])

    def _index(self, b: Builder, form: Form, y: Value, taken: Set[str]) -> tuple[Value, int | None]:
        """The explained classes, [N] or [N, K], and K when there are several for each sample."""
        rows, classes = y.shape
        if isinstance(form, Class):
            return emit1(Full(float(form.of(classes)), DType.I64, (rows,))), None
        if isinstance(form, Classes):
            chosen = [c.of(classes) for c in form.classes]
            return emit1(Expand((rows, len(chosen))), constant([chosen], DType.I64)), len(chosen)
        if isinstance(form, Top):
            k = form.count
            if k < 1 or (isinstance(classes, int) and k > classes):
                has = f"the output has {classes} classes"
                raise TargetError(f"target {self.target!r}: {has}", mend=f"Use top-1 to top-{classes}")
            return emit1(Hold(), emit1(TopKIndices(1, k), y)), k
        if form == Word("input"):
            name = contract.free(contract.TARGET, taken)
            return new_input(name, TensorType(DType.I64, (N,)), "target", builder=b), None
        if form == Word("all"):
            if not isinstance(classes, int):
                what = f"target=all needs a fixed number of classes, not {classes}"
                raise TargetError(what, mend="use top-K, or a list of classes")
            return _numbered(rows, classes), classes
        return emit1(Hold(), reshape(emit1(ArgMax((1,), keepdims=False), y), (rows,))), None


@dataclass(frozen=True)
class Number:
    """What is explained of each sample.

    `index`: the explained classes, [N] or [N, K].  `count`: K, where each sample is repeated for it.  `rows`:
    the explained number of each row, from the explained outputs with as many rows.  `ys`: these, of N rows.
    """

    index: Value | None
    count: int | None
    rows: Callable[[Sequence[Value]], Value]
    ys: Sequence[Value]

    def values(self) -> Value:
        """The explained numbers, [N] or [N, K]."""
        if self.count is None:
            return self.rows(self.ys)
        assert self.index is not None
        return emit1(GatherElements(1), self.numbers(self.ys), self.index)

    def numbers(self, rows: Sequence[Value]) -> Value:
        """All that may be explained of a row."""
        return _flat(rows[0])


@dataclass(frozen=True)
class Each(Number):
    """One number of each of several outputs."""

    parts: Sequence[Number] = ()

    def values(self) -> Value:
        return _columns([p.values() for p in self.parts])


def _each(parts: Sequence[Number], ys: Sequence[Value]) -> Number:
    count, rows = len(parts), ys[0].shape[0]
    every = _numbered(rows, count)

    def number(repeated: Sequence[Value]) -> Value:
        found = []
        for part, y in zip(parts, repeated, strict=True):
            if part.index is None:
                found.append(part.rows([y]))
            else:
                # the sample's class for each of its rows
                column = reshape(part.index, (rows, 1))
                found.append(_pick(_flat(y), emit1(Expand((rows, count)), column), part.index))
        return _pick(_columns(found), every)

    indices = [p.index for p in parts if p.index is not None]
    return Each(_columns(indices) if len(indices) == count else None, count, number, ys, parts)


def _pick(rows: Value, index: Value, of: Value | None = None) -> Value:
    """The explained class of each row; `of` is what `index` repeats, if anything."""
    count = rows.shape[0]
    op = (of or index).node.op
    if isinstance(op, Full):
        at = int(op.value)
        return reshape(emit1(Slice((1,), (at,), (at + 1,), (1,)), rows), (count,))
    # held: the rows of the joint batch repeat it as they repeat the samples
    column = emit1(Hold(), reshape(index, (count, 1)))
    return reshape(emit1(GatherElements(1), rows, column), (count,))


def _numbered(rows: Dim, count: int) -> Value:
    """0 ... count - 1 for each row: [rows, count]."""
    return emit1(Expand((rows, count)), constant([list(range(count))], DType.I64))


def _columns(values: Sequence[Value]) -> Value:
    return concat([reshape(v, (v.shape[0], 1)) for v in values], 1)


def _sum(values: Sequence[Value]) -> Value:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _sources(graph: Graph, explained: Sequence[Output], wrt: Sequence[str]) -> list[Attributed]:
    """What the explained outputs are attributed to: all that one of them depends on."""
    if len(explained) == 1:
        return find_sources(graph, explained[0], wrt)
    found: dict[Value, Attributed] = {}
    failed: list[TargetError] = []
    for output in explained:
        try:
            found.update((s.value, s) for s in find_sources(graph, output, wrt))
        except TargetError as error:
            failed.append(error)
    if not found:
        raise failed[0]
    place = {v: i for i, v in enumerate(graph.values())}
    return sorted(found.values(), key=lambda s: place[s.value])


def _float(graph: Graph, outputs: Mapping[str, Output], name: str) -> Output:
    """The float output called `name`, or the interior tensor."""
    if name in outputs and is_float(outputs[name].value):
        return outputs[name]
    if name in outputs and (scores := _scores(outputs[name])) is not None:
        return scores
    if name in outputs:
        value = outputs[name].value
        raise TargetError(
            f"output {name!r} is {value.type}: it moves in steps, so that nothing adds up to a change of it",
            mend=behind_nms(value) or "Explain a float tensor that it is computed from",
        )
    wanted = dict(graph.source.aliases).get(name, name)
    for value in graph.values():
        if value.name == wanted and is_float(value) and not value.node.op.is_input:
            return Output(name, value)
    floats = {o.name for o in outputs.values() if is_float(o.value)}
    raise TargetError(f"the model has no float output {name!r}", mend=near(name, floats))


def _scores(output: Output) -> Output | None:
    """The float tensor behind an output that is a sequence of maps; it goes by its own name."""
    scores = behind_map(output.value)
    if scores is None or not is_float(scores):
        return None
    return Output(scores.name or f"{output.name}_scores", scores)


def _unrounded(output: Output) -> Output:
    """The number itself, before half precision rounds it."""
    value = output.value
    if isinstance(value.node.op, Cast) and value.dtype.bytes < 4:
        return replace(output, value=value.node.operands[0])
    return output


def _batch_first(y: Value) -> Value:
    """The output as [N, ...], wherever its batch is."""
    return to_front(y, batch_from_shape(y.shape) or 0)


def _flat(y: Value) -> Value:
    """The output as [N, classes]."""
    count = product(y.shape[1:])
    return reshape(y, (y.shape[0], count))


def _check_batch(graph: Graph, explained: Output) -> None:
    shape = getattr(explained.value.type, "shape", None)
    counting = [i for i, d in enumerate(shape or ()) if N in symbols_of([d])]
    if shape is not None and len(counting) == 1 and shape[counting[0]] == N:
        return
    what = f"output {explained.name!r} is {explained.value.type}: its first axis doesn't count samples"
    if shape is None:
        what = f"the rank of output {explained.name!r} is unknown"
    lost = _loses_batch(graph, explained.value)
    mend = "Export the model with a dynamic batch axis, or with a batch of 1"
    if lost is not None and not lost.op.modeled:
        what += f". {lost.label} loses the batch: {why(lost)}"
        mend = "Explain a tensor before that op (output)"
    elif graph.source.batch:
        what += f". Its batch is as the model has it, because {graph.source.batch}"
    mend += "; where the model's whole input is one sample, say so (batch=none)"
    raise TargetError(what, mend=behind_nms(explained.value) or mend)


def _loses_batch(graph: Graph, value: Value) -> Node | None:
    """The first op on the way to `value` that has samples on an axis of an operand, and of no result."""
    above = upstream([value])
    nodes = (n for n in graph.nodes if any(v in above for v in n.results))
    return next((n for n in nodes if _counts(n.operands) and not _counts(n.results)), None)


def _counts(values: Sequence[Value]) -> bool:
    """Whether one of these tensors has samples on an axis."""
    return any(N in symbols_of(getattr(v.type, "shape", None) or ()) for v in values)


def _check_classes(y: Value, target: str) -> None:
    if open_sizes := sorted(map(str, symbols_of(y.shape[1:]))):
        sizes = ", ".join(f"{name}=..." for name in open_sizes)
        raise TargetError(
            f"output {y.name!r} is {y.type}: the number of classes is only known at run time",
            mend=f"Explain a sum (sum[...]) or weights instead of target={target}, or give dims: {sizes}",
        )


def _repeated(b: Builder, graph: Graph, until: Sequence[Value], classes: int) -> dict[Value, Value]:
    """The forward part up to `until` once more, with each sample repeated for each of its classes."""

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
        if not node.op.is_input:
            return None
        (original,), (kind,) = b.copy(node, {}), node.types
        axis = batch_from_shape(kind.shape or ()) if isinstance(kind, TensorType) else None
        return (original if axis is None else emit1(RepeatRows(axis, classes), original),)

    nodes = (*(v.node for v in graph.inputs), *live(graph.nodes, until))
    return b.extend(nodes, {}, visit, binding={N: as_dim(N * classes)})

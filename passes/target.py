"""target: what is explained, and with respect to what."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

from irshap import contract
from irshap.attribution.outputs import own_names
from irshap.attribution.side_paths import with_side_paths_held
from irshap.attribution.sources import find_sources, names_in, with_held, with_taps
from irshap.errors import TargetError, near
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, Output, Role, Value
from irshap.ir.dims import N, as_dim, product, symbols_of
from irshap.ir.types import DType, TensorType
from irshap.ir.walks import is_float, live
from irshap.ops.cast import Cast
from irshap.ops.index import ArgMax, GatherElements, TopKIndices
from irshap.ops.program import Full, Hold, Input, constant
from irshap.ops.reduce import Expand
from irshap.ops.rows import RepeatRows
from irshap.ops.shape import Slice, reshape
from irshap.pipeline.base import Context, Pass, Semantics, graph_property

__all__ = ["Target"]


@graph_property("target")
def _has_target(graph: Graph) -> str | None:
    if not graph.outputs_of(Role.TARGET) or not graph.outputs_of(Role.SOURCE):
        return "it has no target or no source"
    return None


@dataclass(frozen=True)
class Target(Pass):
    """Appends the explained number of each sample, and names the tensors that it is attributed to.

    `target`: "argmax" (the class that the model predicts), a class index, "top-K", "all", or "input" (the
    lowered model gets an int64 input `target` [N]).  With K classes at once every sample is repeated K
    times, so that all later passes see one class for each row.
    `output`: the explained output, default the model's first float output.
    `wrt`: the tensors attributed, comma-separated, default every float input and every embedding lookup of an
    integer input.  Several are one cut: what goes through a later one counts there, not for an earlier one.
    `context`: inputs and interior tensors, comma-separated, that keep the sample's value in both worlds.
    "auto" among them, which is the default, are the integers and truth values that follow from an integer
    input past its embedding lookups: masks of padding, positions counted from them.  "none" holds nothing.
    """

    target: str = "argmax"
    output: str = ""
    wrt: str = ""
    context: str = "auto"
    name = "target"
    semantics = Semantics.EXTENDS
    ensures = frozenset({"target"})

    def run(self, ir: Graph, context: Context) -> Graph:
        names = names_in(self.context)
        ir = with_held(ir, [name for name in names if name not in ("auto", "none")])
        explained = self._explained(ir)
        _check_batch(ir, explained)
        sources = find_sources(ir, explained, names_in(self.wrt))
        if "auto" in names:
            ir, sources, held = with_side_paths_held(ir, sources, explained.value)
            if held:
                context.metadata[contract.Metadata.HELD] = "; ".join(path.text for path in held)
                context.count("held", len(held))
        ir, sources = with_taps(ir, sources)
        explained = self._explained(ir)
        with Builder() as b:
            mapping = b.graft(ir)
            y = _flat(mapping[explained.value])
            index, classes = self._index(b, y, own_names(ir))
            if classes is None:
                rows, forward = y, mapping
            else:
                forward = _repeated(b, ir, explained.value, classes)
                rows = _flat(forward[explained.value])
            target = self._pick(rows, index)
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            taken = {o.name for o in outputs}
            for s in sources:
                name = contract.free(f"{s.name}_source" if s.name in taken else s.name, taken)
                outputs.append(Output(name, forward[s.value], Role.SOURCE, s.of))
            outputs.append(Output(contract.free("target_value", taken), target, Role.TARGET))
            name = contract.free(contract.TARGET_INDEX, own_names(ir))
            outputs.append(Output(name, index, Role.TARGET_INDEX))
            return b.build(ir.name, outputs, ir.properties, like=ir)

    def _explained(self, graph: Graph) -> Output:
        candidates = {o.name: o for o in graph.outputs_of(Role.MODEL) if is_float(o.value)}
        if self.output and self.output not in candidates:
            raise TargetError(
                f"the model has no float output {self.output!r}", mend=near(self.output, candidates)
            )
        if not candidates:
            raise TargetError("the model has no float output to explain")
        found = candidates[self.output] if self.output else next(iter(candidates.values()))
        if isinstance(found.value.node.op, Cast) and found.value.dtype.bytes < 4:
            # the number itself, before half precision rounds it
            return replace(found, value=found.value.node.operands[0])
        return found

    def _index(self, b: Builder, y: Value, taken: Set[str]) -> tuple[Value, int | None]:
        """The explained classes, [N] or [N, K], and K when there are several for each sample."""
        rows, classes = y.shape
        if self.target == "argmax":
            return emit1(Hold(), reshape(emit1(ArgMax((1,), keepdims=False), y), (rows,))), None
        if self.target == "input":
            op = Input(contract.free(contract.TARGET, taken), "target")
            return b.emit(op, types=(TensorType(DType.I64, (N,)),), names=(op.name,))[0], None
        if self.target == "all":
            if not isinstance(classes, int):
                raise TargetError(f"target=all needs a fixed number of classes, not {classes}")
            every = constant([list(range(classes))], DType.I64)
            return emit1(Expand((rows, classes)), every), classes
        if self.target.startswith("top-") and self.target[4:].isdecimal():
            k = int(self.target[4:])
            if k < 1 or (isinstance(classes, int) and k > classes):
                raise TargetError(f"target {self.target!r}: the output has {classes} classes")
            return emit1(Hold(), emit1(TopKIndices(1, k), y)), k
        if self.target.lstrip("-").isdecimal():
            index = int(self.target)
            if isinstance(classes, int):
                if not -classes <= index < classes:
                    raise TargetError(
                        f"target {index}: the output has {classes} classes", mend=f"Use 0 to {classes - 1}"
                    )
                index %= classes
            return emit1(Full(float(index), DType.I64, (rows,))), None
        kinds = ["argmax", "all", "input", "top-5"]
        raise TargetError(
            f"unknown target {self.target!r}",
            mend=f"Use a class index, argmax, top-K, all or input; {near(self.target, kinds)}",
        )

    def _pick(self, rows: Value, index: Value) -> Value:
        """The explained class of each row."""
        count = rows.shape[0]
        op = index.node.op
        if isinstance(op, Full):
            at = int(op.value)
            return reshape(emit1(Slice((1,), (at,), (at + 1,), (1,)), rows), (count,))
        # held: the rows of the joint batch repeat it as they repeat the samples
        column = emit1(Hold(), reshape(index, (count, 1)))
        return reshape(emit1(GatherElements(1), rows, column), (count,))


def _flat(y: Value) -> Value:
    """The output as [N, classes]."""
    count = product(y.shape[1:])
    return reshape(y, (y.shape[0], count))


def _check_batch(graph: Graph, explained: Output) -> None:
    shape = getattr(explained.value.type, "shape", None)
    if shape is None:
        raise TargetError(f"the rank of output {explained.name!r} is unknown")
    if not shape or shape[0] != N:
        what = f"output {explained.name!r} is {explained.value.type}: its first axis doesn't count samples"
        if graph.source.batch:
            what += f". Its batch is as the model has it, because {graph.source.batch}"
        raise TargetError(what, mend="Export the model with a dynamic batch axis, or with a batch of 1")
    rest = symbols_of(shape[1:])
    if rest:
        raise TargetError(
            f"output {explained.name!r} is {explained.value.type}: "
            "the number of classes is only known at run time"
        )


def _repeated(b: Builder, graph: Graph, until: Value, classes: int) -> dict[Value, Value]:
    """The forward part up to `until` once more, with each sample repeated for each of its classes."""

    def visit(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value] | None:
        if not node.op.is_input:
            return None
        (original,), (kind,) = b.copy(node, {}), node.types
        batched = isinstance(kind, TensorType) and kind.shape and N in symbols_of(kind.dims[:1])
        return (emit1(RepeatRows(0, classes), original) if batched else original,)

    nodes = (*(v.node for v in graph.inputs), *live(graph.nodes, [until]))
    return b.extend(nodes, {}, visit, binding={N: as_dim(N * classes)})

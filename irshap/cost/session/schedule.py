"""What ONNX Runtime runs: the ONNX nodes of a lowered graph in its order of execution, with sizes in N and R.

The order isn't the file's.  ONNX Runtime walks back depth-first from the nodes that nothing reads, and visits
the operand whose node stands latest in the file first (graph_viewer.cc, execution order DEFAULT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import onnx

from irshap.cost.formula import total
from irshap.cost.nodes import fixed_values
from irshap.cost.session.blocked import in_blocks
from irshap.cost.session.steps import Schedule, Slot, Step, order
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, as_dim, product, symbols_of
from irshap.ir.types import TensorType
from irshap.lowering.emission import emit_nodes
from irshap.lowering.emitter import Emission
from irshap.ops.conv import ConvTranspose
from irshap.ops.families import Elementwise
from irshap.ops.program import Input
from irshap.ops.scan import Scan

__all__ = ["IN_PLACE", "VIEWS", "schedule"]

VIEWS = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"})
"""Kernels whose result is their first operand's buffer."""

IN_PLACE = frozenset(
    {"Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "HardSigmoid", "LeakyRelu", "Log", "Mul", "Neg"}
    | {"Reciprocal", "Relu", "ScatterElements", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh"}
)  # fmt: skip
"""Kernels that may write over an operand that nobody reads again."""

ACTIVATIONS = frozenset({"HardSigmoid", "LeakyRelu", "Relu", "Sigmoid", "Tanh"})
"""What ONNX Runtime fuses into a product before it."""

SHAPED = frozenset({"ConstantOfShape", "Expand", "Pad", "Range", "Reshape", "Slice", "Split", "Tile"})
"""Ops whose result's shape ONNX Runtime can't tell beforehand when it has a symbol in it."""


def schedule(graph: Graph, *, stored: bool = False) -> Schedule:
    """The schedule of the model that `graph` lowers to.

    Args:
        stored: whether what follows from the references alone is computed while compiling; otherwise the
            references are constants of the file, where they aren't bound yet.
    """
    return _Scheduler(graph, stored).run()


class _Scheduler:
    def __init__(self, graph: Graph, stored: bool) -> None:
        self.graph = graph
        self.fixed = fixed_values(graph, references=True)
        self.stored = stored
        self.slots: list[Slot] = []
        self.index: dict[str, int] = {}

    def run(self) -> Schedule:
        for value in self.graph.inputs:
            constant = isinstance(value.node.op, Input) and value.node.op.kind in ("references", "weights")
            self._slot(str(value.name), value, constant=constant, outside=not constant)
        given = [i for i, slot in enumerate(self.slots) if slot.constant]
        return self._emitted(emit_nodes(self.graph), given, self.stored)

    def _body(self, emission: Emission, scan: Scan) -> Schedule:
        """The slots of a loop's inputs are new; what it captures has one already."""
        first = len(self.slots)
        for value in scan.body.inputs[: scan.carried + scan.scanned]:
            self._slot(emission.names[value], value, outside=True)
        body = replace(self._emitted(emission, [], False), first=first)
        return replace(body, captured=_captured(body))

    def _emitted(self, emission: Emission, given: list[int], stored: bool) -> Schedule:
        emitter = emission.emitter
        published = {o.name for o in emission.outputs}
        first = len(self.slots)
        for name, array in emitter.initializers.values():
            self._add(Slot(name, np.asarray(array).nbytes, None, constant=True))
        constants = [*given, *range(first, len(self.slots))]
        by_name = {name: value for value, name in emission.names.items()}
        owners = _owners(emission)
        steps: list[Step] = []
        loaded: list[Step] = []
        known_steps: dict[tuple[object, ...], tuple[int, ...]] = {}
        for position, proto in enumerate(emitter.nodes):
            key = self._key(proto)
            if key in known_steps:
                # ONNX Runtime computes equal nodes once, and keeps the result for all readers
                self.index.update(zip(proto.output, known_steps[key], strict=True))
                continue
            node = owners[position]
            body = None
            operands = tuple(self.index[n] for n in proto.input if n)
            if proto.name in emitter.bodies and node is not None and isinstance(node.op, Scan):
                body = self._body(emitter.bodies[proto.name], node.op)
                operands += body.captured
            load = node is not None and all(v in self.fixed for v in node.results)
            load = load or all(self.slots[i].constant for i in operands)
            known = all(self.slots[i].constant or self.slots[i].shape is not None for i in operands)
            results = tuple(
                self._result(name, i, proto, node, by_name.get(name), known, load, name in published)
                for i, name in enumerate(proto.output)
                if name
            )
            if not any(self.slots[i].outside for i in results):
                known_steps[key] = results
            scratch = _scratch(proto.op_type, len(proto.input), node, [self.slots[i].size for i in results])
            (loaded if load else steps).append(Step(proto.op_type, operands, results, node, scratch, body))
        read = {i for step in steps for i in step.operands}
        if stored:
            computed, loaded = loaded, _widened(loaded, {*given}, read)
            constants += [i for step in computed if step not in loaded for i in step.results]
            read |= {i for step in loaded for i in step.operands}
        constants = [i for i in dict.fromkeys(constants) if not stored or i in read]
        steps = in_blocks(_fused(steps, self.slots), self.slots)
        return Schedule(self.slots, order(steps), loaded, constants)

    def _key(self, proto: Any) -> tuple[object, ...]:
        attributes = sorted(a.SerializeToString(deterministic=True) for a in proto.attribute)
        operands = tuple(self.index[n] if n else -1 for n in proto.input)
        return (proto.op_type, proto.domain, operands, *attributes, *map(bool, proto.output))

    def _slot(self, name: str, value: Value, *, constant: bool = False, outside: bool = False) -> int:
        kind = value.type
        if not isinstance(kind, TensorType) or kind.shape is None:
            return self._add(Slot(name, 0, None, constant, outside))
        shape = (kind.dtype.bytes, *kind.shape)
        return self._add(Slot(name, kind.nbytes, shape, constant, outside, kind.dims))

    def _add(self, slot: Slot) -> int:
        self.index[slot.name] = len(self.slots)
        self.slots.append(slot)
        return self.index[slot.name]

    def _result(
        self,
        name: str,
        i: int,
        proto: Any,
        node: Node | None,
        value: Value | None,
        known: bool,
        load: bool,
        outside: bool,
    ) -> int:
        if value is not None and isinstance(value.type, TensorType) and value.type.shape is not None:
            dims, width = value.type.dims, value.type.dtype.bytes
        elif node is None or name.startswith("shape_") or not isinstance(node.types[0], TensorType):
            dims, width = (1,), 8  # arithmetic on shapes
        else:
            # what an exporter puts between: as large as the result that it leads to, and of its shape
            # where that is one number for each
            first = node.types[0]
            dims = (product(first.dims),) if first.shape is not None else (0,)
            if first.shape is not None and isinstance(node.op, Elementwise):
                dims = first.dims
            width = _fixed_width(proto, i) or first.dtype.bytes
            if proto.op_type in VIEWS:
                dims, width = (self.slots[self.index[proto.input[0]]].size,), 1
        if proto.op_type in SHAPED and symbols_of(dims):
            known = False
        shape = (width, *dims) if known else None
        size = as_dim(product(dims) * width)
        return self._add(Slot(name, size, shape, load, outside, dims))


def _fixed_width(proto: Any, i: int) -> int | None:
    """The bytes of an element of a node's i-th result where its op says so, as of positions; else None."""
    if not onnx.defs.has(proto.op_type, proto.domain):
        return None
    outputs = onnx.defs.get_schema(proto.op_type, domain=proto.domain).outputs
    return 8 if outputs[min(i, len(outputs) - 1)].types == {"tensor(int64)"} else None


def _owners(emission: Emission) -> list[Node | None]:
    """The IR node that each ONNX node stems from."""
    owners: list[Node | None] = [None] * len(emission.emitter.nodes)
    for (node, start), (_, end) in pairwise([*emission.starts, (None, len(owners))]):
        owners[start:end] = [node] * (end - start)
    return owners


def _captured(body: Schedule) -> tuple[int, ...]:
    """What a body reads of the schedule around it."""
    inner = [s for schedule in body.walk() for s in (*schedule.steps, *schedule.loaded)]
    return tuple(dict.fromkeys(i for step in inner for i in step.operands if i < body.first))


def _scratch(kind: str, operands: int, node: Node | None, results: list[Dim]) -> Dim:
    """What a kernel of the CPU provider allocates and frees while it runs (measured with its profiler)."""
    if kind == "ConvTranspose" and node is not None and isinstance(node.op, ConvTranspose):
        # columns of one image and group: weights times the spatial size of the operand
        x, w = node.operands[0].tensor, node.operands[1].tensor
        return as_dim(product(w.dims[1:]) * product(x.dims[2:]) * x.dtype.bytes)
    if kind == "Where" or (kind in ("LogSoftmax", "Softmax") and _inner_axis(node)):
        return as_dim(2 * results[0])
    if kind in ("Max", "Min", "Sum", "Mean") and operands > 2:
        return results[0]
    if kind == "Scan":
        # the carried values of this trip and of the one before
        return total([*results, *results])
    return 0


def _widened(computed: Sequence[Step], given: set[int], read: set[int]) -> list[Step]:
    """Of the steps behind what is stored, those that a load runs: positions stand in the file in 32 bits."""
    found: list[Step] = []
    made: set[int] = set()
    for step in computed:
        if made.intersection(step.operands) or (step.kind == "Cast" and given.issuperset(step.operands)):
            found.append(step)
            made.update(step.results)
    wanted = set(read)
    for step in reversed(found):
        if wanted.intersection(step.results):
            wanted.update(step.operands)
    return [step for step in found if wanted.intersection(step.results)]


def _inner_axis(node: Node | None) -> bool:
    """Whether an op works along an axis that isn't the last, for which kernels transpose there and back."""
    axis = getattr(node.op, "axis", -1) if node is not None else -1
    return axis != -1 and node is not None and axis != node.operands[0].rank - 1


def _fused(steps: list[Step], slots: list[Slot]) -> list[Step]:
    """An activation that alone reads a product joins its node, which then stands last in the graph."""
    readers: dict[int, list[int]] = {}
    for i, step in enumerate(steps):
        for slot in step.operands:
            readers.setdefault(slot, []).append(i)
    gone: set[int] = set()
    made: list[Step] = []
    for i, step in enumerate(steps):
        if step.kind not in ("Conv", "Gemm") or slots[step.results[0]].outside:
            continue
        following = readers.get(step.results[0], [])
        if len(following) == 1 and steps[following[0]].kind in ACTIVATIONS:
            gone |= {i, following[0]}
            made.append(replace(step, kind=f"Fused{step.kind}", results=steps[following[0]].results))
    return [step for i, step in enumerate(steps) if i not in gone] + made

"""What follows from the references and the weights alone, and its values."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate

import numpy as np
import sympy

from irshap.errors import IRError, ReferencesError, UserError
from irshap.ir.builder import Builder
from irshap.ir.core import Graph, Node, Output, Value
from irshap.ir.dims import Dim, symbols_of
from irshap.ir.evaluator import evaluate
from irshap.ir.types import Array, DType, TensorType
from irshap.ir.walks import determined, is_float, live
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.lowering.lower import lowered

__all__ = ["FixedProgram", "check_size", "fixed_values", "read_by_others"]

_LINE = 64
"""Bytes of a line of a cache."""

_CHEAP = 4096
"""Values of up to this many bytes are not worth counting against a limit."""


def fixed_values(graph: Graph, given: Collection[Value], binding: Mapping[sympy.Expr, Dim]) -> set[Value]:
    """The values that follow from constants and the given inputs, and from no size but those in `binding`."""

    def known(node: Node) -> bool:
        static = all(_is_static(t.substitute(binding)) for t in node.types)
        return static and node.op.modeled and node.op.symbols <= binding.keys()

    return determined(graph.nodes, given, known)


def _is_static(type: object) -> bool:
    return isinstance(type, TensorType) and type.shape is not None and not symbols_of(type.shape)


def read_by_others(graph: Graph, fixed: Collection[Value]) -> Iterator[Value]:
    """The fixed values that a node which isn't fixed, or an output, reads; some of them repeatedly."""
    for node in graph.nodes:
        if node.results[0] not in fixed:
            yield from (v for v in node.operands if v in fixed)
    yield from (o.value for o in graph.outputs if o.value in fixed)


def check_size(name: str, types: Iterable[TensorType], limit: int) -> None:
    """Refuses to store tensors that take more than `limit` bytes; nothing is computed for it."""
    sizes = [int(t.nbytes) for t in types]
    total = sum(size for size in sizes if size > _CHEAP)
    if total > limit:
        raise UserError(
            f"the references' activations take {total / 2**30:.1f} GiB, over the limit of "
            f"{limit / 2**30:.1f} GiB",
            mend=f"Use fewer references, or {name}{{limit=BYTES}}",
        )


class FixedProgram:
    """The part of a graph that gives `wanted`, fixed values, for as many references as `binding` says.

    ONNX Runtime computes it, as it will run the model.  What that refuses goes to the evaluator: it has no
    kernel for float64 convolutions, and its fusion of Relu with Clip throws in float64.
    """

    def __init__(self, graph: Graph, wanted: Sequence[Value], binding: Mapping[sympy.Expr, Dim]) -> None:
        needed = live(graph.statements, wanted)
        with Builder() as b:
            mapping = b.extend(needed, {}, binding=binding)
            outputs = [Output(f"fixed_{i}", mapping[v]) for i, v in enumerate(wanted)]
            self._graph = b.build("references", outputs)
        self._session: Session | None = None
        if wanted:
            # optimized as any model: references round as samples do, and turn no other relu gate over;
            # but in float64 some kernels of ONNX Runtime's own have float32 inside
            fuse = not any(is_float(v) and v.dtype is DType.F64 for v in self._graph.values())
            with suppress(RuntimeRefusal):
                self._session = Session(lowered(self._graph), threads=0, fuse=fuse)

    def __call__(self, given: Mapping[Value, Array]) -> list[Array]:
        """The values of `wanted`, from those of the graph's inputs for references and weights.

        Raises:
            ReferencesError: the model fails on them.
        """
        named = {str(v.name): a for v, a in given.items()}
        feeds = {str(v.name): named[str(v.name)] for v in self._graph.inputs}
        if self._session is not None:
            try:
                types = [o.value.tensor for o in self._graph.outputs]
                if any(t.dtype is DType.STR for t in types):
                    return self._session.run(feeds)  # texts have no place to be written into
                found = _rooms(types)
                self._session.run_into(feeds, found)
                return found
            except RuntimeRefusal:
                self.close()
                return self._evaluated(feeds)
        return list(evaluate(self._graph, feeds).values())

    def close(self) -> None:
        """Gives back the memory that ONNX Runtime takes."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _evaluated(self, feeds: Mapping[str, Array]) -> list[Array]:
        """By the evaluator, where ONNX Runtime fails; where both do, these references are at fault."""
        try:
            return list(evaluate(self._graph, feeds).values())
        except IRError as error:
            what = f"the model can't be computed on the references: {error.what}"
            mend = "are they in the range that the model takes (token ids, say)?"
            raise ReferencesError(what, where=error.where, mend=mend) from error


def _rooms(types: Sequence[TensorType]) -> list[Array]:
    """Arrays to write into, one behind another: malloc gives back a large block, unlike many smaller ones."""
    starts = list(accumulate((_aligned(int(t.nbytes)) for t in types), initial=0))
    block = np.empty(starts[-1], np.uint8)
    return [
        block[start : start + int(t.nbytes)].view(t.dtype.numpy).reshape([int(d) for d in t.dims])
        for start, t in zip(starts, types, strict=False)
    ]


def _aligned(size: int) -> int:
    return -(-size // _LINE) * _LINE

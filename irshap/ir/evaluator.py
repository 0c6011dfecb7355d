"""Runs a graph in numpy: slow, plain, and the oracle of everything that claims to compute the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping

import numpy as np
import sympy

from irshap.errors import IRError, IrshapError, UserError
from irshap.ir.core import Graph, Node, Value
from irshap.ir.dims import Dim, dim_text, substitute
from irshap.ir.types import Array, DType, TensorType
from irshap.ir.walks import live

__all__ = ["bind_symbols", "evaluate", "evaluate_values"]

Binding = dict[sympy.Expr, Dim]


def evaluate(
    graph: Graph, inputs: Mapping[str, Array], *, keep: MutableMapping[Value, Array] | None = None
) -> dict[str, Array]:
    """The outputs of `graph` by name.

    Args:
        inputs: an array for each input of the graph; others are ignored.
        keep: filled with the array of every value; without it an array is freed after its last use.

    Raises:
        UserError: an input is missing or doesn't fit its declared type.
        IRError: a node can't be evaluated; names it.
    """
    binding = bind_symbols(graph, inputs)
    known = {v: np.asarray(inputs[_name(v)]) for v in graph.inputs}
    wanted = [o.value for o in graph.outputs]
    arrays = evaluate_values(graph.nodes, known, wanted, binding, keep=keep)
    return {o.name: arrays[o.value] for o in graph.outputs}


def _name(value: Value) -> str:
    return str(getattr(value.node.op, "name", value.name))


def bind_symbols(graph: Graph, inputs: Mapping[str, Array]) -> Binding:
    """The dimension symbols' values, from the shapes of the inputs.

    Raises:
        UserError: an input is missing, or has another dtype, rank or shape than declared.
    """
    binding: Binding = {}
    bound_by: dict[sympy.Expr, str] = {}
    later: list[tuple[str, int, Dim, int]] = []
    for value in graph.inputs:
        name, kind = _name(value), value.type
        where = f"input {name!r}"
        if name not in inputs:
            given = ", ".join(map(repr, inputs)) or "none"
            raise UserError("it is missing", where=where, mend=f"given: {given}")
        if not isinstance(kind, TensorType):
            continue
        shape = _checked_shape(np.asarray(inputs[name]), kind, where)
        for axis, (dim, size) in enumerate(zip(kind.shape or (), shape, strict=kind.shape is not None)):
            if not isinstance(dim, int) and dim.is_Symbol and dim not in binding:
                if size == 0:
                    raise UserError(
                        f"axis {axis} ({dim_text(dim)}) is empty", where=where, mend="give a row or more"
                    )
                binding[dim], bound_by[dim] = size, name
            else:
                later.append((name, axis, dim, size))
    for name, axis, dim, size in later:
        expected = substitute(dim, binding)
        if isinstance(expected, int) and expected == size:
            continue
        if not isinstance(expected, int):
            raise UserError(
                f"can't tell the symbols of axis {axis} ({dim_text(dim)}) from its {size} elements",
                where=f"input {name!r}",
                mend="each symbol needs an input that has it alone on an axis",
            )
        source = "" if isinstance(dim, int) else f" = {dim_text(dim)}"
        if not isinstance(dim, int) and dim in bound_by:
            source += f", as input {bound_by[dim]!r} has it"
        raise UserError(f"axis {axis} has {size} elements, not {expected}{source}", where=f"input {name!r}")
    return binding


def _checked_shape(array: Array, kind: TensorType, where: str) -> tuple[int, ...]:
    try:
        dtype = DType.of(array)
    except KeyError:
        raise UserError(f"arrays of {array.dtype} are not supported, it takes {kind}", where=where) from None
    if dtype is not kind.dtype:
        raise UserError(
            f"has element type {dtype.value}, the graph takes {kind}",
            where=where,
            mend=f"convert it with .astype({kind.dtype.numpy.name!r})",
        )
    if kind.shape is not None and array.ndim != len(kind.shape):
        raise UserError(f"has shape {array.shape}, the graph takes {kind}", where=where)
    return tuple(array.shape)


def evaluate_values(
    nodes: Iterable[Node],
    known: Mapping[Value, Array],
    wanted: Iterable[Value],
    binding: Mapping[sympy.Expr, Dim] | None = None,
    *,
    keep: MutableMapping[Value, Array] | None = None,
) -> dict[Value, Array]:
    """The arrays of `wanted`; runs only the nodes that they need.

    Args:
        nodes: in topological order, as a graph has them.
        known: arrays that are already there, such as those of inputs.
        binding: values of the dimension symbols.
        keep: filled with the array of every value that was known or computed.

    Raises:
        IRError: a node can't be evaluated, or gives another type than declared.
    """
    wanted = tuple(wanted)
    needed = live(nodes, wanted, known)
    uses = Counter(v for node in needed for v in node.operands)
    uses.update(wanted)
    arrays = dict(known)
    bound: Binding = dict(binding or {})
    if keep is not None:
        keep.update(known)
    for node in needed:
        results = _run(node, arrays, bound)
        arrays.update(zip(node.results, results, strict=True))
        if keep is not None:
            keep.update(zip(node.results, results, strict=True))
        uses.subtract(node.operands)
        for value in (*node.operands, *node.results):
            if uses[value] <= 0:
                arrays.pop(value, None)
    missing = [v for v in wanted if v not in arrays]
    if missing:
        raise IRError(f"{missing[0]!r} depends on no node and no known array")
    return {v: arrays[v] for v in wanted}


def _run(node: Node, arrays: Mapping[Value, Array], binding: Binding) -> tuple[Array, ...]:
    for value in node.operands:
        if value not in arrays:
            raise IRError(f"its operand {value!r} has no value", where=node.label)
    try:
        results = node.op.substitute(binding).evaluate(*(arrays[v] for v in node.operands))
    except IrshapError as error:
        where = f"{node.label}: {error.where}" if error.where else node.label
        raise type(error)(error.what, where=where, mend=error.mend) from error
    except Exception as error:
        raise IRError(f"can't be evaluated: {type(error).__name__}: {error}", where=node.label) from error
    _check_results(node, results, binding)
    return results


def _check_results(node: Node, results: tuple[Array, ...], binding: Binding) -> None:
    """Results must be what the node's types say; an opaque node's types may bind symbols of their own."""
    if len(results) != len(node.types):
        raise IRError(f"gives {len(results)} results, not {len(node.types)}", where=node.label)
    for array, kind in zip(results, node.types, strict=True):
        if not isinstance(kind, TensorType):
            continue
        fits = DType.of(array) is kind.dtype and (kind.shape is None or array.ndim == len(kind.shape))
        for dim, size in zip(kind.shape or (), array.shape, strict=False) if fits else ():
            expected = substitute(dim, binding)
            if isinstance(expected, int):
                fits = fits and expected == size
            elif node.op.types_given and expected.is_Symbol:
                binding[expected] = size
        if not fits:
            raise IRError(f"gives {DType.of(array).value}{list(array.shape)}, not {kind}", where=node.label)

"""Graphs -> text: deterministic, one statement a line, exact enough to be read back."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any

import numpy as np
import sympy

from irshap.errors import IRError
from irshap.ir.core import Graph, Node, Op, Output, Value
from irshap.ir.dims import as_dim, dim_text
from irshap.ir.types import DType, Tensor, TensorType, Type
from irshap.text.dense import LIST_LIMIT, base64_text, dense_text

__all__ = ["Printer", "print_graph", "print_op", "value_names"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*")
# printable ASCII without the comma and the quote, and without a space at either end
_PLAIN_ORIGIN = re.compile(r"[!#-+\--~](?:[ !#-+\--~]*[!#-+\--~])?")


_INDENT = "  "


def print_graph(graph: Graph, *, elide: bool = False) -> str:
    """The text of `graph`.

    Args:
        elide: show large tensors by their type alone: for people; `parse_graph` refuses such text.
    """
    return Printer(graph, elide=elide).text()


def print_op(op: Op, *, elide: bool = False) -> str:
    """`mnemonic{attributes}`: the dataclass fields in order, without those that have their default."""
    listed = ", ".join(_attributes(op, elide))
    return f"{op.mnemonic}{{{listed}}}" if listed else op.mnemonic


def _attributes(record: Any, elide: bool) -> list[str]:
    result = []
    for f in fields(record):
        text = _attribute(getattr(record, f.name), elide)
        # texts are compared, because 0.0 == -0.0 and True == 1
        if text != _default(f):
            result.append(f"{f.name}={text}")
    return result


def _default(f: Field[Any]) -> str | None:
    return None if f.default is MISSING else _attribute(f.default, elide=False)


def _attribute(value: object, elide: bool) -> str:
    match value:
        case None:
            return "none"
        case bool() | np.bool_():
            return "true" if value else "false"
        case int() | np.integer():
            return str(int(value))
        case float() | np.floating():
            return repr(float(value))
        case str():
            return json.dumps(value)
        case bytes():
            return "base64 elided" if elide and len(value) > 4 * LIST_LIMIT else base64_text(value)
        case tuple():
            return f"[{', '.join(_attribute(v, elide) for v in value)}]"
        case sympy.Expr():
            return dim_text(as_dim(value))
        case DType():
            return f"!{value.value}"
        case Tensor():
            return dense_text(value, elide=elide)
        case Graph():
            return f"{{\n{textwrap.indent(print_graph(value, elide=elide), _INDENT)}}}"
        case Op():
            return f"{value.mnemonic}{{{', '.join(_attributes(value, elide))}}}"
    raise IRError(f"an attribute can't be a {type(value).__name__}: {value!r:.80}")


def value_names(graph: Graph) -> dict[Value, str]:
    """The printed name of each value, without its percent sign.

    A hint is cut down to letters, digits, `_` and `.`, and gets a suffix when it is taken; values without
    one are numbered.  An input's hint is the name of the input.
    """
    names: dict[Value, str] = {}
    taken: set[str] = set()
    tried: dict[str, int] = {}
    for value in graph.values():
        hint = getattr(value.node.op, "name", None) if value.node.op.is_input else value.name
        base = name = _sanitized(hint or "")
        if not base:
            names[value] = str(tried.setdefault("", 0))
            tried[""] += 1
            continue
        while name in taken:
            tried[base] = tried.get(base, 0) + 1
            name = f"{base}_{tried[base]}"
        taken.add(name)
        names[value] = name
    return names


def _sanitized(hint: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.]+", "_", hint)
    # digits alone are the names of values without a hint
    return f"_{name}" if name.isdigit() else name


class Printer:
    """Prints one graph, or single statements of it in the graph's own names (for messages)."""

    def __init__(
        self, graph: Graph, *, elide: bool = False, names: Mapping[Value, str] | None = None
    ) -> None:
        self._graph, self._elide = graph, elide
        self._names = value_names(graph) if names is None else names
        self._types: dict[Type, str] = {}

    def value(self, value: Value) -> str:
        """`%name`; a value that isn't in the graph is marked with a question mark."""
        return f"%{self._names[value]}" if value in self._names else f"%?{_sanitized(value.name or '')}"

    def statement(self, node: Node) -> str:
        """`%results = op(%operands) : types   // origin`."""
        results = ", ".join(map(self.value, node.results))
        operands = f"({', '.join(map(self.value, node.operands))})" if node.operands else ""
        types = ", ".join(map(self._type, node.types))
        origin = f"   // {', '.join(map(_origin, node.origin))}" if node.origin else ""
        return f"{results} = {print_op(node.op, elide=self._elide)}{operands} : {types}{origin}"

    def output(self, output: Output) -> str:
        """`output "name" {role=...} = %value`."""
        of = "" if output.of is None else f", of={json.dumps(output.of)}"
        return (
            f"output {json.dumps(output.name)} {{role={output.role.value}{of}}} = {self.value(output.value)}"
        )

    def text(self) -> str:
        """The whole graph."""
        graph = self._graph
        name = graph.name if _IDENTIFIER.fullmatch(graph.name) else json.dumps(graph.name)
        properties = f" {{{', '.join(sorted(graph.properties))}}}" if graph.properties else ""
        lines = [f"graph @{name}{properties}"]
        if source := _attributes(graph.source, self._elide):
            lines.append(f"source {{{', '.join(source)}}}")
        lines += [self.statement(v.node) for v in graph.inputs]
        lines += [self.statement(node) for node in graph.nodes]
        lines += [self.output(o) for o in graph.outputs]
        return "\n".join(lines) + "\n"

    def _type(self, kind: Type) -> str:
        text = self._types.get(kind)
        if text is None:
            if isinstance(kind, TensorType) and kind.shape is not None:
                kind_in_normal_form: Type = kind.with_shape(kind.shape)
            else:
                kind_in_normal_form = kind
            text = self._types[kind] = str(kind_in_normal_form)
        return text


def _origin(name: str) -> str:
    return name if _PLAIN_ORIGIN.fullmatch(name) else json.dumps(name)

"""Text -> graphs: a recursive descent that never evaluates text as code.

Nodes are made directly rather than through a `Builder`, which would merge statements that the text keeps
apart; types are inferred again all the same and compared with those in the text.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import numpy as np

from irshap.errors import ParseError, near
from irshap.ir.builder import inferred_types
from irshap.ir.core import Graph, Node, Op, Output, Role, Source, TypeMismatch, Value
from irshap.ir.dims import Dim, parse_dim
from irshap.ir.types import Array, DType, ForeignType, Tensor, TensorType, Type, same_type
from irshap.ops import OPS
from irshap.text.dense import array_from_base64, array_from_list, bytes_from_base64, static_shape
from irshap.text.scanner import Scanner

__all__ = ["parse_graph"]

_INTEGER = re.compile(r"-?\d{1,40}")
_FLOAT = re.compile(r"-?(?:inf|nan|\d+\.\d*(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)")
_NUMBER = re.compile(r"(-?[\d.]+(?:[eE][+-]?\d+)?)\s*(?=[,\]}])")
_OP = re.compile(r"([A-Za-z_]\w*)\s*\{")
_TENSOR_TYPE = re.compile(r"([a-z]\w*)\[([^\[\]\n]*)\]")
_FOREIGN_TYPE = re.compile(r"([a-z]\w*)<((?:[0-9a-f]{2})*)>")
_LISTED = re.compile(r"[^\[\]{}<>\"%]*")
_WORDS: dict[str, object] = {"true": True, "false": False, "none": None}
_DTYPES = {d.value: d for d in DType}
_ROLES = {r.value: r for r in Role}
_DEPTH_LIMIT = 32
_HINT_LIMIT = 200


def parse_graph(text: str) -> Graph:
    """The graph that `text` prints.

    Raises:
        ParseError: with line:column, what is wrong, and the known names near an unknown one.
    """
    return _Parser(text).graph()


class _Parser:
    def __init__(self, text: str) -> None:
        self.scan = Scanner(text)
        self.values: dict[str, Value] = {}
        self.types: dict[str, TensorType] = {}
        self.dims: dict[str, Dim] = {}
        self.depth = 0

    def graph(self, closing: str | None = None) -> Graph:
        """A whole graph, up to the end of the text or to `closing`."""
        scan = self.scan
        scan.expect("graph", "'graph @name'")
        scan.expect("@", "'@' and the graph's name")
        name = scan.string("a name") if scan.next_is('"') else scan.name("the graph's name")
        properties: list[str] = []
        if scan.next_is("{"):
            properties = [scan.name("a property") for _ in scan.separated("{", "}")]
        source = Source()
        if scan.take("source"):
            source = Source(**self.attributes(Source, "the source"))
        inputs: list[Value] = []
        nodes: list[Node] = []
        outputs: list[Output] = []
        while not (scan.at_end() if closing is None else scan.take(closing)):
            if scan.next_is("%"):
                node = self.statement()
                if node.op.is_input:
                    inputs.extend(node.results)
                else:
                    nodes.append(node)
            elif scan.take("output"):
                outputs.append(self.output())
            else:
                raise scan.expected("a statement (%name = ...) or an output")
        return Graph(name, tuple(inputs), tuple(nodes), tuple(outputs), frozenset(properties), source)

    def body(self) -> Graph:
        """`{graph @name ...}`: a graph whose values are its own."""
        outer, self.values = self.values, {}
        try:
            self.scan.expect("{")
            return self.graph("}")
        finally:
            self.values = outer

    def statement(self) -> Node:
        scan = self.scan
        names: list[str] = []
        while True:
            start = scan.skip()
            names.append(scan.value_name())
            if names[-1] in self.values or names[-1] in names[:-1]:
                raise scan.fail(f"%{names[-1]} is defined twice", at=start)
            if not scan.take(","):
                break
        scan.expect("=")
        start = scan.skip()
        op = self.op()
        operands: list[Value] = []
        if scan.next_is("("):
            operands = [self.operand() for _ in scan.separated("(", ")")]
        scan.expect(":")
        types = [self.type()]
        # on the line: a comment after the last type is the origin, not a blank
        while scan.take_on_line(","):
            types.append(self.type())
        if len(types) != len(names):
            raise scan.fail(f"{len(names)} result(s) with {len(types)} type(s)", at=start)
        self.check(op, operands, types, start)
        hints = [None if n.isdigit() else n for n in names]
        if op.is_input:
            # its name is looked up by users, so it isn't cut down to what a value may be called
            hints = [getattr(op, "name", hints[0])]
        node = Node(op, tuple(operands), tuple(types), self.origin(), tuple(hints))
        self.values.update(zip(names, node.results, strict=True))
        return node

    def check(self, op: Op, operands: list[Value], types: list[Type], at: int) -> None:
        """Types are inferred again: text can't claim what the op doesn't give."""
        if op.types_given:
            return
        listed = ", ".join(str(v.type) for v in operands)
        try:
            inferred = inferred_types(op, [v.type for v in operands])
        except TypeMismatch as error:
            raise self.scan.fail(f"{op.mnemonic}({listed}): {error}", at=at) from None
        if len(inferred) != len(types) or not all(map(same_type, types, inferred)):
            found = ", ".join(map(str, inferred))
            stated = ", ".join(map(str, types))
            raise self.scan.fail(f"{op.mnemonic}({listed}) gives {found}, not {stated}", at=at)

    def operand(self) -> Value:
        start = self.scan.skip()
        name = self.scan.value_name()
        if name not in self.values:
            raise self.scan.fail(f"%{name} is not defined above", at=start, mend=self.hint(name))
        return self.values[name]

    def hint(self, name: str) -> str | None:
        """Near names; none among very many, where the search would be slow and the list useless."""
        return near(name, self.values) if len(self.values) <= _HINT_LIMIT else None

    def origin(self) -> tuple[str, ...]:
        comment = self.scan.trailing_comment()
        if not comment:
            return ()
        start = self.scan.position - len(comment)
        result, position = [], 0
        decoder = json.JSONDecoder()
        while position < len(comment):
            if comment[position] == '"':
                try:
                    name, position = decoder.raw_decode(comment, position)
                except ValueError as error:
                    raise self.scan.fail(f"this is no string: {error}", at=start) from None
            else:
                end = comment.find(",", position)
                end = len(comment) if end < 0 else end
                name, position = comment[position:end].strip(), end
            result.append(name)
            gap = re.compile(r"\s*(?:,\s*|$)").match(comment, position)
            if not gap:
                raise self.scan.fail("names in an origin are separated by commas", at=start)
            position = gap.end()
        return tuple(result)

    def output(self) -> Output:
        scan = self.scan
        name = scan.string("the output's name as a string")
        role, of = Role.MODEL, None
        if scan.next_is("{"):
            for start in scan.separated("{", "}"):
                key = scan.word("role or of")
                scan.expect("=")
                if key == "role":
                    at = scan.skip()
                    role = _known(scan, "role", _ROLES, scan.word("a role"), at)
                elif key == "of":
                    of = scan.string("the name of an input as a string")
                else:
                    raise scan.fail(f"an output has no {key!r}", at=start, mend="known: of, role")
        scan.expect("=")
        return Output(name, self.operand(), role, of)

    def op(self) -> Op:
        scan = self.scan
        start = scan.skip()
        mnemonic = scan.word("an op")
        cls = _known(scan, "op", OPS, mnemonic, start)
        given = self.attributes(cls, mnemonic)
        try:
            return cast(Op, cls(**given))
        except (TypeError, ValueError) as error:
            raise scan.fail(f"{mnemonic}: {error}", at=start) from None

    def attributes(self, cls: type[Any], of: str) -> dict[str, Any]:
        """`{name=value, ...}`, or nothing: the fields of a dataclass that don't have their default."""
        scan = self.scan
        start = scan.skip()
        known = {f.name: f for f in fields(cls)}
        hints = _hints(cls)  # type: ignore[arg-type]  # a class is hashable
        given: dict[str, Any] = {}
        if scan.next_is("{"):
            for at in scan.separated("{", "}"):
                key = scan.word("the name of an attribute")
                field = _known(scan, f"attribute of {of}", known, key, at)
                if key in given:
                    raise scan.fail(f"attribute {key} is given twice", at=at)
                scan.expect("=")
                at = scan.skip()
                given[key] = self.attribute()
                if not _fits(given[key], hints[key]):
                    raise scan.fail(f"attribute {key} of {of} is no {field.type}", at=at)
        missing = [
            f.name
            for f in known.values()
            if f.name not in given and f.default is f.default_factory is MISSING
        ]
        if missing:
            raise scan.fail(f"{of} needs {', '.join(missing)}", at=start)
        return given

    def attribute(self) -> object:
        scan = self.scan
        self.depth += 1
        try:
            if self.depth > _DEPTH_LIMIT:
                raise scan.fail(f"attributes are nested deeper than {_DEPTH_LIMIT}")
            if scan.next_is("["):
                return tuple([self.attribute() for _ in scan.separated("[", "]")])
            if scan.next_is("{"):
                return self.body()
            if scan.next_is('"'):
                return scan.string("a string")
            if scan.take("!"):
                start = scan.skip()
                return _known(scan, "element type", _DTYPES, scan.word("an element type"), start)
            if scan.take("dense<"):
                return self.dense()
            if scan.next_is('base64"') or scan.next_is("base64 "):
                return self.bytes()
            if _OP.match(scan.text, scan.position):
                return self.op()
            return self.scalar()
        finally:
            self.depth -= 1

    def scalar(self) -> object:
        start = self.scan.skip()
        found = self.scan.match(_NUMBER)
        text = found[1] if found else self.scan.expression()
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return _WORDS[text] if text in _WORDS else self.dim(text, start)

    def dim(self, text: str, at: int) -> Dim:
        if text not in self.dims:
            try:
                self.dims[text] = parse_dim(text)
            except ParseError as error:
                raise self.scan.fail(error.what, at=at) from None
        return self.dims[text]

    def type(self) -> Type:
        scan = self.scan
        start = scan.skip()
        if found := scan.match(_FOREIGN_TYPE):
            return ForeignType(found[1], bytes.fromhex(found[2]))
        if not (found := scan.match(_TENSOR_TYPE)):
            raise scan.expected("a type such as f32[N, 3]")
        if (known := self.types.get(found[0])) is not None:
            return known
        dtype = _known(scan, "element type", _DTYPES, found[1], start)
        kind = self.types[found[0]] = TensorType(dtype, self.shape(found[2], start + len(found[1]) + 1))
        return kind

    def shape(self, text: str, at: int) -> tuple[Dim, ...] | None:
        if text.strip() == "*":
            return None
        dims: list[Dim] = []
        # commas within parentheses belong to Max, Min and Mod
        inner = Scanner(text)
        while not inner.at_end():
            start = inner.position
            dim = self.dim(inner.expression(), at + start)
            if isinstance(dim, int) and dim < 0:
                raise self.scan.fail("a dimension can't be negative", at=at + start)
            dims.append(dim)
            if not inner.at_end():
                inner.expect(",")
        return tuple(dims)

    def dense(self) -> Tensor:
        scan = self.scan
        at = scan.skip()
        kind = self.type()
        if not isinstance(kind, TensorType):
            raise scan.fail("a dense value is a tensor", at=at)
        scan.expect(",")
        at = scan.skip()
        array: Array
        try:
            if scan.take("base64"):
                array = array_from_base64(scan.quoted("base64 in quotes"), kind)
            elif kind.dtype is DType.STR and scan.next_is("["):
                array = self.strings(kind)
            elif scan.take("["):
                listed = scan.until("]", _LISTED)
                elements = [e.strip() for e in listed.split(",")] if listed.strip() else []
                array = array_from_list(elements, kind)
            elif scan.take("elided"):
                raise ValueError(
                    "these elements were elided when the text was printed; print all of it (--full)"
                )
            else:
                raise scan.expected("a list in brackets or base64")
        except ValueError as error:
            raise scan.fail(str(error), at=at) from None
        scan.expect(">")
        return Tensor.wrap(array)

    def strings(self, kind: TensorType) -> Array:
        elements: list[object] = []
        for _ in self.scan.separated("[", "]"):
            if self.scan.next_is("base64"):
                elements.append(self.bytes())
            else:
                elements.append(self.scan.string("a string"))
        array = np.empty(len(elements), dtype=object)
        array[:] = elements
        return array.reshape(static_shape(kind, len(elements)))

    def bytes(self) -> bytes:
        scan = self.scan
        start = scan.skip()
        scan.expect("base64")
        if scan.take("elided"):
            raise scan.fail(
                "these bytes were elided when the text was printed; print all of it (--full)", at=start
            )
        try:
            return bytes_from_base64(scan.quoted("base64 in quotes"))
        except ValueError as error:
            raise scan.fail(str(error), at=start) from None


def _known(scan: Scanner, what: str, table: dict[str, Any], name: str, at: int) -> Any:
    if name not in table:
        raise scan.fail(f"unknown {what} {name!r}", at=at, mend=near(name, table))
    return table[name]


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def _fits(value: object, hint: Any) -> bool:
    """Whether an attribute's value is of its field's type."""
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, h) for h in get_args(hint))
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        items = get_args(hint)
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(v, items[0]) for v in value)
        return len(items) == len(value) and all(map(_fits, value, items))
    if hint is None:
        return isinstance(value, NoneType)
    if isinstance(value, bool):
        return hint is bool
    if hint is float:
        return isinstance(value, int | float)
    return isinstance(hint, type) and isinstance(value, hint)

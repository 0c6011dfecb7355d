"""The builder infers and shares; op classes with a facet missing are refused when they are defined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from irshap.errors import IRError, near
from irshap.ir.builder import Builder, current, emit1
from irshap.ir.core import Graph, Op, Output, Precision, Role, Value
from irshap.ir.dims import N, R
from irshap.ir.types import DType, Tensor, TensorType
from irshap.ops import OPS
from irshap.ops.arithmetic import Add
from irshap.ops.elementwise import Relu
from irshap.ops.families import Elementwise, Linear
from irshap.ops.linear import MatMul
from irshap.ops.program import Constant, Full, Input, Opaque
from irshap.ops.shape import Reshape

KIND = TensorType(DType.F32, (N, 4))


def an_input(b: Builder, name: str = "x", kind: TensorType = KIND) -> Value:
    return b.emit(Input(name), types=(kind,), names=(name,))[0]


def test_equal_statements_are_emitted_once() -> None:
    with Builder() as b:
        x = an_input(b)
        y = emit1(Relu(), x)
        assert emit1(Relu(), x) is y
        assert an_input(b) is x
        assert emit1(Relu(), y) is not y
        assert emit1(Constant(Tensor([1.0, 2.0]))) is emit1(Constant(Tensor(np.array([1.0, 2.0]))))
        assert emit1(Constant(Tensor([0.0]))) is not emit1(Constant(Tensor([-0.0])))
        assert emit1(Constant(Tensor([1]))) is not emit1(Constant(Tensor([1.0])))
        assert emit1(Add(), x, y) is not emit1(Add(), y, x)


def test_given_types_are_part_of_the_statement() -> None:
    op = Opaque(kind="X", domain="", opsets=(), proto=b"", present=(), outputs=(True,))
    with Builder() as b:
        (a,) = b.emit(op, types=(KIND,))
        (c,) = b.emit(op, types=(TensorType(DType.F64, (N,)),))
        assert b.emit(op, types=(KIND,))[0] is a
    assert a.type != c.type
    with pytest.raises(IRError, match="input needs its result types"):
        Builder().emit(Input("x"))


def test_arithmetic_emits_into_the_innermost_builder() -> None:
    with Builder() as outer:
        x = an_input(outer)
        with Builder() as inner:
            assert current() is inner
            y = an_input(inner)
            z = 2.0 * (1.0 - y) / 3 + -y
        assert current() is outer
        w = x * 2
    assert [n.op.mnemonic for n in outer.nodes] == ["constant", "mul"]
    assert z.type == w.type == KIND
    assert {n.op.mnemonic for n in inner.nodes} == {"constant", "sub", "mul", "div", "neg", "add"}
    constants = [n.op.value for n in inner.nodes if isinstance(n.op, Constant)]
    assert {c.array.dtype.name for c in constants} == {"float32"}


def test_the_origin_is_that_of_the_surrounding_with() -> None:
    with Builder() as b:
        x = an_input(b)
        with b:
            b.at(("inner",))
            y = emit1(Relu(), x)
        z = emit1(Relu(), y)
    assert (y.node.origin, z.node.origin) == (("inner",), ())
    assert (y.node.label, z.node.label) == ("inner (relu)", "relu")


@pytest.mark.parametrize(
    ("emitted", "message"),
    [
        (
            lambda x: emit1(MatMul(), x, x),
            r"matmul\(f32\[N, 4\], f32\[N, 4\]\): inner dimensions 4 and N differ",
        ),
        (lambda x: emit1(Reshape((4, R)), x), r"4\*N elements don't fit into \(4, R\)"),
        (lambda x: emit1(Add(), x, emit1(Full(0.0, DType.F64, ()))), "operands have different element types"),
        (lambda x: emit1(Add(), x, emit1(Full(0.0, DType.F32, (R, 4)))), "can't tell that"),
        (lambda x: emit1(Add(), x), "takes two operands"),
    ],
)
def test_operands_that_do_not_fit_are_refused_with_the_place(
    emitted: Callable[[Value], Value], message: str
) -> None:
    with Builder() as b:
        x = an_input(b)
        b.at(("fc/1", "fc/2"))
        with pytest.raises(IRError, match=message) as caught:
            emitted(x)
    assert caught.value.where == "fc/1, fc/2"


def two_step(b: Builder) -> Graph:
    x = an_input(b)
    y = b.emit(Relu(), x, names=("act",), origin=("relu/1",))[0]
    return b.build("g", [Output("y", y + x, Role.MODEL)], {"canonical"})


def test_copies_and_grafts_keep_names_and_origins() -> None:
    graph = two_step(Builder().__enter__())
    with Builder() as b:
        mapping = b.graft(graph)
        found = b.rebuild(graph, mapping)
    act = mapping[graph.nodes[0].results[0]]
    assert (act.name, act.node.origin) == ("act", ("relu/1",))
    assert (found.name, found.properties, found.source) == (graph.name, graph.properties, graph.source)
    assert not set(found.values()) & set(graph.values())
    with Builder() as b:
        x = an_input(b, "other")
        mapping = b.graft(graph, {graph.inputs[0]: x})
        assert mapping[graph.nodes[1].results[0]].node.operands == (mapping[graph.nodes[0].results[0]], x)
        assert b.build("g", ()).inputs == (x,)


def test_copies_replace_symbols() -> None:
    with Builder() as b:
        graph = b.build("g", [Output("y", emit1(Reshape((4, N)), an_input(b)))])
    with Builder() as b:
        (x,) = b.copy(graph.inputs[0].node, {}, {N: 6})
        (y,) = b.copy(graph.nodes[0], {graph.inputs[0]: x}, {N: 6})
    assert (x.type, y.type) == (KIND.with_shape((6, 4)), KIND.with_shape((4, 6)))
    assert y.node.op == Reshape((4, 6))


def test_inputs_keep_their_order() -> None:
    with Builder() as b:
        for name in ("a", "b"):
            an_input(b, name)
        old = b.build("g", ())
    with Builder() as b:
        for name in ("new", "b", "a"):
            an_input(b, name)
        assert [v.name for v in b.build("g", (), like=old).inputs] == ["a", "b", "new"]


def test_graphs_are_asked_for_roles_and_inputs() -> None:
    graph = two_step(Builder().__enter__())
    assert graph.output(Role.MODEL).name == "y"
    assert graph.outputs_of(Role.TARGET) == ()
    assert graph.input("x") is graph.inputs[0]
    assert graph.with_properties("a", without=("canonical",)).properties == {"a"}


def facets(**changes: Any) -> dict[str, Any]:
    """The body of a complete elementwise op, with changes (None leaves a facet out)."""
    body = {
        "mnemonic": "a_test_op",
        "precision": Precision.HALF,
        "cost": 1,
        "numpy": lambda self, x: x,
        "slope": lambda self, x, y: x,
        "chord": lambda self, x, x0, y, y0: x,
        "samples": classmethod(lambda cls: ()),
        **changes,
    }
    return {k: v for k, v in body.items() if v is not None}


@pytest.mark.parametrize(
    ("missing", "wanted"),
    [
        ("mnemonic", "mnemonic: its name in the text format"),
        ("precision", "precision: a Precision"),
        ("cost", "cost: flops for each element"),
        ("slope", "slope: def slope"),
        ("chord", "chord: def chord"),
        ("samples", "samples: @classmethod def samples"),
    ],
)
def test_a_missing_facet_is_refused_with_what_to_write(missing: str, wanted: str) -> None:
    with pytest.raises(TypeError, match=f"op Broken lacks 1 facet.*: {wanted}"):
        type("Broken", (Elementwise,), facets(**{missing: None}))
    assert "a_test_op" not in OPS


def test_all_missing_facets_are_listed() -> None:
    with pytest.raises(TypeError, match="op Broken lacks 9 facet") as caught:
        type("Broken", (Op,), {"mnemonic": "a_test_op"})
    assert all(f"{facet}: " in str(caught.value) for facet in Op.FACETS if facet != "mnemonic")
    with pytest.raises(TypeError, match="adjoint: def adjoint"):
        type("Broken", (Linear,), {"mnemonic": "a_test_op"})
    with pytest.raises(TypeError, match=r"lacks 1 facet.*: cost: flops for each element"):
        type("Broken", (Linear, Elementwise), facets(cost=None, adjoint=lambda self, ct, at, i: ct))


def test_two_ops_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError, match=r"two ops are called 'relu': irshap.ops.elementwise has it already"):
        type("Twin", (Elementwise,), facets(mnemonic="relu"))
    assert OPS["relu"] is Relu
    monkeypatch.setattr("irshap.ir.core.OPS", dict(OPS))

    @dataclass(frozen=True)
    class Complete(Elementwise):
        """Everything is there."""

        locals().update(facets())

    assert Complete().mnemonic == "a_test_op"


def test_near_names() -> None:
    assert near("relo", ["relu", "exp"]) == "did you mean relu?"
    assert near("qqq", ["b", "a"]) == "known: a, b"
    assert near("x", []) == "none is known"


def test_an_origin_given_for_a_block_ends_with_it() -> None:
    with Builder() as b:
        x = an_input(b)
        with b.at(("inner",)):
            y = emit1(Relu(), x)
        z = emit1(Relu(), y)
    assert (y.node.origin, z.node.origin) == (("inner",), ())


def test_arithmetic_without_ops_says_what_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irshap.ir.core.OPERATORS", {})
    with Builder() as b, pytest.raises(IRError, match=r"arithmetic on values \(add\).*import irshap.ops"):
        an_input(b) + 1.0


def test_an_opaque_node_without_a_runner_says_what_to_import(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Opaque, "runner", None)
    op = Opaque("Mystery", "custom", (("custom", 1),), b"", (), (True,))
    with pytest.raises(IRError, match=r"nothing runs Mystery.*import irshap.lowering"):
        op.evaluate()

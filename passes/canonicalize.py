"""canonicalize: one form for each meaning, so that later passes need to know few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from irshap.errors import IRError
from irshap.ir.builder import emit1
from irshap.ir.core import Node, Op, Value
from irshap.ir.dims import Dim, as_dim, same, same_shape
from irshap.ir.rewrite import NoMatch, Replacement, rewrite
from irshap.ir.types import Tensor, TensorType, same_type
from irshap.ops.arithmetic import Add, Div, Mul, Neg, Sub
from irshap.ops.families import ZippedElementwise
from irshap.ops.linear import MatMul, matmul
from irshap.ops.program import Constant, Input
from irshap.ops.reduce import Expand, ReduceMean, ReduceSum
from irshap.ops.shape import Concat, Pad, Reshape, Slice, Split, Transpose, concat, reshape, transpose
from irshap.passes.rules.activations import logistic
from irshap.passes.rules.reshapes import reshape_of_reshape
from irshap.pipeline.base import Semantics
from irshap.pipeline.rewriting import RewritingPass

__all__ = ["Canonicalize"]

SMALL = 64 * 2**10
"""Constants of up to this many bytes are folded even where the result is larger than its operands."""


@rewrite(Transpose)
def transpose_of_transpose(node: Node, x: Value) -> Replacement:
    """transpose(transpose(x, p), q) = transpose(x, p[q]), and x for the identity."""
    perm = node.op.perm  # type: ignore[attr-defined]
    if isinstance(x.node.op, Transpose):
        return transpose(x.node.operands[0], [x.node.op.perm[p] for p in perm])
    return x if list(perm) == sorted(perm) else NoMatch("the operand is no transpose")


@rewrite(Transpose)
def transpose_of_product(node: Node, x: Value) -> Replacement:
    """transpose(matmul(a', b)) = matmul(b', a), and what is left of the permutation leaves rows whole.

    The adjoint of keys: ONNX Runtime transposes operands inside of a product, but not its result.
    """
    last = x.rank - 1
    if not isinstance(x.node.op, MatMul) or node.op.perm[-1] == last:  # type: ignore[attr-defined]
        return NoMatch("it moves no rows of a product")
    a, b = x.node.operands
    swap = (*range(last - 1), last, last - 1)
    if not isinstance(a.node.op, Transpose) or a.node.op.perm != swap or a.rank != b.rank:
        return NoMatch("the product's first operand isn't transposed")
    turned = [swap[p] for p in node.op.perm]  # type: ignore[attr-defined]
    if turned[-1] != last:
        return NoMatch("it moves the product's rows, too")
    return transpose(matmul(transpose(b, swap), a.node.operands[0]), turned)


@rewrite(Expand, Pad, Slice)
def no_change_of_shape(node: Node, x: Value) -> Replacement:
    """expand, pad or slice to the operand's own shape = x."""
    if not same_shape(x.shape, node.results[0].shape):
        return NoMatch("the shape changes")
    op = node.op
    if isinstance(op, Slice) and any(step < 0 for step in op.steps):
        return NoMatch("it reverses an axis")
    if isinstance(op, Pad) and not all(same(p, 0) for p in (*op.before, *op.after)):
        return NoMatch("it shifts the elements")
    return x


@rewrite(Split)
def split_of_concat(node: Node, x: Value) -> Replacement:
    """split(concat(a, b)) = a, b, when the cuts are the seams."""
    op = node.op
    assert isinstance(op, Split)
    if len(op.sizes) == 1:
        return x
    if not isinstance(x.node.op, Concat) or x.node.op.axis != op.axis:
        return NoMatch("the operand is no concat along this axis")
    parts = x.node.operands
    sizes: list[Dim] = [v.shape[op.axis] for v in parts]
    return parts if same_shape(tuple(sizes), op.sizes) else NoMatch("the cuts are not the seams")


@rewrite(Concat)
def concat_of_split(node: Node, *parts: Value) -> Replacement:
    """concat(split(x)) = x, when all parts are joined in order."""
    source = parts[0].node
    if not isinstance(source.op, Split) or source.op.axis != node.op.axis:  # type: ignore[attr-defined]
        return NoMatch("the operands are no parts of one split")
    if len(parts) != len(source.results) or any(
        a is not b for a, b in zip(parts, source.results, strict=True)
    ):
        return NoMatch("not all parts are joined in order")
    return source.operands[0]


@rewrite(Reshape)
def reshape_of_expand(node: Node, x: Value) -> Replacement:
    """reshape(expand(z)) = expand(reshape(z)), when the axes that grow stay as they are at the end."""
    if not isinstance(x.node.op, Expand):
        return NoMatch("the operand is no expand")
    z, shape = x.node.operands[0], node.results[0].shape
    if z.rank != x.rank:
        return NoMatch("the expand adds axes")
    kept = next((i for i, (a, b) in enumerate(zip(z.shape, x.shape, strict=True)) if not same(a, b)), z.rank)
    grown = x.shape[kept:]
    if not grown or len(shape) <= len(grown) or not same_shape(shape[-len(grown) :], grown):
        return NoMatch("it reshapes the axes that grow")
    return emit1(Expand(shape), reshape(z, (*shape[: -len(grown)], *z.shape[kept:])))


@rewrite(ZippedElementwise)  # type: ignore[type-abstract]
def expanded_operand(node: Node, *operands: Value) -> Replacement:
    """f(x, expand(z)) = f(x, z), which broadcasts z itself."""
    expanded = [i for i, v in enumerate(operands) if isinstance(v.node.op, Expand)]
    others = [v for i, v in enumerate(operands) if i not in expanded]
    if not expanded or not any(same_shape(v.shape, node.results[0].shape) for v in others):
        return NoMatch("no operand is expanded to the shape of another one")
    return emit1(node.op, *(v.node.operands[0] if i in expanded else v for i, v in enumerate(operands)))


@rewrite(ReduceSum, ReduceMean)
def reduction_of_one(node: Node, x: Value) -> Replacement:
    """The sum or mean over axes of size 1 is a reshape."""
    op = node.op
    assert isinstance(op, ReduceSum | ReduceMean)
    if not all(same(x.shape[a], 1) for a in op.axes):
        return NoMatch("an axis has more than one element")
    return reshape(x, node.results[0].shape)


@rewrite(Neg)
def neg_of_neg(node: Node, x: Value) -> Replacement:
    """-(-x) = x."""
    return x.node.operands[0] if isinstance(x.node.op, Neg) else NoMatch("the operand is no neg")


@rewrite(Add, Sub, Mul, Div)
def neutral_element(node: Node, a: Value, b: Value) -> Replacement:
    """x + 0 = x - 0 = x * 1 = x / 1 = x."""
    neutral = 0.0 if isinstance(node.op, Add | Sub) else 1.0
    for x, other in ((a, b), (b, a)) if isinstance(node.op, Add | Mul) else ((a, b),):
        if _is_all(other, neutral) and node.results[0].type == x.type:
            return x
    return NoMatch("no operand is neutral")


@rewrite(Op)  # type: ignore[type-abstract]
def constant_operands(node: Node, *operands: Value) -> Replacement:
    """f(constants) = constant, where that takes no more room than the operands, or little."""
    if not operands or not node.op.modeled or isinstance(node.op, Input | Constant):
        return NoMatch("it has no operands, or is opaque")
    constants = [v.node.op for v in operands]
    if not all(isinstance(op, Constant) for op in constants):
        return NoMatch("an operand is no constant")
    room = max(SMALL, sum(int(v.tensor.nbytes) for v in set(operands)))
    total = 0
    for result in node.results:
        known = isinstance(result.type, TensorType) and result.type.shape is not None
        size = result.tensor.nbytes if known else SMALL + 1
        if not isinstance(size, int):
            return NoMatch("its size is only known at run time")
        total += size
    if total > room:
        return NoMatch("the result takes more room than the operands")
    try:
        arrays = node.op.evaluate(*(op.value.array for op in constants if isinstance(op, Constant)))
    except (ArithmeticError, IRError, TypeError, ValueError):
        return NoMatch("it can't be evaluated here")
    values = tuple(emit1(Constant(Tensor(np.asarray(a)))) for a in arrays)
    if not all(same_type(v.type, r.type) for v, r in zip(values, node.results, strict=True)):
        return NoMatch("it makes another type of what it doesn't take")
    return values[0] if len(values) == 1 else values


@rewrite(Add)
def sum_of_neighbours(node: Node, a: Value, b: Value) -> Replacement:
    """pad(a) + pad(b) = pad(concat(a, b)), when one ends where the other starts, with zeros around."""
    for first, second in ((a, b), (b, a)):
        one, two = _span(first), _span(second)
        if one is None or two is None or not same_shape(first.shape, second.shape):
            break
        (axis, start, stop), (other, begin, end) = one, two
        if axis == other and same(stop, begin):
            parts = [p for v in (first, second) for p in _parts(v.node.operands[0], axis)]
            joined = concat(parts, axis)
            before: list[Dim] = [0] * joined.rank
            after = list(before)
            before[axis], after[axis] = start, as_dim(first.shape[axis] - end)
            return emit1(Pad(tuple(before), tuple(after), 0.0), joined)
    return NoMatch("they aren't neighbours among zeros")


def _span(value: Value) -> tuple[int, Dim, Dim] | None:
    """The axis, and from where to where on it, of what a value has among zeros; None where it isn't so."""
    op = value.node.op
    if not isinstance(op, Pad) or op.value != 0:
        return None
    axes = [i for i, p in enumerate(zip(op.before, op.after, strict=True)) if not same_shape(p, (0, 0))]
    if len(axes) != 1:
        return None
    (axis,) = axes
    start, size = op.before[axis], value.node.operands[0].shape[axis]
    cuts = any(isinstance(p, int) and p < 0 for p in (start, op.after[axis]))
    return None if cuts else (axis, start, as_dim(start + size))


def _parts(value: Value, axis: int) -> Sequence[Value]:
    """What a value is joined of along an axis: itself, if of nothing else."""
    op = value.node.op
    return value.node.operands if isinstance(op, Concat) and op.axis == axis else (value,)


RULES = [
    reshape_of_reshape,
    transpose_of_transpose,
    transpose_of_product,
    no_change_of_shape,
    split_of_concat,
    concat_of_split,
    reshape_of_expand,
    expanded_operand,
    reduction_of_one,
    neg_of_neg,
    neutral_element,
    sum_of_neighbours,
    logistic,
    constant_operands,
]


@dataclass(frozen=True)
class Canonicalize(RewritingPass):
    """Folds constants, merges chains of reshapes and transposes, and removes ops that change nothing."""

    name = "canonicalize"
    semantics = Semantics.PRESERVES
    into_bodies = True
    rules = RULES


def _is_all(value: Value, number: float) -> bool:
    op = value.node.op
    return (
        isinstance(op, Constant)
        and op.value.array.dtype.kind in "fiu"
        and bool((op.value.array == number).all())
    )

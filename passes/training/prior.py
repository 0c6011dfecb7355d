"""prior: what attributions should be like, as one number for a batch that is minimized with the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Literal

import numpy as np

from irshap import contract
from irshap.attribution.groups import groups_by_name, groups_of_cells, members
from irshap.attribution.outputs import own_names
from irshap.errors import TargetError, UserError
from irshap.ir.builder import Builder, emit, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import as_dim, product
from irshap.ir.types import Array, TensorType
from irshap.ops.arithmetic import Abs, where
from irshap.ops.cast import single
from irshap.ops.elementwise import Sqrt
from irshap.ops.linear import matmul
from irshap.ops.logic import Greater
from irshap.ops.program import MASK, TRAINING, constant, new_input
from irshap.ops.reduce import ReduceMean, ReduceSum, number
from irshap.ops.shape import Slice, concat, reshape
from irshap.ops.top_k import TopK
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Prior", "Priors"]

Priors = Literal["sparse", "total-variation", "right-reasons", "group-lasso"]


@dataclass(frozen=True)
class Prior(Pass):
    """Appends a prior on the attributions A [N, ...] of all attributed tensors, with a weight `prior_weight`.

    "sparse" (Erion et al. 2021): minus twice the Gini index of the features' global attributions.  With a_i
    the mean of |A_i| over the batch and n features, it is - sum_ij |a_i - a_j| / (n sum_i a_i); in ascending
    order sum_ij |a_i - a_j| = 2 sum_k (2 k - n - 1) a_(k).  The others are means over the samples:
    "total-variation", the sum of the differences' sizes of neighbours along `axes` (0 counts samples; by
    default all from 2 on, or 1 where there are no more); "right-reasons" (Ross et al. 2017), the sum of
    (mask A)^2 with an input `<input>_mask` of A's shape that says what must not count; "group-lasso", the sum
    over groups of sqrt(size) times the norm of A in the group.
    """

    kind: Priors = "sparse"
    axes: tuple[int, ...] = ()
    name = "prior"
    semantics = Semantics.EXTENDS
    requires = frozenset({"decided", "trainable"})

    def run(self, ir: Graph, context: Context) -> Graph:
        if any(o.value.rank != 1 for o in (*ir.outputs_of(Role.TARGET_INDEX), *ir.outputs_of(Role.VALUES))):
            raise TargetError(
                "a prior is on the attributions of one number a sample, and several classes are explained",
                mend="explain one (target=input, argmax, a class), or a sum",
            )
        with Builder() as b:
            mapping = b.graft(ir)
            taken = own_names(ir)
            found = {str(o.of): single(mapping[o.value]) for o in ir.outputs_of(Role.ATTRIBUTION)}

            weight = TensorType(next(iter(found.values())).dtype, ())
            new_input(contract.free(contract.PRIOR_WEIGHT, taken), weight, TRAINING, contract.PRIOR_WEIGHT)
            if self.kind == "right-reasons":
                masks = (contract.free(contract.mask(n), taken) for n in found)
                parts = [
                    _square(new_input(name, a.tensor, MASK, n) * a)
                    for name, (n, a) in zip(masks, found.items(), strict=True)
                ]
            elif self.kind == "total-variation":
                parts = [_variation(a, self._axes(n, a)) for n, a in found.items()]
            elif self.kind == "group-lasso":
                groups = groups_by_name(context.groups, list(found))
                parts = [_lasso(a, groups_of_cells(groups[n], a.shape[1:], n)) for n, a in found.items()]
            else:
                parts = [_sparse([_global(a) for a in found.values()])]
            outputs = [replace(o, value=mapping[o.value]) for o in ir.outputs]
            name = contract.free(contract.PRIOR, {o.name for o in outputs})
            outputs.append(Output(name, reduce(add, parts), Role.PRIOR))
            return b.build(ir.name, outputs, ir.properties, like=ir)

    def _axes(self, name: str, a: Value) -> Sequence[int]:
        axes = self.axes or tuple(range(2, a.rank)) or (1,)
        for axis in axes:
            if not 1 <= axis < a.rank:
                raise UserError(
                    f"total variation over axis {axis}: the attributions of {name!r} are {a.type}",
                    mend="axes count from 1, behind the samples'",
                )
        return axes


def _over(a: Value) -> tuple[int, ...]:
    return tuple(range(a.rank))


def _of_samples(total: Value, a: Value) -> Value:
    """A sum over everything as the mean over the samples."""
    return total / number(a.shape[0], a.dtype)


def _square(a: Value) -> Value:
    return _of_samples(emit1(ReduceSum(_over(a), keepdims=False), a * a), a)


def _variation(a: Value, axes: Sequence[int]) -> Value:
    def along(axis: int) -> Value:
        size = a.shape[axis]
        later = emit1(Slice((axis,), (1,), (size,), (1,)), a)
        earlier = emit1(Slice((axis,), (0,), (as_dim(size - 1),), (1,)), a)
        return emit1(ReduceSum(_over(a), keepdims=False), emit1(Abs(), later - earlier))

    return _of_samples(reduce(add, map(along, axes)), a)


def _global(a: Value) -> Value:
    """The mean of |A| over the samples, flat: [features]."""
    mean = emit1(ReduceMean((0,), keepdims=False), emit1(Abs(), a))
    return reshape(mean, (product(mean.shape),))


def _sparse(features: Sequence[Value]) -> Value:
    a = concat(features, 0)
    (count,) = a.shape
    if not isinstance(count, int):
        raise TargetError(f"the sparse prior needs a known number of features, not {count}")
    ascending, _ = emit(TopK(0, count, largest=False), a)
    ranks = constant(2.0 * np.arange(1, count + 1) - count - 1, a.dtype)
    over = ReduceSum((0,), keepdims=False)
    whole = emit1(over, ascending)
    # where nothing is attributed at all, it is 0, and has no slope
    some = emit1(Greater(), whole, constant(0.0, a.dtype))
    return emit1(over, ascending * ranks) * (-2.0 / count) / where(some, whole, 1.0)


def _lasso(a: Value, groups: Array) -> Value:
    inside = members(groups)
    flat = reshape(a, (a.shape[0], groups.size))
    squares = matmul(flat * flat, constant(inside, a.dtype))
    # the norm has no slope where a group is 0: none is taken there
    some = emit1(Greater(), squares, constant(0.0, a.dtype))
    norms = where(some, emit1(Sqrt(), where(some, squares, 1.0)), 0.0)
    weighted = norms * constant(np.sqrt(inside.sum(0)), a.dtype)
    return _of_samples(emit1(ReduceSum((0, 1), keepdims=False), weighted), a)

"""What DeepLIFT tells beside attributions: multipliers, and contributions of letters that aren't there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

from irshap import contract
from irshap.attribution.outputs import is_token, samples_first
from irshap.errors import TargetError, UserError
from irshap.ir.builder import emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import R, as_dim
from irshap.ops.parts import Multipliers
from irshap.ops.reduce import ReduceSum
from irshap.passes.methods.joint_batch import JointBatch, mean_over_references

__all__ = ["further", "letter_axes"]


def further(
    joint: JointBatch,
    graph: Graph,
    multipliers: Sequence[Multipliers],
    weights: Value | None,
    asked: AbstractSet[str],
    letters: str,
) -> dict[Role, dict[str, Value]]:
    """Multipliers and hypothetical contributions, as asked, of each attributed tensor: [samples, ...].

    Args:
        multipliers: of each source, in each pair of a sample and a reference.
        letters: which axis tells letters apart, as `letter_axes` reads it.

    Raises:
        TargetError: a source stands for token ids, which have none.
        UserError: an input with two multipliers, or letters that don't fit.
    """
    if letters and contract.HYPOTHETICAL not in asked:
        raise UserError(
            f"letters={letters!r} is for hypothetical contributions", mend="add emit=hypothetical"
        )
    if asked.isdisjoint((contract.MULTIPLIERS, contract.HYPOTHETICAL)):
        return {}
    sources = graph.outputs_of(Role.SOURCE)
    pairs = as_dim(graph.output(Role.TARGET).value.shape[0] * R)
    own, references = dict[str, Value](), dict[str, Value]()
    for source, m in zip(sources, multipliers, strict=True):
        name, axis = str(source.of), joint.axis(source.value)
        _refuse(graph, source, m)
        own[name] = samples_first(m.mean, axis, pairs)
        references[name] = samples_first(joint.halves(source.value)[1], axis, pairs)
    means = {name: mean_over_references(m, weights) for name, m in own.items()}
    found = {}
    if contract.MULTIPLIERS in asked:
        found[Role.MULTIPLIERS] = means
    if contract.HYPOTHETICAL in asked:
        axes = letter_axes(letters, {name: m.rank for name, m in own.items()})
        found[Role.HYPOTHETICAL] = {
            name: means[name] - _at_reference(own[name], references[name], axis, weights)
            for name, axis in axes.items()
        }
    return found


def _refuse(graph: Graph, source: Output, m: Multipliers) -> None:
    if is_token(graph, source):
        raise TargetError(
            f"input {source.of!r} is integer: a token has no multiplier",
            mend=f"take those of the tensor that it is read into: wrt={source.name}",
        )
    if m.spread is not None:
        raise UserError(
            f"{source.of!r} has two multipliers, for what it adds and for what it takes away: no layer with "
            "weights reads it first",
            mend="use rule=rescale, or attribute what the first layer reads (wrt)",
        )


def letter_axes(text: str, shapes: Mapping[str, int]) -> dict[str, int]:
    """The axis of letters of attributed tensors: "1" says it of all, "dna=1, rna=2" of some.

    Args:
        shapes: how many axes each attributed tensor has, [samples, ...].

    Raises:
        UserError: another form, no such tensor, or no such axis behind the samples'.
    """
    mend = "say which axis tells letters apart: letters=1 for [N, 4, L], letters=2 for [N, L, 4]"
    named = dict(re.findall(r"\s*([^,=]+?)\s*=\s*(-?\d{1,3})\s*(?:,|$)", text))
    if re.fullmatch(r"\s*-?\d{1,3}\s*", text):
        named = dict.fromkeys(shapes, text)
    elif not named or text.count("=") != len(named):
        raise UserError(
            f"{contract.HYPOTHETICAL} contributions need letters, and {text!r} names no axis", mend=mend
        )
    found = {}
    for name, axis in named.items():
        if name not in shapes:
            raise UserError(f"letters={text!r}: no attributed tensor is called {name!r}", mend=mend)
        rank = shapes[name]
        found[name] = int(axis) + rank * (int(axis) < 0)
        if not 1 <= found[name] < rank:
            raise UserError(
                f"letters={text!r}: {name!r} has axes 1 to {rank - 1} behind the samples'", mend=mend
            )
    return found


def _at_reference(m: Value, r: Value, axis: int, weights: Value | None) -> Value:
    """Mean over the references of the sum over letters l of m_l r_l, [samples, ...] with 1 letter.

    A letter's contribution, the mean of the sum over l of m_l (that letter - r)_l, is the mean of m at that
    letter less this (combine_mult_and_diffref, as genomics tools give it to DeepSHAP).

    Args:
        m, r: multipliers and references in each pair, [pairs, ...].
        axis: that of the letters.
    """
    return mean_over_references(emit1(ReduceSum((axis,), keepdims=True), m * r), weights)

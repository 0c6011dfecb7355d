"""What outputs of a graph are for."""

from __future__ import annotations

from enum import Enum

__all__ = ["PUBLISHED", "Role"]


class Role(Enum):
    """What an output of a graph is for.

    `source`, `target` and `adjoint` are facts between passes: the tensors that are attributed, one row for
    each explained (sample, class) pair; the explained number of each row; its derivative by each source.
    `values` are the explained numbers of each sample, where they are no class that `target_index` names.
    `summary` is made of attributions.  `probe` is a value that a check looks at.  `next` is what a training
    step makes of the input that `of` names, `gradient` the derivative of what it minimizes by that.
    """

    MODEL = "model"
    SOURCE = "source"
    TARGET = "target"
    TARGET_INDEX = "target_index"
    ADJOINT = "adjoint"
    ATTRIBUTION = "attribution"
    MULTIPLIERS = "multipliers"
    HYPOTHETICAL = "hypothetical"
    BASE = "base"
    VALUES = "target_values"
    COMPLETENESS = "completeness"
    SUMMARY = "summary"
    PROBE = "probe"
    LOSS = "loss"
    PRIOR = "prior"
    GRADIENT = "gradient"
    NEXT = "next"


PUBLISHED: tuple[Role, ...] = (Role.MODEL, Role.ATTRIBUTION, Role.MULTIPLIERS, Role.HYPOTHETICAL)
PUBLISHED += (Role.BASE, Role.TARGET_INDEX, Role.VALUES, Role.COMPLETENESS, Role.SUMMARY)
PUBLISHED += (Role.LOSS, Role.PRIOR, Role.GRADIENT, Role.NEXT)
"""Outputs of the lowered file, in this order; the rest are intermediate facts of the pipeline."""

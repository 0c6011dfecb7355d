"""Kinds of ops that passes go by."""

from __future__ import annotations

from enum import Enum

__all__ = ["Layer", "Precision"]


class Precision(Enum):
    """How an op may be computed under fp16."""

    HALF = "half"
    """Safe in half precision: its result is off by its rounding, and by that of its operands."""
    FULL = "full"
    """Keeps float32: sums many terms, exponentiates, jumps, or divides by what may be tiny."""
    DATA = "data"
    """Moves, picks or compares elements without arithmetic: follows its neighbours."""


class Layer(Enum):
    """Kinds of ops that multiply by weights: RevealCancel tells the parts of their operands apart anew."""

    DENSE = "dense"
    CONVOLUTION = "convolution"

"""Trigonometric and hyperbolic functions, and their inverses."""

from __future__ import annotations

from irshap.lowering.alike import alike
from irshap.ops import trigonometry

__all__: list[str] = []

alike("Acos", trigonometry.Acos)
alike("Acosh", trigonometry.Acosh)
alike("Asin", trigonometry.Asin)
alike("Asinh", trigonometry.Asinh)
alike("Atan", trigonometry.Atan)
alike("Atanh", trigonometry.Atanh)
alike("Cos", trigonometry.Cos)
alike("Cosh", trigonometry.Cosh)
alike("Sin", trigonometry.Sin)
alike("Sinh", trigonometry.Sinh)
alike("Tan", trigonometry.Tan)

"""Normalization by p-norms, and by neighbouring channels."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.lowering.alike import lower_alike
from irshap.lowering.importer import Import, importer
from irshap.ops import response

__all__: list[str] = []

lower_alike("LpNormalization", response.LpNormalization)
lower_alike("LRN", response.LRN)


@importer("LpNormalization")
def _read_lp_normalization(n: Import) -> Value:
    return n.one(response.LpNormalization(n.axis(n.attribute("axis", -1)), n.attribute("p", 2)), n.tensor())


@importer("LRN")
def _read_lrn(n: Import) -> Value:
    alpha, beta, bias = (n.attribute(k, v) for k, v in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return n.one(response.LRN(alpha, beta, bias, n.attributes["size"]), n.tensor())

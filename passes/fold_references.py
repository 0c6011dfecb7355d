"""fold-references: what depends on the references and the weights alone is computed while compiling."""

from __future__ import annotations

from dataclasses import dataclass

from irshap.ir.core import Graph
from irshap.passes.references.folding import folded
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["FoldReferences"]


@dataclass(frozen=True)
class FoldReferences(Pass):
    """Binds the references, evaluates everything that follows from them with ONNX Runtime, and stores it.

    What is left depends on the sample.  `limit`: bytes that the stored values may take together; more is an
    error before anything is computed.
    """

    limit: int = 16 * 2**30
    name = "fold-references"
    semantics = Semantics.PRESERVES
    binds_references = True
    stores = True
    requires = frozenset({"decided"})

    def run(self, ir: Graph, context: Context) -> Graph:
        return folded(ir, context, self.name, self.limit)

"""fix-batch: the program takes one number of samples, for runtimes that want every size known."""

from __future__ import annotations

import json
from dataclasses import dataclass

from irshap.contract import Metadata
from irshap.errors import UserError
from irshap.ir.core import PUBLISHED, Graph
from irshap.ir.dims import N
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import TensorType, Type
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["FixBatch"]


@dataclass(frozen=True)
class FixBatch(Pass):
    """Puts `size` in the place of the number of samples, and notes in the file which axes count them.

    Shapes that are computed from that number are constants then.
    """

    size: int = 1
    name = "fix-batch"
    semantics = Semantics.PRESERVES

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.size < 1:
            raise UserError(f"a batch of {self.size}", mend="Use fix-batch{size=1} or more")
        ends: list[tuple[str, Type]] = [(str(v.name), v.type) for v in ir.inputs]
        ends += [(o.name, o.value.type) for o in ir.outputs if o.role in PUBLISHED]
        axes = {name: axis for name, kind in ends if (axis := _samples_axis(kind)) is not None}
        context.metadata[Metadata.BATCH] = json.dumps({"size": self.size, "axes": axes}, ensure_ascii=False)
        return map_nodes(ir, binding={N: self.size})


def _samples_axis(kind: Type) -> int | None:
    """The axis that is N long."""
    shape = (kind.shape or ()) if isinstance(kind, TensorType) else ()
    return next((axis for axis, size in enumerate(shape) if size == N), None)

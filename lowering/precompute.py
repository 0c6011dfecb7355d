"""What the passes need computed while compiling runs in ONNX Runtime, as the compiled model will."""

from __future__ import annotations

from collections.abc import Mapping

from irshap.ir.core import Graph
from irshap.ir.types import Array
from irshap.lowering.files.session import RuntimeRefusal, Session
from irshap.lowering.lower import lower
from irshap.passes.references.fixed import Run, use_runtime

__all__ = ["prepared"]


def prepared(graph: Graph, fuse: bool) -> Run | None:
    """`graph` as a session; None where ONNX Runtime doesn't load it, as what it gives where that fails."""
    try:
        session = Session(lower(graph), threads=0, fuse=fuse)
    except RuntimeRefusal:
        return None

    def run(feeds: Mapping[str, Array]) -> list[Array] | None:
        try:
            return session.run(feeds)
        except RuntimeRefusal:
            return None

    return run


use_runtime(prepared)

"""How much memory a program asks for by itself: constants that it computes from its constants alone."""

from __future__ import annotations

from math import prod

from irshap.errors import ModelError
from irshap.ir.core import Graph
from irshap.ir.types import TensorType, Type
from irshap.ir.walks import determined
from irshap.ops.program import Constant

__all__ = ["MOST_COMPUTED", "require_bounded"]

MOST_COMPUTED = 2**30
"""Bytes that constants may take by default which a model computes from its constants alone."""

_FORMS, _WIDTH = 4, 4
"""Beside large weights as much is allowed as a few forms of them take (cast, transposed), in float32."""


def require_bounded(graph: Graph, limit: int, mend: str) -> None:
    """Refuses a program whose constants grow; only types are looked at, and nothing is computed.

    Passes fold constants, and so does ONNX Runtime when it makes a session: whoever runs the program may hold
    all of them at once.  A few bytes can ask for any memory: of 40 nodes that each join the one before to
    itself, the last has 2^40 times as much as the first.

    Args:
        limit: bytes for all of them together; beside large weights more are allowed.
        mend: how the limit is raised.

    Raises:
        ModelError: the limit is exceeded; it names the largest node up to there.
    """
    nodes = tuple(graph.walk())
    given = sum(_size(t, _WIDTH) for n in nodes if isinstance(n.op, Constant) for t in n.types)
    allowed = max(limit, _FORMS * given)
    computed = determined(nodes, (), lambda node: not node.op.is_input)
    total, largest, place = 0, -1, ""
    for node in nodes:
        if isinstance(node.op, Constant) or not computed.issuperset(node.results):
            continue
        size = sum(map(_size, node.types))
        total += size
        if size > largest:
            largest, place = size, node.label
        if total > allowed:
            what = (
                f"has a result of {_text(largest)}; with it, what follows from the model's constants alone "
                f"takes {_text(total)} or more, over the limit of {_text(allowed)}"
            )
            raise ModelError(what, where=place, mend=mend)


def _size(kind: Type, least: int = 0) -> int:
    """The bytes of a tensor; a size that is only known at run time counts as 1."""
    if not isinstance(kind, TensorType):
        return 0
    elements = prod(d if isinstance(d, int) else 1 for d in kind.shape or ())
    return elements * max(kind.dtype.bytes, least)


def _text(size: int) -> str:
    if size >= 2**100:
        return f"over 2^{size.bit_length() - 1} bytes"
    return f"{size / 2**20:,.1f} MiB" if size < 2**30 else f"{size / 2**30:,.1f} GiB"

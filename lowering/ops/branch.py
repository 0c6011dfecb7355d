"""Branches that are only decided at run time."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.ir.walks import upstream
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.program import Input

__all__: list[str] = []


@importer("If")
def _undecided(n: Import) -> Value:
    """Names what decides.  Where that is known, a branch is lifted in the node's place."""
    above = upstream([n.tensor()])
    names = sorted(str(v.name) for v in above if isinstance(v.node.op, Input))
    small = [v.name for v in above if isinstance(v.node.op, Input) and v.tensor.size == 1]
    hint = f"; give its value (set {small[0]}=VALUE)" if len(names) == len(small) == 1 else ""
    raise Unmodeled(f"input {', '.join(names)} chooses a branch at run time{hint}")

"""stream: references go through the program chunk by chunk, so that memory doesn't grow with their number."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal

import sympy

from irshap.errors import ReferencesError, UserError
from irshap.ir.core import Graph
from irshap.ir.dims import Dim, R
from irshap.passes.references.binding import reference_binding, reference_values
from irshap.passes.references.emit import looped
from irshap.passes.references.fixed import check_size
from irshap.passes.references.folding import folded
from irshap.passes.references.loop import Loop
from irshap.passes.references.partition import Partition
from irshap.passes.references.plan import Plan
from irshap.passes.references.stored import Storage, StoredArrays, StoredInputs, stored_type
from irshap.pipeline.base import Context, Pass, Semantics

__all__ = ["Stream"]

_WHOLE = 6 * 2**20
"""Tensors up to this size are made for all references at once."""

_CHUNK = int(4.5 * 2**20)
"""Otherwise chunks keep them below this, so that what follows finds them in a cache."""

_TOGETHER = 20
"""More references at a time hardly save nodes any more."""


@dataclass(frozen=True)
class Stream(Pass):
    """Binds the references, and puts all that depends on them and on samples into a loop over chunks of them.

    The sums over references are carried from chunk to chunk; the rest of the program stays outside.  Equal to
    the whole set at once, up to the order in which is summed.

    `chunk`: the most references at a time; 0: all where the largest tensor of the loop stays below 6 MiB for
    one sample, otherwise as many as keep it below 4.5 MiB, so that much stays in a cache, but at least 2. A
    number that divides the whole set is taken where there is one from half of this up; otherwise what is left
    over stands before the loop, and so do all where one chunk holds them. `together`: the most references at
    a time where tensors are so small that they make none larger than the loop's largest is for a chunk: near
    the output, where the cotangent begins; the rest is then a loop inside this one. 0: 20, or no more than
    `chunk` if that is set.

    `store`: "activations" computes what follows from the references alone while compiling, and stores it;
    "references" stores nothing else, and computes their forward pass again in each run. `dtype`: "float16"
    stores activations rounded, in half the room: the pass then approximates. Positions of maxima stay, and
    what bounded activations (Clip, HardSwish) compare with the sample's digit by digit.
    `price`: how many bytes a run may move to compute again, from what is stored beside it, what would take a
    byte in store (relu(x) and |x| of x; a concatenation of what its parts are stored for; never layers).
    0: all that the loop reads is stored. `otherwise`: a program whose references can't be taken one after
    another is an error, which names the node ("refuse"), or left to fold-references ("fold"). `limit`: bytes
    that may be stored; more is an error before anything is computed.
    """

    chunk: int = 0
    together: int = 0
    store: Literal["activations", "references"] = "activations"
    dtype: Literal["same", "float16"] = "same"
    price: float = 8.0
    otherwise: Literal["refuse", "fold"] = "refuse"
    limit: int = 16 * 2**30
    name = "stream"
    semantics = Semantics.PRESERVES
    tolerance = 2e-2
    binds_references = True
    stores = True
    requires = frozenset({"decided"})

    def __post_init__(self) -> None:
        if self.dtype == "float16":
            object.__setattr__(self, "semantics", Semantics.APPROXIMATES)

    def run(self, ir: Graph, context: Context) -> Graph:
        if self.chunk < 0:
            raise UserError(f"chunks of {self.chunk} references", mend="Use stream{chunk=1} or more")
        if not 0 <= self.price < inf:
            raise UserError(f"a price of {self.price}", mend="Use stream{price=0} or more")
        binding: Mapping[sympy.Expr, Dim] = {} if context.unbound else reference_binding(context)
        try:
            if not context.unbound and R not in binding:
                raise ReferencesError("no references were given, of which a few could be taken at a time")
            parts = Partition.of(ir, recompute=self.store == "references")
        except UserError:
            if self.otherwise == "refuse":
                raise
            context.count("folded instead")
            return folded(ir, context, "fold-references", self.limit)
        count = int(context.expected if context.unbound else binding.get(R, 0))
        loop = self._planned(parts, count, exact=context.exact or not context.unbound)
        storage = Storage(loop, half=self.dtype == "float16")
        if context.unbound:
            return looped(loop, StoredInputs(storage), binding)
        check_size(self.name, (storage.type(v, count) for v in loop.parts.stored), self.limit)
        stored = StoredArrays(storage, reference_values(ir, context))
        context.statistics.update(chunk=loop.plan.size, stored_bytes=stored.nbytes)
        context.statistics.update({f"nodes_for_{level.size}": len(level.nodes) for level in loop.levels})
        return looped(loop, stored, binding)

    def _planned(self, parts: Partition, count: int, *, exact: bool) -> Loop:
        """How `count` references, 0 for an open number, are taken at a time, and what is stored of them."""
        most = self.chunk or parts.fitting(_WHOLE)
        if not self.chunk and not 0 < count <= most:
            most = parts.fitting(_CHUNK)
        together = self.together or self.chunk or _TOGETHER
        if self.price and not parts.recompute and not 0 < count <= most:
            # in half the room, the same is stored
            parts = parts.rematerialized(
                self.price, lambda v: stored_type(v, R, half=False).nbytes, rounded=self.dtype == "float16"
            )
        return Loop.of(parts, Plan.of(count, most, together, stored=not parts.recompute, exact=exact))

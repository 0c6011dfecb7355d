"""Sizes that a model leaves open: a symbol for each name, and how a user may fix them."""

from __future__ import annotations

import keyword
import re
from collections.abc import Iterable, Mapping
from typing import Any

import sympy

from irshap.ir.dims import Dim, N, Shape, symbol, symbols_of
from irshap.lowering.importer import Import

__all__ = ["Symbols", "open_sizes"]


class Symbols:
    """Dimension symbols for the names in a model, each its own."""

    def __init__(self) -> None:
        self._symbols: dict[str, sympy.Expr] = {}
        self._taken = {"R"}  # the number of references; N is what re-batching names so
        self._unknown = 0

    def shape(self, dims: Iterable[Any], known: Mapping[str, Dim]) -> Shape:
        result: list[Dim] = []
        for dim in dims:
            if dim.HasField("dim_value") and dim.dim_value >= 0:
                result.append(int(dim.dim_value))
            elif dim.dim_param:
                result.append(known[dim.dim_param] if dim.dim_param in known else self[dim.dim_param])
            else:
                self._unknown += 1
                result.append(self[f"unknown_{self._unknown}"])
        return tuple(result)

    def __getitem__(self, name: str) -> sympy.Expr:
        if name not in self._symbols:
            clean = re.sub(r"\W", "_", name, flags=re.ASCII)
            clean = clean if re.match(r"[A-Za-z_]", clean) else f"d{clean}"
            while clean in self._taken or keyword.iskeyword(clean):
                clean += "_"
            self._taken.add(clean)
            self._symbols[name] = symbol(clean)
        return self._symbols[name]


def open_sizes(view: Import) -> str:
    """What a user may do where operands would fit together if their sizes were known."""
    shapes = (getattr(v.type, "shape", None) or () for v in view.inputs if v is not None)
    names = sorted(map(str, symbols_of(d for shape in shapes for d in shape) - {N}))
    known = [name for name in names if not name.startswith("unknown_")]
    return (
        f" (sizes that are open can be fixed: dims {', '.join(f'{n}=...' for n in known)})" if known else ""
    )

"""Copies side by side."""

from __future__ import annotations

from irshap.ir.core import Value
from irshap.ir.dims import as_dim
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer
from irshap.ops import tile

__all__: list[str] = []


@importer("Tile")
def _read_tile(n: Import) -> Value:
    return n.one(tile.Tile(tuple(map(as_dim, n.dims(1)))), n.tensor())


@exporter(tile.Tile)
def _write_tile(e: Export, op: tile.Tile) -> None:
    e.result("Tile", [e.inputs[0], e.shape(op.repeats)])

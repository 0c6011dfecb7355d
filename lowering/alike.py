"""Ops that ONNX has, too: with the same operands, and with the same attributes under the same names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from irshap.ir.core import Op, Value
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import Import, importer

__all__ = ["alike", "lift_alike", "lower_alike"]


def alike(kind: str, cls: type[Op], **defaults: float) -> None:
    """Registers both ways between ONNX's op `kind` and the class; `defaults`: ONNX's, of all attributes."""
    lift_alike(kind, cls, **defaults)
    lower_alike(kind, cls)


def lift_alike(kind: str, make: Callable[..., Op], **defaults: float) -> None:
    """Registers how `kind` is lifted, only."""

    @importer(kind)
    def read(n: Import) -> Value:
        attributes = {name: n.attribute(name, default) for name, default in defaults.items()}
        return n.one(make(**attributes), *(n.tensor(i) for i in range(len(n.inputs))))


def lower_alike(kind: str, cls: type[Op]) -> None:
    """Registers how the class is lowered, only: every field is an attribute."""

    @exporter(cls)
    def write(e: Export, op: Any) -> None:
        e.result(kind, e.inputs, **{f.name: getattr(op, f.name) for f in fields(op)})

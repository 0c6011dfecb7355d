"""Where a graph comes from."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Source"]


@dataclass(frozen=True, slots=True)
class Source:
    """What the ONNX model says of itself beyond its graph: passes hand it on, `lower` writes it back.

    `opset` is the model's (0: made without one), `producer` and `doc` are texts of its own, `metadata` its
    key-value pairs.  `batch` tells why lifting left the model's batch as it was, or its rows mixed;
    "" where each row is a sample.
    `aliases` are tensors that lifting found to be another one (through an Identity, say), with its name.
    """

    opset: int = 0
    producer: str = ""
    doc: str = ""
    batch: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    aliases: tuple[tuple[str, str], ...] = ()

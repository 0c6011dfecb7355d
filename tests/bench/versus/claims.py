"""What irshap promises of its speed and memory, against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from versus.record import Record

__all__ = ["Finding", "findings"]

PEERS = {"shap": "SHAP", "captum": "Captum"}
HARD = "efficientnet_b0"
"""The network with a limit of its own: the peers have no rule for its SiLU, and take the cheaper gradient."""


@dataclass(frozen=True)
class Finding:
    """A promise on one network: `measured` is None where something is missing."""

    promise: str
    network: str
    at: str
    measured: float | None
    sense: Literal[">=", "<="]
    limit: float
    unit: str = "x"

    @property
    def holds(self) -> bool | None:
        """Whether it does; None where it wasn't measured."""
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.sense == ">=" else self.measured <= self.limit


def findings(record: Record) -> list[Finding]:
    """Every promise on every measured network."""
    return [finding for network in record.networks() for finding in _of(record, network)]


def _of(record: Record, network: str) -> Iterator[Finding]:
    for count, limit in ((20, 5 if network == HARD else 8), (10, 5)):
        for peer, title in PEERS.items():
            ratio = record.ratio(network, count, peer, "default")
            yield Finding(f"faster than {title}", network, f"R = {count}", ratio, ">=", limit)
    for count in (20, 10):
        for peer, title in PEERS.items():
            ours, theirs = (record.beyond(network, count, system) for system in ("default", peer))
            share = None if ours is None or theirs is None else ours / theirs
            yield Finding(f"memory by {title}'s", network, f"R = {count}", share, "<=", 1 / 3)
    yield Finding(
        "faster than `@naive`", network, "R = 20", record.ratio(network, 20, "naive", "default"), ">=", 3.5
    )
    counts = record.counts(network)
    slowest, where = _worst(counts, lambda count: record.relative(network, count, "default"))
    limit = 1.5 if network == "vgg19" else 2.0
    yield Finding("time by that of inferring 1 and R", network, where, slowest, "<=", limit)
    apart, where = _worst(counts, lambda count: _distance(record, network, count))
    promise = "`@default` and `@naive` apart, by the largest,"
    yield Finding(f"{promise} in float32", network, where, apart, "<=", 1e-5, "")
    wide, where = _worst(counts, lambda count: _wide(record, network, count))
    yield Finding(f"{promise} in float64", network, where, wide, "<=", 1e-12, "")
    seconds = {"resnet50": 10.0, "densenet201": 20.0}
    if network in seconds:
        compiled = record.cell(network, 10)["compiled"].get("default") if 10 in counts else None
        spent = None if compiled is None else compiled["seconds"] - compiled["references_seconds"]
        promise = "compile time, without evaluating the references"
        yield Finding(promise, network, "R = 10", spent, "<=", seconds[network], "s")


def _distance(record: Record, network: str, count: int) -> float | None:
    for one, other in (("default", "naive"), ("naive", "default")):
        entry = record.entry(network, count, one)
        if entry is not None and other in entry.get("distances", {}):
            return float(entry["distances"][other])
    return None


def _wide(record: Record, network: str, count: int) -> float | None:
    found = record.cell(network, count).get("float64")
    return None if found is None else float(found["apart"])


def _worst(counts: list[int], value: Callable[[int], float | None]) -> tuple[float | None, str]:
    """The largest over numbers of references, and where it is."""
    found = [(v, count) for count in counts if (v := value(count)) is not None]
    return (max(found)[0], f"worst at R = {max(found)[1]}") if found else (None, "any R")

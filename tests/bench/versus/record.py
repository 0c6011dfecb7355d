"""The results, as one JSON file that grows while measuring, and what is read from them.

    {PART: {"about": {machine, versions, command, ...},
            "cells": {"resnet50/5": {"compiled": {SYSTEM: {...}}, "systems": {SYSTEM: {...}}}}}}

A system's entry holds what its worker said of loading and of the first run, `peak` over all of its runs, and
`rounds`: in each, the median `seconds` of its runs and `unit`, the time of inferring 1 and then R samples in
the same round.  Or `failed`, and why.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["Entry", "Record"]

Entry = dict[str, Any]


class Record:
    """A part of a file of results; a missing one is empty."""

    def __init__(self, path: Path, part: str) -> None:
        self.path, self.part = path, part
        self._all: Entry = json.loads(path.read_text()) if path.exists() else {}
        self.data: Entry = self._all.setdefault(part, {"about": {}, "cells": {}})

    def save(self) -> None:
        """Writes all of it or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self._all, indent=1) + "\n")
        part.replace(self.path)

    def cell(self, network: str, count: int) -> Entry:
        """One network and number of references; made when missing."""
        empty: Entry = {"compiled": {}, "systems": {}}
        found: Entry = self.data["cells"].setdefault(f"{network}/{count}", empty)
        return found

    def networks(self) -> list[str]:
        """Those with results, in order of appearance."""
        return list(dict.fromkeys(key.split("/")[0] for key in self.data["cells"]))

    def counts(self, network: str) -> list[int]:
        """The numbers of references with results, ascending."""
        keys = (key.split("/") for key in self.data["cells"])
        return sorted(int(count) for name, count in keys if name == network)

    def entry(self, network: str, count: int, system: str) -> Entry | None:
        """A system's results, or None where it wasn't measured or failed."""
        found = self.data["cells"].get(f"{network}/{count}", {}).get("systems", {}).get(system)
        return None if found is None or "failed" in found else found

    def seconds(self, network: str, count: int, system: str) -> float | None:
        """The median time of a warm run."""
        entry = self.entry(network, count, system)
        return median(r["seconds"] for r in entry["rounds"]) if entry and entry["rounds"] else None

    def relative(self, network: str, count: int, system: str) -> float | None:
        """The median of its time by that of inferring 1 and R samples in the same round.

        What is compared between systems: not all are measured in the same minutes.
        """
        entry = self.entry(network, count, system)
        ratios = [r["seconds"] / r["unit"] for r in entry["rounds"]] if entry else []
        return median(ratios) if ratios else None

    def ratio(self, network: str, count: int, slow: str, fast: str) -> float | None:
        """How many times longer `slow` takes than `fast`."""
        one, other = (self.relative(network, count, system) for system in (slow, fast))
        return None if one is None or other is None else one / other

    def beyond(self, network: str, count: int, system: str) -> int | None:
        """Peak memory of loading and running, beyond the libraries and the loaded model alone.

        In ONNX Runtime the latter is the network as it was exported: references that a compiled file holds
        are no part of the model, but of the price of explaining it.
        """
        entry, plain = self.entry(network, count, system), self.entry(network, count, "inference 1")
        if entry is None or plain is None:
            return None
        if entry["runtime"] == "torch":
            return int(entry["peak"] - entry["loaded"])
        return int(entry["peak"] - entry["before"] - (plain["loaded"] - plain["before"]))

    def expected_peak(self, network: str, count: int, system: str) -> int | None:
        """The peak of the process as far as smaller numbers of references tell it, on the high side."""
        entries = {c: self.entry(network, c, system) for c in self.counts(network) if c <= count}
        known = sorted((c, e["peak"]) for c, e in entries.items() if e is not None)
        if not known:
            return None
        last, peak = known[-1]
        if len(known) > 1:
            before, lower = known[-2]
            slope = max(0.0, peak - lower) / (last - before)
        else:
            # what was loaded before the first run grows less with the references than what runs take
            entry = entries[last]
            assert entry is not None
            slope = (peak - entry["loaded"]) / last
        return int(peak + 1.15 * slope * (count - last))

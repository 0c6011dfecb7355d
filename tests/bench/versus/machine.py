"""What the results were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

from versus.record import Record

__all__ = ["describe"]


def field(path: str, name: str) -> str:
    """The first line `name: value` of a file in /proc."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return "unknown"


def describe(record: Record, command: str) -> None:
    """Notes machine, date and command; a continued run keeps the first date, and the highest load."""
    about = record.data["about"]
    today, load = date.today().isoformat(), round(os.getloadavg()[1], 1)
    gib = int(field("/proc/meminfo", "MemTotal").split()[0]) / 2**20
    about.setdefault("machine", {}).update(
        processor=field("/proc/cpuinfo", "model name"),
        cores=len(os.sched_getaffinity(0)),
        memory=f"{gib:.0f} GiB",
        system=platform.platform(terse=True),
    )
    about.setdefault("began", today)
    about["ended"] = today
    about["load"] = max(load, about.get("load", 0.0))
    about["command"] = command
    record.save()

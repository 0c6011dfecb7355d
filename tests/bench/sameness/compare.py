"""Which cases gave the same on both trees, and where the others part."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

__all__ = ["VERDICTS", "Comparison", "compare", "first_difference"]

SAME, REFUSED, REWORDED, DIFFERS = "same", "both refused alike", "refused in other words", "differs"
VERDICTS = (SAME, REFUSED, REWORDED, DIFFERS)
PARTS = ("nodes", "tensors", "values", "metadata", "rest", "data")
"""Of a model file, nodes first: what differs there explains the others best."""


@dataclass
class Comparison:
    """The verdict on each case.

    Attributes:
        verdicts: by the group's name, how many cases ended how.
        differences: the cases that differ, and where.
        reworded: the refusals with another message, and both messages.
        renamed: pairs of pipeline texts that differ where all else is the same, and in how many cases.
    """

    verdicts: dict[str, Counter[str]] = field(default_factory=dict)
    differences: dict[str, str] = field(default_factory=dict)
    reworded: dict[str, str] = field(default_factory=dict)
    renamed: Counter[tuple[str, str]] = field(default_factory=Counter)


def compare(groups: Mapping[str, str], before: Mapping[str, Any], after: Mapping[str, Any]) -> Comparison:
    """Compares what the collector found for each case.

    Args:
        groups: the cases' names, with the name of the group that each is counted in.
    """
    result = Comparison()
    for name, group in groups.items():
        old, new = before[name], after[name]
        verdict = SAME
        if difference := first_difference(old, new):
            verdict = DIFFERS
            result.differences[name] = difference
        elif old["code"]:
            verdict = REFUSED
            if old["complaint"] != new["complaint"]:
                verdict = REWORDED
                result.reworded[name] = f"{old['complaint']}\n    -> {new['complaint']}"
        elif old.get("pipeline") != new.get("pipeline"):
            result.renamed[old["pipeline"], new["pipeline"]] += 1
        result.verdicts.setdefault(group, Counter())[verdict] += 1
    return result


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Where two outcomes part; empty where they are the same but for the words of a refusal or a pipeline.

    A report in JSON may have gained entries; those of before must be the same.
    """
    if old["code"] != new["code"]:
        return f"exit code {old['code']} -> {new['code']}: {old.get('complaint') or new.get('complaint')}"
    if old["code"]:
        # Exit code 1 is also that of an exception that nobody caught, which is another thing than a refusal.
        crashes = [kind for o in (old, new) for kind in [o["complaint"].startswith("crash: ")]]
        return "" if crashes[0] == crashes[1] else f"{old['complaint']} -> {new['complaint']}"
    if "json" in old:
        # the file's own path, which a result kept from an earlier run has from there
        named = {k: v for k, v in old["json"].items() if k != "model"}
        return _in_json(named, new["json"], "")
    if "text" in old:
        return _in_lists("line", old["text"].splitlines(), new["text"].splitlines())
    return next((d for p in PARTS if (d := _in_lists(p.removesuffix("s"), old[p], new[p]))), "")


def _in_lists(what: str, old: Sequence[str], new: Sequence[str]) -> str:
    for index, (a, b) in enumerate(zip_longest(old, new)):
        if a != b:
            return f"{what} {index} of {len(old)}, {len(new)}: {a} -> {b}"
    return ""


def _in_json(old: Any, new: Any, where: str) -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = [(f"{where}.{k}", old[k], new.get(k, "nothing")) for k in old]
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = [(f"{where}[{i}]", a, b) for i, (a, b) in enumerate(zip(old, new, strict=True))]
    else:
        return "" if old == new else f"{where}: {old} -> {new}"
    return next((d for path, a, b in pairs if (d := _in_json(a, b, path))), "")

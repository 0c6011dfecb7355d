"""docs/operators.md has every op of ONNX's list, in one of the four states."""

from __future__ import annotations

import re

import onnx
import pytest
from places import ROOT

from irshap.lowering.importer import IMPORTERS

PAGE = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.split("|")[1:-1]] for line in PAGE.splitlines() if line.startswith("| ")
]


def test_every_op_is_in_a_state() -> None:
    version = re.search(r"onnx ([\d.]+) ships", PAGE)
    assert version is not None
    if version[1] != onnx.__version__:
        pytest.skip(f"the page was written for onnx {version[1]}")
    listed = {s.name: s for s in onnx.defs.get_all_schemas() if not s.domain}
    expected = {name: str(s.since_version) for name, s in listed.items() if not s.deprecated}
    rows = ROWS[2:]
    assert {kind: since for kind, since, *_ in rows} == expected
    assert len(rows) == len(expected)
    assert {state for _, _, state, *_ in rows} <= {"rule", "body", "rows", "refused"}


def test_states_fit_what_is_registered() -> None:
    for kind, _, state, _, reason in ROWS[2:]:
        if state == "body":
            assert kind not in IMPORTERS, f"{kind} has a rule: run tests/bench/operators.py"
        if state == "refused":
            assert reason, f"{kind} is refused without a reason"
            assert kind not in IMPORTERS, f"{kind} can be lifted: run tests/bench/operators.py"

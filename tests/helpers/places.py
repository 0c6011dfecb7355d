"""Where things stand in the checkout."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
FIXTURES = TESTS / "fixtures"
FAMILIES = FIXTURES / "families"
GOLDEN = TESTS / "golden"
BENCH = TESTS / "bench"
DOCS = ROOT / "docs"

"""What all tests share: the golden files of IR text (see goldens.py), a user, a browser."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
from browsing import browser  # noqa: F401
from goldens import FOLDER, check_golden
from hypothesis import settings
from shells import Shell

from irshap.compiler import catalog
from irshap.pipeline.base import Context

_ = catalog  # importing it registers all passes and methods

# how long an example takes says more of the machine than of irshap
settings.register_profile("irshap", deadline=None)
settings.load_profile("irshap")


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A user in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: the collector needn't walk through it in each test.

    Graphs are circles of many small objects, so that young ones are looked at in larger lots, too.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-golden", action="store_true", help="write what passes give now into the golden files"
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., None]:
    """`golden(path, context=None)` checks one file below tests/golden, or refreshes it."""

    def check(path: str | Path, context: Context | None = None) -> None:
        refresh = request.config.getoption("--refresh-golden")
        difference = check_golden(FOLDER / path, refresh=refresh, context=context)
        if difference is not None:
            pytest.fail(difference, pytrace=False)

    return check

"""A user at the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from irshap.cli import main


class Shell:
    """Runs commands in a folder of its own and hands back what they print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.code, self.out, self.err = 0, "", ""

    def __call__(self, *args: Any) -> Shell:
        self.code = main([str(a) for a in args])
        self.out, self.err = self.capsys.readouterr()
        return self

    def ok(self, *args: Any) -> str:
        self(*args)
        assert (self.code, self.err) == (0, "")
        return self.out

    def json(self, *args: Any) -> Any:
        return json.loads(self.ok(*args, "--json"))

    def refused(self, *args: Any, code: int = 2) -> str:
        """Runs what must fail, with one message and without a trace in the folder; returns the message."""
        before = {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}
        self(*args)
        assert self.code == code
        assert self.out == ""
        assert self.err.count("error: ") == 1
        assert "Traceback" not in self.err
        assert {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()} == before
        return self.err

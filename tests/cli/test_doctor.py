"""`irshap doctor`, and completion in shells."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from places import ROOT

import irshap
from irshap.cli import doctor, main
from irshap.cli.doctor import EXTRAS
from irshap.runtime import reading

INTERNAL = {"test", "bench", "docs"}


def told(capsys: pytest.CaptureFixture[str], code: int = 0) -> Any:
    assert main(["doctor", "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_it_tells_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys)
    assert found["irshap"] == irshap.__version__
    assert found["packages"]["numpy"] == np.__version__
    assert "CPUExecutionProvider" in found["providers"]
    assert found["trial"]["works"] and "sums up to" in found["trial"]["told"]
    assert found["extras"]["plot"]["there"]  # tests need it
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert f"irshap {irshap.__version__} on Python" in out and "trial: compiled, ran" in out


def test_it_knows_the_extras() -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    expected = {
        extra: {re.split(r"[^\w-]", text)[0] for text in packages}
        for extra, packages in listed.items()
        if extra not in INTERNAL
    }
    assert {extra: set(packages) for extra, packages in EXTRAS.items()} == expected


def test_it_says_what_is_missing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"matplotlib": "3.9", "graphviz": "0.21", "onnxruntime": "1.31", "onnxruntime-gpu": "1.31"}
    monkeypatch.setattr(doctor, "_version", versions.get)
    monkeypatch.setattr(doctor.shutil, "which", lambda program: None)
    found = told(capsys)
    assert found["extras"]["plot"] == {"there": True, "missing": [], "versions": {"matplotlib": "3.9"}}
    assert found["extras"]["report"]["missing"] == ["jinja2"]
    assert found["extras"]["graph"]["missing"] == ["the program dot"]
    assert "onnxruntime and onnxruntime-gpu are both installed" in found["concerns"][0]
    main(["doctor"])
    captured = capsys.readouterr()
    assert 'pip install "irshap[report]"' in captured.out
    assert "install it with your system's packages" in captured.out
    assert "warning: onnxruntime and onnxruntime-gpu" in captured.err


def test_a_failed_trial_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(reading.TOLERANCES, 4, -1.0)
    assert main(["doctor"]) == 1
    assert "error: the demo's model doesn't compile and run here" in capsys.readouterr().err


def completions(words: str, last: int, shell: str = "bash") -> str:
    """What a shell is told of the word that comes last."""
    env = {
        **os.environ,
        "_IRSHAP_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": f"{last}",
    }
    code = "import sys; from irshap.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shells_complete_commands(shell: str) -> None:
    told = completions("irshap re", 1, shell)
    assert "references" in told and "report" in told and "compile" not in told


def test_shells_complete_options() -> None:
    told = completions("irshap compile --mem", 2)
    assert "--memory-limit" in told and "--output" not in told

"""The same model, references and pipeline give the same file, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from places import ROOT

CODE = """
import sys
import irshap
from irshap import demo
irshap.compile(demo.model_path(), demo.references_path()).save(sys.argv[1])
"""


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    # sets and dicts of strings go by a hash that differs from process to process
    found = []
    for seed in ("0", "1"):
        file = tmp_path / f"{seed}.onnx"
        env = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", CODE, str(file)], env=env, cwd=ROOT, check=True)
        found.append(file.read_bytes())
    assert found[0] == found[1]

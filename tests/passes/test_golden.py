"""Every file of tests/golden: IR text in, pipeline, IR text out; those in references/ get some."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from goldens import FOLDER, check_golden, run_golden

from irshap.errors import ParseError
from irshap.pipeline.base import Context


@pytest.mark.parametrize("path", sorted(p.relative_to(FOLDER) for p in FOLDER.glob("*.ir")), ids=str)
def test_golden(golden: Callable[[Path], None], path: Path) -> None:
    golden(path)


@pytest.mark.parametrize("name", ["bind-references", "fold-references", "stream"])
def test_golden_with_references(golden: Callable[..., None], name: str) -> None:
    references = {"x": np.array([[1.0, 2.0], [-3.0, 0.5]])}
    golden(f"references/{name}.ir", Context(references=references, weights=np.array([0.25, 0.75])))


def test_golden_with_one_reference(golden: Callable[..., None]) -> None:
    golden("references/deeplift.ir", Context(references={"x": np.array([[1.0, 2.0]])}))


def test_a_golden_file_is_checked_and_refreshed(tmp_path: Path) -> None:
    graph = 'graph @g\n%x = input{name="x"} : f32[N]\noutput "y" {role=model} = %x\n'
    file = tmp_path / "a.ir"
    file.write_text(f"// RUN: dce\n{graph}// ----\ngraph @other\n")
    difference = check_golden(file, refresh=False)
    assert difference is not None
    assert "-graph @other\n+graph @g\n" in difference
    assert check_golden(file, refresh=True) is None
    assert file.read_text() == f"// RUN: dce\n{graph}// ----\n{graph}"
    assert check_golden(file, refresh=False) is None


def test_what_a_golden_file_holds() -> None:
    with pytest.raises(ValueError, match="one line '// RUN: <pipeline>', found 0"):
        run_golden("graph @g\n// ----\n")
    with pytest.raises(ParseError):
        run_golden("// RUN: dce\ngraph\n// ----\n")
    *_, found = run_golden("// RUN: dec\ngraph @g\n// ----\n")
    assert found.startswith("// ERROR: ")
    assert "dce" in found

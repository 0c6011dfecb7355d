"""The package list, the version and the layout that pyproject.toml promises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import irshap
import irshap.lowering
import irshap.passes

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("irshap", "lowering", "passes")


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text()))


def dotted(folder: Path) -> str:
    """`passes/x` -> `irshap.passes.x`: the name under which a folder of the tree is imported."""
    parts = folder.relative_to(ROOT).parts
    return ".".join(parts if parts[0] == "irshap" else ("irshap", *parts))


def test_every_package_is_listed(config: dict[str, Any]) -> None:
    found = {dotted(init.parent) for top in SOURCES for init in (ROOT / top).rglob("__init__.py")}
    assert found == set(config["tool"]["setuptools"]["packages"])


def test_every_module_stands_in_a_package() -> None:
    modules = (file for top in SOURCES for file in (ROOT / top).rglob("*.py"))
    loose = {
        str(file.parent.relative_to(ROOT)) for file in modules if not (file.parent / "__init__.py").exists()
    }
    assert not loose, "these folders need an __init__.py, and a place in pyproject.toml's packages"


def test_version_agrees(config: dict[str, Any]) -> None:
    assert irshap.__version__ == config["project"]["version"]


def test_mapped_packages_come_from_this_tree() -> None:
    found = [Path(package.__file__ or "").parent for package in (irshap, irshap.lowering, irshap.passes)]
    assert found == [ROOT / "irshap", ROOT / "lowering", ROOT / "passes"]

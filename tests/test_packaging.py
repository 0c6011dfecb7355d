"""The package list, the version and the layout that pyproject.toml promises."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from places import ROOT

import irshap
import irshap.lowering
import irshap.passes

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


def test_an_op_is_lifted_and_lowered_in_a_file_of_the_same_name() -> None:
    # what becomes other ops once it is lifted
    unmodeled = {"branch", "fourier", "integer", "ml", "sequence", "svm"}
    ops, lowered = (
        {f.name for f in (ROOT / folder).glob("*.py")} for folder in ("irshap/ops", "lowering/ops")
    )
    assert lowered - ops == {f"{name}.py" for name in unmodeled}


def test_every_module_stands_in_a_package() -> None:
    modules = (file for top in SOURCES for file in (ROOT / top).rglob("*.py"))
    loose = {
        str(file.parent.relative_to(ROOT)) for file in modules if not (file.parent / "__init__.py").exists()
    }
    assert not loose, "these folders need an __init__.py, and a place in pyproject.toml's packages"


def test_every_data_file_is_listed(config: dict[str, Any]) -> None:
    patterns = config["tool"]["setuptools"]["package-data"]["irshap"]
    listed = {path for pattern in patterns for path in (ROOT / "irshap").glob(pattern)}
    files = {
        path for path in (ROOT / "irshap").rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    assert {path for path in files if path.suffix != ".py"} == listed


def test_version_agrees(config: dict[str, Any]) -> None:
    assert irshap.__version__ == config["project"]["version"]


OPTIONAL = {"matplotlib", "ray"}
"""What irshap imports by statement, and only where an extra has brought it."""


def syntax() -> Iterator[tuple[Path, ast.AST]]:
    """Every node of the sources' syntax trees, and its file."""
    for file in (file for top in SOURCES for file in (ROOT / top).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            yield file, node


def imported() -> Iterator[str]:
    """The top-level names of all modules that the sources import, neither Python's nor irshap's."""
    for file, node in syntax():
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import"
            names = [str(node.module)]
        yield from {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "irshap"}


def distributions(requirements: list[str]) -> set[str]:
    """The names of what is required, without versions and markers; `_` and `-` are the same in them."""
    return {re.split(r"[^\w-]", text)[0].replace("_", "-").lower() for text in requirements}


def test_optional_packages_are_in_the_extras_that_messages_name(config: dict[str, Any]) -> None:
    extras = config["project"]["optional-dependencies"]
    calls = [n for _, n in syntax() if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
    found = [
        call.args[1:3] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "optional"
    ]
    assert len(found) > 5
    for package, extra in found:
        assert isinstance(extra, ast.Constant)
        named = distributions(extras[extra.value])
        assert not isinstance(package, ast.Constant) or package.value in named


def test_every_import_is_declared_and_every_dependency_imported(config: dict[str, Any]) -> None:
    project = config["project"]
    needed = distributions(project["dependencies"])
    extras = distributions([text for extra in project["optional-dependencies"].values() for text in extra])
    known = packages_distributions()
    homes = {name: distributions(known.get(name, [name])) for name in set(imported())}
    undeclared = {name for name, home in homes.items() if not home & (extras if name in OPTIONAL else needed)}
    assert not undeclared, "declare these in pyproject.toml's dependencies"
    assert set(homes) >= OPTIONAL
    used = set().union(*homes.values())
    # the CPU build of ONNX Runtime is installed where there is no GPU build
    assert needed - used <= {"onnxruntime", "onnxruntime-gpu"}


def test_other_files_name_the_same_versions(config: dict[str, Any]) -> None:
    assert f"\nversion: {irshap.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f" {irshap.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    ruff = next(t for t in config["project"]["optional-dependencies"]["test"] if t.startswith("ruff"))
    assert (
        f"ruff-pre-commit\n    rev: v{ruff.removeprefix('ruff~=')}\n"
        in (ROOT / ".pre-commit-config.yaml").read_text()
    )


def test_mapped_packages_come_from_this_tree() -> None:
    found = [Path(package.__file__ or "").parent for package in (irshap, irshap.lowering, irshap.passes)]
    assert found == [ROOT / "irshap", ROOT / "lowering", ROOT / "passes"]

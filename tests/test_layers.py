"""The house stays a house: packages in one order, no import circle, no import hidden in a function."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
from places import ROOT

from irshap.compiler.catalog import METHODS

FLOORS = ("errors", "extras", "contract", "files", "runtime", "datasets", "engines", "report", "ir", "ops")
FLOORS += ("text", "attribution", "pipeline", "lowering", "serving", "checks", "passes", "cost", "compiler")
FLOORS += ("metrics", "training", "demo", "cli")
"""Each package imports only from those before it and from itself; `irshap` itself names the public ones."""

LAZY = ("irshap.cli", "irshap.demo")
"""Where an import may wait until a function runs: commands start without the compiler."""


def modules() -> dict[str, Path]:
    """Every module of the house by the name that it is imported under."""
    found = {}
    for top in ("irshap", "passes", "lowering"):
        for file in (ROOT / top).rglob("*.py"):
            parts = file.relative_to(ROOT).with_suffix("").parts
            parts = parts if parts[0] == "irshap" else ("irshap", *parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imports(name: str) -> Iterator[tuple[str, ast.ImportFrom | ast.Import, bool]]:
    """Each import of irshap's own: the module, the statement, whether it runs when `name` is loaded."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    top = set(ast.walk(tree)) - {n for f in ast.walk(tree) if isinstance(f, FUNCTIONS) for n in ast.walk(f)}
    for node in ast.walk(tree):
        targets: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            targets = [i if i in MODULES else node.module for i in inner]
        elif isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        for target in dict.fromkeys(targets):
            if target.split(".")[0] == "irshap":
                assert isinstance(node, ast.ImportFrom | ast.Import)
                yield target, node, node in top


FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def floor(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def place(name: str, line: int) -> str:
    return f"{MODULES[name].relative_to(ROOT)}:{line}"


def test_every_package_has_a_floor() -> None:
    assert {floor(name) for name in MODULES} - {"", "__main__"} == set(FLOORS)


def test_packages_import_only_those_below() -> None:
    wrong = []
    for name in MODULES:
        if floor(name) in ("", "__main__"):
            continue
        for target, node, _ in imports(name):
            if target == "irshap":
                names = {alias.name for alias in node.names}
                ok = names <= {*FLOORS[: FLOORS.index(floor(name)) + 1], "demo"}
            else:
                ok = FLOORS.index(floor(target)) <= FLOORS.index(floor(name))
            if not ok:
                wrong.append(f"{place(name, node.lineno)} imports {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_circle() -> None:
    graph = nx.DiGraph()
    for name in MODULES:
        # a package's own file stands for its modules' common entry: they are loaded through it, not by it
        edges = ((name, target) for target, _, top in imports(name) if top and target in MODULES)
        graph.add_edges_from(
            (a, b) for a, b in edges if a != b and a != "irshap" and not a.startswith(f"{b}.")
        )
    assert not list(nx.simple_cycles(graph))


def test_no_import_hides_in_a_function() -> None:
    hidden = [
        f"{place(name, node.lineno)} imports {target}"
        for name in MODULES
        if not name.startswith(LAZY)
        for target, node, top in imports(name)
        if not top
    ]
    assert not hidden, "\n".join(hidden)


def test_no_import_is_for_type_checkers_alone() -> None:
    """A circle that only a type checker would see is one all the same; `irshap` names what it loads late."""
    dodging = [
        place(name, node.lineno)
        for name in MODULES
        if not name.startswith(LAZY) and name != "irshap"
        for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8")))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    assert not dodging, "\n".join(dodging)


def test_no_file_is_long() -> None:
    files = [*MODULES.values(), *(ROOT / "tests").rglob("*.py")]
    counts = {str(f.relative_to(ROOT)): f.read_text(encoding="utf-8").count("\n") for f in files}
    assert {name: count for name, count in counts.items() if count > 500} == {}


def test_a_method_is_one_short_file() -> None:
    files = {name: Path(inspect.getfile(method)) for name, method in METHODS.items()}
    counts = {name: file.read_text(encoding="utf-8").count("\n") for name, file in files.items()}
    assert len(set(files.values())) == len(METHODS) >= 16
    assert {name: count for name, count in counts.items() if count > 120} == {}

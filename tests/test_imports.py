"""irshap imports from anywhere, quickly, and an interrupt while it loads is an interrupt like any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

SITE = Path(np.__file__).parent.parent

PARTS = """
import sys, pickle
import irshap, irshap.lowering, irshap.passes
from irshap.passes.dce import DeadCodeElimination as Pass
from irshap.compiler.catalog import PASSES
"""


def python(code: str, folder: Path, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Python as a user starts it in `folder`: nothing of this process's own path."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    command = [sys.executable, *options, "-c", code]
    return subprocess.run(command, cwd=folder, env={**inherited, **env}, capture_output=True, text=True)


def printed(code: str, folder: Path, *options: str, **env: str) -> list[str]:
    done = python(code, folder, *options, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


# -S leaves out what an editable install adds to the import system; the dependencies come by PYTHONPATH
PLAIN = pytest.mark.parametrize("plain", [False, True], ids=["installed", "not-installed"])


@PLAIN
def test_the_repositorys_root_finds_all_of_itself(plain: bool) -> None:
    code = f"{PARTS}\nprint(irshap.__file__, irshap.passes.__file__, irshap.lowering.__file__)"
    options, env = (["-S"], {"PYTHONPATH": str(SITE)}) if plain else ([], {})
    found = [Path(file).resolve() for file in printed(code, ROOT, *options, **env)]
    assert found == [ROOT / part / "__init__.py" for part in ("irshap", "passes", "lowering")]


@PLAIN
def test_the_repositorys_root_gives_each_class_once(plain: bool) -> None:
    code = f"""{PARTS}
assert pickle.loads(pickle.dumps(Pass())) == Pass()
assert pickle.loads(pickle.dumps(Pass)) is Pass is PASSES["dce"]
assert Pass.__module__ == "irshap.passes.dce"
assert not {{"passes", "lowering"}} & set(sys.modules)
for name in ("irshap.irshap", "irshap.tests", "irshap.docs"):
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise AssertionError(name)
"""
    options, env = (["-S"], {"PYTHONPATH": str(SITE)}) if plain else ([], {})
    assert printed(code, ROOT, *options, **env) == []


def test_an_installed_package_needs_no_finder(tmp_path: Path) -> None:
    """As a wheel lays it out: passes and lowering inside, and nothing joins the import system."""
    package = tmp_path / "irshap"
    package.mkdir()
    for file in (*(ROOT / "irshap").iterdir(), ROOT / "passes", ROOT / "lowering"):
        (package / file.name).symlink_to(file)
    code = f"""{PARTS}
assert not [finder for finder in sys.meta_path if type(finder).__module__ == "irshap"]
print(irshap.passes.__file__)
"""
    assert printed(code, tmp_path) == [str(package / "passes" / "__init__.py")]


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import irshap", {"numpy", "sympy", "onnx", "onnxruntime", "click"}),
        ("import irshap.cli", {"numpy", "sympy", "onnx", "onnxruntime", "click", "rich"}),
        ("from irshap.cli.commands import run; run(['--help'])", {"numpy", "sympy", "onnx", "rich"}),
        ("from irshap.cli.commands import run; run(['--version'])", {"numpy", "sympy", "onnx", "rich"}),
    ],
)
def test_what_is_asked_for_often_waits_for_nothing_heavy(code: str, absent: set[str]) -> None:
    done = python(f"import sys; {code}; print('loaded', sorted({absent} & set(sys.modules)))", ROOT)
    assert done.stdout.splitlines()[-1] == "loaded []", done.stderr


SCRIPT = "import sys; from irshap.cli import main; sys.argv = ['irshap', 'passes']; sys.exit(main())"
MODULE = "import sys, runpy; sys.argv[1:] = ['passes']; runpy.run_module('irshap', run_name='__main__')"
ENTRIES = pytest.mark.parametrize("entry", [SCRIPT, MODULE], ids=["irshap", "python -m irshap"])


@ENTRIES
@pytest.mark.parametrize("module", ["click", "irshap.cli.commands", "sympy", "numpy", "irshap.passes.dce"])
def test_an_interrupted_import_exits_with_130(entry: str, module: str) -> None:
    code = f"""
import sys
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
{entry}
"""
    done = python(code, ROOT)
    # click ends the line in which a terminal shows ^C
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, "", "")


@ENTRIES
def test_a_signal_while_a_module_loads_exits_with_130(entry: str, tmp_path: Path) -> None:
    """The signal comes from the module itself, which then waits: nothing here hangs on time."""
    (tmp_path / "click.py").write_text(
        "import os, signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "time.sleep(600)\n"
    )
    done = python(entry, ROOT, PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_the_module_is_the_command() -> None:
    assert "Usage: irshap" in " ".join(printed(MODULE.replace("passes", "--help"), ROOT))

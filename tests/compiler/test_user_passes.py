"""Passes and methods of another package: the worked example of docs/, installed and run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx.parser
import pytest
from onnx import numpy_helper
from places import DOCS
from shells import Shell

import irshap
from irshap.lowering import lift
from irshap.text import print_graph

pytestmark = pytest.mark.slow

EXAMPLE = DOCS / "examples" / "user_passes"
MODEL = """<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x) => (float[N, 2] y)
    {a = MatMul(x, w) z = Constant<value = float {0}>() h = Max(a, z) y = MatMul(h, v)}"""
STEPS = "lift,max-as-relu,target,canonicalize,autodiff,@method,dce,lower"


def model() -> onnx.ModelProto:
    made = onnx.parser.parse_model(MODEL)
    rng = np.random.default_rng(3)
    for name, shape in {"w": (3, 6), "v": (6, 2)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package installed in it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    source = tmp_path_factory.mktemp("source")
    subprocess.run(["cp", "-r", str(EXAMPLE), str(source)], check=True)  # building leaves files behind
    command = [*pip, "--disable-pip-version-check", "--target", str(folder), str(source / EXAMPLE.name)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def run(site: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, "-m", "irshap", *args]
    env = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd, check=False)


def test_a_package_brings_a_pass_and_a_method(site: Path, tmp_path: Path) -> None:
    onnx.save(model(), tmp_path / "m.onnx")
    done = run(
        site,
        *("compile", "m.onnx", "-o", "e.onnx", "--target", "1"),
        *("--method", "deconvnet", "--passes", STEPS),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    x = np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32)
    found = irshap.Explainer(tmp_path / "e.onnx")(x)
    assert "max-as-relu" in found_pipeline(tmp_path / "e.onnx")
    w, v = (numpy_helper.to_array(t) for t in model().graph.initializer)
    wanted = np.broadcast_to(np.maximum(v[:, 1], 0) @ w.T, x.shape)
    np.testing.assert_allclose(found.values, wanted, rtol=1e-5, atol=1e-6)


def found_pipeline(path: Path) -> str:
    return irshap.Explainer(path).metadata["irshap.pipeline"]


def test_opt_and_the_listings_know_them(site: Path, tmp_path: Path) -> None:
    (tmp_path / "m.ir").write_text(print_graph(lift(model())))
    opted = run(site, "opt", "m.ir", "--passes", "max-as-relu,dce", cwd=tmp_path)
    assert "relu(" in opted.stdout
    assert "max(" not in opted.stdout
    assert "deconvnet" in run(site, "methods", cwd=tmp_path).stdout
    assert "writes max(x, 0) as relu(x)" in run(site, "passes", "max-as-relu", cwd=tmp_path).stdout.lower()


def test_without_the_package_they_are_unknown(shell: Shell) -> None:
    onnx.save(model(), shell.folder / "m.onnx")
    message = shell.refused("print", "m.onnx", "--passes", "lift,max-as-relu")
    assert "no pass is called 'max-as-relu'" in message


def test_a_broken_package_is_named_where_its_passes_are_missed(tmp_path: Path) -> None:
    broken = tmp_path / "site"
    (broken / "torn-1.0.dist-info").mkdir(parents=True)
    (broken / "torn-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: torn\nVersion: 1.0\n"
    )
    (broken / "torn-1.0.dist-info" / "entry_points.txt").write_text("[irshap.passes]\nmine = torn.passes\n")
    onnx.save(model(), tmp_path / "m.onnx")
    fine = run(broken, "print", "m.onnx", cwd=tmp_path)
    assert fine.returncode == 0, fine.stderr
    done = run(broken, "print", "m.onnx", "--passes", "lift,mine", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "the passes 'mine' of the package torn are missing: ModuleNotFoundError" in done.stderr
    assert "warning: the passes 'mine' of the package torn" in run(broken, "passes", cwd=tmp_path).stderr

"""`irshap doctor`: which versions and parts are there, and whether they work together."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from irshap.cli.output import echo_json, table
from irshap.contract import VERSION
from irshap.errors import CheckFailed, IrshapError, printable

__all__ = ["EXTRAS", "doctor_command"]

EXTRAS = {
    "plot": ("matplotlib",),
    "report": ("jinja2", "matplotlib"),
    "graph": ("graphviz",),
    "interop": ("pandas", "shap", "xarray"),
    "sklearn": ("scikit-learn", "skl2onnx"),
    "torch": ("onnxscript", "torch"),
    "openvino": ("openvino",),
    "mlflow": ("mlflow",),
    "parquet": ("pyarrow",),
    "images": ("pillow",),
    "ray": ("ray",),
    "browser": ("axe-playwright-python", "playwright"),
}
"""The packages of each extra, as in pyproject.toml."""

_NEEDED = ("onnx", "numpy", "ml_dtypes", "protobuf", "networkx", "sympy", "click", "rich")
_PROGRAMS = {"graph": ("dot",), "browser": ("chromium", "chromium-browser", "google-chrome")}
"""Programs of the system that an extra needs one of."""

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def doctor_command(as_json: bool) -> None:
    """Tell which versions, providers and optional parts are there, and compile and run the demo's model.

    Exits with 1 if that fails.  What it prints belongs into the report of a fault.
    """
    found: dict[str, Any] = {
        "irshap": VERSION,
        "python": f"{platform.python_version()}, {platform.platform()}, {os.cpu_count()} processors",
        "packages": {name: _version(name) for name in (*_NEEDED, *_RUNTIMES)},
        "providers": _providers(),
        "extras": {extra: _extra(extra, packages) for extra, packages in EXTRAS.items()},
        "passes": _unavailable(),
        "trial": _trial(),
    }
    found["concerns"] = _concerns(found)
    if as_json:
        echo_json(found)
    else:
        _print(found)
    if not found["trial"]["works"]:
        raise CheckFailed(f"the demo's model doesn't compile and run here: {found['trial']['told']}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _extra(extra: str, packages: Sequence[str]) -> dict[str, Any]:
    versions = {package: _version(package) for package in packages}
    missing = [package for package, found in versions.items() if found is None]
    programs = _PROGRAMS.get(extra, ())
    if programs and not any(map(shutil.which, programs)):
        missing.append(f"the program {programs[0]}")
    return {"there": not missing, "missing": missing, "versions": versions}


def _unavailable() -> dict[str, str]:
    """Packages of passes that can't be imported, and why."""
    from irshap.compiler import catalog  # noqa: F401 - fills the table
    from irshap.pipeline.base import UNAVAILABLE

    return dict(UNAVAILABLE)


def _trial() -> dict[str, Any]:
    import numpy as np

    from irshap import demo
    from irshap.compiler.compile import compile as compile_model
    from irshap.runtime.reading import TOLERANCES

    try:
        references = np.load(demo.references_path())[:5]
        explanation = compile_model(demo.model_path(), references).explainer()(demo.digits()[0][:2])
    except IrshapError as error:
        return {"works": False, "told": str(error)}
    lost = explanation.completeness_error
    worst = float("nan") if lost is None else float(np.abs(lost).max())
    # `<=`, so that NaN fails
    return {"works": worst <= TOLERANCES[4], "told": f"compiled, ran, and sums up to {worst:.1e}"}


def _concerns(found: dict[str, Any]) -> list[str]:
    runtimes = [name for name in _RUNTIMES if found["packages"][name] is not None]
    concerns = []
    if len(runtimes) > 1:
        concerns.append(
            f"{' and '.join(runtimes)} are both installed, and overwrite each other's files: uninstall both, "
            "and install one again"
        )
    concerns += [f"{what} can't be imported: {why}" for what, why in found["passes"].items()]
    return concerns


def _print(found: dict[str, Any]) -> None:
    click.echo(f"irshap {found['irshap']} on Python {found['python']}")
    rows = [[name, told] for name, told in found["packages"].items() if told is not None]
    table(["package", "version"], rows)
    click.echo(f"ONNX Runtime's providers: {', '.join(found['providers'])}\n")
    extras = [
        [extra, "there" if told["there"] else f"missing: {', '.join(told['missing'])}", _how(extra, told)]
        for extra, told in found["extras"].items()
    ]
    table(["extra", "", "to have it"], extras)
    for concern in found["concerns"]:
        click.echo(printable(f"warning: {concern}"), err=True)
    click.echo(f"trial: {found['trial']['told']}")


def _how(extra: str, told: dict[str, Any]) -> str:
    if told["there"]:
        return ""
    packages = any(found is None for found in told["versions"].values())
    return f'pip install "irshap[{extra}]"' if packages else "install it with your system's packages"

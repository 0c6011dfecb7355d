"""All passes and attribution methods there are: importing this module imports, and so registers, them.

Another package brings its own by the entry-point group `irshap.passes`: each entry names a module, whose pass
and method classes register themselves when it is imported (docs/adding_a_pass.md).
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pkgutil import iter_modules
from types import ModuleType

from irshap import passes
from irshap.lowering import lift, lower
from irshap.passes import methods, training
from irshap.passes.methods.base import METHODS
from irshap.pipeline.base import PASSES, UNAVAILABLE
from irshap.pipeline.manager import PassManager
from irshap.pipeline.text import parse_pipeline

__all__ = ["GROUP", "METHODS", "PASSES", "PassManager", "lift", "lower", "parse_pipeline"]

GROUP = "irshap.passes"
"""The entry-point group of user passes."""


def _import_all(package: ModuleType) -> None:
    for found in iter_modules(package.__path__):
        import_module(f"{package.__name__}.{found.name}")


def _import_user_passes(entries: tuple[EntryPoint, ...]) -> None:
    """A package that fails spoils no pipeline without its passes; errors and listings say what is missing."""
    for entry in entries:
        try:
            entry.load()
        except Exception as error:
            package = "" if entry.dist is None else f" of the package {entry.dist.name}"
            UNAVAILABLE[f"the passes {entry.name!r}{package}"] = f"{type(error).__name__}: {error}"


_import_all(passes)
_import_all(methods)
_import_all(training)
_import_user_passes(tuple(entry_points(group=GROUP)))

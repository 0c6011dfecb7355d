"""irshap compiles an ONNX model into one ONNX file that also returns its attributions.

    compiled = irshap.compile("model.onnx", references)   # references: an array [R, ...]
    compiled.save("explained.onnx")                       # docs/runtimes.md: what runs it
    explanation = irshap.Explainer("explained.onnx")(x)   # .values, .base_values, ...

Method: DeepLIFT (Shrikumar, Greenside, Kundaje 2017), averaged over references as in DeepSHAP (Lundberg, Lee
2017), compiled into the model as in ONNXExplainer (Zhao et al. 2023).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from irshap import errors
from irshap.contract import VERSION

if TYPE_CHECKING:
    from irshap.compiler.catalog import PassManager
    from irshap.compiler.compile import compile
    from irshap.compiler.compiled import CompiledModel
    from irshap.compiler.making import make_references
    from irshap.compiler.references import References
    from irshap.contract import Names
    from irshap.datasets import explain_dataset
    from irshap.lowering.lift import lift
    from irshap.lowering.lower import lower
    from irshap.passes.methods.deeplift import DeepLift
    from irshap.passes.target import Target
    from irshap.runtime import Explainer, Explanation


__version__ = VERSION

__all__ = ["CompiledModel", "DeepLift", "Explainer", "Explanation", "Model", "Names", "PassManager"]
__all__ += ["References", "Target", "__version__", "compile", "errors", "explain_dataset", "lift", "lower"]
__all__ += ["make_references"]

_HOMES = {
    "CompiledModel": "irshap.compiler.compiled",
    "DeepLift": "irshap.passes.methods.deeplift",
    "Explainer": "irshap.runtime",
    "Explanation": "irshap.runtime",
    "Model": "irshap.compiler.model",
    "Names": "irshap.contract",
    "PassManager": "irshap.compiler.catalog",
    "References": "irshap.compiler.references",
    "Target": "irshap.passes.target",
    "compile": "irshap.compiler.compile",
    "explain_dataset": "irshap.datasets",
    "lift": "irshap.lowering.lift",
    "lower": "irshap.lowering.lower",
    "make_references": "irshap.compiler.making",
}


class _Checkout:
    """Finds irshap.passes and irshap.lowering in a checkout, where they stand beside irshap/ and not in it.

    A wheel has them inside, and an editable install maps them; but Python started in the repository's root
    finds ./irshap before it asks that map.  Only these two names: with the root in `__path__` there would
    also be irshap.tests, and irshap.irshap, a second copy of every class.
    """

    PARTS = ("passes", "lowering")

    def __init__(self, root: Path) -> None:
        self.root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """As import asks for it."""
        known = name in [f"irshap.{part}" for part in self.PARTS]
        return PathFinder.find_spec(name, [str(self.root)]) if known else None

    @classmethod
    def look(cls, folder: Path) -> None:
        """Joins the finders, where `folder` is irshap/ of a checkout."""
        root = folder.parent
        inside = any((folder / part).is_dir() for part in cls.PARTS)
        if not inside and all((root / part / "__init__.py").is_file() for part in cls.PARTS):
            # first, so that no other checkout's passes join this one's irshap
            sys.meta_path.insert(0, cls(root))


_Checkout.look(Path(__path__[0]))


def __getattr__(name: str) -> Any:
    # Imported when first used: `irshap --help` and `import irshap` stay quick.
    if name not in _HOMES:
        raise AttributeError(f"module 'irshap' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

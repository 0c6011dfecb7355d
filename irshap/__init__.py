"""irshap compiles an ONNX model into one ONNX file that also returns its attributions.

    compiled = irshap.compile("model.onnx", references)   # references: an array [R, ...]
    compiled.save("explained.onnx")                       # runs on any ONNX runtime
    explanation = irshap.Explainer("explained.onnx")(x)   # .values, .base_values, ...

Method: DeepLIFT (Shrikumar, Greenside, Kundaje 2017), averaged over references as in DeepSHAP (Lundberg, Lee
2017), compiled into the model as in ONNXExplainer (Zhao et al. 2023).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from irshap import errors
from irshap.contract import VERSION

if TYPE_CHECKING:
    from irshap.compiler.catalog import PassManager
    from irshap.compiler.compile import compile
    from irshap.compiler.compiled import CompiledModel
    from irshap.compiler.references import References
    from irshap.lowering.lift import lift
    from irshap.lowering.lower import lower
    from irshap.passes.methods.deeplift import DeepLift
    from irshap.passes.target import Target
    from irshap.runtime import Explainer, Explanation


__version__ = VERSION

__all__ = ["CompiledModel", "DeepLift", "Explainer", "Explanation", "PassManager", "References", "Target"]
__all__ += ["__version__", "compile", "errors", "lift", "lower"]

_HOMES = {
    "CompiledModel": "irshap.compiler.compiled",
    "DeepLift": "irshap.passes.methods.deeplift",
    "Explainer": "irshap.runtime",
    "Explanation": "irshap.runtime",
    "PassManager": "irshap.compiler.catalog",
    "References": "irshap.compiler.references",
    "Target": "irshap.passes.target",
    "compile": "irshap.compiler.compile",
    "lift": "irshap.lowering.lift",
    "lower": "irshap.lowering.lower",
}


def __getattr__(name: str) -> Any:
    # Imported when first used: `irshap --help` and `import irshap` stay quick.
    if name not in _HOMES:
        raise AttributeError(f"module 'irshap' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What the installed ONNX Runtime can: asked of itself, with a model of one node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from irshap.ir.types import Array
from irshap.lowering.files.convert import ir_version_for
from irshap.lowering.files.session import RuntimeRefusal, Session

__all__ = ["computes", "lacks", "loaded", "needs_opset"]

_COMPLETE = (1, 31)
"""ONNX Runtime from which on every kernel is there that tests compare with: what it refuses is a failure."""


def loaded(model: onnx.ModelProto) -> Session:
    """The model, ready to run; the test skips itself where an older ONNX Runtime refuses it."""
    try:
        return Session(model)
    except RuntimeRefusal as error:
        if _complete():
            raise
        pytest.skip(_reason(error))


def computes(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    expected: Any,
    output: int = 0,
    *,
    atol: float = 1e-5,
) -> bool:
    """Whether an output is what the op is defined to give everywhere: only an older ONNX Runtime's isn't."""
    if _complete():
        return True
    return np.allclose(Session(model).run(feeds)[output], expected, atol=atol)


def lacks(refusal: str) -> bool:
    """Whether this says that an older ONNX Runtime has no kernel for some node."""
    return "Could not find an implementation for" in refusal and not _complete()


def needs_opset(opset: int) -> None:
    """The test skips itself where ONNX Runtime reads no model of this opset: onnx is always ahead of it."""
    text = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[2] x) => (float[2] y) {{ y = Relu(x) }}'
    model = onnx.parser.parse_model(text)
    model.ir_version = ir_version_for(model.opset_import)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOW_RELEASED_ONNX_OPSET_ONLY", "1")  # round trips take others, in the same process
        try:
            Session(model)
        except RuntimeRefusal as error:
            pytest.skip(_reason(error))


def _reason(error: RuntimeRefusal) -> str:
    """What is wrong stands at the end of ONNX Runtime's message, behind all of the node."""
    return f"ONNX Runtime {onnxruntime.__version__}: ...{str(error.__cause__).strip()[-150:]}"


def _complete() -> bool:
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    return version >= _COMPLETE

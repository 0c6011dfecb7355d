"""OpenVINO on a CPU, in float32: without that hint it takes bfloat16 where the processor has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irshap.engines.base import Engine, EngineFailed, first_line
from irshap.extras import optional
from irshap.runtime.arrays import Arrays

__all__ = ["OpenVINO"]


class OpenVINO(Engine):
    """Intel's runtime; attributions need its hint for float32."""

    name = "openvino"
    title = "OpenVINO"

    def version(self) -> str:
        return str(_package().__version__).partition("-")[0]

    def run(self, model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Arrays]:
        core = _package().Core()
        try:
            read = core.read_model(str(model))
            # by itself it takes bfloat16 where the processor has it
            compiled = core.compile_model(read, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        except Exception as error:  # its errors have no common base but this
            what, mend = f"{self.title} can't load it: {_reason(error)}", "compile with --for openvino"
            raise EngineFailed(what, where=str(model), mend=mend) from error
        results = []
        for feed in feeds:
            try:
                found = compiled(dict(feed))
            except Exception as error:
                raise EngineFailed(f"{self.title} failed: {_reason(error)}", where=str(model)) from error
            results.append({next(iter(o.get_names())): np.array(found[o]) for o in compiled.outputs})
        return results


def _reason(error: Exception) -> str:
    """The lines of its message that aren't places in its sources, as one."""
    lines = [line.strip(" -:") for line in str(error).splitlines() if "src/" not in line]
    return first_line(": ".join(line for line in lines if line) or error)


def _package() -> Any:
    return optional("openvino", "openvino", "openvino", "this runtime")

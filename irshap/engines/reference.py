"""ONNX's reference evaluator: every op in numpy, as the standard defines it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from irshap.engines.base import Engine, EngineFailed, first_line
from irshap.runtime.arrays import Arrays

__all__ = ["Reference"]


class Reference(Engine):
    """Slow, plain, and of the standard's authors."""

    name = "reference"
    title = "ONNX reference evaluator"

    def version(self) -> str:
        return str(onnx.__version__)

    def run(self, model: Path, feeds: Sequence[Mapping[str, object]]) -> list[Arrays]:
        try:
            session = ReferenceEvaluator(str(model))
        except Exception as error:  # its errors have no common base but this
            what = f"{self.title} can't load it: {first_line(error)}"
            raise EngineFailed(what, where=str(model), mend="compile with --for any") from error
        names = session.output_names
        results = []
        for feed in feeds:
            try:
                # overflow and 0/0 are the file's own affair, and seen in what comes out
                with np.errstate(all="ignore"):
                    found = session.run(None, dict(feed))
            except Exception as error:
                raise EngineFailed(f"{self.title} failed: {first_line(error)}", where=str(model)) from error
            results.append(dict(zip(names, map(np.asarray, found), strict=True)))
        return results

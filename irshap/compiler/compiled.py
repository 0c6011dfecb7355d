"""What a compilation gives: the explained model, and how it came about."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx

from irshap.contract import Metadata, metadata_of
from irshap.cost.choose import Choice
from irshap.errors import ModelError
from irshap.ir.core import Graph
from irshap.lowering.files.save import MAX_PROTO, save_model
from irshap.lowering.files.wire import pieces, resident
from irshap.pipeline.report import Report
from irshap.runtime import Explainer

__all__ = ["CompiledModel"]


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """An explained model.

    Attributes:
        lowered: `model`, but for large arrays, which are those of `graph`.
        graph: the last form of the program in irshap's IR.
        report: what each pass did.
        pipeline: the canonical text of the passes that made it.
        choice: the strategy that a memory limit led to, and what each was predicted to take.
    """

    lowered: onnx.ModelProto
    graph: Graph
    report: Report
    pipeline: str
    choice: Choice | None = None

    @cached_property
    def model(self) -> onnx.ModelProto:
        """The ONNX model, with all its data in memory.

        It has the source model's inputs and outputs, then for each attributed tensor `x` the output
        `x_attributions` (shape of x; with K classes at once [N, K, ...]), `base_values` (the target's mean
        over the references; [N] or [N, K]; in the unit of the explained output, as are the attributions),
        `target_index` (int64 [N] or [N, K]) or, where it is no class that is explained, `target_values` ([N]
        or [N, K]), and on request `completeness_error`.
        """
        return resident(self.lowered)

    def __getstate__(self) -> dict[str, Any]:
        # a copy, maybe in another process, has arrays of its own
        return {**self.__dict__, "lowered": self.model}

    @property
    def sizes(self) -> dict[str, int]:
        """Open axes of the source model whose size is fixed in this one: by its references, or as asked."""
        metadata = metadata_of(self.lowered)
        found: dict[str, int] = json.loads(metadata.get(Metadata.SIZES, "{}"))
        return found

    def save(self, path: str | os.PathLike[str], *, external_data: bool | None = None) -> None:
        """Writes the model to `path`: all of it or nothing, the same bytes for the same compilation.

        Args:
            external_data: whether weights, and what is stored of the references, go to
                `<path>.<digest>.data`, from where ONNX Runtime maps them: a chunk at a time is then all that
                must be in memory.  They do in any case when the model exceeds what one ONNX file can hold
                (2 GiB).  None: as the memory limit asks for.  What an older model at `path` had there goes.

        Raises:
            UserError: the folder doesn't exist or can't be written, or the disk is full.
        """
        if external_data is None:
            external_data = self.choice is not None and self.choice.external
        save_model(self.lowered, path, external_over=0 if external_data else MAX_PROTO)

    def explainer(self, providers: Sequence[Any] | None = None, names: Any = None) -> Explainer:
        """An `Explainer` of this model, also of one over 2 GiB; arguments are its own."""
        if self._nbytes <= MAX_PROTO:
            return Explainer(bytes(self), providers, names)
        # no file is needed once the session is made: ONNX Runtime has read it, or holds its pages
        with tempfile.TemporaryDirectory(prefix="irshap-") as folder:
            path = Path(folder, "model.onnx")
            save_model(self.lowered, path, external_over=0, check=False)
            return Explainer(path, providers, names)

    def __bytes__(self) -> bytes:
        """The model as one ONNX file.

        Raises:
            ModelError: it is over 2 GiB, more than one file holds.
        """
        if self._nbytes > MAX_PROTO:
            mend = "save it, or take .explainer(): weights then stand in a file of their own"
            raise ModelError(
                "is over 2 GiB, more than one ONNX file holds", where="compiled model", mend=mend
            )
        return b"".join(pieces(self.lowered))

    @property
    def _nbytes(self) -> int:
        return sum(map(len, pieces(self.lowered)))

    def __repr__(self) -> str:
        outputs = ", ".join(o.name for o in self.lowered.graph.output)
        return f"CompiledModel({self.pipeline!r}, outputs: {outputs})"

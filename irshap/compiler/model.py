"""The model that is compiled, and what is said of it beyond what stands in its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from irshap.compiler.exports import readable
from irshap.errors import ModelError
from irshap.ir.types import Array
from irshap.lowering.computed import MOST_COMPUTED
from irshap.lowering.lift import Lift
from irshap.runtime.sizes import parse_size

__all__ = ["Model"]


@dataclass(frozen=True, eq=False)
class Model:
    """An ONNX model of which some inputs or sizes are fixed, or whose batch is on another axis.

    Attributes:
        source: a path, the bytes of a model, an `onnx.ModelProto`, or what `readable` exports.
        set: values of inputs of one element, such as `{"sampling_rate": 16000}`.  They are gone from the
            compiled model, and what they choose (a branch, say) is decided.
        dims: sizes of open axes by name, such as `{"sequence": 128}`; an axis without a name is called after
            its place, `{"x[1]": 128}`.  The compiled model takes that size alone.
        batch_axes: which axis counts samples, by inputs and outputs: `{"states": 1}`.  Others that have the
            same name there have it, too.  Without it the batch is looked for.
        batch: "auto" finds the model's batch; "none" is for a model whose whole input is one sample, such as
            the nodes of a graph [V, F]: its float inputs get an axis in front, references are [R, V, F].  A
            number finds the batch, and fixes it: the compiled file takes that many samples at a time, and no
            size in it is open for it.
        constants: what may be computed from the model's constants alone: bytes, or a text such as "4GiB".
            Beside large weights four times as much as these take is allowed.
    """

    source: Any
    set: Mapping[str, object] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)
    batch_axes: Mapping[str, int] = field(default_factory=dict)
    batch: str | int = "auto"
    constants: str | int = MOST_COMPUTED

    @staticmethod
    def of(given: Any, example: Mapping[str, Array]) -> Model:
        """`given` as a Model whose source is ONNX, with what is said of it.

        Args:
            example: references by input, on which models that aren't ONNX are run for their export.

        Raises:
            ModelError: it is no model, or one that can't be exported.
        """
        said = given if isinstance(given, Model) else Model(given)
        for name in ("set", "dims", "batch_axes"):
            if not isinstance(value := getattr(said, name), Mapping):
                raise ModelError(f"{name}={value!r} is no mapping", where="Model", mend="give {NAME: VALUE}")
        return replace(said, source=readable(said.source, example))

    @property
    def reading(self) -> Lift:
        """The pass that reads it so."""
        said = (self.set, self.dims, self.batch_axes)
        batch = str(self.batch) if self.fixed_batch is None else "auto"
        values, sizes, axes = (",".join(f"{name}={value}" for name, value in each.items()) for each in said)
        return Lift(batch, values, sizes, axes, constants=parse_size(str(self.constants)))

    @property
    def fixed_batch(self) -> int | None:
        """How many samples the compiled file takes at a time, None for any number."""
        return int(self.batch) if str(self.batch).isdecimal() else None

"""What is measured: samples, what was attributed to them, and the function that was explained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irshap.errors import UserError
from irshap.metrics.cells import Cells
from irshap.metrics.forward import Forward
from irshap.runtime.arrays import Array, Arrays, conform

__all__ = ["Explained", "Subject"]


@dataclass(frozen=True, eq=False)
class Explained:
    """What a file says of samples: attributions by tensor, the explained classes and base values, or None."""

    attributions: Arrays
    classes: Array | None
    base: Array | None


@dataclass(frozen=True, eq=False)
class Subject:
    """Attributions A of N samples, with the function f that they are of.

    Attributes:
        forward: the model.
        inputs: all that it takes, samples first.
        attributions: A by attributed tensor, of its shape [N, ...].
        classes: the explained class of each sample, int64 [N]; None where f is a number by itself.
        labels: the true class of each sample, int64 [N], if it is known.
        base: what A is complete against, [N], as an explained file tells it: its base values.
        explain: explains other samples as these were; None for plain arrays.
        references: by input, what masked cells may be taken from.
        layout: where pictures have their channels (`Cells`).
        memo: what measures keep for other attributions of the same samples.
    """

    forward: Forward
    inputs: Arrays
    attributions: Arrays
    classes: Array | None = None
    labels: Array | None = None
    base: Array | None = None
    explain: Callable[[Arrays], Explained] | None = None
    references: Arrays = field(default_factory=dict)
    layout: str = "auto"
    memo: dict[Any, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.attributions.values())))

    @property
    def explained(self) -> Arrays:
        """The attributed inputs.

        Raises:
            UserError: an interior tensor is attributed, which can't be replaced from outside.
        """
        for name in self.attributions:
            if name not in self.inputs:
                what = f"{name!r} is no input: its cells can't be replaced from outside"
                raise UserError(what, mend="attribute the inputs")
        return {name: self.inputs[name] for name in self.attributions}

    def require_floats(self) -> Arrays:
        """The attributed inputs, which can be moved a little.

        Raises:
            UserError: one is of integers, as tokens are.
        """
        found = self.explained
        for name, array in found.items():
            if array.dtype.kind != "f":
                what = f"input {name!r} is of integers: it can't be moved a little"
                raise UserError(what, mend="take measures that hide cells: irshap evaluate --list")
        return found

    def moved(self, steps: Arrays) -> Arrays:
        """The attributed inputs, each with a step added, in their types.

        Raises:
            UserError: one is of integers, or a step leads beyond its type's range.
        """
        found = self.require_floats().items()
        return {n: conform(x + steps[n], x.dtype, None, UserError, f"input {n!r}, moved") for n, x in found}

    @property
    def cells(self) -> Cells:
        """The cells of the attributed inputs."""
        return Cells({name: array.shape[1:] for name, array in self.explained.items()}, self.layout)

    def outputs(self, changed: Arrays) -> Array:
        """The model's output where some inputs are replaced: float64 [N, C]."""
        return self.forward({**self.inputs, **changed})

    def picked(self, outputs: Array) -> Array:
        """The explained number of each sample, [N]."""
        if self.classes is None:
            return outputs[:, 0]
        return np.take_along_axis(outputs, self.classes[:, None], axis=1)[:, 0]

    def scores(self, changed: Arrays) -> Array:
        """f where some inputs are replaced, [N]."""
        return self.picked(self.outputs(changed))

    def showing(self, shown: Array, filled: Arrays) -> Arrays:
        """The attributed inputs where cells that aren't shown, bool [N, M], are taken from `filled`."""
        parts = self.cells.spread(shown)
        return {name: np.where(parts[name], x, filled[name]) for name, x in self.explained.items()}

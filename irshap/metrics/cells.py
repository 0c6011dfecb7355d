"""The cells that measures rank, show and hide: elements of attributed inputs, pixels with all channels."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from irshap.report.pictures import channel_axis
from irshap.runtime.arrays import Array, Arrays

__all__ = ["Cells"]


class Cells:
    """M cells of a sample, over all attributed inputs; of a picture, a cell is a pixel with its channels.

    Args:
        shapes: of each attributed input, without samples.
        layout: where pictures, the inputs with three axes, have their channels: "channels-first",
            "channels-last", or "auto", which looks for an axis of 1, 3 or 4.

    Raises:
        UserError: no such layout.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], layout: str = "auto") -> None:
        self.channels = {n: channel_axis(s, layout) if len(s) == 3 else None for n, s in shapes.items()}
        self._shapes = {n: _without(s, self.channels[n]) for n, s in shapes.items()}
        self.count = sum(prod(s) for s in self._shapes.values())

    def of(self, attributions: Arrays) -> Array:
        """The attribution of each cell, the mean over its channels, in float64: [N, M]."""
        parts = []
        for name, axis in self.channels.items():
            values = attributions[name].astype(np.float64)
            values = values if axis is None else values.mean(axis=axis + 1)
            parts.append(values.reshape(len(values), -1))
        return np.concatenate(parts, axis=1)

    def spread(self, cells: Array) -> Arrays:
        """Something for each cell, [N, M], by input in a shape that broadcasts to the input's."""
        found, start = {}, 0
        for name, shape in self._shapes.items():
            part = cells[:, start : start + prod(shape)].reshape(len(cells), *shape)
            axis = self.channels[name]
            found[name] = part if axis is None else np.expand_dims(part, axis + 1)
            start += prod(shape)
        return found


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...]:
    return tuple(d for i, d in enumerate(shape) if i != axis)

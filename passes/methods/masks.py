"""The family of methods that run the model on samples with parts replaced: no op needs a rule."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import numpy as np

from irshap.attribution.outputs import is_token, samples_first, source_axes
from irshap.errors import TargetError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Output, Role, Value
from irshap.ir.dims import as_dim, product, same
from irshap.ir.types import Array
from irshap.ops.arithmetic import where
from irshap.ops.logic import And, Equal
from irshap.ops.program import constant
from irshap.ops.rows import RepeatRows
from irshap.ops.shape import Slice, reshape
from irshap.passes.methods.base import Explained, Method
from irshap.passes.methods.chunks import in_chunks, summed
from irshap.passes.methods.wider_batch import MovedBatch, known_shape, samples_alone
from irshap.pipeline.base import Context, Points

__all__ = ["MaskMethod", "Masked", "masked"]


@dataclass(frozen=True)
class Masked:
    """An attributed tensor, as a method that masks it sees it.

    Attributes:
        name: what it is attributed as.
        shape: its axes behind that of the samples.
        cells: how many of these, from the first, are its own: of a token's embedding those behind are not.
    """

    name: str
    shape: tuple[int, ...]
    cells: int


@dataclass(frozen=True)
class MaskMethod(Method, family=True):
    """What a source gets follows from T of samples in which parts of it are replaced by `value`.

    Several sources are masked one after the other, each while the others keep the sample's value.  The model
    runs on `chunk` masked samples of each sample at a time, so that memory doesn't grow with their number.
    """

    FACETS: ClassVar[dict[str, str]] = {
        "masks": "def masks(self, of) -> for each axis what masks replace along it: [M, size]",
        "score": "def score(self, of, t, masked, context) -> what its cells get of T [n] and T masked [n, M]",
    }
    value: float = 0.0
    chunk: int = 25
    points = Points.MASKS
    requires = frozenset({"target"})

    def __post_init__(self) -> None:
        if self.chunk < 0:
            raise ValueError(f"chunk is {self.chunk}, and must be a number of masks, or 0 for all at once")

    @abstractmethod
    def masks(self, of: Masked) -> Sequence[Array]:
        """For each axis of the source truth values [M, size]: mask m replaces what is True on all of them.

        Raises:
            TargetError: there are none for its shape.
        """

    @abstractmethod
    def score(self, of: Masked, t: Value, masked: Value, context: Context) -> Value:
        """What the source gets, [n, *shape], of T(x) [n] and of T for each mask [n, M]."""

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        sample = samples_alone(builder, ir)
        target = ir.output(Role.TARGET).value
        outputs = ir.outputs_of(Role.SOURCE)
        sources = {
            o.value: samples_first(sample[o.value], axis, target.shape[0])
            for o, axis in zip(outputs, source_axes(ir), strict=True)
        }
        scores = []
        for output in outputs:
            of = masked(ir, output, sources[output.value])
            values = self._values(ir, sample, sources, output.value, self.masks(of))
            score = self.score(of, sample[target], values, context)
            scores.append(reshape(score, sources[output.value].shape))
        return Explained(sample.__getitem__, scores)

    def _values(
        self,
        ir: Graph,
        sample: Mapping[Value, Value],
        sources: Mapping[Value, Value],
        source: Value,
        masks: Sequence[Array],
    ) -> Value:
        """T for each mask of one source: [n, M]; `sources` are all of them, samples first."""
        target, count = ir.output(Role.TARGET).value, len(masks[0])
        chunks = [in_chunks(m, self.chunk) for m in masks]
        trips, size = chunks[0].shape[:2]

        def run(slices: Sequence[Value]) -> list[Value]:
            """T of one chunk, in its place among all: [n, trips, C], zero elsewhere."""
            trip, *along = slices
            others = {v: rows for v, rows in sources.items() if v is not source}
            moved = {v: emit1(RepeatRows(0, size), rows) for v, rows in others.items()}
            moved[source] = _replaced(sources[source], along, self.value)
            batch = MovedBatch(ir, size, moved, sample, [target])
            found = reshape(batch.mapped[target], (target.shape[0], 1, size))
            here = reshape(emit1(Equal(), constant(np.arange(trips)), trip), (trips, 1))
            return [where(here, found, 0.0)]

        (values,) = summed([np.arange(trips), *chunks], run)
        every = reshape(values, (target.shape[0], trips * size))
        return every if trips * size == count else emit1(Slice((1,), (0,), (count,), (1,)), every)


def masked(ir: Graph, source: Output, rows: Value) -> Masked:
    """An attributed tensor, as what replaces parts of it sees it; `rows` is the samples' [n, ...]."""
    shape = known_shape(source, rows, "it has no parts yet")
    if 0 in shape:
        raise TargetError(f"{source.name!r} is {rows.type}: there is nothing to replace in it")
    cells = len(shape)
    if is_token(ir, source):
        own = product(ir.input(str(source.of)).shape[1:])
        cells = next(i for i in range(len(shape) + 1) if same(product(shape[:i]), own))
    # one number a sample has one cell
    return Masked(str(source.of), tuple(shape), cells) if shape else Masked(str(source.of), (1,), 1)


def _replaced(rows: Value, along: Sequence[Value], value: float) -> Value:
    """Every row [n, ...] with each of C masks: [n C, ...], the masks of a row together.

    Args:
        along: for each axis what the masks replace, [C, size].
    """
    n, *rest = rows.shape
    sizes = [a.shape[1] for a in along]
    count, rank = along[0].shape[0], len(along)
    columns = [
        reshape(a, (count, *(sizes[i] if i == j else 1 for j in range(rank)))) for i, a in enumerate(along)
    ]
    box = reduce(lambda a, b: emit1(And(), a, b), columns)
    masked = where(box, value, reshape(rows, (n, 1, *sizes)))
    return reshape(masked, (as_dim(n * count), *rest))

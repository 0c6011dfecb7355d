"""grad-cam: the channels of a layer, weighted by their pooled gradients, as a map over the input."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from irshap.attribution.gaps import references_needed
from irshap.errors import TargetError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Op, Point, Role, Value
from irshap.ir.dims import Dim
from irshap.ops.elementwise import Relu
from irshap.ops.reduce import ReduceMean, ReduceSum
from irshap.ops.resample import Resize
from irshap.passes.methods.base import Explained, LocalMethod, Sum
from irshap.passes.methods.wider_batch import known_shape
from irshap.pipeline.base import Context

__all__ = ["GradCam"]


@dataclass(frozen=True)
class GradCam(LocalMethod):
    """max(0, sum over channels c of A_c times the mean of dT/dA_c over positions), resized to the input.

    Selvaraju et al. 2017 (arXiv:1610.02391).  `layer`: the interior tensor A, [samples, channels, ...],
    mostly the last convolution's result; it is what is attributed, so that the output is LAYER_attributions,
    a map [samples, 1, ...].  `resize`: how the map gets the positions of the input that the layer depends on;
    "linear" (half-pixel centres) or "nearest" (below), as torch has them; "none": it keeps the layer's.

    A map of where, not a share of anything; deeplift with wrt=LAYER, summed over channels, is what adds up.
    """

    layer: str
    resize: Literal["linear", "nearest", "none"] = "linear"
    name = "grad-cam"
    sums_to = Sum.NOTHING
    tokens = False

    @property
    def attributes(self) -> str:
        return self.layer

    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        return op.derivative(cts, at, wrt)

    def score(self, m: Value, x: Value) -> Value:
        weights = emit1(ReduceMean(tuple(range(2, m.rank)), keepdims=True), m)
        return emit1(Relu(), emit1(ReduceSum((1,), keepdims=True), weights * x))

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        (source, *others) = ir.outputs_of(Role.SOURCE)
        if others or source.value.rank < 3:
            listed = ", ".join(f"{o.name}: {o.value.type}" for o in (source, *others))
            raise TargetError(
                f"grad-cam takes one layer [samples, channels, positions ...], not {listed}",
                mend="name the result of a convolution (layer)",
            )
        found = super().explain(builder, ir, context)
        (cam,) = found.scores
        if self.resize == "none":
            return found
        sizes = self._positions(ir, cam)
        if tuple(cam.shape[2:]) == sizes:
            return found
        known_shape(source, cam, "a map can't be resized")
        coordinates = "asymmetric" if self.resize == "nearest" else "half_pixel"
        resized = Resize(self.resize, (*cam.shape[:2], *sizes), (), coordinates, "floor")
        return replace(found, scores=[emit1(resized, cam)])

    def _positions(self, ir: Graph, cam: Value) -> tuple[Dim, ...]:
        """Those of the one input that the layer depends on."""
        inputs = references_needed(ir)
        sizes = tuple(inputs[0].shape[2:]) if len(inputs) == 1 and inputs[0].rank == cam.rank else ()
        if not sizes or not all(isinstance(d, int) for d in sizes):
            listed = ", ".join(f"{v.name}: {v.type}" for v in inputs)
            raise TargetError(
                f"the layer {self.layer!r} has no positions of one input of known size ({listed})",
                mend="take resize=none, or fix the sizes: Model(dims=...), --dim",
            )
        return sizes

    @classmethod
    def cases(cls) -> Iterable[GradCam]:
        yield cls(layer="x")

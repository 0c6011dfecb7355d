"""How copies, running sums, interpolation and sums of products are written in ONNX."""

from __future__ import annotations

from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.ops import cumulative, einsum, generate, resample, tile

__all__: list[str] = []


@exporter(tile.Tile)
def _tile(e: Export, op: tile.Tile) -> None:
    e.result("Tile", [e.inputs[0], e.shape(op.repeats)])


@exporter(cumulative.CumSum)
def _cum_sum(e: Export, op: cumulative.CumSum) -> None:
    axis = e.constant(op.axis, "int64")
    e.narrow("CumSum", [e.wide(), axis], exclusive=int(op.exclusive), reverse=int(op.reverse))


@exporter(cumulative.Trilu, opset=14)
def _trilu(e: Export, op: cumulative.Trilu) -> None:
    e.result("Trilu", [e.inputs[0], e.constant(op.k, "int64")], upper=int(op.upper))


def _resize_opset(op: resample.Resize) -> int:
    return 19 if op.coordinates == "half_pixel_symmetric" else FLOOR


@exporter(resample.Resize, opset=_resize_opset)
def _resize(e: Export, op: resample.Resize) -> None:
    size = [e.constant(op.scales, "float32")] if op.scales else ["", e.shape(op.sizes)]
    e.result(
        "Resize",
        [e.inputs[0], "", *size],
        mode=op.mode,
        coordinate_transformation_mode=op.coordinates,
        nearest_mode=op.nearest if op.mode == "nearest" else None,
        cubic_coeff_a=op.cubic if op.mode == "cubic" else None,
        exclude_outside=int(op.exclude_outside) if op.mode == "cubic" else None,
    )


@exporter(einsum.Einsum)
def _einsum(e: Export, op: einsum.Einsum) -> None:
    e.result("Einsum", e.inputs, equation=op.equation)


@exporter(generate.Arange)
def _arange(e: Export, op: generate.Arange) -> None:
    stop = op.start + op.count * op.step
    bounds = [
        e.add("Squeeze", [e.shape([d])]) if not isinstance(d, int) else e.constant(d, "int64")
        for d in (op.start, stop)
    ]
    e.result("Range", [*bounds, e.constant(op.step, "int64")])


@exporter(generate.OneHot)
def _one_hot(e: Export, op: generate.OneHot) -> None:
    e.result("OneHot", e.inputs, axis=op.axis)

"""How convolutions and pooling are written in ONNX."""

from __future__ import annotations

from typing import Any

from irshap.ir.dims import product
from irshap.lowering.emitter import FLOOR, Export, exporter
from irshap.ops import conv, lp, pool, resample

__all__: list[str] = []


def _pads(pads: tuple[tuple[int, int], ...]) -> list[int]:
    return [p[0] for p in pads] + [p[1] for p in pads]


def _window(op: Any) -> dict[str, Any]:
    return {"strides": op.strides, "pads": _pads(op.pads), "dilations": op.dilations}


@exporter(conv.Conv)
def _conv(e: Export, op: conv.Conv) -> None:
    e.result("Conv", e.inputs, group=op.group, kernel_shape=e.operand(1).shape[2:], **_window(op))


@exporter(conv.ConvTranspose)
def _conv_transpose(e: Export, op: conv.ConvTranspose) -> None:
    rest = op.output_padding(e.operand(0).tensor, e.operand(1).tensor)
    # a size known only at run time gets all that can be left over, and is cut to measure
    most = [max(s, d) - 1 for s, d in zip(op.strides, op.dilations, strict=True)]
    padding = [r if isinstance(r, int) else m for r, m in zip(rest, most, strict=True)]
    unknown = [2 + i for i, r in enumerate(rest) if not isinstance(r, int)]
    result = e.add(
        "ConvTranspose",
        e.inputs,
        into=None if unknown else e.outputs,
        group=op.group,
        kernel_shape=e.operand(1).shape[2:],
        output_padding=padding if any(padding) else None,
        **_window(op),
    )
    if unknown:
        stops = e.shape([op.out[axis - 2] for axis in unknown])
        e.result("Slice", [result, e.ints([0] * len(unknown)), stops, e.ints(unknown)])


@exporter(pool.MaxPool)
def _max_pool(e: Export, op: pool.MaxPool) -> None:
    attributes = {"kernel_shape": op.kernel, "ceil_mode": int(op.ceil), **_window(op)}
    # ONNX Runtime's blocked kernel gives no positions.  Behind any other it can't tell that two branches have
    # equal shapes, and fuses an addition less than in the model: the values would round differently
    e.add("MaxPool", e.inputs, into=e.outputs[:1], **attributes)
    if not e.used(1):
        return
    # ONNX counts positions through the whole tensor, the IR within each plane
    again, whole = (e.emitter.fresh(f"{e.outputs[1]}_{what}") for what in ("values", "whole"))
    e.add("MaxPool", e.inputs, into=[again, whole], **attributes)
    plane = e.emitter.dim(product(e.operand().shape[2:]))
    e.add("Mod", [whole, plane], into=[e.outputs[1]])


_DILATED_SINCE = {resample.AveragePool: 19, lp.LpPool: 18}


def _lowest(op: resample.Windowed) -> int:
    return _DILATED_SINCE[type(op)] if any(d > 1 for d in op.dilations) else FLOOR


def _pooling(op: resample.Windowed) -> dict[str, Any]:
    attributes = _window(op)
    if not any(d > 1 for d in op.dilations):
        del attributes["dilations"]
    return {"kernel_shape": op.kernel, **attributes}


@exporter(resample.AveragePool, opset=_lowest)
def _average_pool(e: Export, op: resample.AveragePool) -> None:
    e.result("AveragePool", e.inputs, count_include_pad=int(op.include_pad), **_pooling(op))


@exporter(lp.LpPool, opset=_lowest)
def _lp_pool(e: Export, op: lp.LpPool) -> None:
    e.result("LpPool", e.inputs, p=op.p, **_pooling(op))

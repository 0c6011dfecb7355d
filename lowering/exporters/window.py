"""How convolutions and pooling are written in ONNX."""

from __future__ import annotations

from typing import Any

from irshap.dims import product
from irshap.lowering.emitter import Export, exporter
from irshap.ops import conv, pool

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
    e.result(
        "ConvTranspose",
        e.inputs,
        group=op.group,
        kernel_shape=e.operand(1).shape[2:],
        output_padding=rest if any(rest) else None,
        **_window(op),
    )


@exporter(pool.MaxPool)
def _max_pool(e: Export, op: pool.MaxPool) -> None:
    attributes = {"kernel_shape": op.kernel, "ceil_mode": int(op.ceil), **_window(op)}
    if not e.used(1):
        e.add("MaxPool", e.inputs, into=e.outputs[:1], **attributes)
        return
    # ONNX counts positions through the whole tensor, the IR within each plane
    whole = e.emitter.fresh(e.outputs[1] + "_whole")
    e.add("MaxPool", e.inputs, into=[e.outputs[0], whole], **attributes)
    plane = e.emitter.dim(product(e.operand().shape[2:]))
    e.add("Mod", [whole, plane], into=[e.outputs[1]])

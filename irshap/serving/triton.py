"""Triton: a model repository with config.pbtxt, as its model_config.proto has it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irshap.errors import UserError
from irshap.serving.ports import Explained, Port

__all__ = ["write_triton"]

_TYPES = {
    "bool": "TYPE_BOOL", "uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64", "int8": "TYPE_INT8", "int16": "TYPE_INT16", "int32": "TYPE_INT32",
    "int64": "TYPE_INT64", "float16": "TYPE_FP16", "float32": "TYPE_FP32", "float64": "TYPE_FP64",
    "str": "TYPE_STRING", "bfloat16": "TYPE_BF16",
}  # fmt: skip

_DELAY = 500
"""Microseconds that a request may wait for others."""


def write_triton(model: Explained, name: str, folder: Path, *, batch: int, instances: int, gpu: bool) -> str:
    """Writes NAME/config.pbtxt; the model goes to NAME/1/model.onnx.  Returns that place.

    Raises:
        UserError: a type that Triton doesn't have.
    """
    most = batch if model.batches else 0
    parts = [f'name: "{quoted(name)}"', 'platform: "onnxruntime_onnx"', f"max_batch_size: {most}"]
    parts += [_port("input", port, batched=bool(most)) for port in model.inputs]
    parts += [_port("output", port, batched=bool(most)) for port in model.outputs]
    parts.append(f"instance_group [ {{ count: {instances} kind: {'KIND_GPU' if gpu else 'KIND_CPU'} }} ]")
    if most:
        parts.append(f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY} }}")
    if (warm := _warm_up(model.inputs, batched=bool(most))) is not None:
        parts.append(warm)
    place = folder / name
    place.mkdir(parents=True)
    (place / "config.pbtxt").write_text("\n".join(parts) + "\n", encoding="ascii")
    return f"{name}/1/model.onnx"


def quoted(text: str) -> str:
    """The inside of a string in protobuf's text format: a model's names are any text."""
    plain = {ord('"'): '\\"', ord("\\"): "\\\\"}
    return "".join(
        plain.get(byte, chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}") for byte in text.encode("utf-8")
    )


def _port(kind: str, port: Port, *, batched: bool) -> str:
    dims = [-1 if d is None else d for d in (port.dims[1:] if batched else port.dims)]
    # Triton wants at least one axis behind the batch
    shape = f"dims: [ {', '.join(map(str, dims))} ]" if dims else "dims: [ 1 ] reshape { shape: [ ] }"
    return f'{kind} [ {{ name: "{quoted(port.name)}" data_type: {_type(port)} {shape} }} ]'


def _type(port: Port) -> str:
    if port.dtype not in _TYPES:
        raise UserError(f"Triton has no type for {port.dtype}, which {port.name!r} is of")
    return _TYPES[port.dtype]


def _warm_up(inputs: Sequence[Port], *, batched: bool) -> str | None:
    """One run on zeros before the first request, where all sizes are known."""
    given = []
    for port in inputs:
        dims = port.dims[1:] if batched else port.dims
        if None in dims or port.dtype == "str":
            return None
        shape = ", ".join(map(str, dims or (1,)))
        value = f"data_type: {_type(port)} dims: [ {shape} ] zero_data: true"
        given.append(f'inputs {{ key: "{quoted(port.name)}" value {{ {value} }} }}')
    size = "batch_size: 1 " if batched else ""
    return f'model_warmup [ {{ name: "zeros" {size}{" ".join(given)} }} ]'

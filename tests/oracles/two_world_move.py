"""Ops that only move entries: each output entry is one entry of one operand, or a constant.

Such an op is written once, as a function of arrays of any dtype. Applied to the values it is the forward
pass; applied to the *positions* of its operands' entries (-1: a constant) it says where every output entry
came from, and the transposed map adds each multiplier at that position.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from two_world_core import Array, Call, Site, define, ints, operand, unbroadcast

Move = Callable[[Call, list[Any], Any], list[Any]]
"""(node, operands, what stands for a new zero) -> results"""


def positions(site: Site, movers: tuple[int, ...] | None) -> list[Any]:
    """The operands with every entry that may vary replaced by its position, the rest of the movers by -1."""
    start, out = 0, []
    for i, value in enumerate(site.x):
        if value is None or (movers is not None and i not in movers):
            out.append(value)
        elif site.active[i]:
            out.append(np.arange(start, start + value.size).reshape(value.shape))
            start += value.size
        else:
            out.append(np.full(np.shape(value), -1))
    return out


def transpose_move(move: Move, movers: tuple[int, ...] | None, site: Site, g: list[Array]) -> list[Any]:
    """m[position] += g, over all outputs."""
    sources = move(site.call, positions(site, movers), -1)
    sizes = [v.size if a else 0 for v, a in zip(site.x, site.active, strict=True)]
    flat = np.zeros(sum(sizes))
    for source, grad in zip(sources, g, strict=False):
        kept = source >= 0
        flat += np.bincount(source[kept], grad[kept], flat.size)
    parts = np.split(flat, np.cumsum(sizes)[:-1])
    return [p.reshape(v.shape) if a else None for p, v, a in zip(parts, site.x, site.active, strict=True)]


def movement(*ops: str, movers: tuple[int, ...] | None = (0,), results: int | None = 1) -> Callable[..., Any]:
    def register(move: Move) -> Move:
        define(
            *ops,
            forward=lambda call, inputs: move(call, inputs, 0),
            backward=lambda site, g: transpose_move(move, movers, site, g),
            operands=movers,
            results=results,
            moves=True,
        )
        return move

    return register


@movement("Identity", "Dropout", "Cast")
def identity(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    """Dropout at inference; a Cast between float types (`two_world.py` keeps every float in float64)."""
    if call.op == "Dropout" and operand(inputs, 2) is not None and np.any(inputs[2]):
        raise call.refuse("training_mode=1 is random")
    if call.op == "Dropout" and call.outputs > 1:
        return [inputs[0], np.ones(np.shape(inputs[0]), bool)]
    return [inputs[0]]


@movement("Transpose")
def transpose(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.transpose(inputs[0], call.get("perm"))]


@movement("Reshape")
def reshape(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value = inputs[0]
    shape = ints(inputs[1]) if len(inputs) > 1 else ints(call.get("shape"))
    if not call.get("allowzero", 0):
        shape = [value.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return [value.reshape(shape)]


@movement("Flatten")
def flatten(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, axis = inputs[0], call.get("axis", 1)
    axis = axis + value.ndim if axis < 0 else axis
    return [value.reshape(math.prod(value.shape[:axis]), -1)]


@movement("Squeeze")
def squeeze(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    axes = operand(inputs, 1) if operand(inputs, 1) is not None else call.get("axes")
    return [np.squeeze(inputs[0], None if axes is None else tuple(ints(axes)))]


@movement("Unsqueeze")
def unsqueeze(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    axes = operand(inputs, 1) if operand(inputs, 1) is not None else call.get("axes")
    return [np.expand_dims(inputs[0], tuple(ints(axes)))]


@movement("Expand")
def expand(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    shape = np.broadcast_shapes(inputs[0].shape, tuple(ints(inputs[1])))
    return [np.broadcast_to(inputs[0], shape)]


@movement("Tile")
def tile(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.tile(inputs[0], ints(inputs[1]))]


@movement("Slice")
def slice_(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value = inputs[0]
    if call.opset < 10:
        starts, ends, axes, steps = call.get("starts"), call.get("ends"), call.get("axes"), None
    else:
        starts, ends = ints(inputs[1]), ints(inputs[2])
        axes, steps = operand(inputs, 3), operand(inputs, 4)
    axes = ints(axes) if axes is not None else list(range(len(starts)))
    steps = ints(steps) if steps is not None else [1] * len(starts)
    index = [slice(None)] * value.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        # The spec clamps a negative end that is still negative after adding the size: "up to the beginning".
        size = value.shape[axis]
        stop = None if step < 0 and end < -size else end
        index[axis] = slice(start, stop, step)
    return [value[tuple(index)]]


@movement("Split", results=None)
def split(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, axis = inputs[0], call.get("axis", 0)
    sizes = operand(inputs, 1) if operand(inputs, 1) is not None else call.get("split")
    if sizes is None:
        chunk = -(-value.shape[axis] // call.outputs)
        return np.split(value, [chunk * i for i in range(1, call.outputs)], axis)
    return np.split(value, np.cumsum(ints(sizes))[:-1], axis)


@movement("Concat", movers=None)
def concat(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.concatenate(inputs, call.get("axis", 1))]


@movement("Gather")
def gather(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.take(inputs[0], np.asarray(inputs[1]), call.get("axis", 0))]


@movement("GatherElements")
def gather_elements(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    # Not np.take_along_axis: ONNX lets the other axes of the indices be shorter than the data's.
    value, indices = inputs[0], np.asarray(inputs[1])
    axis = call.get("axis", 0) % value.ndim
    where = list(np.indices(indices.shape, sparse=True))
    where[axis] = indices
    return [value[tuple(where)]]


@movement("GatherND")
def gather_nd(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, indices, batch = inputs[0], np.asarray(inputs[1]), call.get("batch_dims", 0)
    depth = indices.shape[-1]
    out = np.empty(indices.shape[:-1] + value.shape[batch + depth :], value.dtype)
    for at in product(*map(range, indices.shape[:-1])):
        out[at] = value[at[:batch] + tuple(indices[at])]
    return [out]


@movement("Pad", movers=(0, 2))
def pad(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value = inputs[0]
    amounts = ints(inputs[1]) if call.opset >= 11 else ints(call.get("pads"))
    axes = operand(inputs, 3)
    axes = list(range(value.ndim)) if axes is None else [a % value.ndim for a in ints(axes)]
    widths, crop = [(0, 0)] * value.ndim, [slice(None)] * value.ndim
    for i, axis in enumerate(axes):
        before, after = amounts[i], amounts[i + len(axes)]
        widths[axis] = (max(before, 0), max(after, 0))
        crop[axis] = slice(max(-before, 0), value.shape[axis] - max(-after, 0))
    value, mode = value[tuple(crop)], call.get("mode", "constant")
    if mode != "constant":
        return [np.pad(value, widths, mode)]
    fill = operand(inputs, 2) if call.opset >= 11 else None
    if fill is None:
        fill = np.asarray(zero if zero == -1 else call.get("value", 0.0))
    # As an array, so that a position in place of the value passes through as well.
    return [np.pad(value, widths, "constant", constant_values=np.asarray(fill).reshape(-1)[0])]


@movement("DepthToSpace")
def depth_to_space(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, b = inputs[0], call.get("blocksize")
    n, c, h, w = value.shape
    if call.get("mode", "DCR") == "DCR":
        blocks = value.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        blocks = value.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
    return [blocks.reshape(n, c // b**2, h * b, w * b)]


@movement("SpaceToDepth")
def space_to_depth(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, b = inputs[0], call.get("blocksize")
    n, c, h, w = value.shape
    blocks = value.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
    return [blocks.reshape(n, c * b**2, h // b, w // b)]


@movement("Trilu")
def trilu(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    value, k = inputs[0], operand(inputs, 1)
    k = 0 if k is None else int(np.asarray(k).reshape(-1)[0])
    ones = np.ones(value.shape[-2:], bool)
    mask = np.triu(ones, k) if call.get("upper", 1) else np.tril(ones, k)
    return [np.where(mask, value, np.asarray(zero, value.dtype))]


@movement("Where", movers=(1, 2))
def where(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.where(inputs[0], inputs[1], inputs[2])]


@movement("Compress")
def compress(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    return [np.compress(np.asarray(inputs[1]), inputs[0], call.get("axis"))]


def scatter_target(call: Call, data: Any, indices: Any) -> tuple[Any, ...]:
    """The index of `data` that the updates of a Scatter* go to."""
    indices = np.asarray(indices)
    if call.op == "ScatterND":
        indices = np.where(indices < 0, indices + np.array(data.shape[: indices.shape[-1]]), indices)
        return tuple(np.moveaxis(indices, -1, 0))
    axis = call.get("axis", 0) % data.ndim
    at = list(np.broadcast_arrays(*np.indices(indices.shape, sparse=True)))
    at[axis] = np.where(indices < 0, indices + data.shape[axis], indices)
    return tuple(at)


def scatter(call: Call, inputs: list[Any], zero: Any) -> list[Any]:
    """Replacing: a data entry that is overwritten goes nowhere."""
    out = np.array(inputs[0])
    out[scatter_target(call, out, inputs[1])] = inputs[2]
    return [out]


def scatter_forward(call: Call, inputs: list[Any]) -> list[Any]:
    kind = call.get("reduction", "none")
    if kind == "none":
        return scatter(call, inputs, 0)
    out, at = np.array(inputs[0]), scatter_target(call, inputs[0], inputs[1])
    {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[kind].at(out, at, inputs[2])
    return [out]


def scatter_backward(site: Site, g: list[Array]) -> list[Array | None]:
    kind = site.call.get("reduction", "none")
    if kind == "none":
        return transpose_move(scatter, (0, 2), site, g)
    if kind != "add":
        raise site.call.refuse(f"no rule for reduction={kind}")
    updates = g[0][scatter_target(site.call, site.x[0], site.x[1])]
    return [
        g[0] if site.active[0] else None,
        None,
        unbroadcast(updates, site.x[2].shape) if site.active[2] else None,
    ]


define(
    "ScatterElements",
    "ScatterND",
    forward=scatter_forward,
    backward=scatter_backward,
    operands=(0, 2),
    moves=True,
)

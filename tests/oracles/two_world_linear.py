"""Ops that are linear in each operand by itself: rules.md section 1, and the bilinear ones of section 4.

An adjoint gets the operands with every *varying* one at its midpoint, and the operand to differentiate by:
m_u = dB/du at bar(v). With one varying operand that is the plain transposed map. An operand that is only
added (a bias) doesn't meet the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from two_world_core import (
    Array,
    Call,
    Forward,
    Site,
    define,
    ints,
    operand,
    reduce_axes,
    reduced_shape,
    unbroadcast,
)
from two_world_window import (
    Window,
    box_sum,
    box_sum_adjoint,
    convolve,
    convolve_adjoint_weight,
    convolve_adjoint_x,
    window,
)

Adjoint = Callable[[Call, list[Any], int, Array], Array]
"""(node, operands, the one to differentiate by, multiplier of the result) -> its multiplier"""


def multilinear(*ops: str, forward: Forward, adjoint: Adjoint, operands: Sequence[int] | None = (0,)) -> None:
    def backward(site: Site, g: list[Array]) -> list[Array | None]:
        at = site.mid()
        return [adjoint(site.call, at, i, g[0]) if a else None for i, a in enumerate(site.active)]

    define(*ops, forward=forward, backward=backward, operands=operands)


# Add, Sub, Sum, Mean, Neg, Mul


def added(call: Call, inputs: list[Any]) -> list[Any]:
    if call.op == "Sub":
        return [inputs[0] - inputs[1]]
    total = inputs[0]
    for value in inputs[1:]:
        total = total + value
    return [total / len(inputs) if call.op == "Mean" else total]


def added_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    sign = -1.0 if call.op == "Sub" and i == 1 else 1.0
    return unbroadcast(sign * (g / len(at) if call.op == "Mean" else g), at[i].shape)


multilinear("Add", "Sub", "Sum", "Mean", forward=added, adjoint=added_adjoint, operands=None)
multilinear("Neg", forward=lambda call, v: [-v[0]], adjoint=lambda call, at, i, g: -g)
multilinear(
    "Mul",
    forward=lambda call, v: [v[0] * v[1]],
    adjoint=lambda call, at, i, g: unbroadcast(g * at[1 - i], at[i].shape),
    operands=(0, 1),
)


# MatMul, Gemm, Einsum


def matmul_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    a = at[0][None, :] if at[0].ndim == 1 else at[0]
    b = at[1][:, None] if at[1].ndim == 1 else at[1]
    if at[0].ndim == 1:
        g = np.expand_dims(g, -2 if at[1].ndim > 1 else -1)
    if at[1].ndim == 1:
        g = np.expand_dims(g, -1)
    grad = g @ b.swapaxes(-1, -2) if i == 0 else a.swapaxes(-1, -2) @ g
    return unbroadcast(grad, (a, b)[i].shape).reshape(at[i].shape)


multilinear(
    "MatMul", forward=lambda call, v: [np.matmul(v[0], v[1])], adjoint=matmul_adjoint, operands=(0, 1)
)


def gemm_factors(call: Call, at: list[Any]) -> tuple[Array, Array]:
    return (
        at[0].T if call.get("transA", 0) else at[0],
        at[1].T if call.get("transB", 0) else at[1],
    )


def gemm(call: Call, inputs: list[Any]) -> list[Any]:
    a, b = gemm_factors(call, inputs)
    y = call.get("alpha", 1.0) * (a @ b)
    c = operand(inputs, 2)
    return [y if c is None else y + call.get("beta", 1.0) * c]


def gemm_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    if i == 2:
        return unbroadcast(call.get("beta", 1.0) * g, at[2].shape)
    a, b = gemm_factors(call, at)
    grad = call.get("alpha", 1.0) * (g @ b.T if i == 0 else a.T @ g)
    return grad.T if call.get("transA" if i == 0 else "transB", 0) else grad


multilinear("Gemm", forward=gemm, adjoint=gemm_adjoint, operands=(0, 1, 2))


def einsum_labels(call: Call, inputs: list[Any]) -> tuple[list[str], str]:
    """The equation with explicit output and with letters for each ellipsis axis."""
    equation = str(call.get("equation")).replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    if "->" not in equation:
        letters = left.replace(",", "").replace("...", "")
        right = ("..." if "..." in left else "") + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1)
        )
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    ranks = [v.ndim - len(t.replace("...", "")) for t, v in zip(terms, inputs, strict=True)]
    letters = "".join(free[: max([n for n, t in zip(ranks, terms, strict=True) if "..." in t], default=0)])
    terms = [t.replace("...", letters[len(letters) - n :]) for t, n in zip(terms, ranks, strict=True)]
    return terms, right.replace("...", letters)


def einsum(call: Call, inputs: list[Any]) -> list[Any]:
    terms, result = einsum_labels(call, inputs)
    return [np.einsum(",".join(terms) + "->" + result, *inputs)]


def einsum_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    terms, result = einsum_labels(call, at)
    mine, others = terms[i], [t for j, t in enumerate(terms) if j != i]
    if len(set(mine)) < len(mine):
        raise call.refuse("an operand with a repeated label (a diagonal)")
    seen = set(result).union(*others)
    # Labels that stand in this operand alone were summed out: every entry along them gets the same.
    kept = "".join(c for c in mine if c in seen)
    rest = [v for j, v in enumerate(at) if j != i]
    grad = np.einsum(",".join([result, *others]) + "->" + kept, g, *rest)
    shape = [n if c in seen else 1 for c, n in zip(mine, at[i].shape, strict=True)]
    # A broadcast ellipsis axis of size 1 comes back larger.
    sizes = dict(zip(kept, grad.shape, strict=True))
    grad = grad.reshape([sizes.get(c, 1) for c in mine])
    return np.broadcast_to(unbroadcast(grad, shape), at[i].shape)


def einsum_backward(site: Site, g: list[Array]) -> list[Array | None]:
    if sum(site.active) > 2:
        raise site.call.refuse("three or more varying operands: the rule depends on their association")
    at = site.mid()
    return [einsum_adjoint(site.call, at, i, g[0]) if a else None for i, a in enumerate(site.active)]


define("Einsum", forward=einsum, backward=einsum_backward, operands=None)


# Conv, ConvTranspose


def conv_window(call: Call, at: list[Any]) -> Window:
    return window(call, at[0].shape[2:], at[1].shape[2:])


def channels(bias: Array, rank: int) -> Array:
    return bias.reshape([-1] + [1] * (rank - 2))


def conv(call: Call, inputs: list[Any]) -> list[Any]:
    y = convolve(conv_window(call, inputs), inputs[0], inputs[1], call.get("group", 1))
    bias = operand(inputs, 2)
    return [y if bias is None else y + channels(bias, y.ndim)]


def conv_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    groups = call.get("group", 1)
    if i == 2:
        return g.sum(axis=(0, *range(2, g.ndim)))
    w = conv_window(call, at)
    if i == 1:
        return convolve_adjoint_weight(w, g, at[0], at[1].shape, groups)
    return convolve_adjoint_x(w, g, at[1], groups)


multilinear("Conv", forward=conv, adjoint=conv_adjoint, operands=(0, 1, 2))


def conv_transpose_window(call: Call, at: list[Any]) -> Window:
    """The window of the convolution that this op is the adjoint of: its `out` is our input's size."""
    size, kernel = at[0].shape[2:], at[1].shape[2:]
    n = len(size)
    strides = tuple(call.get("strides") or [1] * n)
    dilations = tuple(call.get("dilations") or [1] * n)
    extra = call.get("output_padding") or [0] * n
    pads = call.get("pads") or [0] * (2 * n)
    auto, shape = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    before, after, out = [], [], []
    for i in range(n):
        full = strides[i] * (size[i] - 1) + extra[i] + dilations[i] * (kernel[i] - 1) + 1
        low, high = (0, 0) if auto == "VALID" else (pads[i], pads[i + n])
        if shape or auto in ("SAME_UPPER", "SAME_LOWER"):
            total = max(full - (shape[-n:][i] if shape else size[i] * strides[i]), 0)
            low = total // 2 if auto == "SAME_UPPER" else total - total // 2
            high = total - low
        before.append(low)
        after.append(high)
        out.append(full - low - high)
    return Window(tuple(out), tuple(kernel), strides, dilations, tuple(before), tuple(after), tuple(size))


def conv_transpose(call: Call, inputs: list[Any]) -> list[Any]:
    w = conv_transpose_window(call, inputs)
    y = convolve_adjoint_x(w, inputs[0], inputs[1], call.get("group", 1))
    bias = operand(inputs, 2)
    return [y if bias is None else y + channels(bias, y.ndim)]


def conv_transpose_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    groups = call.get("group", 1)
    if i == 2:
        return g.sum(axis=(0, *range(2, g.ndim)))
    w = conv_transpose_window(call, at)
    if i == 1:
        return convolve_adjoint_weight(w, at[0], g, at[1].shape, groups)
    return convolve(w, g, at[1], groups)


multilinear("ConvTranspose", forward=conv_transpose, adjoint=conv_transpose_adjoint, operands=(0, 1, 2))


# BatchNormalization, average pooling, sums


def batch_norm_scale(call: Call, inputs: list[Any]) -> Array:
    if call.get("training_mode", 0):
        raise call.refuse("batch statistics (training_mode=1): samples depend on each other")
    return channels(inputs[1] / np.sqrt(inputs[4] + call.get("epsilon", 1e-5)), inputs[0].ndim)


def batch_norm(call: Call, inputs: list[Any]) -> list[Any]:
    x, _, bias, mean, _ = inputs
    return [(x - channels(mean, x.ndim)) * batch_norm_scale(call, inputs) + channels(bias, x.ndim)]


multilinear(
    "BatchNormalization",
    forward=batch_norm,
    adjoint=lambda call, at, i, g: g * batch_norm_scale(call, at),
)


def pool_weight(call: Call, x: Array) -> tuple[Window, Array]:
    """The windows and 1 / (number of entries that each one counts)."""
    if call.op == "GlobalAveragePool":
        w = window(Call(call.name, call.op, call.opset, {}, 1), x.shape[2:], x.shape[2:])
        return w, np.array(1.0 / math.prod(w.kernel))
    w = window(call, x.shape[2:], call.get("kernel_shape"))
    counted = np.zeros((1, 1, *w.padded))
    if call.get("count_include_pad", 0):
        # Given padding counts; what ceil_mode adds beyond it doesn't.
        given = [b + n + a for b, n, a in zip(w.before, w.size, w.after, strict=True)]
        counted[(..., *(slice(0, n) for n in given))] = 1.0
    else:
        counted[(..., *w.inner)] = 1.0
    count = sum(counted[(..., *at)] for _, at in w.offsets())
    return w, 1.0 / np.asarray(count)


def average_pool(call: Call, inputs: list[Any]) -> list[Any]:
    w, weight = pool_weight(call, inputs[0])
    return [box_sum(w, inputs[0]) * weight]


def average_pool_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    w, weight = pool_weight(call, at[0])
    return box_sum_adjoint(w, g * weight)


multilinear("AveragePool", "GlobalAveragePool", forward=average_pool, adjoint=average_pool_adjoint)


def reduce_sum(call: Call, inputs: list[Any]) -> list[Any]:
    x = inputs[0]
    axes = tuple(reduce_axes(call, inputs, x.ndim))
    y = x.sum(axis=axes, keepdims=bool(call.get("keepdims", 1))) if axes else x
    return [y / math.prod(x.shape[a] for a in axes) if call.op == "ReduceMean" else y]


def reduce_sum_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    shape = at[0].shape
    axes = reduce_axes(call, at, len(shape))
    kept = [1 if a in axes else n for a, n in enumerate(shape)]
    spread = np.broadcast_to(g.reshape(kept), shape)
    return spread / math.prod(shape[a] for a in axes) if call.op == "ReduceMean" else spread


multilinear("ReduceSum", "ReduceMean", forward=reduce_sum, adjoint=reduce_sum_adjoint)


def cumsum(call: Call, inputs: list[Any]) -> list[Any]:
    x, axis = inputs[0], int(np.asarray(inputs[1]).reshape(-1)[0])
    if call.get("reverse", 0):
        x = np.flip(x, axis)
    y = np.cumsum(x, axis)
    if call.get("exclusive", 0):
        y = y - x
    return [np.flip(y, axis) if call.get("reverse", 0) else y]


def cumsum_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    """Entry j goes into every sum from j on: the adjoint runs the other way."""
    other = Call(call.name, call.op, call.opset, {**call.attrs, "reverse": 1 - call.get("reverse", 0)}, 1)
    return cumsum(other, [g, at[1]])[0]


multilinear("CumSum", forward=cumsum, adjoint=cumsum_adjoint)


# Resize: one matrix [out, in] per resized axis

NEAREST: dict[str, Callable[[float], float]] = {
    "round_prefer_floor": lambda v: math.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: math.floor(v + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


def resize_plan(call: Call, inputs: list[Any]) -> list[tuple[int, Array]]:
    """The axes that change, each with its matrix."""
    shape = inputs[0].shape
    for name, default in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch")):
        if call.get(name, default) != default:
            raise call.refuse(f"{name}={call.get(name)} is not written here")
    axes = [a % len(shape) for a in call.get("axes") or range(len(shape))]
    scales, sizes = (inputs[1] if call.opset < 11 else operand(inputs, 2)), operand(inputs, 3)
    plan = []
    for i, axis in enumerate(axes):
        size = shape[axis]
        if sizes is not None and np.size(sizes):
            out = ints(sizes)[i]
            scale = out / size
        else:
            scale = float(np.asarray(scales).reshape(-1)[i])
            out = math.floor(size * scale)
        if out != size or scale != 1.0:
            plan.append((axis, resize_matrix(call, size, out, scale)))
    return plan


def resize_matrix(call: Call, size: int, out: int, scale: float) -> Array:
    mode = call.get("mode", "nearest")
    where = call.get("coordinate_transformation_mode", "half_pixel" if call.opset >= 11 else "asymmetric")
    shift = size / 2 * (1 - out / (scale * size))
    matrix = np.zeros((out, size))
    for o in range(out):
        half = (o + 0.5) / scale - 0.5
        known = {
            "half_pixel": half,
            "half_pixel_symmetric": half + shift,
            "pytorch_half_pixel": half if out > 1 else 0.0,
            "align_corners": o * (size - 1) / (out - 1) if out > 1 else 0.0,
            "asymmetric": o / scale,
        }
        if where not in known:
            raise call.refuse(f"coordinate_transformation_mode={where} is not written here")
        at = known[where]
        if mode == "nearest":
            rounding = call.get("nearest_mode", "round_prefer_floor" if call.opset >= 11 else "floor")
            index = int(NEAREST[rounding](at))
            matrix[o, min(max(index, 0), size - 1)] = 1.0
        elif mode == "linear":
            low = math.floor(at)
            for index, weight in ((low, low + 1 - at), (low + 1, at - low)):
                matrix[o, min(max(index, 0), size - 1)] += weight
        else:
            raise call.refuse(f"mode={mode} is not written here")
    return matrix


def along(matrix: Array, value: Array, axis: int) -> Array:
    return np.moveaxis(np.tensordot(matrix, value, (1, axis)), 0, axis)


def resize(call: Call, inputs: list[Any]) -> list[Any]:
    value = inputs[0]
    for axis, matrix in resize_plan(call, inputs):
        value = along(matrix, value, axis)
    return [value]


def resize_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    for axis, matrix in resize_plan(call, at):
        g = along(matrix.T, g, axis)
    return g


multilinear("Resize", forward=resize, adjoint=resize_adjoint)


# ReduceSumSquare: x * x summed; bar(x) is met from both factors


def sum_square(call: Call, inputs: list[Any]) -> list[Any]:
    x = inputs[0]
    axes = reduce_axes(call, inputs, x.ndim)
    return [(x * x).sum(axis=tuple(axes)).reshape(reduced_shape(call, x.shape, axes))]


def sum_square_adjoint(call: Call, at: list[Any], i: int, g: Array) -> Array:
    return 2 * at[0] * reduce_sum_adjoint(call, at, 0, g)


multilinear("ReduceSumSquare", forward=sum_square, adjoint=sum_square_adjoint)

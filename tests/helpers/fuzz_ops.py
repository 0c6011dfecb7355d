"""The ops that random models are made of: each adds one, or two where an operand must stay in its domain."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz_graphs import BATCH, OPS, Dim, Fuzz, Tensor, move
from onnx import TensorProto

__all__ = ["OPS"]

PLAIN = {
    "Abs": 7, "Asinh": 9, "Atan": 7, "Cos": 7, "Dropout": 13, "Elu": 7, "Erf": 9, "Gelu": 20,
    "HardSigmoid": 7, "HardSwish": 14, "Identity": 13, "LeakyRelu": 7, "Mish": 18, "Neg": 7, "Relu": 7,
    "Selu": 7, "Sigmoid": 7, "Sin": 7, "Softplus": 7, "Softsign": 7, "Tanh": 7, "Celu": 12,
    "ThresholdedRelu": 10,
}  # fmt: skip
"""Functions of one number, with the opset that they come with."""
PARAMETERS = {
    "Elu": "alpha", "LeakyRelu": "alpha", "HardSigmoid": "alpha", "Celu": "alpha", "ThresholdedRelu": "alpha"
}  # fmt: skip
POSITIVE = ("Sqrt", "Log", "Reciprocal", "Pow")


def size(shape: Any) -> int:
    return int(np.prod([d for d in shape if isinstance(d, int)]))


@move(6)
def unary(f: Fuzz) -> Tensor | None:
    kind = f.one_of([k for k, since in PLAIN.items() if since <= f.opset])
    x = f.value()
    assert x is not None
    given = {PARAMETERS[kind]: f.one_of([0.1, 0.5, 1.0])} if kind in PARAMETERS and f.chance(0.6) else {}
    if kind == "Gelu":
        given = {"approximate": f.one_of(["none", "tanh"])}
    return f.add(kind, [x.name], x.shape, positive=x.positive and kind in ("Abs", "Identity"), **given)


@move(1.5)
def on_positive_numbers(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    x, kind = f.positive(x), f.one_of(POSITIVE)
    if kind != "Pow":
        return f.add(kind, [x.name], x.shape)
    if f.chance(0.5):
        exponent = f.constant(np.float32(f.one_of([0.5, 2.0, 3.0, -1.0, 1.7])))
    else:
        exponent = f.add("Tanh", [f.one_of([t for t in f.pool if t.shape == x.shape]).name], x.shape).name
    return f.add("Pow", [x.name, exponent], x.shape)


@move(0.6)
def integer_power(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    return f.add("Pow", [x.name, f.constant(np.float32(f.one_of([2.0, 3.0])))], x.shape)


@move(1)
def clip(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    low, high = f.constant(np.float32(-0.5)), f.constant(np.float32(f.one_of([0.4, 6.0])))
    return f.add("Clip", [x.name, *f.one_of([(low, high), (low,), ("", high)])], x.shape)


@move(0.5)
def prelu(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank >= 2 and t.batch == 0)
    if x is None:
        return None
    slope = f.normal(
        *(d if i == 1 and isinstance(d, int) else 1 for i, d in enumerate(x.shape[1:], 1)), scale=0.3
    )
    return f.add("PRelu", [x.name, slope], x.shape)


def partner(f: Fuzz, x: Tensor) -> tuple[str, tuple[Dim, ...], bool] | None:
    """Something that broadcasts with `x`, its shape, and whether it is computed from inputs."""
    if f.chance(0.35):
        rank = f.integer(0, x.rank)
        shape = tuple(d if isinstance(d, int) and f.chance(0.7) else 1 for d in x.shape[x.rank - rank :])
        return f.normal(*shape), shape, False
    other = f.value(lambda t: _broadcast(x.shape, t.shape) is not None)
    return None if other is None else (other.name, other.shape, True)


def _broadcast(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    if any(isinstance(x, tuple) != isinstance(y, tuple) for x, y in zip(a, b, strict=True)):
        # one side has the samples where the other has none: only constants may
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


@move(6)
def binary(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    found = partner(f, x)
    if found is None:
        return None
    name, shape, _ = found
    kind = f.one_of(["Add", "Sub", "Mul", "Mul", "Max", "Min", "Sum", "Mean"])
    operands = [x.name, name]
    if f.chance(0.5):
        operands.reverse()
    if kind in ("Max", "Min", "Sum", "Mean") and f.chance(0.3):
        operands.append(f.one_of(operands))
    return f.add(kind, operands, _shape(x.shape, shape))


def _shape(a: tuple[Dim, ...], b: tuple[Dim, ...]) -> tuple[Dim, ...]:
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


@move(1.5)
def division(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    found = partner(f, x)
    if found is None:
        return None
    name, shape, varies = found
    if not varies:
        over = f.positive(x)
        return f.add("Div", [name, over.name], _shape(x.shape, shape))
    over = f.positive(Tensor(name, shape))
    return f.add("Div", [x.name, over.name], _shape(x.shape, shape))


@move(1)
def where(f: Fuzz) -> Tensor | None:
    x = f.value()
    assert x is not None
    condition = f.constant(f.rng.random([d if isinstance(d, int) else 1 for d in x.shape]) < 0.5)
    other = f.value(lambda t: t.shape == x.shape)
    assert other is not None
    return f.add("Where", [condition, x.name, other.name], x.shape)


@move(3)
def matmul(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank >= 2 and isinstance(t.shape[-1], int))
    if x is None:
        return None
    inner, outer = x.shape[-1], f.integer(1, 5)
    weights = f.normal(inner, outer, scale=inner**-0.5)
    return f.add("MatMul", [x.name, weights], (*x.shape[:-1], outer))


@move(1)
def gemm(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank == 2 and t.batch == 0)
    if x is None:
        return None
    inner, outer, flip = x.shape[1], f.integer(1, 5), f.chance(0.5)
    weights = f.normal(*((outer, inner) if flip else (inner, outer)), scale=inner**-0.5)
    bias = [f.normal(*f.one_of([(outer,), (1, outer), (1,)]))] if f.chance(0.7) else []
    alpha, beta = f.one_of([1.0, 0.5]), f.one_of([1.0, 2.0])
    return f.add(
        "Gemm", [x.name, weights, *bias], (x.shape[0], outer), transB=int(flip), alpha=alpha, beta=beta
    )


@move(1.5)
def attention(f: Fuzz) -> Tensor | None:
    """Two varying operands of MatMul or Einsum."""
    x = f.value(lambda t: t.rank == 3 and t.batch == 0)
    if x is None:
        return None
    n, rows, columns = x.shape
    other = f.value(lambda t: t.rank == 3 and t.batch == 0 and t.shape[2] == columns and t.shape[0] == n)
    assert other is not None
    if f.chance(0.4):
        return f.add("Einsum", [x.name, other.name], (n, rows, other.shape[1]), equation="nik,njk->nij")
    turned = f.add("Transpose", [other.name], (n, columns, other.shape[1]), perm=[0, 2, 1])
    return f.add("MatMul", [x.name, turned.name], (n, rows, other.shape[1]))


@move(0.5)
def einsum(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank == 3 and t.batch == 0)
    if x is None:
        return None
    n, a, b = x.shape
    equation, weights, shape = f.one_of(
        [
            ("nij,jk->nik", (b, 2), (n, a, 2)),
            ("nij,jk->nki", (b, 2), (n, 2, a)),
            ("nij,ij->nj", (a, b), (n, b)),
            ("nij,i->n", (a,), (n,)),
        ]
    )
    return f.add("Einsum", [x.name, f.normal(*weights, scale=0.5)], shape, equation=equation)


def windowed(t: Tensor) -> bool:
    return t.rank in (3, 4) and t.batch == 0 and t.shape[0] == BATCH and min(t.shape[2:]) >= 3


@move(2)
def conv(f: Fuzz) -> Tensor | None:
    x = f.value(windowed)
    if x is None:
        return None
    channels, spatial = x.shape[1], x.shape[2:]
    group = channels if f.chance(0.3) else 1
    out = group * f.integer(1, 2) if group > 1 else f.integer(1, 4)
    kernel, strides, dilations, pads, padded = window(f, spatial)
    weights = f.normal(out, channels // group, *kernel, scale=(channels // group * size(kernel)) ** -0.5)
    bias = [f.normal(out, scale=0.3)] if f.chance(0.6) else []
    shape = [
        (d + p - (k - 1) * w - 1) // s + 1
        for d, p, k, w, s in zip(spatial, padded, kernel, dilations, strides, strict=True)
    ]
    if min(shape) < 1:
        return None
    attributes = {"strides": strides, "dilations": dilations, "group": group, "kernel_shape": kernel, **pads}
    if "auto_pad" in pads:
        if max(dilations) > 1:
            return None
        shape = [-(-d // s) for d, s in zip(spatial, strides, strict=True)]
    return f.add("Conv", [x.name, weights, *bias], (BATCH, out, *shape), **attributes)


def window(f: Fuzz, spatial: Any) -> tuple[list[int], list[int], list[int], dict[str, Any], list[int]]:
    """Kernel, strides, dilations, padding attributes and the total of pads on each axis."""
    kernel = [f.integer(1, min(3, d)) for d in spatial]
    strides = [f.integer(1, 2) for _ in spatial]
    dilations = [f.one_of([1, 1, 2]) if (k - 1) * 2 < d else 1 for k, d in zip(kernel, spatial, strict=True)]
    if f.chance(0.2):
        return (
            kernel,
            strides,
            dilations,
            {"auto_pad": f.one_of(["SAME_UPPER", "SAME_LOWER"])},
            [0] * len(kernel),
        )
    before = [f.integer(0, k - 1) for k in kernel]
    after = [f.integer(0, k - 1) for k in kernel]
    pads = {"pads": [*before, *after]} if f.chance(0.7) else {}
    total = [b + a for b, a in zip(before, after, strict=True)] if pads else [0] * len(kernel)
    return kernel, strides, dilations, pads, total


@move(0.7)
def conv_transpose(f: Fuzz) -> Tensor | None:
    x = f.value(windowed)
    if x is None:
        return None
    channels, spatial = x.shape[1], x.shape[2:]
    kernel, strides = [f.integer(1, 3) for _ in spatial], [f.integer(1, 2) for _ in spatial]
    out = f.integer(1, 3)
    weights = f.normal(channels, out, *kernel, scale=(channels * size(kernel)) ** -0.5)
    shape = [(d - 1) * s + k for d, s, k in zip(spatial, strides, kernel, strict=True)]
    if max(shape) > 9:
        return None
    return f.add("ConvTranspose", [x.name, weights], (BATCH, out, *shape), strides=strides)


@move(2.5)
def pool(f: Fuzz) -> Tensor | None:
    x = f.value(windowed)
    if x is None:
        return None
    if f.chance(0.25):
        kind = f.one_of(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
        return f.add(kind, [x.name], (*x.shape[:2], *[1] * (x.rank - 2)))
    kind = f.one_of(["MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool"])
    spatial = x.shape[2:]
    kernel, strides = [f.integer(2, 3) for _ in spatial], [f.integer(1, 2) for _ in spatial]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides}
    pads = [0] * len(kernel)
    if f.chance(0.5):
        pads = [f.integer(0, (k - 1) // 2 + (k > 2)) for k in kernel]
        attributes["pads"] = pads * 2
    ceil = f.chance(0.3) and kind != "LpPool"
    if ceil:
        attributes["ceil_mode"] = 1
    if kind == "AveragePool":
        attributes["count_include_pad"] = f.integer(0, 1)
    shape = []
    for d, k, s, p in zip(spatial, kernel, strides, pads, strict=True):
        room = d + 2 * p - k
        out = (-(-room // s) if ceil else room // s) + 1
        if ceil and (out - 1) * s >= d + p:
            return None  # a window that starts in the padding: runtimes disagree
        shape.append(out)
    return f.add(kind, [x.name], (*x.shape[:2], *shape), **attributes)


@move(1.5)
def normalization(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: t.rank >= 2 and t.batch == 0 and isinstance(t.shape[1], int) and t.shape[1] > 1)
    if x is None:
        return None
    channels = x.shape[1]
    scale, bias = f.constant(f.rng.uniform(0.5, 1.5, channels)), f.normal(channels)
    options = ["BatchNormalization", "LpNormalization"]
    options += ["InstanceNormalization", "LRN"] if x.rank >= 3 and size(x.shape[2:]) > 2 else []
    options += ["LayerNormalization"] * 2 if f.opset >= 17 else []
    options += ["GroupNormalization"] if f.opset >= 21 and x.rank >= 3 and channels % 2 == 0 else []
    kind = f.one_of(options)
    if kind == "BatchNormalization":
        mean, variance = f.normal(channels), f.constant(f.rng.uniform(0.3, 2.0, channels))
        return f.add(kind, [x.name, scale, bias, mean, variance], x.shape)
    if kind == "LpNormalization":
        axis = f.one_of(x.fixed)
        return f.add(kind, [f.positive(x).name], x.shape, axis=axis, p=f.integer(1, 2))
    if kind == "InstanceNormalization":
        return f.add(kind, [x.name, scale, bias], x.shape)
    if kind == "LRN":
        return f.add(kind, [x.name], x.shape, size=3, alpha=0.5, bias=1.0) if x.rank == 4 else None
    if kind == "GroupNormalization":
        return f.add(kind, [x.name, scale, bias], x.shape, num_groups=2)
    axis = f.integer(1, x.rank - 1)
    if size(x.shape[axis:]) < 2:
        return None
    weights = [f.normal(*x.shape[axis:]) for _ in range(f.integer(1, 2))]
    return f.add(kind, [x.name, *weights], x.shape, axis=axis - f.integer(0, 1) * x.rank)


@move(1.5)
def softmax(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed))
    if x is None:
        return None
    kind = f.one_of(["Softmax", "Softmax", "LogSoftmax"])
    return f.add(kind, [x.name], x.shape, axis=f.one_of(x.fixed) - f.integer(0, 1) * x.rank)


@move(3)
def reduction(f: Fuzz) -> Tensor | None:
    x = f.value(lambda t: bool(t.fixed) and size(t.shape) > 1)
    if x is None:
        return None
    kinds = ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod", "LogSum"]
    kind = "Reduce" + f.one_of(kinds)
    if kind in ("ReduceLogSum", "ReduceProd", "ReduceL2"):
        x = f.positive(x)
    axes = sorted(int(a) for a in f.rng.choice(x.fixed, f.integer(1, min(2, len(x.fixed))), replace=False))
    keep = f.integer(0, 1)
    shape = [1 if i in axes else d for i, d in enumerate(x.shape) if keep or i not in axes]
    given = [a - f.integer(0, 1) * x.rank for a in axes]
    if kind == "ReduceSum" or f.opset >= 18:
        return f.add(kind, [x.name, f.ints(given)], shape, keepdims=keep)
    return f.add(kind, [x.name], shape, keepdims=keep, axes=given)


@move(0.6)
def jump(f: Fuzz) -> Tensor | None:
    """A step or a choice, exact since it depends on one number, or a position, which must be refused."""
    x = f.value()
    assert x is not None
    kind = f.one_of(["Round", "Floor", "Sign", "Cast", "Greater", "ArgMax"])
    f.jumps = True
    if kind == "Cast":
        (whole,) = f.node("Cast", [x.name], to=TensorProto.INT64)
    elif kind == "Greater":
        (condition,) = f.node("Greater", [x.name, f.constant(np.float32(0.1))])
        return f.add("Where", [condition, x.name, f.constant(np.float32(0.0))], x.shape)
    elif kind == "ArgMax" and x.fixed:
        axis = f.one_of(x.fixed)
        (whole,) = f.node("ArgMax", [x.name], axis=axis)
        x = Tensor("", tuple(1 if i == axis else d for i, d in enumerate(x.shape)))
    else:
        return f.add("Floor", [x.name], x.shape) if kind == "ArgMax" else f.add(kind, [x.name], x.shape)
    return f.add("Cast", [whole], x.shape, to=TensorProto.FLOAT)


@move(0.3)
def mixture(f: Fuzz) -> Tensor | None:
    """Something in which samples of a batch depend on each other: it can't be explained sample by sample."""
    x = f.value(lambda t: t.batch == 0 and t.shape[0] == BATCH)
    if x is None:
        return None
    f.jumps = True
    kind = f.one_of(["Softmax", "CumSum", "ReduceMax"])
    if kind == "Softmax":
        return f.add("Softmax", [x.name], x.shape, axis=0)
    if kind == "CumSum":
        return f.add("CumSum", [x.name, f.constant(np.array(0, dtype=np.int64))], x.shape)
    if f.opset >= 18:
        (best,) = f.node(kind, [x.name, f.ints([0])], keepdims=1)
    else:
        (best,) = f.node(kind, [x.name], keepdims=1, axes=[0])
    return f.add("Sub", [x.name, best], x.shape)

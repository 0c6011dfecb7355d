"""How ONNX matrix products, convolutions and batch normalization are lifted."""

from __future__ import annotations

from collections.abc import Sequence

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, floor_div
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops import conv, linear
from irshap.ops.shape import Pad, reshape

__all__: list[str] = []


@importer("MatMul")
def _matmul(n: Import) -> Value:
    a, b = n.tensor(0), n.tensor(1)
    if a.rank == 0 or b.rank == 0:
        raise Unmodeled("an operand is a scalar")
    left = reshape(a, (1, *a.shape)) if a.rank == 1 else a
    right = reshape(b, (*b.shape, 1)) if b.rank == 1 else b
    y = n.one(linear.MatMul(), left, right)
    dims = list(y.shape)
    if b.rank == 1:
        dims.pop(-1)
    if a.rank == 1:
        dims.pop(-1 if b.rank == 1 else -2)
    return reshape(y, dims)


@importer("Gemm")
def _gemm(n: Import) -> Value:
    flags = bool(n.attribute("transA", 0)), bool(n.attribute("transB", 0))
    op = linear.Gemm(n.attribute("alpha", 1.0), n.attribute("beta", 1.0), *flags)
    return n.one(op, *n.given())


@importer("BatchNormalization")
def _batch_norm(n: Import) -> Sequence[Value]:
    if n.attribute("training_mode", 0) or len([o for o in n.proto.output if o]) > 1:
        raise Unmodeled("it is in training mode")
    if not n.attribute("spatial", 1):
        raise Unmodeled("it normalizes each element apart (spatial=0)")
    return (n.one(linear.BatchNorm(n.attribute("epsilon", 1e-5)), *(n.tensor(i) for i in range(5))),)


Geometry = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]
"""Strides, pads and dilations."""


def window(n: Import, kernel: Sequence[Dim]) -> Geometry:
    """Strides, pads and dilations of a sliding window, with auto_pad worked out."""
    x = n.tensor()
    spatial = x.rank - 2
    if len(kernel) != spatial or spatial < 1:
        raise Unmodeled(f"a window of {len(kernel)} axes over {x.tensor}")
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    mode = n.attribute("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        flat = n.attribute("pads", [0] * 2 * spatial)
        return strides, tuple(zip(flat[:spatial], flat[spatial:], strict=True)), dilations
    if mode == "VALID":
        return strides, ((0, 0),) * spatial, dilations
    pads = []
    for before, after in same_pads(n, kernel, strides, dilations):
        if not isinstance(before, int) or not isinstance(after, int):
            raise Unmodeled(f"auto_pad={mode} on an axis whose size is only known at run time")
        pads.append((before, after))
    return strides, tuple(pads), dilations


def same_pads(
    n: Import, kernel: Sequence[Dim], strides: Sequence[int], dilations: Sequence[int]
) -> list[tuple[Dim, Dim]]:
    """The padding that makes ceil(size / stride) windows of each spatial axis, symbolic where the size is."""
    pads: list[tuple[Dim, Dim]] = []
    for size, k, stride, dilation in zip(n.tensor().shape[2:], kernel, strides, dilations, strict=True):
        reach = dilation * (int(k) - 1) + 1
        # ceil(size / stride) - 1, in the form that counts windows elsewhere
        steps = floor_div(as_dim(size - 1), stride)
        total = as_dim(steps * stride + reach - size)
        if isinstance(total, int) or reach == 1:
            total = max(0, total) if isinstance(total, int) else 0
        elif reach < stride:
            raise Unmodeled(
                "auto_pad where kernels leave gaps, on an axis whose size is only known at run time"
            )
        small = floor_div(total, 2)
        both = (small, as_dim(total - small))
        pads.append(both if n.attribute("auto_pad", "") == "SAME_UPPER" else both[::-1])
    return pads


def padded_at_run_time(n: Import, kernel: Sequence[Dim], fill: float) -> tuple[Value, Geometry]:
    """The operand and its windows; padding that is only known at run time is put around the operand first."""
    x = n.tensor()
    spatial = x.rank - 2
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    same = n.attribute("auto_pad", "NOTSET").startswith("SAME") and len(kernel) == spatial
    pads = same_pads(n, kernel, strides, dilations) if same else []
    if all(isinstance(d, int) for ends in pads for d in ends):
        return x, window(n, kernel)
    before, after = ((0, 0, *(ends[side] for ends in pads)) for side in (0, 1))
    return n.one(Pad(before, after, fill), x), (strides, ((0, 0),) * spatial, dilations)


@importer("Conv")
def _conv(n: Import) -> Value:
    x, geometry = padded_at_run_time(n, n.tensor(1).shape[2:], 0.0)
    return n.one(conv.Conv(*geometry, n.attribute("group", 1)), x, *n.given()[1:])


@importer("ConvTranspose")
def _conv_transpose(n: Import) -> Value:
    x, w = n.tensor(0), n.tensor(1)
    spatial = x.rank - 2
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    extra = n.attribute("output_padding", [0] * spatial)
    mode = n.attribute("auto_pad", "NOTSET")
    smallest = [
        as_dim((size - 1) * s + d * (k - 1) + 1 + more)
        for size, s, d, k, more in zip(x.shape[2:], strides, dilations, w.shape[2:], extra, strict=True)
    ]
    wanted = n.attribute("output_shape", None)
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [as_dim(size * s) for size, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is None:
        flat = [0] * 2 * spatial if mode == "VALID" else n.attribute("pads", [0] * 2 * spatial)
        pads = tuple(zip(flat[:spatial], flat[spatial:], strict=True))
        wanted = [as_dim(size - sum(p)) for size, p in zip(smallest, pads, strict=True)]
    else:
        pads = tuple(
            _cut(as_dim(size - out), upper=mode == "SAME_UPPER")
            for size, out in zip(smallest, wanted[-spatial:], strict=True)
        )
    op = conv.ConvTranspose(strides, pads, dilations, n.attribute("group", 1), tuple(wanted[-spatial:]))
    return n.one(op, *n.given())


def _cut(total: Dim, *, upper: bool) -> tuple[int, int]:
    """How much to cut at both ends for a wanted size."""
    if not isinstance(total, int):
        raise Unmodeled("its padding depends on a size that is only known at run time")
    if total < 0:
        raise Unmodeled("its kernels don't reach the size that it asks for: runtimes disagree on the rest")
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)

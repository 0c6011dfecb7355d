"""Convolutions."""

from __future__ import annotations

from math import isqrt, prod

import numpy as np

from irshap.ir.core import Value
from irshap.ir.dims import Dim, as_dim, divide, floor_div, product, same
from irshap.lowering.emitter import Export, exporter
from irshap.lowering.importer import LARGEST_MADE, Import, Unmodeled, importer
from irshap.lowering.ops.window import padded_at_run_time, window_attributes
from irshap.ops import conv, shape
from irshap.ops.program import constant

__all__: list[str] = []


@importer("Conv")
def _read_conv(n: Import) -> Value:
    x, geometry = padded_at_run_time(n, n.tensor(1).shape[2:], 0.0)
    return n.one(conv.Conv(*geometry, n.attribute("group", 1)), x, *n.given()[1:])


@exporter(conv.Conv)
def _write_conv(e: Export, op: conv.Conv) -> None:
    e.result("Conv", e.inputs, group=op.group, kernel_shape=e.operand(1).shape[2:], **window_attributes(op))


@importer("ConvTranspose")
def _read_conv_transpose(n: Import) -> Value:
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


@importer("Col2Im")
def _read_col2im(n: Import) -> Value:
    """[N, C K, L] -> [N, C, *image]: each block of K numbers added to where it stood in the image.

    So a transposed convolution of each channel, by K kernels that have a single 1.
    """
    columns = n.tensor(0)
    image, block = tuple(n.ints(1)), tuple(n.ints(2))
    spatial, size = len(image), prod(block)
    strides = tuple(n.attribute("strides", [1] * spatial))
    dilations = tuple(n.attribute("dilations", [1] * spatial))
    flat = n.attribute("pads", [0] * 2 * spatial)
    pads = tuple(zip(flat[:spatial], flat[spatial:], strict=True))
    count, rows, places = columns.shape
    covered = zip(image, pads, dilations, block, strides, strict=True)
    grid = tuple((i + sum(p) - d * (k - 1) - 1) // s + 1 for i, p, d, k, s in covered)
    channels = divide(rows, size)
    if channels is None or not same(prod(grid), places):
        raise Unmodeled(f"{columns.tensor} aren't blocks of {block} in an image of {image}")
    if min(block) < 1 or size**2 > LARGEST_MADE:
        raise Unmodeled(f"irshap lays out blocks of up to {isqrt(LARGEST_MADE)} elements, not of {block}")
    kernels = constant(np.eye(size).reshape(size, 1, *block), columns.dtype)
    blocks = n.one(shape.Reshape((product((count, channels)), size, *grid)), columns)
    images = n.one(conv.ConvTranspose(strides, pads, dilations, 1, image), blocks, kernels)
    return n.one(shape.Reshape((count, channels, *image)), images)


@exporter(conv.ConvTranspose)
def _write_conv_transpose(e: Export, op: conv.ConvTranspose) -> None:
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
        **window_attributes(op),
    )
    if unknown:
        stops = e.shape([op.out[axis - 2] for axis in unknown])
        e.result("Slice", [result, e.ints([0] * len(unknown)), stops, e.ints(unknown)])


@exporter(conv.ConvWeights)
def _write_conv_weights(e: Export, op: conv.ConvWeights) -> None:
    """A convolution over the samples: these are its channels, y its kernels, and steps and dilations swap."""
    x, y = e.operand(0), e.operand(1)
    spatial = range(2, x.rank)
    if op.group == 1:
        channels = e.add("Transpose", [e.inputs[0]], perm=[1, 0, *spatial])
    else:
        group, each = op.group, int(x.shape[1]) // op.group
        apart = e.add("Reshape", [e.inputs[0], e.shape([x.shape[0], group, each, *x.shape[2:]])])
        moved = e.add("Transpose", [apart], perm=[2, 1, 0, *(i + 1 for i in spatial)])
        merged = e.shape([each, as_dim(group * x.shape[0]), *x.shape[2:]])
        channels = e.add("Reshape", [moved, merged])
    kernels = e.add("Transpose", [e.inputs[1]], perm=[1, 0, *spatial])
    found = e.add(
        "Conv",
        [channels, kernels],
        group=op.group,
        strides=op.dilations,
        dilations=op.strides,
        pads=[p[0] for p in op.pads] + [p[1] for p in op.pads],
    )
    geometry = zip(x.shape[2:], y.shape[2:], op.pads, op.strides, op.dilations, strict=True)
    sizes = [floor_div(size + sum(p) - s * (n - 1) - 1, d) + 1 for size, n, p, s, d in geometry]
    # what the last step of the convolution didn't reach
    longer = [i for i, (size, k) in enumerate(zip(sizes, op.kernel, strict=True)) if not same(size, k)]
    if longer:
        stops = e.ints([op.kernel[i] for i in longer])
        found = e.add("Slice", [found, e.ints([0] * len(longer)), stops, e.ints([2 + i for i in longer])])
    e.result("Transpose", [found], perm=[1, 0, *spatial])

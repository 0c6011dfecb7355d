"""Products with weights of a few bits, and tables of them, which become floats: the op is then standard."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import Array, DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.program import constant

__all__: list[str] = []


@importer("com.microsoft.MatMulNBits")
def _read_matmul_nbits(n: Import) -> Value:
    """Weights [columns, blocks, bytes], the first in the lowest bits; scales and zero points for each block.

    In a model at accuracy level 4 ONNX Runtime rounds the other factor to 8 bits, too, which is no part of
    what the op means: the lifted product has the full precision.
    """
    if n.attribute("weight_prepacked", 0):
        raise Unmodeled("its weights are packed for one device (weight_prepacked)")
    rows, columns, bits = n.attributes["K"], n.attributes["N"], n.attribute("bits", 4)
    size = n.attributes["block_size"]
    if bits not in (2, 4, 8) or size < 1:
        raise Unmodeled(f"irshap doesn't know weights of {bits} bits in blocks of {size}")
    blocks = -(-rows // size)
    packed = n.static(1)
    if packed.dtype != np.uint8 or packed.size * 8 != columns * blocks * size * bits:
        raise Unmodeled(f"{packed.size} of {packed.dtype} don't hold its {rows} x {columns} weights")
    x = n.tensor(0)
    numbers = _unpacked(packed.reshape(columns, blocks, -1), bits).astype(np.float32)
    scales = n.static(2).reshape(columns, blocks)
    zeros = _zero_points(n, columns, blocks, bits)
    if n.has(4):
        group = n.static(4).reshape(-1)[:rows]
        of_group = np.asarray(scales)[:, group].astype(np.float32), zeros[:, group]
        dense = (numbers.reshape(columns, -1)[:, :rows] - of_group[1]) * of_group[0]
    else:
        dense = (numbers - zeros[..., None]) * scales.astype(np.float32)[..., None]
        dense = dense.reshape(columns, -1)[:, :rows]
    weight = constant(np.ascontiguousarray(dense.T), x.dtype)
    y = n.call("MatMul", x, weight)
    return y + n.tensor(5) if n.has(5) else y


@importer("com.microsoft.GatherBlockQuantized")
def _read_gather_block_quantized(n: Import) -> Value:
    """Rows of a table in few bits, with a scale and a zero point for each block along an axis."""
    data, scales = n.static(0), n.static(2)
    size, bits = n.attribute("block_size", 128), n.attribute("bits", 4)
    of_bytes = data.dtype == np.uint8
    if of_bytes and bits not in (2, 4, 8):
        raise Unmodeled(f"irshap doesn't know tables of {bits} bits")
    if not of_bytes and data.dtype.name not in ("int4", "uint4"):
        raise Unmodeled(f"irshap doesn't know tables of {data.dtype.name}")
    numbers = (_unpacked(data, bits) if of_bytes else data).astype(np.float32)
    axis = n.axis(n.attribute("quantize_axis", 1), data.ndim)
    if size < 1 or -(-numbers.shape[axis] // size) != scales.shape[axis]:
        raise Unmodeled(f"{scales.shape[axis]} blocks of {size} don't make {numbers.shape[axis]}")
    zeros = np.full(scales.shape, 2.0 ** (bits - 1) if of_bytes else 0.0, np.float32)
    if n.has(3):
        given = n.static(3)
        unpacked = _unpacked(given, bits) if given.dtype == np.uint8 and of_bytes else given
        zeros = unpacked[..., : scales.shape[-1]].astype(np.float32)
    spread = (np.repeat(v.astype(np.float32), size, axis) for v in (scales, zeros))
    cut = tuple(slice(0, d) for d in numbers.shape)
    scale, zero = (v[cut] for v in spread)
    table = constant((numbers - zero) * scale, DType.of(scales))
    return n.call("Gather", table, n.tensor(1), axis=n.attribute("gather_axis", 0))


def _unpacked(packed: Array, bits: int) -> Array:
    """Bytes on the last axis as the numbers in them."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    found = (packed[..., None] >> shifts) & np.uint8(2**bits - 1)
    return np.asarray(found.reshape(*packed.shape[:-1], -1))


def _zero_points(n: Import, columns: int, blocks: int, bits: int) -> Array:
    """[columns, blocks]: the middle of the range, floats as they are, or numbers packed as weights are."""
    if not n.has(3):
        return np.full((columns, blocks), 2.0 ** (bits - 1), np.float32)
    given = n.static(3)
    if given.dtype == np.uint8:
        given = _unpacked(given.reshape(columns, -1), bits)[:, :blocks]
    return given.reshape(columns, blocks).astype(np.float32)

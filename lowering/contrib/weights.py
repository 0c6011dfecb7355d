"""Products with weights of a few bits, which become floats: the product is then a standard one."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import Array
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

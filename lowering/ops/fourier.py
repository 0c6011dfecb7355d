"""The discrete Fourier transform, as the matrix that it is."""

from __future__ import annotations

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import Array
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.ops.linear import matmul
from irshap.ops.program import constant
from irshap.ops.shape import reshape, transpose

__all__: list[str] = []

LARGEST = 2**22
"""Elements of the largest matrix: a transform of 1024 complex numbers."""

AXIS_IS_INPUT = 20
"""The opset from which the axis is an input."""


@importer("DFT")
def _read_dft(n: Import) -> Value:
    """X_k = sum over j of x_j exp(-2 pi i j k / n); the last axis holds real and imaginary part."""
    x = n.tensor()
    if n.opset >= AXIS_IS_INPUT:
        axis = n.axis(int(n.static(2).reshape(())) if n.has(2) else -2)
    else:
        axis = n.axis(n.attribute("axis", 1))
    *_, parts = x.shape
    size, last = x.shape[axis], x.rank - 1
    if not isinstance(size, int) or not isinstance(parts, int) or axis == last or parts not in (1, 2):
        raise Unmodeled("its length is only known at run time")
    if n.has(1) and int(n.static(1).reshape(())) != size:
        raise Unmodeled("it pads or cuts its operand")
    inverse, onesided = bool(n.attribute("inverse", 0)), bool(n.attribute("onesided", 0))
    if inverse and onesided:
        raise Unmodeled("an inverse of one side")
    count = size // 2 + 1 if onesided else size
    if size * parts * count * 2 > LARGEST:
        raise Unmodeled(f"its matrix has more than {LARGEST} elements")
    order = [*(a for a in range(last) if a != axis), axis, last]
    front = transpose(x, order)
    lead = front.shape[:-2]
    matrix = constant(_matrix(size, parts, count, inverse).astype(x.dtype.numpy))
    flat = matmul(reshape(front, (*lead, 1, size * parts)), matrix)
    back = [order.index(a) for a in range(x.rank)]
    return transpose(reshape(flat, (*lead, count, 2)), back)


def _matrix(size: int, parts: int, count: int, inverse: bool) -> Array:
    """From [size, parts] to [count, 2], both flattened."""
    turns = np.outer(np.arange(size), np.arange(count)) % size
    angle = (2 if inverse else -2) * np.pi * turns / size
    real, imaginary = np.cos(angle), np.sin(angle)
    rows = np.stack([np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)], 1)
    return rows[:, :parts].reshape(size * parts, count * 2) / (size if inverse else 1)

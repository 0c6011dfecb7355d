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
    inverse, onesided = bool(n.attribute("inverse", 0)), bool(n.attribute("onesided", 0))
    length = 2 * (size - 1) if inverse and onesided else size
    if n.has(1):
        length = int(n.static(1).reshape(()))
    count, made = (length // 2 + 1, 2) if onesided and not inverse else (length, 1 if onesided else 2)
    if min(length, size) < 1:
        raise Unmodeled("it has no length")
    if size * parts * count * made > LARGEST:
        raise Unmodeled(f"its matrix has more than {LARGEST} elements")
    order = [*(a for a in range(last) if a != axis), axis, last]
    front = transpose(x, order)
    lead = front.shape[:-2]
    rows = _real(size, length) if inverse and onesided else _complex(size, length, count, inverse)
    matrix = constant(rows[:, :parts].reshape(size * parts, count * made).astype(x.dtype.numpy))
    flat = matmul(reshape(front, (*lead, 1, size * parts)), matrix)
    back = [order.index(a) for a in range(x.rank)]
    return transpose(reshape(flat, (*lead, count, made)), back)


def _complex(size: int, length: int, count: int, inverse: bool) -> Array:
    """From [size, 2] to [count, 2]: what is longer than `length` is cut, and zeros stand behind a shorter."""
    turns = np.outer(np.arange(size), np.arange(count)) % length
    angle = (2 if inverse else -2) * np.pi * turns / length
    real, imaginary = np.cos(angle), np.sin(angle)
    rows = np.stack([np.stack([real, imaginary], -1), np.stack([-imaginary, real], -1)], 1)
    rows[length:] = 0
    return rows / (length if inverse else 1)


def _real(size: int, length: int) -> Array:
    """From one side [size, 2] of a spectrum to the real signal [length, 1] that it is of.

    The other side is the conjugate: every number but the first, and of an even length the middle one, counts
    twice, by its real part.
    """
    turns = np.outer(np.arange(size), np.arange(length)) % length
    angle = 2 * np.pi * turns / length
    twice = np.full((size, 1), 2.0)
    twice[0] = 1
    if length % 2 == 0:
        twice[length // 2 :] = 1
    rows = np.stack([twice * np.cos(angle), -twice * np.sin(angle)], 1)[..., None]
    rows[length // 2 + 1 :] = 0
    return rows / length

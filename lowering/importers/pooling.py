"""How ONNX pooling over sliding windows is lifted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irshap.ir.core import Value
from irshap.ir.types import DType
from irshap.lowering.importer import Import, Unmodeled, importer
from irshap.lowering.importers import network
from irshap.lowering.importers.network import Geometry
from irshap.ops import lp, pool, resample
from irshap.ops.program import constant
from irshap.ops.window import window_count

__all__: list[str] = []


def _kernel(n: Import) -> tuple[int, ...]:
    return tuple(n.attributes["kernel_shape"])


def disputed(n: Import, kernel: Sequence[int]) -> None:
    """Refuses padding on which runtimes disagree."""
    dilations = n.attribute("dilations", [1] * len(kernel))
    if n.attribute("auto_pad", "NOTSET").startswith("SAME") and any(d > 1 for d in dilations):
        raise Unmodeled("auto_pad with dilations: runtimes disagree on the padding")


def window(n: Import, kernel: Sequence[int]) -> Geometry:
    """Strides, pads and dilations of a pool that counts or adds up."""
    disputed(n, kernel)
    strides, pads, dilations = network.window(n, kernel)
    if n.attribute("auto_pad", "NOTSET").startswith("SAME") and any(
        k < s for k, s in zip(kernel, strides, strict=True)
    ):
        raise Unmodeled("auto_pad with strides beyond the kernel: runtimes disagree on the padding")
    return strides, pads, dilations


def reaching(n: Import, kernel: Sequence[int], geometry: Geometry) -> Geometry:
    """`geometry` with ceil_mode's last window given as padding at the end, which then counts windows alike.

    Raises:
        Unmodeled: it depends on a size that is only known at run time, or pads more than runtimes take.
    """
    strides, pads, dilations = geometry
    if not n.attribute("ceil_mode", 0):
        return geometry
    ends = []
    for size, k, s, (before, after), d in zip(
        n.tensor().shape[2:], kernel, strides, pads, dilations, strict=True
    ):
        if s == 1:
            ends.append((before, after))
            continue
        if not isinstance(size, int):
            raise Unmodeled("ceil_mode on an axis whose size is only known at run time")
        count = window_count(size, k, s, (before, after), d, ceil=True)
        reach = (int(count) - 1) * s + d * (k - 1) + 1 - before - size
        if reach >= k:
            raise Unmodeled("ceil_mode reaches further than padding may")
        # a shorter reach leaves the number of windows as it is
        ends.append(
            (before, max(reach, after) if count != window_count(size, k, s, (before, after), d) else after)
        )
    return strides, tuple(ends), dilations


@importer("MaxPool")
def _max_pool(n: Import) -> Sequence[Value]:
    if len([o for o in n.proto.output if o]) > 1:
        raise Unmodeled("its indices are used")
    kernel = _kernel(n)
    disputed(n, kernel)
    # finite, so that differences at padding are 0
    x, geometry = network.padded_at_run_time(n, kernel, lowest(n.tensor().dtype))
    return n.emit(pool.MaxPool(kernel, *geometry, bool(n.attribute("ceil_mode", 0))), x)


def lowest(dtype: DType) -> float:
    """The least finite number of an element type."""
    return float(np.finfo(dtype.numpy).min if dtype.is_float else np.iinfo(dtype.numpy).min)


@importer("AveragePool")
def _average_pool(n: Import) -> Value:
    x, kernel = n.tensor(), _kernel(n)
    given = window(n, kernel)
    reached = reaching(n, kernel, given)
    include = bool(n.attribute("count_include_pad", 0)) and any(map(any, given[1]))
    if not include or reached == given:
        return n.one(resample.AveragePool(kernel, *reached, include), x)
    # what ceil_mode adds beyond the padding is not counted: the sum over all, divided by what is
    whole = resample.AveragePool(kernel, *reached, include_pad=True)
    padded = tuple(size + sum(p) for size, p in zip(x.shape[2:], given[1], strict=True))
    beyond = tuple((0, r[1] - p[1]) for r, p in zip(reached[1], given[1], strict=True))
    counts = resample.AveragePool(kernel, reached[0], beyond, reached[2]).counts(padded)
    factor = np.prod(kernel) / np.asarray(counts)
    return n.one(whole, x) * constant(factor, x.dtype)


@importer("LpPool")
def _lp_pool(n: Import) -> Value:
    kernel = _kernel(n)
    return n.one(lp.LpPool(n.attribute("p", 2), kernel, *reaching(n, kernel, window(n, kernel))), n.tensor())

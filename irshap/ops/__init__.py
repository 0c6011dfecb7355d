"""The ops of the IR, a file for each family.  Importing this package registers all of them."""

from irshap.ir.core import OPS, Op
from irshap.ops import (
    activations,
    apart,
    arithmetic,
    by_row,
    cast,
    conv,
    cumulative,
    einsum,
    elementwise,
    extremum,
    floored,
    gated,
    gather,
    generate,
    index,
    linear,
    logic,
    lp,
    norm,
    piecewise,
    pool,
    power,
    program,
    quantized,
    recurrent,
    reduce,
    reduce_log,
    resample,
    response,
    rows,
    scan,
    scatter,
    shape,
    softmax,
    tile,
    top_k,
    trigonometry,
)

__all__ = ["OPS", "Op", "activations", "apart", "arithmetic", "by_row", "cast", "conv", "cumulative"]
__all__ += [
    "einsum",
    "elementwise",
    "extremum",
    "floored",
    "gated",
    "gather",
    "generate",
    "index",
    "linear",
    "logic",
]
__all__ += ["lp", "norm", "piecewise", "pool", "power", "program", "quantized"]
__all__ += ["recurrent", "reduce", "reduce_log"]
__all__ += ["resample", "response", "rows", "scan", "scatter", "shape", "softmax"]
__all__ += ["tile", "top_k", "trigonometry"]

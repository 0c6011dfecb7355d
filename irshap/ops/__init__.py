"""The ops of the IR, a file for each family.  Importing this package registers all of them."""

from irshap.ops import (
    activations,
    arithmetic,
    average_pool,
    cast,
    conv,
    elementwise,
    extremum,
    gated,
    gather,
    index,
    linear,
    logic,
    lp,
    norm,
    pool,
    power,
    program,
    reduce,
    reduce_log,
    response,
    rows,
    scatter,
    shape,
    softmax,
    top_k,
    trigonometry,
)
from irshap.ops.base import OPS, Op

__all__ = ["OPS", "Op", "activations", "arithmetic", "average_pool", "cast", "conv", "elementwise"]
__all__ += ["extremum", "gated", "gather", "index", "linear", "logic", "lp", "norm", "pool", "power"]
__all__ += ["program", "reduce", "reduce_log", "response", "rows", "scatter", "shape", "softmax", "top_k"]
__all__ += ["trigonometry"]

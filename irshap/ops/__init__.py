"""The ops of the IR, a file for each family.  Importing this package registers all of them."""

from irshap.ops import (
    arithmetic,
    average_pool,
    cast,
    conv,
    elementwise,
    extremum,
    index,
    linear,
    lp,
    pool,
    program,
    reduce,
    reduce_log,
    rows,
    shape,
)
from irshap.ops.base import OPS, Op

__all__ = ["OPS", "Op", "arithmetic", "average_pool", "cast", "conv", "elementwise", "extremum", "index"]
__all__ += ["linear", "lp", "pool", "program", "reduce", "reduce_log", "rows", "shape"]

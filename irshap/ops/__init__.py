"""The ops of the IR, a file for each family.  Importing this package registers all of them."""

from irshap.ops import (
    arithmetic,
    cast,
    conv,
    elementwise,
    index,
    linear,
    pool,
    program,
    reduce,
    rows,
    shape,
)
from irshap.ops.base import OPS, Op

__all__ = ["OPS", "Op", "arithmetic", "cast", "conv", "elementwise", "index", "linear", "pool", "program"]
__all__ += ["reduce", "rows", "shape"]

"""How ops are lifted from ONNX and lowered to it: a file here for each file of `irshap/ops/`.

Importing this package registers all of them.
"""

from irshap.lowering.ops import (
    activations,
    apart,
    arithmetic,
    branch,
    cast,
    closed,
    conv,
    cumulative,
    einsum,
    elementwise,
    extremum,
    floored,
    fourier,
    gated,
    gather,
    generate,
    index,
    integer,
    linear,
    logic,
    lp,
    ml,
    norm,
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
    sequence,
    shape,
    softmax,
    svm,
    tile,
    top_k,
    trigonometry,
    window,
)

__all__ = ["activations", "apart", "arithmetic", "branch", "cast", "closed", "conv", "cumulative", "einsum"]
__all__ += ["elementwise", "extremum", "floored", "fourier", "gated", "gather", "generate", "index"]
__all__ += ["integer", "linear", "logic"]
__all__ += ["lp", "ml", "norm", "pool", "power", "program", "quantized"]
__all__ += ["recurrent", "reduce", "reduce_log"]
__all__ += [
    "resample",
    "response",
    "rows",
    "scan",
    "scatter",
    "sequence",
    "shape",
    "softmax",
    "tile",
    "top_k",
]
__all__ += ["svm", "trigonometry", "window"]

"""Models whose whole input is one sample, and which so have no batch: given one, by vectorizing every op."""

from __future__ import annotations

import onnx
from google.protobuf.message import EncodeError

from irshap.attribution.sources import lookups, model_inputs
from irshap.errors import ModelError
from irshap.ir.batch import batch_axes
from irshap.ir.core import Graph
from irshap.ir.dims import N
from irshap.ir.walks import is_float, upstream
from irshap.lowering.files.session import RuntimeRefusal
from irshap.lowering.rebatch import refuse_too_large
from irshap.lowering.unbatch import Check, require_tensors
from irshap.ops.vectorize import vectorize

__all__ = ["with_samples", "without_batch_name"]

_MEND = "Explain a tensor before it, hold what reaches it out of the graph, or export the model with a batch"


def without_batch_name(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model in which no dimension is called as the number of samples is: a model may call its nodes N."""
    renamed = onnx.ModelProto()
    renamed.CopyFrom(model)
    for value in (*renamed.graph.input, *renamed.graph.output, *renamed.graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == str(N):
                dim.dim_param = f"{N}_"
    return renamed


def with_samples(original: onnx.ModelProto, graph: Graph) -> Graph:
    """`graph` for N samples: an axis of N in front of every float input, and all that depends on one.

    Integer inputs, such as the edges of a graph, are the same for all samples, but for those that an
    embedding lookup reads.

    Raises:
        ModelError: an op can't be computed for several samples at once, or doesn't give the same.
    """
    above = upstream(o.value for o in graph.outputs)
    wanted = {str(v.name): None for v in model_inputs(graph) if is_float(v) or lookups(graph, v, above)}
    if not wanted:
        what = "batch=none: no input is float, and no embedding lookup reads one"
        raise ModelError(what, mend="export it with a float input, or one of token ids")
    try:
        require_tensors(graph)
        made = vectorize(graph, wanted)
    except ModelError as error:
        raise ModelError(f"batch=none: {error.what}", where=error.where, mend=_MEND) from error
    axes = batch_axes(made)
    for output in made.outputs:
        axes.axis(output.value)
    try:
        refuse_too_large(original, made)
        Check(original, graph, wanted, apart=True).compare(made, [None] * len(made.outputs))
    except (RuntimeRefusal, EncodeError) as error:
        raise ModelError(f"batch=none can't be checked on random samples: {error}") from error
    except ModelError as error:
        mend = "Report it: an op is vectorized in a wrong way"
        raise ModelError(f"batch=none: {error.what}", where=error.where, mend=mend) from error
    return made

"""Models exported with a batch of 1, for any batch: tried, and kept only when both give the same numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from irshap.dims import N, symbols_of
from irshap.errors import IrshapError
from irshap.graph import Graph
from irshap.types import Array, TensorType

__all__ = ["rebatched_or_kept"]


def rebatched_or_kept(
    original: onnx.ModelProto, renamed: onnx.ModelProto, lifted: Callable[[onnx.ModelProto, bool], Graph]
) -> Graph:
    """The graph of `renamed`, whose inputs have N rows, if it computes row by row what `original` computes.

    Otherwise the graph of `original`, with its batch of 1.
    """
    kept = lifted(original, False)
    try:
        graph = lifted(renamed, True)
    except IrshapError:
        return kept
    return graph if _row_by_row(original, graph) else kept


def _row_by_row(original: onnx.ModelProto, graph: Graph) -> bool:
    """Whether three rows at once give what the original gives for each of them."""
    from irshap.lowering.lower import lower

    if not all(
        isinstance(o.value.type, TensorType) and _leads_with_batch(o.value.type) for o in graph.outputs
    ):
        return False
    rows = 3
    feeds = {str(v.name): _random(v.tensor, rows, seed) for seed, v in enumerate(graph.inputs)}
    try:
        together = _run(lower(graph, opset=_opset(original)), feeds)
        for row in range(rows):
            alone = _run(original, {k: a[row : row + 1] for k, a in feeds.items()})
            for name, expected in alone.items():
                tolerance = 1e-4 * max(1.0, float(np.abs(expected).max(initial=0.0)))
                if not np.allclose(together[name][row : row + 1], expected, rtol=1e-4, atol=tolerance):
                    return False
    except (IrshapError, RuntimeError):
        return False
    return True


def _leads_with_batch(type: TensorType) -> bool:
    return type.shape is not None and type.rank > 0 and N in symbols_of([type.dims[0]])


def _opset(model: onnx.ModelProto) -> int:
    return next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)


def _random(type: TensorType, rows: int, seed: int) -> Array:
    shape = [d if isinstance(d, int) else rows if i == 0 else 4 for i, d in enumerate(type.dims)]
    generator = np.random.default_rng(seed)
    if type.dtype.is_float:
        return generator.standard_normal(shape).astype(type.dtype.numpy)
    return generator.integers(0, 2, shape).astype(type.dtype.numpy)


def _run(model: onnx.ModelProto, feeds: dict[str, Array]) -> dict[str, Array]:
    """Outputs by ONNX Runtime, or by onnx's reference where that has no kernel (float64 convolutions)."""
    import onnxruntime
    from onnx.reference import ReferenceEvaluator

    names = [o.name for o in model.graph.output]
    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return dict(zip(names, session.run(None, feeds), strict=True))
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented:
        return dict(zip(names, ReferenceEvaluator(model).run(None, feeds), strict=True))

"""Mints tests/fixtures/families/: tiny networks of the great families (see README.md here)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from exporting import difference, export
from families import FAMILIES, TextClassifier, build, sample
from onnx import numpy_helper
from peers import explain

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "families"
SAMPLES, REFERENCES = 4, 5
LIMIT = 150 * 1024
UNFOLDED = {"vgg_bn"}  # else both exporters fold each batch norm into the convolution before it
# exporter and whether the batch is dynamic, by the file's suffix
EXPORTS = {"torchscript": ("torchscript", True), "dynamo": ("dynamo", True), "batch1": ("torchscript", False)}


def embedded_name(proto: onnx.ModelProto, table: np.ndarray) -> str:
    """The tensor that holds the embedded tokens: the result of the Gather from `table`."""
    stored = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
    for node in proto.graph.node:
        held = stored.get(node.input[0]) if node.op_type == "Gather" else None
        if held is not None and np.array_equal(held, table):
            return node.output[0]
    raise LookupError("the embedding is not a Gather")


def mint(name: str, seed: int) -> None:
    """Write the three ONNX files of a family and their common .npz."""
    model = build(name, seed)
    inputs, references = sample(name, SAMPLES, seed + 1), sample(name, REFERENCES, seed + 2)
    text = isinstance(model, TextClassifier)
    if text:
        with torch.no_grad():
            embedded = {"embedded": model.embedding(inputs)}, {"embedded": model.embedding(references)}
        fixture, summary = explain(model.tail, *embedded)
        fixture.put("inputs", {"tokens": inputs})
        fixture.put("references", {"tokens": references})
    else:
        fixture, summary = explain(model, {"input": inputs}, {"input": references})
    print(f"{name}: {summary}")
    key = "tokens" if text else "input"
    for suffix, (exporter, dynamic) in EXPORTS.items():
        path = FIXTURES / f"{name}_{suffix}.onnx"
        example = inputs[: 2 if dynamic else 1]
        folded = name not in UNFOLDED
        proto = export(model, {key: example}, path, exporter=exporter, dynamic=dynamic, folded=folded)
        if text:
            found = embedded_name(proto, model.embedding.weight.detach().numpy())
            fixture.arrays[f"embedded_name.{suffix}"] = np.array(found)
        size = path.stat().st_size
        if size >= LIMIT:
            raise SystemExit(f"{path.name} has {size} bytes, the limit is {LIMIT}")
        error = difference(path, {key: inputs.numpy()}, fixture.arrays["outputs"], single=not dynamic)
        used = sorted({node.op_type for node in proto.graph.node})
        print(f"  {path.name}: {size} bytes, opset {proto.opset_import[0].version}, {error:.1e}, {used}")
    fixture.save(FIXTURES / f"{name}.npz")


def main() -> None:
    """Mint every family."""
    torch.set_num_threads(1)  # sums in one order
    for index, name in enumerate(FAMILIES):
        mint(name, 100 * (index + 1))


if __name__ == "__main__":
    main()

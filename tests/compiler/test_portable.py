"""Files for other runtimes: what they avoid, and that they explain the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from exactness import case
from onnx import numpy_helper

import irshap
from irshap import demo
from irshap.contract import Metadata
from irshap.errors import ModelError, UserError
from irshap.ir.types import Array

PORTABLE = ("openvino", "any")
NETWORKS = ("vgg", "resnet", "efficientnet", "encoder", "text")


def given(name: str) -> tuple[Path, Array, Array]:
    """A network, references, and samples, of its only input."""
    found = case(f"{name}_torchscript")
    (references,), (samples,) = found.references.values(), found.inputs.values()
    return found.path, references, samples


def nodes(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.GraphProto]]:
    for node in graph.node:
        yield node, graph
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from nodes(attribute.g)


def read_twice(model: onnx.ModelProto) -> list[str]:
    """Square arrays that products or convolutions read in two ways."""
    arrays = {t.name: list(t.dims) for t in model.graph.initializer}
    turned = {n.output[0]: n.input[0] for n in model.graph.node if n.op_type == "Transpose"}
    ways: dict[str, set[object]] = {}
    for node, _ in nodes(model.graph):
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        flags = {a.name: a.i for a in node.attribute if a.name in ("transA", "transB")}
        for i, name in enumerate(node.input[:2]):
            dims = arrays.get(turned.get(name, name), [])
            if len(dims) > 1 and len(set(dims[:2])) == 1:
                way = (node.op_type[:4] == "Conv" and node.op_type, i, name in turned, tuple(flags.items()))
                ways.setdefault(turned.get(name, name), set()).add(way)
    return [name for name, found in ways.items() if len(found) > 1]


def avoided(model: onnx.ModelProto) -> set[str]:
    """What of it other runtimes get wrong, or don't take."""
    found = {node.op_type for node, _ in nodes(model.graph)} & {"MaxUnpool", "Scan"}
    if any(a.name == "reduction" for node, _ in nodes(model.graph) for a in node.attribute):
        found.add("reduction")
    return found | ({"read twice"} if read_twice(model) else set())


@pytest.mark.parametrize("device", PORTABLE)
@pytest.mark.parametrize("network", NETWORKS)
def test_it_explains_the_same_without_what_others_get_wrong(network: str, device: str) -> None:
    model, references, samples = given(network)
    wanted = irshap.compile(model, references).explainer()(samples)
    compiled = irshap.compile(model, references, device=device)
    found = compiled.explainer()(samples)
    scale = np.abs(wanted.values).max()
    np.testing.assert_allclose(found.values, wanted.values, rtol=0, atol=1e-5 * scale)
    assert avoided(compiled.model) == set()


def test_what_others_get_wrong_is_there_elsewhere() -> None:
    """What the test above looks for is found without the passes."""
    found = set()
    for network, device in (("vgg", "cpu"), ("resnet", "cuda"), ("resnet", "cpu")):
        model, references, _ = given(network)
        found |= avoided(irshap.compile(model, references, device=device).model)
    assert found == {"MaxUnpool", "reduction", "read twice"}


def test_no_guard_is_added_to_a_difference() -> None:
    model, references, samples = given("resnet")
    least = float(np.nextafter(np.finfo(np.float32).tiny, np.float32(1)))

    def added(device: str) -> bool:
        graph = irshap.compile(model, references, device=device).model.graph
        numbers = {t.name for t in graph.initializer if np.all(numpy_helper.to_array(t) == np.float32(least))}
        return any(n.op_type == "Add" and numbers & set(n.input) for n in graph.node)

    assert added("cuda")
    assert not any(map(added, PORTABLE))
    # where sample and reference agree the difference is 0, and so is what its element gets
    same = samples[:1].copy()
    same[..., :12, :12] = references[0, ..., :12, :12]
    compiled = irshap.compile(model, references[:1], device="any").explainer()(same)
    assert not compiled.values[..., :12, :12].any()
    assert np.abs(compiled.completeness_error).max() < 1e-4


@pytest.mark.parametrize("batch", ["auto", 1])
@pytest.mark.parametrize("method", ["integrated-gradients{steps=6,chunk=2}", "occlusion{window=4,chunk=1}"])
def test_loops_capture_nothing(method: str, batch: str | int) -> None:
    images, _ = demo.digits()
    references = np.load(demo.references_path())[:3] if method.startswith("integrated") else None
    wanted = irshap.compile(demo.model_path(), references, method=method).explainer()(images[:2])
    read = irshap.Model(demo.model_path(), batch=batch)
    compiled = irshap.compile(read, references, method=method, device="any")
    loops = [a.g for n in compiled.model.graph.node if n.op_type == "Scan" for a in n.attribute if a.g.node]
    assert loops
    for body in loops:
        made = {v.name for v in body.input} | {t.name for t in body.initializer}
        for node in body.node:
            assert set(node.input) - {""} <= made, node
            made |= set(node.output)
    np.testing.assert_allclose(compiled.explainer()(images[:2]).values, wanted.values, atol=1e-5)


def test_a_fixed_batch() -> None:
    images, _ = demo.digits()
    references = np.load(demo.references_path())[:5]
    wanted = irshap.compile(demo.model_path(), references, target="input").explainer()(images[:4], target=3)
    compiled = irshap.compile(irshap.Model(demo.model_path(), batch=2), references, target="input")
    for end in (*compiled.model.graph.input, *compiled.model.graph.output):
        assert end.type.tensor_type.shape.dim[0].dim_value == 2
    assert not any(node.op_type == "Shape" for node in compiled.model.graph.node)
    explainer = compiled.explainer()
    found = explainer(images[:4], target=3)
    np.testing.assert_allclose(found.values, wanted.values, atol=1e-6)
    np.testing.assert_array_equal(found.target_index, wanted.target_index)
    assert [f["image"].shape[0] for f in explainer.feeds(images[:4], target=3)] == [2, 2]
    with pytest.raises(UserError, match="3 samples, for a file that takes 2 at a time"):
        explainer(images[:3], target=3)


def test_damaged_metadata_of_a_fixed_batch() -> None:
    references = np.load(demo.references_path())[:2]
    model = irshap.compile(irshap.Model(demo.model_path(), batch=1), references).model
    entry = next(p for p in model.metadata_props if p.key == Metadata.BATCH)
    entry.value = "[1]"
    with pytest.raises(ModelError, match=r"irshap\.batch is damaged"):
        irshap.Explainer(model)
    for axis in (4, -1):
        entry.value = f'{{"size": 1, "axes": {{"image": {axis}}}}}'
        with pytest.raises(ModelError, match=r"irshap\.batch names an axis that 'image' hasn't"):
            irshap.Explainer(model)


def test_no_samples_at_a_time() -> None:
    with pytest.raises(UserError, match="a batch of 0"):
        irshap.compile(irshap.Model(demo.model_path(), batch=0), np.load(demo.references_path()))

"""Nodes of ONNX Runtime's own ops, one for each corner of their attributes and optional inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from irshap.ir.types import Array

__all__ = ["CASES", "Case", "Rows", "draw"]


def draw(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@dataclass(frozen=True)
class Rows:
    """An input with these values, one for each sample on `axis`."""

    array: Array
    axis: int = 0


def ints(*numbers: Any) -> Rows:
    return Rows(np.array(numbers, np.int32))


@dataclass(frozen=True)
class Case:
    """A node: a tuple among its inputs is the shape of a float input, an array a constant, None is nothing.

    `outputs` names the results that are wanted; "" one that isn't.
    """

    kind: str
    inputs: Sequence[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: tuple[str, ...] = ("y0",)

    def model(self) -> onnx.ModelProto:
        names = ["" if v is None else f"x{i}" for i, v in enumerate(self.inputs)]
        domain = "" if self.kind.startswith("Simpl") else "com.microsoft"
        node = helper.make_node(self.kind, names, self.outputs, "the_op", domain=domain, **self.attributes)
        graph = helper.make_graph(
            [node],
            "g",
            [self._declared(k, v) for k, v in self.feeds().items()],
            [helper.make_tensor_value_info(k, 6 if k == "count" else 1, None) for k in self.outputs if k],
            [numpy_helper.from_array(v, k) for k, v in zip(names, self.inputs, strict=True) if _stored(v)],
        )
        for value in graph.output:
            value.type.tensor_type.shape.SetInParent()  # to be found; the checker wants one
            value.type.tensor_type.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(3))
        imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=8)

    def feeds(self, seed: int = 0) -> dict[str, Array]:
        found = {}
        for i, value in enumerate(self.inputs):
            if isinstance(value, Rows):
                found[f"x{i}"] = value.array
            elif isinstance(value, tuple):
                found[f"x{i}"] = draw(seed + i, *value)
        return found

    def _declared(self, name: str, array: Array) -> onnx.ValueInfoProto:
        value = self.inputs[int(name[1:])]
        shape: list[Any] = list(array.shape)
        shape[value.axis if isinstance(value, Rows) else 0] = "N"
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), shape)


def _stored(value: Any) -> bool:
    return isinstance(value, np.ndarray)


IMAGE, KERNEL = (2, 4, 6, 5), draw(11, 6, 2, 3, 3)
WINDOW = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 2], "strides": [2, 1], "group": 2}
TOKENS = (2, 5, 16)
GAMMA, BETA, BIAS = draw(12, 16), draw(13, 16), draw(14, 16)
SUM = ("y0", "", "", "y1")
WORDS = ints([1, 2, 3, 0, 0], [4, 1, 0, 3, 2])
W, B = draw(15, 16, 48) * 0.3, draw(16, 48)
LENGTHS = ints(3, 5)
PADS = ints([1, 1, 1, 0, 0], [1, 1, 1, 1, 1])
PER_QUERY = Rows((np.arange(50).reshape(2, 5, 5) % 3 > 0).astype(np.int32))
HEADS = {"num_heads": 4}
SCORES = (2, 4, 5, 5)
COS, SIN = draw(18, 12, 2), draw(19, 12, 2)
PLACES = Rows(np.array([[0, 1, 2, 3, 4], [2, 3, 4, 5, 6]]))
GROUPED = {"num_heads": 4, "kv_num_heads": 2}
GROUPS = ((2, 5, 64), (2, 5, 32), (2, 5, 32))
WHOLE, SHORTER = ((ints(*last), np.array(5, np.int32)) for last in ((4, 4), (4, 2)))
TURNS = (draw(18, 12, 8), draw(19, 12, 8))
# one sample has all of the past, one a part of it
PAST = [(2, 1, 64), *[(2, 1, 32)] * 2, *[(2, 2, 3, 16)] * 2, ints(3, 2), np.array(4, np.int32), *TURNS]
TABLES = [draw(20, 6, 16), draw(21, 8, 16)]
SEGMENTS = ints([0, 0, 1, 1, 1], [0, 1, 1, 0, 0])

CASES: dict[str, Case] = {
    "EmbedLayerNormalization": Case(
        "EmbedLayerNormalization", [WORDS, None, *TABLES, None, GAMMA, BETA], {}, ("y0", "count")
    ),
    "EmbedLayerNormalization, all": Case(
        "EmbedLayerNormalization",
        [WORDS, SEGMENTS, *TABLES, draw(22, 2, 16), GAMMA, BETA, PADS],
        {"epsilon": 1e-3},
        ("y0", "count", "y2"),
    ),
    "EmbedLayerNormalization, positions": Case(
        "EmbedLayerNormalization",
        [
            WORDS,
            SEGMENTS,
            *TABLES,
            draw(22, 2, 16),
            GAMMA,
            BETA,
            None,
            ints([0, 2, 1, 3, 4], [7, 1, 2, 3, 4]),
        ],
        {"mask_index_type": 0},
    ),
    "Gelu": Case("Gelu", [TOKENS]),
    "BiasGelu": Case("BiasGelu", [TOKENS, BIAS]),
    "FastGelu": Case("FastGelu", [TOKENS]),
    "FastGelu, bias": Case("FastGelu", [TOKENS, BIAS]),
    "QuickGelu": Case("QuickGelu", [TOKENS]),
    "QuickGelu, alpha": Case("QuickGelu", [TOKENS], {"alpha": 0.5}),
    "FusedConv, Relu": Case("FusedConv", [IMAGE, KERNEL, draw(3, 6)], WINDOW | {"activation": "Relu"}),
    "FusedConv, sum": Case(
        "FusedConv", [IMAGE, KERNEL, draw(3, 6), (2, 6, 3, 5)], WINDOW | {"activation": "Relu"}
    ),
    "FusedConv, no bias": Case(
        "FusedConv", [IMAGE, KERNEL, None, (2, 6, 3, 5)], WINDOW | {"activation": "Sigmoid"}
    ),
    "FusedConv, LeakyRelu": Case(
        "FusedConv", [IMAGE, KERNEL], WINDOW | {"activation": "LeakyRelu", "activation_params": [0.2]}
    ),
    "FusedConv, Clip": Case(
        "FusedConv", [IMAGE, KERNEL], WINDOW | {"activation": "Clip", "activation_params": [-0.5, 2.0]}
    ),
    "FusedConv, HardSigmoid": Case(
        "FusedConv", [IMAGE, KERNEL], WINDOW | {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]}
    ),
    "FusedConv, Tanh": Case("FusedConv", [IMAGE, KERNEL], WINDOW | {"activation": "Tanh"}),
    "FusedConv, auto_pad": Case(
        "FusedConv", [IMAGE, KERNEL], {"auto_pad": "SAME_UPPER", "group": 2, "activation": "Relu"}
    ),
    "FusedGemm": Case(
        "FusedGemm", [(3, 4), draw(1, 5, 4), draw(2, 5)], {"transB": 1, "alpha": 0.5, "activation": "Relu"}
    ),
    "FusedGemm, LeakyRelu": Case(
        "FusedGemm", [(3, 4), draw(1, 4, 5)], {"activation": "LeakyRelu", "activation_alpha": 0.3}
    ),
    "FusedGemm, HardSigmoid": Case(
        "FusedGemm",
        [(3, 4), draw(1, 4, 5), draw(2, 5)],
        {"beta": 2.0, "activation": "HardSigmoid", "activation_alpha": 0.3, "activation_beta": 0.4},
    ),
    "FusedMatMul": Case("FusedMatMul", [TOKENS, draw(1, 16, 3)], {"alpha": 0.5}),
    "FusedMatMul, transB": Case("FusedMatMul", [TOKENS, draw(1, 3, 16)], {"transB": 1}),
    "FusedMatMul, two inputs": Case("FusedMatMul", [(2, 3, 5, 4), (2, 3, 6, 4)], {"transB": 1, "alpha": 2.0}),
    "FusedMatMul, transA": Case("FusedMatMul", [(2, 3, 4, 5), (2, 3, 4, 6)], {"transA": 1}),
    "FusedMatMul, vector": Case("FusedMatMul", [TOKENS, draw(1, 16)], {"alpha": 0.5}),
    "TransposeMatMul": Case("TransposeMatMul", [(2, 4, 5), (2, 6, 4)], {"transA": 1, "transB": 1}),
    "SimplifiedLayerNormalization": Case("SimplifiedLayerNormalization", [TOKENS, GAMMA], {"epsilon": 1e-3}),
    "SimplifiedLayerNormalization, deviation": Case(
        "SimplifiedLayerNormalization", [TOKENS, draw(0, 5, 16)], {"axis": 1}, ("y0", "y1")
    ),
    "SkipLayerNormalization": Case("SkipLayerNormalization", [TOKENS, TOKENS, GAMMA, BETA]),
    "SkipLayerNormalization, bias": Case(
        "SkipLayerNormalization", [TOKENS, TOKENS, GAMMA, BETA, BIAS], {"epsilon": 1e-3}, SUM
    ),
    "SkipLayerNormalization, no beta": Case("SkipLayerNormalization", [TOKENS, TOKENS, GAMMA, None, BIAS]),
    "SkipLayerNormalization, one skip": Case("SkipLayerNormalization", [TOKENS, draw(0, 5, 16), GAMMA, BETA]),
    "SkipSimplifiedLayerNormalization": Case(
        "SkipSimplifiedLayerNormalization", [TOKENS, TOKENS, GAMMA, BIAS], {"epsilon": 1e-3}, SUM
    ),
    "Attention": Case("Attention", [TOKENS, W, B], HEADS),
    "Attention, no bias": Case("Attention", [TOKENS, W], HEADS | {"scale": 0.7}),
    "Attention, causal": Case("Attention", [TOKENS, W, B], HEADS | {"unidirectional": 1}),
    "Attention, pads": Case("Attention", [TOKENS, W, B, PADS], HEADS),
    "Attention, pads, causal": Case("Attention", [TOKENS, W, B, PADS], HEADS | {"unidirectional": 1}),
    "Attention, filter": Case("Attention", [TOKENS, W, B, PADS], HEADS | {"mask_filter_value": -2.0}),
    "Attention, lengths": Case("Attention", [TOKENS, W, B, LENGTHS], HEADS),
    "Attention, by query": Case("Attention", [TOKENS, W, B, PER_QUERY], HEADS),
    "Attention, dummy mask": Case("Attention", [TOKENS, W, B, ints([1], [1])], HEADS),
    "Attention, bias of scores": Case("Attention", [TOKENS, W, B, PADS, None, SCORES], HEADS),
    "Attention, one bias of scores": Case(
        "Attention", [TOKENS, W, B, None, None, draw(17, 1, 1, 5, 5)], HEADS
    ),
    "Attention, sizes": Case("Attention", [TOKENS, W, B], HEADS | {"qkv_hidden_sizes": [20, 20, 8]}),
    "Attention, past": Case(
        "Attention",
        [TOKENS, W, B, None, Rows(draw(6, 2, 2, 4, 3, 4), 1)],
        HEADS | {"unidirectional": 1},
        ("y0", "y1"),
    ),
    "MultiHeadAttention": Case("MultiHeadAttention", [TOKENS, (2, 6, 16), (2, 6, 8)], HEADS),
    "MultiHeadAttention, bias": Case(
        "MultiHeadAttention", [TOKENS, (2, 6, 16), (2, 6, 8), draw(1, 40)], HEADS | {"scale": 0.4}
    ),
    "MultiHeadAttention, pads": Case(
        "MultiHeadAttention",
        [TOKENS, TOKENS, TOKENS, None, PADS, SCORES],
        HEADS | {"mask_filter_value": -3.0},
    ),
    "MultiHeadAttention, lengths": Case("MultiHeadAttention", [TOKENS, TOKENS, TOKENS, None, LENGTHS], HEADS),
    "MultiHeadAttention, by query": Case(
        "MultiHeadAttention", [TOKENS, TOKENS, TOKENS, None, PER_QUERY], HEADS
    ),
    "MultiHeadAttention, causal": Case(
        "MultiHeadAttention", [TOKENS, TOKENS, TOKENS], HEADS | {"unidirectional": 1}
    ),
    "MultiHeadAttention, past": Case(
        "MultiHeadAttention",
        [TOKENS, TOKENS, TOKENS, draw(1, 48), None, None, (2, 4, 3, 4), (2, 4, 3, 4)],
        HEADS | {"unidirectional": 1},
        ("y0", "y1", "y2"),
    ),
    "MultiHeadAttention, by head": Case("MultiHeadAttention", [TOKENS, (2, 4, 6, 4), (2, 4, 6, 4)], HEADS),
    "RotaryEmbedding": Case("RotaryEmbedding", [TOKENS, PLACES, COS, SIN]),
    "RotaryEmbedding, interleaved": Case("RotaryEmbedding", [TOKENS, PLACES, COS, SIN], {"interleaved": 1}),
    "RotaryEmbedding, offset": Case("RotaryEmbedding", [(2, 4, 5, 4), np.array([3]), COS, SIN]),
    "RotaryEmbedding, in part": Case(
        "RotaryEmbedding", [(2, 5, 32), PLACES, COS, SIN], {"num_heads": 4, "rotary_embedding_dim": 4}
    ),
    "GroupQueryAttention": Case("GroupQueryAttention", [*GROUPS, None, None, *WHOLE], GROUPED),
    "GroupQueryAttention, shorter": Case("GroupQueryAttention", [*GROUPS, None, None, *SHORTER], GROUPED),
    "GroupQueryAttention, empty past": Case(
        "GroupQueryAttention",
        [*GROUPS, (2, 2, 0, 16), (2, 2, 0, 16), *WHOLE, *TURNS],
        GROUPED | {"do_rotary": 1, "scale": 0.3},
        ("y0", "y1", "y2"),
    ),
    "GroupQueryAttention, past": Case("GroupQueryAttention", PAST, GROUPED | {"do_rotary": 1}),
    "GroupQueryAttention, past, window": Case(
        "GroupQueryAttention",
        PAST,
        GROUPED | {"local_window_size": 2, "do_rotary": 1, "rotary_interleaved": 1},
    ),
    "GroupQueryAttention, packed": Case(
        "GroupQueryAttention", [(2, 5, 64), *[None] * 4, *WHOLE], GROUPED | {"softcap": 0.8}
    ),
    "GroupQueryAttention, window": Case(
        "GroupQueryAttention", [*GROUPS, None, None, *WHOLE], GROUPED | {"local_window_size": 2}
    ),
    "GroupQueryAttention, smooth": Case(
        "GroupQueryAttention", [*GROUPS, None, None, *WHOLE], GROUPED | {"smooth_softmax": 1}
    ),
    "GroupQueryAttention, sink": Case(
        "GroupQueryAttention", [*GROUPS, None, None, *WHOLE, *[None] * 4, draw(5, 4)], GROUPED
    ),
    "GroupQueryAttention, bias of scores": Case(
        "GroupQueryAttention",
        [*GROUPS, None, None, *WHOLE, None, None, None, SCORES],
        GROUPED | {"softcap": 0.8},
    ),
    "GroupQueryAttention, both ways": Case(
        "GroupQueryAttention", [*GROUPS, None, None, *WHOLE], GROUPED | {"causal": 0}
    ),
}


def _few_bits(bits: int, **attributes: Any) -> Case:
    generator = np.random.default_rng(bits)
    packed = generator.integers(0, 256, (7, 3, 16 * bits // 8)).astype(np.uint8)
    scales = draw(1, 7, 3) * 0.1
    extra: list[Any] = []
    if "zeros" in attributes:
        if attributes.pop("zeros") == "packed":
            extra = [generator.integers(0, 256, (7, -(-3 * bits // 8))).astype(np.uint8)]
        else:
            extra = [np.float32(generator.integers(0, 2**bits, (7, 3)))]
    if attributes.pop("bias", False):
        extra = [*(extra or [None]), None, draw(2, 7)]
    given = {"K": 40, "N": 7, "bits": bits, "block_size": 16}
    return Case("MatMulNBits", [(2, 5, 40), packed, scales, *extra], given | attributes)


for _bits in (2, 4, 8):
    CASES[f"MatMulNBits, {_bits}"] = _few_bits(_bits, accuracy_level=1)
    CASES[f"MatMulNBits, {_bits}, zeros"] = _few_bits(_bits, zeros="packed", accuracy_level=1)
CASES["MatMulNBits, float zeros"] = _few_bits(4, zeros="floats")
CASES["MatMulNBits, bias"] = _few_bits(4, bias=True)


def _table(bits: int, zeros: bool = False, axis: int = 1, **attributes: Any) -> Case:
    generator = np.random.default_rng(bits)
    packed = generator.integers(0, 256, (9, 40 * bits // 8)).astype(np.uint8)
    scales = draw(1, 9, 3) * 0.1
    extra = [generator.integers(0, 256, (9, -(-3 * bits // 8))).astype(np.uint8)] if zeros else []
    given = {"bits": bits, "block_size": 16, "quantize_axis": axis, "gather_axis": 0}
    return Case("GatherBlockQuantized", [packed, ints([1, 2], [8, 0]), scales, *extra], given | attributes)


for _bits in (4, 8):
    CASES[f"GatherBlockQuantized, {_bits}"] = _table(_bits)
    CASES[f"GatherBlockQuantized, {_bits}, zeros"] = _table(_bits, zeros=True)

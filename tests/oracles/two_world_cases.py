"""One small model per op and variant, and what else the oracle's own tests share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import helper, numpy_helper
from two_world import Result
from two_world_core import RULES, Call

Shape = tuple[int, ...]
FLOAT = onnx.TensorProto.FLOAT


def gap(result: Result) -> float:
    """The worst miss, of the whole and of any node, relative to what was added up."""
    whole = np.abs(result.error) / np.maximum(np.abs(result.prediction - result.base_value), 1.0)
    nodes = [g / max(result.op_scales[name], 1.0) for name, g in result.op_gaps.items()]
    return float(np.max([whole.max(), *nodes]))


def net(text: str, opset: int = 21, **constants: Any) -> Any:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@dataclass(frozen=True)
class Case:
    """`operands`: a shape is an attributed input, an array a constant, None an operand left out."""

    op: str
    operands: list[Shape | np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    outputs: int = 1
    unused: tuple[str, ...] = ()
    """Further outputs that must be named and carry nothing."""
    positive: bool = False
    """Feed numbers in (0.3, 2.3) instead of normal ones."""

    def __str__(self) -> str:
        given = ",".join(f"{k}={v}" for k, v in self.attrs.items())
        shapes = ";".join(
            "-" if o is None else str(o if isinstance(o, tuple) else np.shape(o)) for o in self.operands
        )
        return f"{self.op}-{self.opset}[{shapes}]{given}".replace(" ", "")

    def model(self) -> onnx.ModelProto:
        """Output 0: a random combination `s` of all entries of the op's outputs; then these outputs."""
        names = ["" if o is None else f"x{i}" for i, o in enumerate(self.operands)]
        inputs = [
            helper.make_tensor_value_info(n, FLOAT, o)
            for n, o in zip(names, self.operands, strict=True)
            if isinstance(o, tuple)
        ]
        constants = [
            numpy_helper.from_array(o, n)
            for n, o in zip(names, self.operands, strict=True)
            if isinstance(o, np.ndarray)
        ]
        ys = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, [*ys, *self.unused], "node", **self.attrs)
        opsets = [helper.make_opsetid("", self.opset)]
        sizes = self.sizes(len(node.output))
        infos = [helper.make_tensor_value_info(y, FLOAT, s) for y, s in zip(ys, sizes, strict=False)]
        rng, nodes = np.random.default_rng(99), [node]
        constants.append(numpy_helper.from_array(np.array([1, -1]), "flat"))
        for y, size in zip(ys, sizes, strict=False):
            weight = rng.normal(size=(int(np.prod(size)), 1)).astype(np.float32)
            constants.append(numpy_helper.from_array(weight, f"w_{y}"))
            nodes.append(helper.make_node("Reshape", [y, "flat"], [f"f_{y}"]))
            nodes.append(helper.make_node("MatMul", [f"f_{y}", f"w_{y}"], [f"s_{y}"]))
        nodes.append(helper.make_node("Sum", [f"s_{y}" for y in ys], ["s"]))
        out = [helper.make_tensor_value_info("s", FLOAT, [1, 1]), *infos]
        graph = helper.make_graph(nodes, "case", inputs, out, constants)
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = 10
        return model

    def sizes(self, outputs: int) -> list[Shape]:
        """The results' shapes by the oracle: the wheel's evaluator lacks some of these variants."""
        call = Call("node", self.op, self.opset, self.attrs, outputs)
        inputs = [np.ones(o) if isinstance(o, tuple) else o for o in self.operands]
        return [np.shape(y) for y in RULES[self.op].forward(call, inputs)]

    def feeds(self, seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)

        def draw(shape: Shape) -> np.ndarray:
            value = rng.uniform(0.3, 2.3, shape) if self.positive else rng.normal(0, 1.5, shape)
            return value.astype(np.float32)

        return {f"x{i}": draw(o) for i, o in enumerate(self.operands) if isinstance(o, tuple)}


def weights(*shape: int, low: float | None = None) -> np.ndarray:
    rng = np.random.default_rng(sum(shape) + 7 * len(shape))
    value = rng.normal(size=shape) if low is None else rng.uniform(low, low + 1.5, shape)
    return value.astype(np.float32)


def whole(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def number(value: float) -> np.ndarray:
    return np.array(value, np.float32)


VECTOR, MATRIX, MAPS = (1, 7), (1, 3, 5), (1, 4, 6, 5)

ELEMENTWISE = [
    *[Case(op, [VECTOR]) for op in ("Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign")],
    *[Case(op, [VECTOR]) for op in ("Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Tanh", "Erf", "Exp")],
    *[Case(op, [VECTOR]) for op in ("Abs", "Neg", "Identity", "Sin", "Cos", "Atan", "Gelu")],
    *[Case(op, [VECTOR], positive=True) for op in ("Log", "Sqrt", "Reciprocal")],
    Case("Gelu", [VECTOR], {"approximate": "tanh"}),
    Case("LeakyRelu", [VECTOR], {"alpha": 0.3}),
    Case("Elu", [VECTOR], {"alpha": 0.7}),
    Case("Celu", [VECTOR], {"alpha": 0.7}),
    Case("HardSigmoid", [VECTOR], {"alpha": 0.4, "beta": 0.3}),
    Case("PRelu", [MAPS, weights(4, 1, 1)]),
    Case("Clip", [VECTOR, number(-0.6), number(0.9)]),
    Case("Clip", [VECTOR, None, number(0.4)]),
    Case("Clip", [VECTOR], {"min": 0.0, "max": 6.0}, opset=6),
    Case("Cast", [VECTOR], {"to": FLOAT}),
    Case("Dropout", [VECTOR]),
    *[Case("Pow", [VECTOR, number(p)], positive=p != int(p)) for p in (2.0, 3.0, 0.5, 1.7, -1.3)],
]

PAIRS = [
    *[
        Case(op, [a, b], positive=op in ("Div", "Pow"))
        for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
        for a, b in (((1, 5), (1, 5)), ((1, 3, 4), (1, 1, 4)), ((1, 2, 1), (1, 1, 3)))
    ],
    *[Case(op, [MATRIX, weights(3, 1)]) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min")],
    *[Case(op, [weights(3, 1, low=0.3), MATRIX], positive=True) for op in ("Sub", "Div", "Pow", "Max")],
    *[Case(op, [(1, 4), weights(4), (1, 4), (1, 1)]) for op in ("Sum", "Mean", "Max", "Min")],
    Case("Where", [np.array([[True, False, True, True]]), (1, 4), (1, 1)]),
    Case("Where", [np.array([[True, False, True, True]]), (1, 4), number(-3)]),
    Case("Max", [(1, 4)]),
]

PRODUCTS = [
    Case("MatMul", [(1, 4), weights(4, 3)]),
    Case("MatMul", [weights(3, 4), (4,)]),
    Case("MatMul", [(1, 2, 3, 4), weights(2, 4, 2)]),
    Case("MatMul", [(1, 2, 3, 4), (1, 2, 4, 5)]),
    Case("MatMul", [(1, 3, 4), (1, 2, 4, 2)]),
    Case("MatMul", [(2, 3, 4), (4,)]),
    Case("MatMul", [(4,), (2, 4, 3)]),
    Case("MatMul", [(4,), (4,)]),
    Case("Gemm", [(1, 4), weights(3, 4), weights(3)], {"transB": 1}),
    Case("Gemm", [(4, 2), (4, 3), (1, 3)], {"transA": 1, "alpha": 0.7, "beta": -1.3}),
    Case("Gemm", [weights(2, 4), (3, 4)], {"transB": 1, "alpha": -0.5}),
    Case("Einsum", [(1, 2, 3), (1, 4, 3)], {"equation": "bij, bkj -> bik"}),
    Case("Einsum", [(1, 2, 3), weights(3, 5)], {"equation": "...j,jk"}),
    Case("Einsum", [(1, 2, 3), (2, 3, 4)], {"equation": "...ij,...jk->...ik"}),
    Case("Einsum", [(1, 2, 3)], {"equation": "bij->jb"}),
    Case("Einsum", [(1, 3), (1, 2)], {"equation": "bi,bj->b"}),
]

CONVOLUTIONS = [
    Case("Conv", [MAPS, weights(6, 4, 3, 3), weights(6)], {"pads": [1, 1, 1, 1]}),
    Case("Conv", [MAPS, weights(6, 2, 3, 2)], {"group": 2, "strides": [2, 1], "pads": [1, 0, 2, 1]}),
    Case("Conv", [MAPS, weights(4, 1, 3, 3)], {"group": 4, "dilations": [2, 1]}),
    Case("Conv", [MAPS, weights(2, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    Case("Conv", [MAPS, weights(2, 4, 2, 3)], {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", [MAPS, weights(2, 4, 2, 3)], {"auto_pad": "VALID", "strides": [2, 2]}),
    Case("Conv", [(1, 2, 9), weights(3, 2, 4), weights(3)], {"strides": [3]}),
    Case("Conv", [(1, 2, 4, 5, 4), weights(2, 2, 2, 3, 2)], {"pads": [0, 1, 0, 1, 1, 0]}),
    Case("Conv", [(1, 2, 5, 4), (4, 1, 2, 3), (4,)], {"group": 2, "pads": [0, 1, 1, 0]}),
    Case("ConvTranspose", [(1, 4, 3, 3), weights(4, 2, 3, 3), weights(2)], {"strides": [2, 2]}),
    Case(
        "ConvTranspose",
        [(1, 4, 3, 4), weights(4, 3, 3, 2)],
        {"group": 2, "strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]},
    ),
    Case("ConvTranspose", [(1, 2, 3, 3), weights(2, 1, 3, 2)], {"dilations": [2, 1]}),
    Case("ConvTranspose", [(1, 2, 3, 3), (2, 1, 3, 2)]),
    *[
        Case("ConvTranspose", [(1, 2, 3, 4), weights(2, 3, 4, 3)], {"strides": [2, 1], **a})
        for a in ({"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [7, 5]})
    ],
    Case("ConvTranspose", [(1, 2, 5), weights(2, 3, 4)], {"strides": [2], "pads": [1, 1]}),
]

POOLS = [
    *[Case(op, [MAPS], {"kernel_shape": [3, 3], "strides": [2, 1]}) for op in ("MaxPool", "AveragePool")],
    *[
        Case(op, [MAPS], {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0], "strides": [2, 2], "ceil_mode": 1})
        for op in ("MaxPool", "AveragePool")
    ],
    *[
        Case(op, [MAPS], {"kernel_shape": [3, 2], "auto_pad": p, "strides": [2, 2]})
        for op in ("MaxPool", "AveragePool")
        for p in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ],
    *[
        Case(op, [(1, 2, 6)], {"kernel_shape": [2], "strides": [3], "pads": [0, 1], "ceil_mode": 1})
        for op in ("MaxPool", "AveragePool")
    ],
    *[Case(op, [(1, 2, 9)], {"kernel_shape": [3], "dilations": [2]}) for op in ("MaxPool", "AveragePool")],
    *[Case(op, [(1, 2, 4, 3, 4)], {"kernel_shape": [2, 2, 3]}) for op in ("MaxPool", "AveragePool")],
    Case("AveragePool", [MAPS], {"kernel_shape": [3, 2], "pads": [1, 1, 1, 0], "count_include_pad": 1}),
    Case(
        "AveragePool",
        [MAPS],
        {"kernel_shape": [3, 3], "pads": [0, 1, 0, 1], "strides": [2, 2], "ceil_mode": 1}
        | {"count_include_pad": 1},
    ),
    Case("LpPool", [MAPS], {"kernel_shape": [2, 2], "p": 2}),
    Case("LpPool", [MAPS], {"kernel_shape": [3, 2], "p": 3, "strides": [2, 1], "pads": [1, 0, 1, 0]}),
    Case("LpPool", [MAPS], {"kernel_shape": [2, 2], "p": 1}),
    Case("GlobalAveragePool", [MAPS]),
    Case("GlobalMaxPool", [MAPS]),
]

REDUCTIONS = [
    *[
        Case(f"Reduce{kind}", [MATRIX, *axes], attrs, positive=kind == "LogSum")
        for kind in (
            "Sum Mean Max Min L1 L2 SumSquare LogSumExp LogSum Prod".split()  # noqa: SIM905
        )
        for axes, attrs in (
            ([whole(-1)], {"keepdims": 0}),
            ([whole(1, 2)], {}),
            ([], {"keepdims": 0}),
        )
    ],
    Case("ReduceMean", [MATRIX], {"axes": [1]}, opset=13),
    Case("ReduceSum", [MATRIX], {"axes": [1], "keepdims": 0}, opset=11),
    Case("CumSum", [MATRIX, np.array(2, np.int64)]),
    Case("CumSum", [MATRIX, np.array(1, np.int64)], {"exclusive": 1, "reverse": 1}),
    Case("TopK", [MATRIX, whole(3)], unused=("at",)),
    Case("TopK", [MATRIX, whole(2)], {"largest": 0, "axis": 1}, unused=("at",)),
    Case("TopK", [MATRIX, whole(1)], unused=("at",)),
]

NORMS = [
    *[Case(op, [MATRIX], {"axis": a}) for op in ("Softmax", "LogSoftmax") for a in (-1, 1)],
    *[Case(op, [MATRIX], opset=11) for op in ("Softmax", "LogSoftmax")],
    Case("BatchNormalization", [MAPS, weights(4), weights(4), weights(4), weights(4, low=0.2)]),
    Case("InstanceNormalization", [MAPS, weights(4), weights(4)]),
    Case("LayerNormalization", [MATRIX, weights(5), weights(5)]),
    Case("LayerNormalization", [MATRIX, weights(3, 5)], {"axis": 1, "epsilon": 0.1}),
    Case("RMSNormalization", [MATRIX, weights(5)], opset=23),
    Case("RMSNormalization", [MATRIX, weights(3, 5)], {"axis": 1}, opset=23),
    Case("GroupNormalization", [MAPS, weights(4), weights(4)], {"num_groups": 2}),
    Case("GroupNormalization", [MAPS, weights(2), weights(2)], {"num_groups": 2}, opset=18),
    Case("LRN", [(1, 6, 3, 2)], {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 1.2}),
    Case("LRN", [(1, 6, 3, 1)], {"size": 5, "alpha": 0.5}),
    Case("LpNormalization", [MATRIX], {"p": 2, "axis": 1}),
    Case("LpNormalization", [MATRIX], {"p": 1}),
]

MOVES = [
    Case("Transpose", [MATRIX], {"perm": [2, 0, 1]}),
    Case("Reshape", [MATRIX, whole(0, 5, -1)]),
    Case("Flatten", [MAPS], {"axis": 2}),
    Case("Squeeze", [(1, 3, 1, 2), whole(2)]),
    Case("Squeeze", [(1, 3, 1, 2)], {"axes": [-2]}, opset=11),
    Case("Unsqueeze", [VECTOR, whole(0, -1)]),
    Case("Unsqueeze", [VECTOR], {"axes": [1]}, opset=11),
    Case("Expand", [(1, 3, 1), whole(2, 1, 4)]),
    Case("Tile", [MATRIX, whole(2, 1, 3)]),
    Case("Slice", [MAPS, whole(1, -1), whole(3, -5), whole(1, 2), whole(1, -2)]),
    Case("Slice", [MAPS, whole(-1), whole(np.iinfo(np.int64).min), whole(3), whole(-1)]),
    Case("Split", [MATRIX, whole(2, 1, 2)], {"axis": 2}, outputs=3),
    Case("Split", [MATRIX], {"axis": -1, "num_outputs": 2}, outputs=2),
    Case("Split", [MAPS], {"axis": 1}, opset=11, outputs=2),
    Case("Concat", [MATRIX, weights(1, 2, 5), (1, 1, 5)], {"axis": -2}),
    Case("Gather", [MATRIX, np.array([[0, -1], [2, 2]])], {"axis": 1}),
    Case("Gather", [MATRIX, np.array(1)], {"axis": 2}),
    Case("GatherElements", [MATRIX, np.array([[[0, -1], [2, 2]]])], {"axis": 2}),
    Case("GatherND", [MATRIX, np.array([[0, 1], [0, -1], [0, 1]])]),
    Case("GatherND", [(2, 3, 2), np.array([[1], [0]])], {"batch_dims": 1}),
    Case("Pad", [MATRIX, whole(0, 1, 2, 0, 0, 1)]),
    Case("Pad", [MATRIX, whole(1, -1, 0, 1), number(0.7), whole(1, 2)]),
    Case("Pad", [MATRIX, whole(1, 0, 0, 1), (1,), whole(1, 2)]),
    Case("Pad", [MATRIX, whole(0, 1, 2, 0, 2, 1)], {"mode": "reflect"}),
    Case("Pad", [MATRIX, whole(0, 1, 2, 0, 2, 1)], {"mode": "edge"}),
    Case("Resize", [MAPS, None, np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}),
    Case("Resize", [MAPS, None, np.array([1, 1, 2, 1.5], np.float32)], {"mode": "linear"}),
    Case(
        "Resize",
        [MAPS, None, None, whole(1, 4, 4, 7)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    Case(
        "Resize",
        [MAPS, None, None, whole(1, 4, 9, 3)],
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    *[
        Case(
            "Resize",
            [MAPS, None, np.array([1, 1, 1.5, 0.7], np.float32)],
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": n},
        )
        for n in ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
    ],
    *[
        Case(
            "Resize",
            [(1, 2, 5, 7), None, None, whole(*sizes)],
            {"mode": m, "coordinate_transformation_mode": c, "axes": [2, 3]},
        )
        for m in ("nearest", "linear")
        for c in ("half_pixel", "half_pixel_symmetric", "asymmetric", "pytorch_half_pixel")
        for sizes in ((8, 4), (1, 15))
    ],
    *[Case("DepthToSpace", [(1, 8, 2, 3)], {"blocksize": 2, "mode": m}, opset=13) for m in ("DCR", "CRD")],
    Case("SpaceToDepth", [(1, 2, 4, 6)], {"blocksize": 2}),
    Case("Trilu", [(1, 4, 5)]),
    Case("Trilu", [(1, 4, 5), np.array(-1)], {"upper": 0}),
    Case("ScatterElements", [MATRIX, np.array([[[1, -1], [3, 0]]]), (1, 2, 2)], {"axis": 2}),
    Case(
        "ScatterElements",
        [MATRIX, np.array([[[1, 1], [0, 0]]]), (1, 2, 2)],
        {"axis": 2, "reduction": "add"},
    ),
    Case("ScatterND", [MATRIX, np.array([[0, 1], [0, -1]]), (2, 5)]),
    Case("ScatterND", [MATRIX, np.array([[0, 1], [0, 1]]), (2, 5)], {"reduction": "add"}),
    Case("Compress", [MATRIX, np.array([True, False, True])], {"axis": 1}),
]

CASES = [*ELEMENTWISE, *PAIRS, *PRODUCTS, *CONVOLUTIONS, *POOLS, *REDUCTIONS, *NORMS, *MOVES]

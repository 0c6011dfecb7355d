"""Random ONNX models that are valid by construction: what the compiler must explain exactly, or refuse.

`generate(seed, size)` gives the same model each time; a smaller `size` gives a prefix of its nodes, which is
how a failure is cut down. The ops are in fuzz_ops.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["BATCH", "OPS", "Dim", "Fuzz", "Tensor", "generate", "move"]

Dim = Any
"""An int, or ("N", k): k rows for each sample."""
BATCH: Dim = ("N", 1)
SAMPLES, REFERENCES = 3, 2
LIMIT = 200.0
"""Values beyond it would only test how fast rounding grows."""


@dataclass(frozen=True)
class Tensor:
    """A value of the model under construction."""

    name: str
    shape: tuple[Dim, ...]
    positive: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def batch(self) -> int | None:
        """The axis with the samples."""
        return next((i for i, d in enumerate(self.shape) if isinstance(d, tuple)), None)

    @property
    def fixed(self) -> list[int]:
        """The other axes."""
        return [i for i, d in enumerate(self.shape) if isinstance(d, int)]


@dataclass
class Fuzz:
    """A model under construction, and the source of all choices."""

    rng: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    inputs: list[onnx.ValueInfoProto] = field(default_factory=list)
    pool: list[Tensor] = field(default_factory=list)
    ids: dict[str, int] = field(default_factory=dict)
    """Integer inputs, with the number of rows that they choose from."""
    jumps: bool = False
    """Whether something in it has no complete rule, so that a refusal is right."""

    def one_of(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def integer(self, low: int, high: int) -> int:
        """low ... high, both included."""
        return int(self.rng.integers(low, high + 1))

    def value(self, wanted: Callable[[Tensor], bool] = lambda t: True) -> Tensor | None:
        """A value from the pool, the newest ones more often."""
        fitting = [t for t in self.pool if wanted(t)]
        if not fitting:
            return None
        weights = np.arange(1, len(fitting) + 1, dtype=float) ** 2
        return fitting[int(self.rng.choice(len(fitting), p=weights / weights.sum()))]

    def constant(self, array: Any) -> str:
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        return self.constant(self.rng.standard_normal(shape) * scale)

    def ints(self, values: Sequence[int]) -> str:
        return self.constant(np.array(values, dtype=np.int64))

    def node(self, kind: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> list[str]:
        """Adds a node and returns the names of its results."""
        names = [f"v{len(self.nodes)}" + (f"_{i}" if i else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, f"n{len(self.nodes)}/{kind}", **attributes))
        return names

    def add(
        self,
        kind: str,
        inputs: Sequence[str],
        shape: Sequence[Dim],
        *,
        positive: bool = False,
        **attributes: Any,
    ) -> Tensor:
        """Adds a node with one float result, which goes into the pool."""
        (name,) = self.node(kind, inputs, **attributes)
        self.pool.append(Tensor(name, tuple(shape), positive))
        return self.pool[-1]

    def positive(self, of: Tensor) -> Tensor:
        """A value above 0.3 made from `of`."""
        if of.positive:
            return of
        kind = self.one_of(["Sigmoid", "Softplus", "Abs", "Mul", "Exp"])
        inner = self.add("Tanh", [of.name], of.shape) if kind == "Exp" else of
        made = self.add(kind, [inner.name] * (2 if kind == "Mul" else 1), of.shape)
        shift = self.constant(np.float32(self.rng.uniform(0.3, 1.5)))
        return self.add("Add", [made.name, shift], of.shape, positive=True)


Move = Callable[[Fuzz], Any]
OPS: dict[str, tuple[float, Move]] = {}
"""What can be added to a model: how often, and how.  A move that doesn't fit returns None."""


def move(weight: float = 1.0) -> Callable[[Move], Move]:
    """Registers a move."""

    def register(function: Move) -> Move:
        OPS[function.__name__] = (weight, function)
        return function

    return register


@dataclass(frozen=True)
class Case:
    """A model with samples and references for it."""

    model: onnx.ModelProto
    inputs: dict[str, Any]
    references: dict[str, Any]
    arguments: dict[str, Any]
    """Other arguments of `irshap.compile`."""
    jumps: bool
    """Whether a refusal is right: of an op without a complete rule, or a bypass of an interior tensor."""
    kinds: tuple[str, ...]


def generate(seed: int, size: int | None = None) -> Case | None:
    """The model of a seed, or None where values leave the range in which comparing them says something."""
    import fuzz_moves
    import fuzz_ops

    assert fuzz_ops.OPS is fuzz_moves.OPS is OPS
    rng = np.random.default_rng([seed, 20])
    fuzz = Fuzz(rng, int(rng.choice([13, 17, 18, 20, 21])))
    _inputs(fuzz)
    wanted = fuzz.integer(1, 12)
    names = sorted(OPS)
    weights = np.array([OPS[n][0] for n in names])
    steps = 0
    for _ in range(8 * wanted):
        if steps == (wanted if size is None else min(size, wanted)):
            break
        steps += OPS[str(rng.choice(names, p=weights / weights.sum()))][1](fuzz) is not None
    # what follows is drawn anew, so that it doesn't depend on how many nodes there are
    fuzz.rng = np.random.default_rng([seed, 30])
    output = _output(fuzz)
    graph = helper.make_graph(fuzz.nodes, "fuzz", fuzz.inputs, [output], fuzz.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", fuzz.opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    fuzz.rng = np.random.default_rng([seed, 40])
    sample, references = (_arrays(fuzz, rows) for rows in (SAMPLES, REFERENCES))
    if fuzz.chance(0.2):
        # where both worlds agree in places
        for name, array in references.items():
            array[fuzz.rng.random(array.shape) < 0.5] = 0
            same = fuzz.rng.random(array.shape[1:]) < 0.3
            array[:, same] = sample[name][0][same]
    kinds = tuple(n.op_type for n in fuzz.nodes)
    arguments = _arguments(fuzz)
    loose = fuzz.jumps or "wrt" in arguments or "context_inputs" in arguments
    case = Case(model, sample, references, arguments, loose, kinds)
    return case if _tame(case) else None


def _arguments(fuzz: Fuzz) -> dict[str, Any]:
    """Mostly the defaults; sometimes several classes, weights, interior tensors, held ones, gaps."""
    found: dict[str, Any] = {}
    if fuzz.chance(0.15):
        found["target"] = fuzz.one_of(["0", "-1", "all"])
    if fuzz.chance(0.1):
        found["weights"] = fuzz.rng.random(REFERENCES) + 0.1
    interior = [t.name for t in fuzz.pool if t.name.startswith("v")]
    if fuzz.chance(0.15):
        found["wrt"] = ",".join({fuzz.one_of(interior) for _ in range(fuzz.integer(1, 2))})
    if fuzz.chance(0.1):
        found["context_inputs"] = (fuzz.one_of(interior),)
    if fuzz.chance(0.1):
        found["on_incomplete"] = "residual"
    return found


def _inputs(fuzz: Fuzz) -> None:
    shapes: list[tuple[int, ...]] = [(4,), (6,), (3, 4), (5, 2), (2, 5, 5), (4, 4, 4), (1, 6, 5), (4, 8)]
    for i in range(fuzz.integer(1, 2)):
        shape = fuzz.one_of(shapes)
        name = f"x{i}"
        fuzz.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]))
        fuzz.pool.append(Tensor(name, (BATCH, *shape)))
    if fuzz.chance(0.15):
        length, rows, width = fuzz.integer(1, 4), 7, fuzz.integer(1, 4)
        fuzz.inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", length]))
        fuzz.ids["ids"] = rows
        fuzz.add("Gather", [fuzz.normal(rows, width), "ids"], (BATCH, length, width))


def _output(fuzz: Fuzz) -> onnx.ValueInfoProto:
    """The last value (or a sum of two), as [batch, classes]."""
    last = fuzz.pool[-1]
    flat = _as_rows(fuzz, last)
    other = fuzz.value(lambda t: t is not last)
    if other is not None and fuzz.chance(0.4):
        parts = [flat, _as_rows(fuzz, other)]
        columns = parts[0].shape[1] + parts[1].shape[1]
        flat = fuzz.add("Concat", [p.name for p in parts], (BATCH, columns), axis=1)
    if fuzz.chance(0.6):
        weights = fuzz.normal(flat.shape[1], 3, scale=flat.shape[1] ** -0.5)
        flat = fuzz.add("MatMul", [flat.name, weights], (BATCH, 3))
    return helper.make_tensor_value_info(flat.name, TensorProto.FLOAT, ["batch", flat.shape[1]])


def _as_rows(fuzz: Fuzz, value: Tensor) -> Tensor:
    axis = value.batch
    assert axis is not None
    if axis:
        perm = [axis, *(a for a in range(value.rank) if a != axis)]
        value = fuzz.add("Transpose", [value.name], [value.shape[a] for a in perm], perm=perm)
    columns = int(np.prod(list(value.shape[1:]))) * value.shape[0][1]
    return fuzz.add("Reshape", [value.name, fuzz.ints([-1, columns])], (BATCH, columns))


def _arrays(fuzz: Fuzz, rows: int) -> dict[str, Any]:
    found = {}
    for info in fuzz.inputs:
        shape = [rows, *(d.dim_value for d in info.type.tensor_type.shape.dim[1:])]
        if info.name in fuzz.ids:
            found[info.name] = fuzz.rng.integers(0, fuzz.ids[info.name], shape)
        else:
            found[info.name] = fuzz.rng.standard_normal(shape).astype(np.float32)
    return found


def _tame(case: Case) -> bool:
    """Whether every value of the model stays small, for samples and references."""
    import onnxruntime

    whole = onnx.ModelProto()
    whole.CopyFrom(case.model)
    del whole.graph.output[:]
    for node in case.model.graph.node:
        whole.graph.output.extend(onnx.ValueInfoProto(name=name) for name in node.output)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    for feeds in (case.inputs, case.references):
        for array in session.run(None, feeds):
            if array.dtype.kind == "f" and not np.all(np.abs(array) < LIMIT):
                return False
    return True

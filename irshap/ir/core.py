"""Values, nodes, ops and graphs: they name each other, so they share a room.

A value is the result of exactly one node; graph inputs are results of `Input` nodes.  Nothing here is ever
changed: a pass builds a new graph through a `Builder`.  Op identity is the class; the attributes of an op are
the fields of a frozen dataclass.  A class that leaves a facet out is refused when it is defined: nothing
defaults silently to zero or identity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar

import sympy

from irshap.errors import IRError
from irshap.ir.dims import Dim, Shape, product, substitute
from irshap.ir.facets import Layer, Precision
from irshap.ir.roles import PUBLISHED, Role
from irshap.ir.source import Source
from irshap.ir.types import Array, DType, TensorType, Type

__all__ = [
    "OPERATORS",
    "OPS",
    "PUBLISHED",
    "Axes",
    "Graph",
    "Layer",
    "LinearPart",
    "MixesBatch",
    "NoLocalRule",
    "Node",
]
__all__ += ["Op", "Output", "Point", "Precision", "Role", "Sample", "Source", "Stacked", "TypeMismatch"]
__all__ += ["Value", "numel", "require", "tensors"]


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Value:
    """The `index`-th result of `node`.  Compared by identity; arithmetic emits into the current builder."""

    node: Node
    index: int
    type: Type
    name: str | None = None

    @property
    def tensor(self) -> TensorType:
        """The type of a value that must be a tensor."""
        if not isinstance(self.type, TensorType):
            raise TypeError(f"%{self.name} is a {self.type}, not a tensor")
        return self.type

    @property
    def shape(self) -> Shape:
        """The shape of a tensor of known rank."""
        return self.tensor.dims

    @property
    def rank(self) -> int:
        """The number of axes."""
        return self.tensor.rank

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.tensor.dtype

    def __add__(self, other: Value | float) -> Value:
        return _operator("add", self, other)

    def __radd__(self, other: float) -> Value:
        return _operator("add", other, self)

    def __sub__(self, other: Value | float) -> Value:
        return _operator("sub", self, other)

    def __rsub__(self, other: float) -> Value:
        return _operator("sub", other, self)

    def __mul__(self, other: Value | float) -> Value:
        return _operator("mul", self, other)

    def __rmul__(self, other: float) -> Value:
        return _operator("mul", other, self)

    def __truediv__(self, other: Value | float) -> Value:
        return _operator("div", self, other)

    def __rtruediv__(self, other: float) -> Value:
        return _operator("div", other, self)

    def __neg__(self) -> Value:
        return _operator("neg", self)

    def __repr__(self) -> str:
        return f"%{self.name or '_'}: {self.type}"


class Operator(Protocol):
    """Emits an op; a plain number among its operands becomes a constant of the others' element type."""

    def __call__(self, *operands: Value | float) -> Value:
        """The result."""


OPERATORS: dict[str, Operator] = {}
"""What Python's operators on values emit, by mnemonic.  The ops stand above this module, so that
`irshap.ops.arithmetic` installs them."""


def _operator(mnemonic: str, *operands: Value | float) -> Value:
    if mnemonic not in OPERATORS:
        raise IRError(
            f"no op is installed for arithmetic on values ({mnemonic})", mend="import irshap.ops beforehand"
        )
    return OPERATORS[mnemonic](*operands)


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class Node:
    """One statement: `results = op(operands)`.

    `origin` holds the names of the ONNX nodes that it stems from, for errors, cost rows and lowered names.
    """

    op: Op
    operands: tuple[Value, ...]
    types: tuple[Type, ...]
    origin: tuple[str, ...] = ()
    names: tuple[str | None, ...] = ()
    results: tuple[Value, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = self.names or (None,) * len(self.types)
        results = tuple(Value(self, i, t, n) for i, (t, n) in enumerate(zip(self.types, names, strict=True)))
        object.__setattr__(self, "results", results)

    @property
    def label(self) -> str:
        """How an error or a cost row calls this node."""
        kind = self.op.title
        return f"{', '.join(self.origin)} ({kind})" if self.origin else kind

    def __repr__(self) -> str:
        return f"Node({self.label})"


@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """A named output.

    `of` names the attributed tensor that a source or attribution belongs to, or the source that an adjoint
    belongs to.  Where it is an integer input, the source is what is read in there (an embedding lookup).
    """

    name: str
    value: Value
    role: Role = Role.MODEL
    of: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """A whole program.

    `properties` are the facts that passes have established (`canonical`, `target`, ...), checked by the
    pass manager.
    """

    name: str
    inputs: tuple[Value, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Output, ...]
    properties: frozenset[str] = frozenset()
    source: Source = field(default_factory=Source)

    def output(self, role: Role) -> Output:
        """The only output with this role."""
        (found,) = (o for o in self.outputs if o.role is role)
        return found

    def outputs_of(self, role: Role) -> tuple[Output, ...]:
        """All outputs with this role, in order."""
        return tuple(o for o in self.outputs if o.role is role)

    def input(self, name: str) -> Value:
        """The input called `name`."""
        (found,) = (v for v in self.inputs if v.name == name)
        return found

    @property
    def statements(self) -> tuple[Node, ...]:
        """Every node, those of the inputs first, in topological order."""
        return (*(v.node for v in self.inputs), *self.nodes)

    def values(self) -> Iterator[Value]:
        """Every value, inputs first, in topological order."""
        yield from self.inputs
        for node in self.nodes:
            yield from node.results

    def walk(self) -> Iterator[Node]:
        """Every node, and those in the bodies of nodes before these."""
        for node in self.nodes:
            for body in node.op.bodies:
                yield from body.walk()
            yield node

    def with_properties(self, *added: str, without: tuple[str, ...] = ()) -> Graph:
        """This graph with other properties."""
        return replace(self, properties=(self.properties - set(without)) | set(added))


class TypeMismatch(Exception):
    """Operand types that an op doesn't accept; the builder adds the place."""


class NoLocalRule(Exception):
    """Why an op has no local linear map in the asked form; autodiff and methods add node and op."""


class MixesBatch(Exception):
    """Why the rows of an op's results don't depend on the same rows of its operands alone."""


Axes = Sequence["int | None"]
"""For each operand or result the axis that holds the batch, or None for a value without one."""


@dataclass(frozen=True)
class Point:
    """One world's values around a node: what the local linear map may look at."""

    operands: tuple[Value, ...]
    results: tuple[Value, ...]
    alone: bool = False
    """Whether all samples are compared with this one: what follows from it takes no time in a run."""


class Stacked(Protocol):
    """Operands of a node for many samples: those that are `batched` have an axis of `count` in front."""

    operands: Sequence[Value]
    batched: Sequence[bool]
    count: Dim

    def led(self) -> Sequence[Value]:
        """All operands with that axis in front: those that have none are repeated."""

    def aligned(self) -> Sequence[Value]:
        """The operands as numpy's broadcasting takes them: none is longer than those that are batched."""


@dataclass(frozen=True)
class Sample:
    """One case of the contract test: an instance with operand arrays.

    `varying` are the operands that the local map is checked in (none: forward only).  `batch` tells the
    axis of each operand that is made symbolic; None means that the sample has no batch.  The second world
    has the same elements in another order, so that it stays in the op's domain.
    """

    op: Op
    operands: tuple[Array, ...]
    varying: tuple[int, ...] = ()
    batch: tuple[int | None, ...] | None = None
    types: tuple[Type, ...] | None = None


OPS: dict[str, type[Op]] = {}
"""Every concrete op by its mnemonic."""

_OpT = TypeVar("_OpT", bound="Op")


class Op:
    """Base of all ops.

    A concrete op is a frozen dataclass with `mnemonic`, `precision` and the methods below; the families
    in `irshap.ops.families` derive the methods that follow from fewer facts.
    """

    mnemonic: ClassVar[str]
    """Name in the text format."""
    precision: ClassVar[Precision]
    is_input: ClassVar[bool] = False
    modeled: ClassVar[bool] = True
    """Whether irshap knows what it computes; of one that isn't, nothing is read, folded or simplified."""
    stops_change: ClassVar[bool] = False
    """Whether differences of the operands end here by definition (`hold`)."""
    types_given: ClassVar[bool] = False
    """Whether result types are part of the statement because operands don't determine them."""
    nonnegative: ClassVar[bool] = False
    """Whether no coefficient of the op, where it is linear, is negative."""
    leaves_out: ClassVar[str] = ""
    """What its local linear map is no part of, for the user: it shows in the certificate; "": nothing."""
    mend: ClassVar[str] = ""
    """What a user may ask for, where differences must pass an op without a rule."""
    layer: ClassVar[Layer | None] = None
    """The kind of layer with weights that it is."""
    positions: ClassVar[frozenset[int]] = frozenset()
    """Which results are positions of its first operand's elements."""

    FACETS: ClassVar[dict[str, str]] = {
        "mnemonic": "its name in the text format",
        "precision": "a Precision",
        "infer": "def infer(self, *types) -> result types",
        "evaluate": "def evaluate(self, *arrays) -> result arrays, in numpy",
        "flops": "def flops(self, operands, results) -> FLOPs, FMA counted as 2",
        "batch_axes": "def batch_axes(self, axes, operands, results) -> batch axis of each result",
        "linear_in": "def linear_in(self, varying) -> whether it is affine in these operands together",
        "derivative": "def derivative(self, cts, at, wrt) -> cotangents of the operands wrt",
        "secant": "def secant(self, cts, at, at0, wrt) -> the same between two worlds",
        "samples": "@classmethod def samples(cls) -> cases of the contract test",
    }

    def __init_subclass__(cls, *, family: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family:
            return
        wanted = dict(cls.FACETS)
        for base in reversed(cls.__mro__):
            wanted.update(vars(base).get("REQUIRED", {}))
        missing = [f for f in wanted if _is_missing(cls, f)]
        if missing:
            listed = "; ".join(f"{facet}: {wanted[facet]}" for facet in missing)
            raise TypeError(f"op {cls.__name__} lacks {len(missing)} facet(s): {listed}")
        if cls.mnemonic in OPS:
            raise TypeError(
                f"two ops are called {cls.mnemonic!r}: {OPS[cls.mnemonic].__module__} has it already"
            )
        OPS[cls.mnemonic] = cls

    @property
    def title(self) -> str:
        """How errors and reports call this op."""
        return self.mnemonic

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The programs that are part of this op: closed, with operands for all that they read."""
        return ()

    def with_bodies(self: _OpT, bodies: Sequence[Graph]) -> _OpT:
        """This op with other programs in the place of `bodies`."""
        require(not bodies, f"{self.mnemonic} has no body")
        return self

    @abstractmethod
    def infer(self, *types: Type) -> tuple[Type, ...]:
        """Result types from operand types; raises TypeMismatch."""

    def require_fit(self, operands: int, results: int) -> None:
        """Raises TypeMismatch for another number of them than it has, where `types_given` leaves it open."""

    @abstractmethod
    def evaluate(self, *arrays: Array) -> tuple[Array, ...]:
        """Results in numpy, in the operands' precision.  Dimension symbols are bound beforehand."""

    @abstractmethod
    def flops(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        """Floating point operations; a fused multiply-add counts 2, an elementary function 1."""

    @abstractmethod
    def batch_axes(
        self, axes: Axes, operands: Sequence[TensorType], results: Sequence[TensorType]
    ) -> tuple[int | None, ...]:
        """Where the batch goes.  Raises MixesBatch when a result row depends on several operand rows."""

    def vectorized(self, at: Stacked) -> tuple[Value, ...] | None:
        """Its results with the samples' axis in front; None: a row that `batch_axes` keeps apart takes it."""
        return None

    @abstractmethod
    def linear_in(self, varying: frozenset[int]) -> bool:
        """Whether the op is affine in these operands together, the others held fixed."""

    def adjoint(self, ct: Value, at: Point, i: int) -> Value:
        """The transposed linear map of operand `i`, for an op that is linear in it."""
        raise NoLocalRule(f"{self.mnemonic} has no adjoint in operand {i}")

    def adjoints(self, cts: Sequence[Value], at: Point, i: int) -> Value:
        """As `adjoint`, for an op with several results."""
        (ct,) = cts
        return self.adjoint(ct, at, i)

    @abstractmethod
    def derivative(self, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        """J' ct at one point, for each operand in `wrt`.  `cts` has one cotangent for each float result."""

    @abstractmethod
    def secant(self, cts: Sequence[Value], at: Point, at0: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        """m with sum(m * (operand - operand0)) == ct * (result - result0): the complete local map."""

    def linear_part(self, operands: Sequence[Value], varying: frozenset[int], absolute: bool) -> LinearPart:
        """The op without its summands, for one that is linear in `varying`: another op and its operands.

        Operands that vary keep their positions; None is a summand, to be replaced by zeros of its type.
        With `absolute` every coefficient is replaced by its absolute value, so that the op applied to |x|
        bounds what it makes of x.
        """
        if not self.nonnegative:
            raise NoLocalRule("RevealCancel has no rule for it")
        return self, tuple(None if i not in varying and _is_float(v) else v for i, v in enumerate(operands))

    @classmethod
    @abstractmethod
    def samples(cls) -> Iterable[Sample]:
        """Cases for the contract test: corner cases of each attribute."""

    def nbytes(self, operands: Sequence[TensorType], results: Sequence[TensorType]) -> Dim:
        """Bytes read and written.  Views override it."""
        total: Dim = 0
        for t in (*operands, *results):
            total = total + t.nbytes
        return total

    @property
    def symbols(self) -> set[sympy.Expr]:
        """The dimension symbols in its attributes."""
        return _symbols(tuple(getattr(self, f.name) for f in fields(self)))  # type: ignore[arg-type]

    def substitute(self: _OpT, binding: Mapping[sympy.Expr, Dim]) -> _OpT:
        """This op with dimension symbols in its attributes replaced."""
        changes = {}
        for f in fields(self):  # type: ignore[arg-type]
            old = getattr(self, f.name)
            new = _substitute(old, binding)
            if new is not old:
                changes[f.name] = new
        return replace(self, **changes) if changes else self  # type: ignore[type-var]


LinearPart: TypeAlias = tuple[Op, tuple[Value | None, ...]]
"""An op and its operands, None standing for zeros."""


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


def _is_missing(cls: type[Op], facet: str) -> bool:
    found = getattr(cls, facet, None)
    # what `Op` itself has only says that there is none
    return found is None or getattr(found, "__isabstractmethod__", False) or found is vars(Op).get(facet)


def _substitute(value: object, binding: Mapping[sympy.Expr, Dim]) -> object:
    if isinstance(value, sympy.Expr):
        return substitute(value, binding)
    if isinstance(value, tuple):
        new = tuple(_substitute(v, binding) for v in value)
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    return value.substitute(binding) if isinstance(value, Op) else value


def _symbols(value: object) -> set[sympy.Expr]:
    if isinstance(value, sympy.Expr):
        return set(value.free_symbols)
    if isinstance(value, tuple):
        return set().union(*map(_symbols, value))
    return value.symbols if isinstance(value, Op) else set()


def require(condition: bool, message: str | Callable[[], str]) -> None:
    """Raises TypeMismatch unless `condition`."""
    if not condition:
        raise TypeMismatch(message if isinstance(message, str) else message())


def tensors(types: Sequence[Type]) -> list[TensorType]:
    """The operand types of an op that takes tensors of known rank."""
    known = [t for t in types if isinstance(t, TensorType) and t.shape is not None]
    if len(known) < len(types):
        other = next(t for t in types if t not in known)
        raise TypeMismatch(f"needs tensors of known rank, got {other}")
    return known


def numel(types: Sequence[TensorType]) -> Dim:
    """The number of elements of the first type."""
    return product(types[0].dims)

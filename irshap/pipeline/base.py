"""What a pass is: a frozen dataclass whose fields are its options and whose docstring is its contract."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from irshap.ir.core import Graph, Role
from irshap.ir.types import Array

__all__ = ["FACTS", "PASSES", "PROPERTIES", "UNAVAILABLE", "Context", "Pass", "Points", "Semantics"]
__all__ += ["graph_property"]


class Semantics(Enum):
    """What a pass does to the meaning of the graph's outputs."""

    PRESERVES = "preserves"
    """Every output keeps its value, up to rounding."""
    EXTENDS = "extends"
    """Old outputs keep their values; new ones are added."""
    APPROXIMATES = "approximates"
    """Outputs change within `tolerance`."""
    REPLACES = "replaces"
    """Another function takes the place of the model's, on request."""


class Points(Enum):
    """Where an attribution method looks at the model: which rows a program that computes it runs."""

    SAMPLE = "sample"
    """Each sample alone."""
    SAMPLE_AND_REFERENCE = "sample and reference"
    """Each sample beside each reference."""
    PATH = "points between reference and sample"
    """Points on the way from each reference to each sample."""
    NEARBY = "points around each sample"
    """Each sample with noise added to it, many times."""
    MASKS = "masked samples"
    """Each sample with parts of it replaced; nothing is differentiated."""
    COALITIONS = "samples with parts from references"
    """Each sample with parts of it taken from each reference; nothing is differentiated."""

    @property
    def references(self) -> bool:
        """Whether references are among them."""
        return self in (Points.SAMPLE_AND_REFERENCE, Points.PATH, Points.COALITIONS)


@dataclass
class Context:
    """What passes need and pipeline text can't hold: data of this compilation, and where they report to.

    Attributes:
        given: references as they were read, "" for one array without an input's name.
        references: for each attributed input, its reference set [R, ...].
        weights: one weight for each reference [R], summing to 1; None means equal weights.
        groups: for methods that replace groups of cells, their numbers by input, "" for one array without an
            input's name; as read, not checked yet.
        source: the ONNX model that is compiled (for its opset, and for messages).
        weights_of_source: arrays that `source` refers to, kept with it.
        keeps_graph: whether who asks keeps the last graph, so that what it is lowered to may refer to it.
        metadata: key-value pairs for the lowered model.
        unbound: no references are there yet, and passes that bind them leave their number a symbol.
        expected: how many there will be, 0 if that isn't known either.
        exact: whether the program is for that number alone; otherwise its costs are formulas in R.
        statistics: counts that the running pass reports; the manager reads and clears them.
    """

    given: Mapping[str, Array] = field(default_factory=dict)
    references: Mapping[str, Array] = field(default_factory=dict)
    weights: Array | None = None
    groups: Mapping[str, Array] = field(default_factory=dict)
    source: Any = None
    weights_of_source: Sequence[Array] = ()
    keeps_graph: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    unbound: bool = False
    expected: int = 0
    exact: bool = False
    statistics: Counter[str] = field(default_factory=Counter)

    @property
    def alone(self) -> bool:
        """Whether all samples are compared with one reference, which the program will be bound to."""
        return not self.unbound and {len(a) for a in self.references.values()} == {1}

    def count(self, what: str, number: int = 1) -> None:
        """Adds to a statistic of the running pass."""
        self.statistics[what] += number


PASSES: dict[str, type[Pass]] = {}
"""Every pass by its name in pipelines."""

UNAVAILABLE: dict[str, str] = {}
"""Why the passes of an installed package could not be imported, by what it calls them and its own name."""

PROPERTIES: dict[str, Callable[[Graph], str | None]] = {}
"""Every property by name: a check that returns None, or why the graph doesn't have it."""


FACTS: dict[Role, str] = {}
"""The property of a program that has outputs of a role."""


def graph_property(
    name: str, *roles: Role
) -> Callable[[Callable[[Graph], str | None]], Callable[[Graph], str | None]]:
    """Registers the check of a property that passes require or ensure.

    Args:
        roles: of outputs that a program has only with this property, so that no pass takes them for its own.
    """

    def register(check: Callable[[Graph], str | None]) -> Callable[[Graph], str | None]:
        if name in PROPERTIES:
            raise TypeError(f"two properties are called {name!r}")
        PROPERTIES[name] = check
        FACTS.update(dict.fromkeys(roles, name))
        return check

    return register


@dataclass(frozen=True)
class Pass:
    """Base of all passes.

    A concrete pass sets `name` (as in pipelines), `requires` and `ensures` (properties that must hold before,
    and hold after), `removes` (properties that may no longer hold), `once` (those that it gives and
    can't give again), and `semantics`, with `tolerance` for one that approximates.  `takes` and `gives` are
    "graph" except at the ONNX boundary.
    """

    name: ClassVar[str]
    requires: ClassVar[frozenset[str]] = frozenset()
    ensures: ClassVar[frozenset[str]] = frozenset()
    removes: ClassVar[frozenset[str]] = frozenset()
    once: ClassVar[frozenset[str]] = frozenset()
    semantics: ClassVar[Semantics]
    tolerance: ClassVar[float] = 0.0
    binds_references: ClassVar[bool] = False
    """Whether it puts the context's references into the program."""
    stores: ClassVar[bool] = False
    """Whether it computes while compiling what follows from the references alone: strategies replace it."""
    into_bodies: ClassVar[bool] = False
    """Whether it runs on the bodies of loops, too, as if each were a program: before it runs on the whole."""
    takes: ClassVar[str] = "graph"
    gives: ClassVar[str] = "graph"

    def __init_subclass__(cls, *, family: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family:
            return
        for facet in ("name", "semantics"):
            if not hasattr(cls, facet):
                raise TypeError(f"pass {cls.__name__} lacks `{facet}`")
        if not (cls.__doc__ or "").strip():
            raise TypeError(f"pass {cls.__name__} lacks a docstring: its contract")
        if cls.name in PASSES:
            raise TypeError(f"two passes are called {cls.name!r}")
        PASSES[cls.name] = cls

    @abstractmethod
    def run(self, ir: Any, context: Context) -> Any:
        """The rewritten graph (for `lift` a graph from a model, for `lower` a model from a graph)."""

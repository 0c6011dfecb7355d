"""What every attribution method is: one class, with facets that the family's walk and the compiler go by.

`autodiff` leaves each op that isn't linear open as a pullback; a method decides what stands in its place, and
what an input gets of the multiplier that reaches it.  Outputs by class and token, the certificate and
refusals stand here once.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar

from irshap import contract
from irshap.attribution.gaps import from_text, left_out, to_text
from irshap.attribution.outputs import attributions, by_class, is_token, own_names, samples_first, source_axes
from irshap.errors import NotDifferentiable, TargetError, UserError
from irshap.ir.builder import Builder, emit1
from irshap.ir.core import Graph, Node, NoLocalRule, Op, Output, Point, Role, Value
from irshap.ops.closed import in_parts
from irshap.ops.program import Pullback
from irshap.ops.reduce import ReduceSum
from irshap.pipeline.base import Context, Pass, Points, Semantics

__all__ = ["METHODS", "Explained", "LocalMethod", "Method", "Sum", "emits_certificate", "emitted", "refuse"]


class Sum(Enum):
    """What a method's attributions of a sample sum to, for each op with a rule: what certificates go by."""

    DIFFERENCE = "f(x) - base"
    OUTPUT = "f(x)"
    NOTHING = "nothing"


@dataclass(frozen=True)
class Explained:
    """What a method emitted.

    Attributes:
        sample: gives each value of the graph in the samples' own rows.
        scores: for each source what it gets, [samples, ...].
        ends: emits f(x) and base, both [samples], for a method that sums to something; where it sums to f(x)
            alone there is no base.
        certified: whether the certificate (f(x) - base, or f(x), less all scores) is an output.
        more: what else is told of sources, by its role: [samples, ...], and the tensor that it is of.
    """

    sample: Callable[[Value], Value]
    scores: Sequence[Value]
    ends: Callable[[], tuple[Value, Value | None]] | None = None
    certified: bool = False
    more: Mapping[Role, Mapping[str, Value]] = field(default_factory=dict)


METHODS: dict[str, type[Method]] = {}
"""Every attribution method by its name in pipelines."""


class Method(Pass, family=True):
    """Base of all attribution methods: a pass that decides every pullback and gives each source its score.

    A concrete method is a frozen dataclass whose fields are its options, with the facets below and `explain`
    (the families derive it); a class that leaves one out is refused when it is defined.
    """

    FACETS: ClassVar[dict[str, str]] = {
        "points": "a Points: which rows are run",
        "sums_to": "a Sum: what attributions add up to",
        "explain": "def explain(self, builder, ir, context) -> Explained (families derive it)",
        "cases": "@classmethod def cases(cls) -> instances that the contract test runs",
    }
    points: ClassVar[Points]
    sums_to: ClassVar[Sum]
    remainder: ClassVar[str] = ""
    """What keeps it from summing up to rounding, such as a quadrature; "": nothing does."""
    tokens: ClassVar[bool] = True
    """Whether its scores over an embedding may be added up to one number for a token."""
    semantics = Semantics.EXTENDS
    requires = frozenset({"adjoint"})
    ensures = frozenset({"decided"})
    removes = frozenset({"target", "adjoint"})

    def __init_subclass__(cls, *, family: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(family=family, **kwargs)
        if family:
            return
        wanted = dict[str, str]()
        for base in reversed(cls.__mro__):
            wanted |= vars(base).get("FACETS", {})
        missing = [f for f in wanted if _is_missing(cls, f)]
        if missing:
            listed = "; ".join(f"{facet}: {wanted[facet]}" for facet in missing)
            raise TypeError(f"method {cls.__name__} lacks {len(missing)} facet(s): {listed}")
        METHODS[cls.name] = cls

    @property
    def attributes(self) -> str:
        """The tensors that it attributes by an option of its own, as the target's `wrt`; "": none."""
        return ""

    @abstractmethod
    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        """Emits what `ir` computes for each sample, and the score of each source.

        Raises:
            NotDifferentiable: an op on the way has no rule.
        """

    @classmethod
    @abstractmethod
    def cases(cls) -> Iterable[Method]:
        """Instances for the contract test: one for each option that changes what is computed."""

    def run(self, ir: Graph, context: Context) -> Graph:
        if not self.tokens:
            self._refuse_tokens(ir)
        with Builder() as b:
            found = self.explain(b, ir, context)
            outputs = [replace(o, value=found.sample(o.value)) for o in ir.outputs_of(Role.MODEL)]
            outputs += attributions(ir, found.scores, found.sample)
            taken = own_names(ir)
            for role, told in found.more.items():
                names = {of: contract.free(_NAMES[role](of), taken) for of in told}
                outputs += [Output(names[of], by_class(value, ir), role, of) for of, value in told.items()]
            explained, base = (None, None) if found.ends is None else found.ends()
            rough = left_out(ir)
            if rough:
                told_of = from_text(context.metadata.get(contract.Metadata.GAPS, ""))
                context.metadata[contract.Metadata.GAPS] = to_text([*told_of, *rough])
                context.count("straight through", len(rough))
            if base is not None:
                name = contract.free(contract.BASE_VALUES, taken)
                outputs.append(Output(name, by_class(base, ir), Role.BASE))
            chosen = (*ir.outputs_of(Role.TARGET_INDEX), *ir.outputs_of(Role.VALUES))
            outputs += [replace(o, value=found.sample(o.value)) for o in chosen]
            if (found.certified or rough) and explained is not None:
                left = _certificate(explained, base, found.scores)
                name = contract.free(contract.COMPLETENESS_ERROR, taken)
                outputs.append(Output(name, by_class(left, ir), Role.COMPLETENESS))
            return in_parts(b.build(ir.name, outputs, ir.properties, like=ir))

    def _refuse_tokens(self, graph: Graph) -> None:
        for source in graph.outputs_of(Role.SOURCE):
            if is_token(graph, source):
                raise TargetError(
                    f"input {source.of!r} is integer: it has no {self.name}",
                    mend=f"Take the {self.name} by the tensor that it is read into: wrt={source.name}",
                )


def _certificate(explained: Value, base: Value | None, scores: Sequence[Value]) -> Value:
    """What the scores leave of f(x) - base, or of f(x): [samples]."""
    left = explained if base is None else explained - base
    for score in scores:
        left = left - emit1(ReduceSum(tuple(range(1, score.rank)), keepdims=False), score)
    return left


_NAMES = {Role.MULTIPLIERS: contract.multipliers, Role.HYPOTHETICAL: contract.hypothetical}
"""What outputs of a role are called."""


def emitted(method: str, emit: str, known: Sequence[str]) -> frozenset[str]:
    """What the option `emit` of a method asks for, of what it can emit.

    Raises:
        UserError: something else.
    """
    asked = [name.strip() for name in emit.split(",") if name.strip()]
    for name in asked:
        if name not in known:
            raise UserError(f"{method} emits no {name!r}", mend=f"Use emit={' or '.join(known)}")
    return frozenset(asked)


def emits_certificate(method: str, emit: str) -> bool:
    """Whether the option `emit` of a method asks for the certificate, which is all that it can ask for.

    Raises:
        UserError: something else.
    """
    return bool(emitted(method, emit, [contract.COMPLETENESS_ERROR]))


def _is_missing(cls: type[Method], facet: str) -> bool:
    found = getattr(cls, facet, None)
    return found is None or getattr(found, "__isabstractmethod__", False)


class LocalMethod(Method, family=True):
    """One linear map for each op at the sample; the reverse pass composes them to a multiplier a source."""

    FACETS: ClassVar[dict[str, str]] = {
        "local": "def local(self, op, cts, at, wrt) -> what op's pullback becomes",
        "score": "def score(self, m, x) -> what an input x with the multiplier m gets",
    }
    points = Points.SAMPLE

    @abstractmethod
    def local(self, op: Op, cts: Sequence[Value], at: Point, wrt: Sequence[int]) -> tuple[Value, ...]:
        """The transposed local map of `op` at one point, for each operand in `wrt`.

        Raises:
            NoLocalRule: it has none.
        """

    @abstractmethod
    def score(self, m: Value, x: Value) -> Value:
        """What a source with the value `x` gets of its multiplier; shapes as `x`."""

    def explain(self, builder: Builder, ir: Graph, context: Context) -> Explained:
        sample = self._decided(builder, ir)
        target = ir.output(Role.TARGET).value
        pairs = zip(ir.outputs_of(Role.SOURCE), ir.outputs_of(Role.ADJOINT), source_axes(ir), strict=True)
        scores = [
            samples_first(self.score(sample[m.value], sample[x.value]), axis, target.shape[0])
            for x, m, axis in pairs
        ]
        if self.sums_to is Sum.OUTPUT:
            return Explained(sample.__getitem__, scores, lambda: (sample[target], None))
        return Explained(sample.__getitem__, scores)

    def _decided(self, b: Builder, ir: Graph) -> Mapping[Value, Value]:
        """Emits the graph with `local` in the place of pullbacks; tells where each value went."""

        def decide(node: Node, mapping: Mapping[Value, Value]) -> tuple[Value, ...] | None:
            if not isinstance(node.op, Pullback):
                return None
            cts, at = node.op.parts([mapping[v] for v in node.operands])
            try:
                return self.local(node.op.of, cts, at, node.op.wrt)
            except NoLocalRule as error:
                raise refuse(node, error) from None

        return b.extend(ir.statements, {}, decide)


def refuse(node: Node, reason: object) -> NotDifferentiable:
    """The error for a node without a local linear map."""
    return NotDifferentiable(
        f"the path from the attributed input to the target crosses an op without a rule: {reason}",
        where=node.label,
        mend="Attribute a tensor behind it (wrt), or explain another output",
    )

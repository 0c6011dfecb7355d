"""Which axioms a method keeps, and which an explained file does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from irshap.compiler.request import as_method
from irshap.contract import Metadata
from irshap.errors import ModelError, UserError
from irshap.metrics.axioms.axiom import Axiom, Trial
from irshap.metrics.axioms.functions import Tried
from irshap.metrics.axioms.homogeneity import NonnegativeHomogeneity
from irshap.metrics.axioms.implementation import ImplementationInvariance, require_comparable
from irshap.metrics.axioms.sensitivity import SensitivityA, SensitivityB
from irshap.metrics.axioms.sums import Completeness, Linearity
from irshap.metrics.axioms.symmetry import Symmetry
from irshap.metrics.evaluate import subject_of
from irshap.passes.methods.base import Method
from irshap.pipeline.text import parse_pipeline, pass_text
from irshap.runtime import Explainer
from irshap.runtime.arrays import Source

__all__ = ["AXIOMS", "Verdict", "method_of", "try_file", "try_method"]

_ORDER = (
    SensitivityA,
    SensitivityB,
    ImplementationInvariance,
    Completeness,
    Linearity,
    Symmetry,
    NonnegativeHomogeneity,
)
AXIOMS: dict[str, type[Axiom]] = {axiom.name: axiom for axiom in _ORDER}
"""Every axiom by its name, in the order of Hesse et al.'s table."""

EXACT = 1e-9
"""What rounding may do to a small function in float64."""

ROUNDED = {2: 5e-2, 4: 1e-3, 8: 1e-8}
"""What it may do to a whole file, by the bytes of its attributions' type."""

_DRAWS = 3
"""How often a case is tried with a method that draws: one draw may be lucky."""

_FALLS = 0.35
"""What may be left of a deviation in the limit: 1/8 or 1/10 (`Tried.finer`), and chance."""

Status = Literal["holds", "in the limit", "fails", "not tried"]


@dataclass(frozen=True)
class Verdict:
    """What trying an axiom gave.

    Attributes:
        status: "holds" up to rounding; "in the limit": not with so many steps or samples, but the deviation
            falls as there are more; "fails"; or "not tried".
        deviation: the largest, relative; NaN where nothing was tried.
        cases: how many were tried.
        refused: how many weren't: the method doesn't explain such functions.
        told: the counterexample, where it doesn't hold; why it wasn't tried.
    """

    status: Status
    deviation: float
    cases: int
    refused: int = 0
    told: str = ""

    def __str__(self) -> str:
        if self.status == "not tried":
            return self.status
        if self.status == "holds":
            return f"holds ({self.cases} of {self.cases + self.refused})" if self.refused else "holds"
        return f"{self.status} ({self.deviation:.1g})"


def try_method(method: str | Method) -> dict[str, Verdict]:
    """Tries every axiom on the functions made for it, in float64.

    What draws (`seed`) draws anew for each function; a method is tried on the functions that it explains.

    Args:
        method: as for `irshap.compile`.

    Raises:
        PipelineError: no such method or option.
    """
    tried = Tried(as_method(method))
    return {name: _verdict(axiom(), tried) for name, axiom in AXIOMS.items()}


def _verdict(axiom: Axiom, explain: Tried) -> Verdict:
    trials, refused, reason = _trials(axiom, explain)
    if not trials:
        return Verdict("not tried", float("nan"), 0, refused, reason)
    cases = len(list(axiom.cases())) - refused
    worst = max(trials, key=lambda t: t.deviation)
    if worst.deviation <= EXACT:
        return Verdict("holds", worst.deviation, cases, refused)
    status: Status = "fails"
    if (finer := explain.finer()) is not None:
        better, *_ = _trials(axiom, finer)
        now, then = (sum(t.deviation for t in found) for found in (trials, better))
        status = "in the limit" if then <= _FALLS * now else "fails"
    return Verdict(status, worst.deviation, cases, refused, worst.told)


def _trials(axiom: Axiom, explain: Tried) -> tuple[list[Trial], int, str]:
    """What came of the cases, how many were refused, and why the last of them was."""
    found: list[Trial] = []
    refused, reason = 0, ""
    for case in axiom.cases():
        try:
            found += [axiom.trial(explain, case) for _ in range(_DRAWS if explain.draws else 1)]
        except UserError as error:
            refused, reason = refused + 1, str(error)
    return found, refused, reason


def method_of(metadata: dict[str, str]) -> Method:
    """The method that made an explained file, with its options.

    Raises:
        ModelError: the metadata names none.
        PipelineError: it names what isn't known here.
    """
    passes = parse_pipeline(metadata[Metadata.PIPELINE]) if Metadata.PIPELINE in metadata else ()
    found = [p for p in passes if isinstance(p, Method)]
    if len(found) != 1:
        raise ModelError("its metadata names no attribution method", mend="compile it with irshap")
    return found[0]


def try_file(explained: Any, inputs: Source, other: Any = None) -> dict[str, Verdict]:
    """Tries on an explained model's own samples what they can tell.

    Completeness; nonnegative homogeneity, at samples of the same class; sensitivity (b), where there are
    cells (of 256 at most) that change no output when samples exchange them; and with `other`, an explained
    file of an equal function, implementation invariance.

    Args:
        explained: a path, bytes, or a `CompiledModel`.
        inputs: samples, as for an `Explainer`.

    Raises:
        UserError: as `Explainer`, or the other file computes another function, explains it by another method
            or against other references.
    """
    subject = subject_of(explained, inputs)
    second = None if other is None else subject_of(other, inputs)
    if second is not None:
        methods = [pass_text(method_of(Explainer(file).metadata)) for file in (explained, other)]
        if methods[0] != methods[1]:
            what = f"the two files explain by different methods: {methods[0]} and {methods[1]}"
            raise UserError(what, mend="compile both by the same")
        require_comparable(subject, second)
    size = max(a.dtype.itemsize for a in subject.attributions.values())
    found = {}
    for name, axiom in AXIOMS.items():
        trial, reason = None, ""
        try:
            trial = axiom().on_file(subject, second)
        except UserError as error:  # these attributed tensors can't be scaled, or exchanged
            reason = str(error)
        if trial is None:
            found[name] = Verdict("not tried", float("nan"), 0, told=reason)
        else:
            holds = trial.deviation <= ROUNDED[size]
            told = "" if holds else trial.told
            found[name] = Verdict("holds" if holds else "fails", trial.deviation, 1, 0, told)
    return found

"""The axioms of attribution, each tried on functions made for it, and on an explained file."""

from irshap.metrics.axioms.axiom import Axiom, Trial
from irshap.metrics.axioms.homogeneity import NonnegativeHomogeneity
from irshap.metrics.axioms.implementation import ImplementationInvariance
from irshap.metrics.axioms.sensitivity import SensitivityA, SensitivityB
from irshap.metrics.axioms.sums import Completeness, Linearity
from irshap.metrics.axioms.symmetry import Symmetry
from irshap.metrics.axioms.verdict import AXIOMS, Verdict, method_of, try_file, try_method

__all__ = [
    "AXIOMS",
    "Axiom",
    "Completeness",
    "ImplementationInvariance",
    "Linearity",
    "NonnegativeHomogeneity",
    "SensitivityA",
    "SensitivityB",
    "Symmetry",
    "Trial",
    "Verdict",
    "method_of",
    "try_file",
    "try_method",
]

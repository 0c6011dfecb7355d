"""The measures, one kind a file; importing this package registers them."""

from irshap.metrics.measure import MEASURES
from irshap.metrics.measures.completeness import CompletenessError
from irshap.metrics.measures.ig_difference import IgDifference
from irshap.metrics.measures.infidelity import Infidelity
from irshap.metrics.measures.insertion_deletion import Deletion, Insertion
from irshap.metrics.measures.keep_remove import KeepAbsolute, KeepNegative, KeepPositive, RemoveAbsolute
from irshap.metrics.measures.sensitivity import SensitivityMax
from irshap.metrics.measures.sparseness import Sparseness

__all__ = [
    "MEASURES",
    "CompletenessError",
    "Deletion",
    "IgDifference",
    "Infidelity",
    "Insertion",
    "KeepAbsolute",
    "KeepNegative",
    "KeepPositive",
    "RemoveAbsolute",
    "SensitivityMax",
    "Sparseness",
]

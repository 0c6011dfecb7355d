"""What a compiled model and whoever runs it agree on: names of outputs and inputs, keys of the metadata.

These strings stand in files that outlive a version of irshap, so they are written once, here, and none of
them changes without a note in CHANGELOG.md.
"""

from __future__ import annotations

__all__ = [
    "BASE_VALUES",
    "COMPLETENESS_ERROR",
    "REFERENCE_WEIGHTS",
    "TARGET",
    "TARGET_INDEX",
    "VERSION",
    "Metadata",
    "attributed",
    "attributions",
    "is_references",
    "references",
]

VERSION = "0.1.0"
"""irshap's version, as in pyproject.toml."""

BASE_VALUES = "base_values"
"""The output with the target's mean over the references: [N], or [N, K] for K classes at once."""

TARGET_INDEX = "target_index"
"""The output with the explained class: int64 [N] or [N, K]."""

COMPLETENESS_ERROR = "completeness_error"
"""The output, on request, with f(x) - base - sum of attributions: [N] or [N, K]."""

TARGET = "target"
"""The input with the class to explain, int64 [N], of a model compiled with target="input"."""

REFERENCE_WEIGHTS = "reference_weights"
"""The input with a weight for each reference, [R], where weights are not bound when compiling."""

_ATTRIBUTIONS = "_attributions"
_REFERENCES = "_references"


class Metadata:
    """Keys of a compiled model's metadata; each value is a text."""

    VERSION = "irshap.version"
    """The version of irshap that compiled the model."""

    PIPELINE = "irshap.pipeline"
    """The canonical text of the passes that made the model."""

    MODEL_SHA256 = "irshap.model_sha256"
    """Digest of the source model."""

    EXPLAINED_OUTPUT = "irshap.explained_output"
    """The name of the output whose values are explained."""

    REFERENCES = "irshap.references"
    """How many references were bound, in decimal digits."""

    REFERENCES_SHA256 = "irshap.references_sha256"
    """Digest of the references and their weights."""

    HELD = "irshap.held"
    """What keeps the sample's value in both worlds unasked: where token ids go past their embedding."""

    GAPS = "irshap.incomplete"
    """The ops whose difference is in no attribution, as JSON; see `irshap.attribution.gaps`."""


def attributions(name: str) -> str:
    """The output with what is attributed to the tensor `name`: of its shape, for K classes [N, K, ...]."""
    return name + _ATTRIBUTIONS


def attributed(output: str) -> str | None:
    """The tensor that an output's attributions are for, or None for any other output."""
    return output.removesuffix(_ATTRIBUTIONS) if output.endswith(_ATTRIBUTIONS) else None


def references(name: str) -> str:
    """The input with references [R, ...] for the input `name`, where they are not bound when compiling."""
    return name + _REFERENCES


def is_references(name: str) -> bool:
    """Whether an input has the name of one for references."""
    return name.endswith(_REFERENCES)

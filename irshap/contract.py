"""What a compiled model and whoever runs it agree on: names of outputs and inputs, keys of the metadata.

These strings stand in files that outlive a version of irshap, so they are written once, here, and none of
them changes without a note in CHANGELOG.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

from irshap.errors import ModelError, UserError, is_text, near

__all__ = [
    "BASE_VALUES",
    "COMPLETENESS_ERROR",
    "DROPOUT_SEEDS",
    "EVENTS",
    "HYPOTHETICAL",
    "LABELS",
    "LEARNING_RATE",
    "LOSS",
    "MULTIPLIERS",
    "ONLY",
    "PRIOR",
    "PRIOR_WEIGHT",
    "REFERENCE_WEIGHTS",
    "SAMPLE_WEIGHTS",
    "STEPS",
    "TARGET",
    "TARGET_INDEX",
    "TARGET_VALUES",
    "TARGET_WEIGHTS",
    "VERSION",
    "Metadata",
    "Names",
    "Tensors",
    "Training",
    "attributed",
    "attributions",
    "free",
    "gradient",
    "hypothetical",
    "is_references",
    "mask",
    "metadata_of",
    "multipliers",
    "next_of",
    "places",
    "references",
    "said",
    "summary",
]

VERSION = "0.1.0"
"""irshap's version, as in pyproject.toml."""

BASE_VALUES = "base_values"
"""The output with the target's mean over the references: [N], or [N, K] for K classes at once."""

TARGET_INDEX = "target_index"
"""The output with the explained class: int64 [N] or [N, K]."""

TARGET_VALUES = "target_values"
"""The output with the explained numbers f(x), [N] or [N, K], where they are no class of an output."""

COMPLETENESS_ERROR = "completeness_error"
"""The output, on request, with f(x) - base - sum of attributions: [N] or [N, K]."""

MULTIPLIERS = "multipliers"
"""What asks for outputs with the multipliers of attributed tensors."""

HYPOTHETICAL = "hypothetical"
"""What asks for outputs with the contributions of letters that a sample doesn't have."""

TARGET = "target"
"""The input with the class to explain, int64 [N], of a model compiled with target="input"."""

TARGET_WEIGHTS = "target_weights"
"""The input with a weight for each number of the explained output, of its shape [N, ...], of a model compiled
with target="weights"."""

REFERENCE_WEIGHTS = "reference_weights"
"""The input with a weight for each reference, [R], where weights are not bound when compiling."""

LOSS, PRIOR = "loss", "prior"
"""The outputs of a training step: what is minimized is loss + prior_weight prior, each a scalar."""

LABELS, EVENTS = "labels", "events"
"""Inputs of a training step: what a loss compares with, [N] or of the output's shape; for survival the times,
and whether they are those of an event."""

SAMPLE_WEIGHTS, PRIOR_WEIGHT, LEARNING_RATE = "sample_weights", "prior_weight", "learning_rate"
"""Inputs of a training step: [N], a scalar, a scalar."""

DROPOUT_SEEDS = "dropout_seeds"
"""The input of a training step that says what each sample drops: integers, [N]."""

STEPS = "steps"
"""The input of a training step that counts those before it, where its optimizer needs to know."""

_ATTRIBUTIONS = "_attributions"
_MULTIPLIERS = f"_{MULTIPLIERS}"
_HYPOTHETICAL = f"_{HYPOTHETICAL}"
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

    UNCOVERED = "irshap.uncovered"
    """How many cells of each attributed tensor no mask reaches, where there are some: they get 0."""

    TENSORS = "irshap.tensors"
    """Which tensor plays which role, as JSON (`Tensors`), where the names alone would say otherwise."""

    NAMES = "irshap.names"
    """What people call features, classes and tokens, as JSON (`Names`), where it was said."""

    BATCH = "irshap.batch"
    """How many samples the file takes at a time, where that is fixed, as JSON:
    `{"size": 1, "axes": {"image": 0, ...}}`, with the axis that counts them in each input and output."""

    SIZES = "irshap.sizes"
    """Sizes that open axes of the source model were given, as JSON: `{"t": 128}`."""

    MEMORY = "irshap.memory"
    """What a session that runs the file on a CPU is predicted to take at its peak, beside what the process
    had, as JSON: `{"peak": bytes, "samples": how many at a time, "session": "default"}`."""

    TRAINING = "irshap.training"
    """What the inputs and outputs of a training step are for, as JSON (`Training`)."""

    GAPS = "irshap.incomplete"
    """The ops whose difference is in no attribution, as JSON; see `irshap.attribution.gaps`."""


def metadata_of(model: Any) -> dict[str, str]:
    """What an `onnx.ModelProto` says of itself, by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def attributions(name: str) -> str:
    """The output with what is attributed to the tensor `name`: of its shape, for K classes [N, K, ...]."""
    return name + _ATTRIBUTIONS


def attributed(output: str) -> str | None:
    """The tensor that an output's attributions are for, or None for any other output."""
    return output.removesuffix(_ATTRIBUTIONS) if output.endswith(_ATTRIBUTIONS) else None


def multipliers(name: str) -> str:
    """The output with the multipliers of the tensor `name`, of the shape of its attributions."""
    return name + _MULTIPLIERS


def hypothetical(name: str) -> str:
    """The output with hypothetical contributions of the tensor `name`, of the shape of its attributions."""
    return name + _HYPOTHETICAL


def summary(name: str, kind: str) -> str:
    """The output with a summary of this kind of what is attributed to the tensor `name`."""
    return f"{name}_{kind}"


def references(name: str) -> str:
    """The input with references [R, ...] for the input `name`, where they are not bound when compiling."""
    return name + _REFERENCES


def next_of(name: str) -> str:
    """The output of a training step with what becomes of its input `name`."""
    return f"{name}_next"


def gradient(name: str) -> str:
    """The output with the derivative of what is minimized by the parameter `name`."""
    return f"{name}_gradient"


def mask(name: str) -> str:
    """The input of a training step that says what of the input `name` must not count: of its shape."""
    return f"{name}_mask"


def places(name: str) -> str:
    """The input with where between reference and sample gradients are taken: [N, R], from 0 to 1."""
    return f"{name}_places"


def is_references(name: str) -> bool:
    """Whether an input has the name of one for references."""
    return name.endswith(_REFERENCES)


def free(name: str, taken: Collection[str]) -> str:
    """`name`, or where the model has a tensor of that name itself, the name with a number behind it."""
    found, count = name, 0
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def said(text: str) -> Any:
    """What JSON in a file says, which anyone may have written.

    Raises:
        ValueError: it is none, or nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


@dataclass(frozen=True)
class Tensors:
    """The names of what irshap adds to a model: an output or input for each role, None for one it hasn't.

    Attributes:
        attributions: for each attributed tensor the output with its attributions.
        multipliers, hypothetical: those on request, likewise.
        references: for each of the model's inputs the one with its references.
        summaries: for each output that sums attributions up, the tensor that these are for.
    """

    attributions: Mapping[str, str] = field(default_factory=dict)
    multipliers: Mapping[str, str] = field(default_factory=dict)
    hypothetical: Mapping[str, str] = field(default_factory=dict)
    base_values: str | None = None
    target_index: str | None = None
    target_values: str | None = None
    completeness_error: str | None = None
    target: str | None = None
    target_weights: str | None = None
    reference_weights: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)
    summaries: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def by_name(cls, inputs: Iterable[str], outputs: Iterable[str]) -> Tensors:
        """What these names say where the metadata says nothing: every name above plays its role."""
        ins, outs = list(inputs), list(outputs)

        def of(ending: str) -> dict[str, str]:
            return {name.removesuffix(ending): name for name in outs if name.endswith(ending)}

        def there(name: str, names: Collection[str]) -> str | None:
            return name if name in names else None

        return cls(
            attributions=of(_ATTRIBUTIONS),
            multipliers=of(_MULTIPLIERS),
            hypothetical=of(_HYPOTHETICAL),
            base_values=there(BASE_VALUES, outs),
            target_index=there(TARGET_INDEX, outs),
            target_values=there(TARGET_VALUES, outs),
            completeness_error=there(COMPLETENESS_ERROR, outs),
            target=there(TARGET, ins),
            target_weights=there(TARGET_WEIGHTS, ins),
            reference_weights=there(REFERENCE_WEIGHTS, ins),
            references={name.removesuffix(_REFERENCES): name for name in ins if is_references(name)},
        )

    def to_text(self) -> str:
        """As JSON, for the metadata."""
        return json.dumps({k: v for k, v in asdict(self).items() if v}, ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> Tensors:
        """What `to_text` wrote.

        Raises:
            TypeError, ValueError: something else.
        """
        found = cls(**said(text))
        for role in fields(cls):
            value = getattr(found, role.name)
            by_tensor = isinstance(value, Mapping) and all(isinstance(n, str) for n in value.values())
            if not (by_tensor if role.default is MISSING else value is None or isinstance(value, str)):
                raise ValueError(f"{role.name} can't be {value!r}")
        return found

    @property
    def outputs(self) -> set[str]:
        """The outputs that are irshap's."""
        single = (self.base_values, self.target_index, self.target_values, self.completeness_error)
        each = (self.attributions, self.multipliers, self.hypothetical)
        named = (*single, *(n for names in each for n in names.values()), *self.summaries)
        return {name for name in named if name is not None}

    @property
    def inputs(self) -> set[str]:
        """The inputs that are irshap's."""
        single = (self.target, self.target_weights, self.reference_weights)
        return {name for name in (*single, *self.references.values()) if name is not None}


@dataclass(frozen=True)
class Training:
    """What the inputs and outputs of a training step are for.

    Attributes:
        parameters, states: what is trained, and what else is handed on; for each the output with what it
            becomes (of a parameter its gradient, where the file only tells that).
        inputs: the model's own inputs.
        given: what else a run is given, by what it is for (`LABELS`, `PRIOR_WEIGHT`, ...): names of inputs.
        masks, references, places: by the model's input that they are for: names of inputs.
        loss, prior: outputs; a step without a prior has None.
        gradients: whether it gives gradients, and changes nothing.
    """

    parameters: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)
    loss: str = LOSS
    prior: str | None = None
    gradients: bool = False

    def to_text(self) -> str:
        """As JSON, for the metadata."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def of(cls, model: Any) -> Training:
        """What an `onnx.ModelProto` says.

        Raises:
            ModelError: it is no training step.
        """
        try:
            found = said(metadata_of(model)[Metadata.TRAINING])
            return cls(**{**found, "inputs": tuple(found["inputs"])})
        except (KeyError, TypeError, ValueError):
            raise ModelError("it is no training step", mend="make one with irshap train-step") from None


ONLY = ""
"""The key of names that were given without a tensor's: for the only one that they can be for."""


@dataclass(frozen=True)
class Names:
    """What people call the numbers of an explanation.

    Attributes:
        classes: of the explained output, by their index.
        features: by attributed tensor, along its last axis (the columns of a table).
        tokens: by input of token ids, the text of each id.
    """

    classes: tuple[str, ...] = ()
    features: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tokens: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Any) -> Names:
        """`given` as Names: also None, or a mapping with some of the attributes.

        `features` and `tokens` may be a plain list where there is one tensor that they can be for.

        Raises:
            UserError: another key, or what is no list of texts.
        """
        if given is None or isinstance(given, Names):
            return given or cls()
        known = ("classes", "features", "tokens")
        if not isinstance(given, Mapping):
            mend = 'give {"classes": [...], "features": [...]}'
            raise UserError(f"names of type {type(given).__name__} aren't a mapping", mend=mend)
        for key in given:
            if key not in known:
                raise UserError(f"names have no {key!r}", mend=near(str(key), known))
        return cls(
            _texts(given.get("classes", ()), "classes"),
            _by_tensor(given.get("features", {}), "features"),
            _by_tensor(given.get("tokens", {}), "tokens"),
        )

    def over(self, others: Names) -> Names:
        """These names, and those of `others` for what has none here."""
        return Names(
            self.classes or others.classes,
            {**others.features, **self.features},
            {**others.tokens, **self.tokens},
        )

    def to_text(self) -> str:
        """As JSON, for the metadata; "" where nothing is named."""
        told = {k: v for k, v in asdict(self).items() if v}
        return json.dumps(told, ensure_ascii=False) if told else ""

    @classmethod
    def from_text(cls, text: str) -> Names:
        """What `to_text` wrote."""
        return cls.of(said(text) if text else None)


def _by_tensor(given: Any, what: str) -> dict[str, tuple[str, ...]]:
    tensors = given if isinstance(given, Mapping) else {ONLY: given}
    return {str(name): _texts(texts, f"{what} of {name!r}") for name, texts in tensors.items()}


def _texts(given: Any, what: str) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UserError(f"names of {what} are no list", mend="give a list of texts")
    texts = tuple(map(str, given))
    for text in texts:
        if not is_text(text):
            raise UserError(f"names of {what} have {text[:40]!r}, which is no text", mend="write it in UTF-8")
    return texts

"""An independent oracle for irshap: DeepLIFT/Shapley attributions of an ONNX model, in float64 and numpy.

The model is evaluated node by node for one sample and for one reference, then the nodes are walked backward
with multipliers by the rules of rules.md: nothing is compiled, fused or batched, and no code is irshap's.
`Result.op_gaps` holds, for every node, how far its rule was from complete.

    result = explain(model, {"x": sample}, {"x": references}, output=0, target=None)
    result.values["x"]

Put this folder on sys.path to import it. What has no complete rule raises `Refused`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import two_world_linear as _linear  # noqa: F401 - importing a family registers its rules
import two_world_move as _move  # noqa: F401
import two_world_norm as _norm  # noqa: F401
import two_world_pool as _pool  # noqa: F401
import two_world_scalar as _scalar  # noqa: F401
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from two_world_core import GUARD, RULES, Array, Call, Refused, Rule, Site, difference

__all__ = ["Refused", "Result", "TwoWorlds", "explain"]

FLOATS = frozenset(
    (
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
    )
)
SHAPE_ONLY = frozenset(("Shape", "Size"))
"""Their results don't depend on the values of their operands."""

Values = dict[str, Any]


@dataclass(frozen=True)
class Result:
    values: dict[str, Array]
    """Attributions per attributed input, shaped like the sample."""
    outputs: dict[str, Array]
    """The model's own outputs for the samples."""
    prediction: Array
    """[N] the explained output of each sample."""
    base_value: Array
    """[N] its (weighted) mean over the references; differs between samples if the target does."""
    target: Array
    """[N] flat index into the explained output of one sample."""
    op_gaps: dict[str, float]
    """Per node, the largest |sum m D - g Dy| over all pairs of sample and reference."""
    op_scales: dict[str, float]
    """Per node, the largest sum |m D| + |g Dy| of any pair: what a gap is small against."""

    @property
    def error(self) -> Array:
        """[N] f(x) - base - (sum of attributions)"""
        n = len(self.prediction)
        total = sum((v.reshape(n, -1).sum(axis=1) for v in self.values.values()), np.zeros(n))
        return self.prediction - self.base_value - total


def in_float64(value: Any) -> Any:
    """Floats of any width as float64, everything else as it is."""
    if isinstance(value, (list, tuple)) or value is None:
        return value
    array = np.asarray(value)
    wide = array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float8"))
    return array.astype(np.float64) if wide else array


def attribute(proto: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(proto)
    return value.decode() if isinstance(value, bytes) else value


@dataclass
class TwoWorlds:
    """A model made ready for evaluation, for one set of attributed inputs and one explained output."""

    model: onnx.ModelProto
    context: frozenset[str] = frozenset()
    output: int | str = 0
    guard: float = GUARD
    at: tuple[str, ...] = ()
    gaps: dict[str, float] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model.functions:
            self.model = onnx.inliner.inline_local_functions(self.model)
        graph = self.model.graph
        self.opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        self.constants: Values = {t.name: in_float64(numpy_helper.to_array(t)) for t in graph.initializer}
        self.inputs = [v for v in graph.input if v.name not in self.constants]
        self.free = [v.name for v in self.inputs if v.name not in self.context]
        self.attributed = list(self.at) or self.free
        unknown = self.context - {v.name for v in self.inputs}
        unknown |= set(self.at) - {name for node in graph.node for name in node.output}
        if unknown:
            raise ValueError(f"no such values: {sorted(unknown)}")
        names = [v.name for v in graph.output]
        self.explained = names[self.output] if isinstance(self.output, int) else self.output
        if self.explained not in names:
            raise ValueError(f"no output named {self.explained!r}: {names}")
        self.nodes = [(node, self.call_of(node)) for node in graph.node]
        self.find_active()
        self.fold_constants()

    def call_of(self, node: onnx.NodeProto) -> Call:
        attrs = {a.name: attribute(a) for a in node.attribute}
        name = node.name or f"{node.op_type}:{node.output[0]}"
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}::{node.op_type}"
        return Call(name, op, self.opset, attrs, len(node.output))

    def find_active(self) -> None:
        """`self.active`: names that depend on an attributed input and reach the explained output."""
        depends = set(self.attributed)
        for node, call in self.nodes:
            if call.op not in SHAPE_ONLY and depends.intersection(node.input):
                depends.update(set(node.output) - set(self.at))
        reaches = {self.explained}
        for node, call in reversed(self.nodes):
            if reaches.intersection(node.output) and call.op not in SHAPE_ONLY:
                reaches.update(node.input)
        self.active = (depends & reaches) - {""}
        inner = self.active - set(self.attributed)
        self.path = [(node, call) for node, call in self.nodes if inner.intersection(node.output)]
        for node, call in self.path:
            self.check(node, call)

    def check(self, node: onnx.NodeProto, call: Call) -> None:
        """Refuse what can be refused without values."""
        rule = RULES.get(call.op)
        if rule is None:
            raise call.refuse("no complete rule is known here")
        if call.op == "Cast" and call.get("to") not in FLOATS:
            raise call.refuse("a cast to a type that is not a float rounds")
        for i, name in enumerate(node.input):
            if name in self.active and rule.operands is not None and i not in rule.operands:
                raise call.refuse(f"operand {i} ({name}) depends on an attributed input")
        for i, name in enumerate(node.output):
            if name in self.active and rule.results is not None and i >= rule.results:
                raise call.refuse(f"output {i} ({name}) carries no attribution")

    # Forward

    def fold_constants(self) -> None:
        """Evaluate once what no input reaches, shapes included."""
        known = set(self.constants)
        rest = []
        for node, call in self.nodes:
            if all(name in known or not name for name in node.input) and not has_graph(node):
                self.run_node(node, call, self.constants)
                known.update(node.output)
            else:
                rest.append((node, call))
        self.steps = rest

    def run_node(
        self, node: onnx.NodeProto, call: Call, values: Values, fixed: frozenset[str] = frozenset()
    ) -> None:
        inputs = [values[name] if name else None for name in node.input]
        rule = RULES.get(call.op)
        results = self.own(rule, inputs, call) if rule else self.reference(node, inputs)
        for name, value in zip(node.output, results, strict=False):
            if name and name not in fixed:
                values[name] = in_float64(value)

    def own(self, rule: Rule, inputs: list[Any], call: Call) -> list[Any]:
        if call.op == "Cast":
            kind = np.dtype(float)
            if call.get("to") not in FLOATS:
                kind = onnx.helper.tensor_dtype_to_np_dtype(call.get("to"))
            return [np.asarray(inputs[0]).astype(kind)]
        if call.op == "Div" and all(np.asarray(v).dtype.kind in "iu" for v in inputs):
            return [np.trunc(inputs[0] / inputs[1]).astype(inputs[0].dtype)]
        results = rule.forward(call, inputs)
        kind = getattr(inputs[0], "dtype", np.dtype(float))
        # Shape arithmetic stays whole: a Mul, Max or Clip of integers.
        whole = kind.kind in "iu" and not rule.moves and call.op != "TopK"
        return [np.asarray(v).astype(kind) for v in results] if whole else results

    def reference(self, node: onnx.NodeProto, inputs: list[Any]) -> list[Any]:
        """Ops without a rule (Shape, Range, Equal, ConstantOfShape, ...) by the onnx wheel, one at a time."""
        if has_graph(node):
            raise Refused(node.name, node.op_type, "control flow is not evaluated")
        names = [name for name in dict.fromkeys(node.input) if name]
        graph = onnx.helper.make_graph(
            [node],
            "one",
            [onnx.helper.make_empty_tensor_value_info(name) for name in names],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        one = onnx.helper.make_model(graph, opset_imports=self.model.opset_import)
        results = iter(
            ReferenceEvaluator(one).run(None, dict(zip(node.input, inputs, strict=True)) if names else {})
        )
        return [next(results) if name else None for name in node.output]

    def world(self, feeds: Mapping[str, Array]) -> Values:
        """Every value of the model for one sample; a value inside it that is fed stays as fed."""
        values = dict(self.constants)
        values.update({name: in_float64(value) for name, value in feeds.items()})
        for node, call in self.steps:
            self.run_node(node, call, values, frozenset(feeds))
        return values

    def reference_world(self, feeds: Mapping[str, Array], rows: Mapping[str, Array]) -> Values:
        """The sample's world with what is attributed replaced by a reference's."""
        given = {name: rows[name] for name in self.attributed if name in rows}
        if len(given) < len(self.attributed):
            found = self.world({**feeds, **{name: rows[name] for name in self.free}})
            given = {name: found[name] for name in self.attributed}
        return self.world({**feeds, **given})

    # Backward

    def site(self, node: onnx.NodeProto, call: Call, x: Values, r: Values) -> Site:
        def gather(values: Values, names: Iterable[str]) -> list[Any]:
            return [values[name] if name else None for name in names]

        active = [name in self.active for name in node.input]
        return Site(
            call,
            gather(x, node.input),
            [(r if a else x)[n] if n else None for n, a in zip(node.input, active, strict=True)],
            gather(x, node.output),
            gather(r, node.output),
            active,
            self.guard,
        )

    def pull(self, x: Values, r: Values, seed: Array) -> dict[str, Array]:
        """The attributions m D of the attributed inputs, for `seed` on the explained output."""
        found = self.multipliers(x, r, seed)
        return {n: found[n] * difference(x[n], r[n]) for n in self.attributed}

    def multipliers(self, x: Values, r: Values, seed: Array) -> dict[str, Array]:
        """The multipliers m of the attributed inputs; with x = r the derivatives there."""
        multipliers: dict[str, Array] = {self.explained: seed}
        for node, call in reversed(self.path):
            site = self.site(node, call, x, r)
            results = RULES[call.op].results or len(node.output)
            g = [
                multipliers.get(name, np.zeros(np.shape(value)))
                for name, value in zip(node.output[:results], site.y, strict=False)
            ]
            pulled = self.backward(site, g)
            self.note(site, g, pulled)
            for name, active, m in zip(node.input, site.active, pulled, strict=True):
                if active:
                    assert m is not None
                    multipliers[name] = multipliers.get(name, 0.0) + m
        return {n: multipliers.get(n, np.zeros(np.shape(x[n]))) for n in self.attributed}

    def backward(self, site: Site, g: list[Array]) -> list[Array | None]:
        """What reaches the operands of a node, by its rule."""
        return RULES[site.call.op].backward(site, g)

    def note(self, site: Site, g: list[Array], pulled: list[Array | None]) -> None:
        """|sum m D - g Dy|"""
        for a, m in zip(site.x, pulled, strict=True):
            if m is not None and m.shape != a.shape:
                raise AssertionError(f"{site.call}: multiplier {m.shape} for an operand {a.shape}")
        left = [m * difference(a, b) for a, b, m in zip(site.x, site.r, pulled, strict=True) if m is not None]
        right = [m * difference(a, b) for a, b, m in zip(site.y, site.y0, g, strict=False)]
        self.note_gap(site.call.name, left, right)

    def note_gap(self, name: str, left: list[Array], right: list[Array]) -> None:
        gap = sum(p.sum() for p in left) - sum(p.sum() for p in right)
        scale = sum(np.abs(p).sum() for p in [*left, *right])
        # maximum, not max: a nan counts as the worst
        self.gaps[name] = float(np.maximum(self.gaps.get(name, 0.0), np.abs(gap)))
        self.scales[name] = float(np.maximum(self.scales.get(name, 0.0), scale))

    # Feeding

    def rows(self, arrays: Mapping[str, Array], index: int, count: int) -> dict[str, Array]:
        """One row of each array, with a batch axis of 1; a context input without batch axis as a whole."""
        out = {n: np.asarray(arrays[n])[index : index + 1] for n in self.at if n in arrays}
        for info in self.inputs:
            if info.name in arrays:
                value, dims = np.asarray(arrays[info.name]), info.type.tensor_type.shape.dim
                shared = info.name in self.context and (
                    value.ndim == 0 or value.shape[0] != count or (dims and dims[0].dim_value > 1)
                )
                out[info.name] = value if shared else value[index : index + 1]
        return out


def has_graph(node: onnx.NodeProto) -> bool:
    return any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute)


def batch_size(arrays: Mapping[str, Array], names: Iterable[str], what: str) -> int:
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{what} lacks {missing}")
    sizes = {len(arrays[name]) for name in names}
    if len(sizes) != 1:
        raise ValueError(f"{what} has different numbers of rows: {sorted(sizes)}")
    return sizes.pop()


def chosen_target(row: Array, target: int | None) -> int:
    if target is not None and not -row.size <= target < row.size:
        raise ValueError(f"target {target} of an output with {row.size} values")
    return int(np.argmax(row)) if target is None else int(target) % row.size


def explain(
    model: onnx.ModelProto,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    *,
    output: int | str = 0,
    target: int | None = None,
    context: Iterable[str] = (),
    rule: str = "rescale",
    weights: Array | None = None,
    guard: float = GUARD,
    at: Iterable[str] = (),
) -> Result:
    """Attributions of `output` at flat index `target` (None: each sample's argmax), averaged over references.

    `sample` and `references` map input names to arrays with the batch axis first; each pair of a sample and
    a reference is run by itself, so a model with a fixed batch of 1 is fine. Inputs in `context` are held at
    the sample's value in both worlds. `weights` (one per reference) are made to sum to 1.

    `at` names values inside the model (an embedding) to attribute to in place of the inputs, which are all
    held at the sample's; `references` has these values themselves, or the inputs to compute them from.
    """
    if rule in ("reveal-cancel", "mixed"):
        from two_world_reveal import reveal_cancel

        return reveal_cancel(
            model,
            sample,
            references,
            output=output,
            target=target,
            context=context,
            rule=rule,
            weights=weights,
            guard=guard,
            at=at,
        )
    if rule != "rescale":
        raise ValueError(f"rule {rule!r}: rescale, reveal-cancel or mixed")
    return run(
        TwoWorlds(model, frozenset(context), output, guard, tuple(at)), sample, references, target, weights
    )


def run(
    worlds: TwoWorlds,
    sample: Mapping[str, Array],
    references: Mapping[str, Array],
    target: int | None,
    weights: Array | None,
) -> Result:
    """Loop over samples and references; `worlds` decides the rule."""
    names = worlds.attributed
    given = names if all(name in references for name in names) else worlds.free
    n, count = batch_size(sample, worlds.free, "sample"), batch_size(references, given, "references")
    shares = np.ones(count) if weights is None else np.asarray(weights, float)
    shares = shares / shares.sum()
    values: dict[str, list[Array]] = {name: [] for name in names}
    outputs: dict[str, list[Array]] = {v.name: [] for v in worlds.model.graph.output}
    prediction, base, targets = np.zeros(n), np.zeros(n), np.zeros(n, int)
    kept: dict[int, Values] = {}
    for i in range(n):
        feeds = worlds.rows(sample, i, n)
        x = worlds.world(feeds)
        row = np.asarray(x[worlds.explained])
        targets[i] = chosen_target(row, target)
        prediction[i] = row.reshape(-1)[targets[i]]
        seed = np.zeros(row.shape)
        seed.reshape(-1)[targets[i]] = 1.0
        total = {name: np.zeros(x[name].shape) for name in names}
        for j, share in enumerate(shares):
            r = kept.get(j) or worlds.reference_world(feeds, worlds.rows(references, j, count))
            if n > 1 and not worlds.context and not worlds.at:
                kept[j] = r
            base[i] += share * r[worlds.explained].reshape(-1)[targets[i]]
            pulled = worlds.pull(x, r, seed)
            for name in names:
                total[name] += share * pulled[name]
        for name in names:
            values[name].append(total[name])
        for name, parts in outputs.items():
            parts.append(x[name])
    return Result(
        {name: np.concatenate(parts) for name, parts in values.items()},
        {
            name: np.concatenate(parts) if parts[0].ndim else np.stack(parts)
            for name, parts in outputs.items()
        },
        prediction,
        base,
        targets,
        dict(worlds.gaps),
        dict(worlds.scales),
    )

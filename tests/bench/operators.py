"""Writes docs/operators.md: what irshap does with each op of ONNX's list, as found on onnx's own node tests.

    PYTHONPATH=tests/helpers python tests/bench/operators.py

A form is one of the models of a single node that the onnx wheel ships for the op: with its attributes,
optional inputs and element types.  Each is lifted, and what comes of it is looked at:

- rule: differences of the float inputs go through ops with a complete local rule to every float output that
  they reach;
- body: so, too, but through the function that the standard defines the op by;
- rows: it runs in the explained file, each row by itself, but has no rule: it may stand before what is
  attributed or beside it, and on the path it is refused with the reason;
- refused: it runs in the explained file, but irshap can't tell how rows go through it.

An op is in the best state that one of its forms is in; the page says how many are.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from irshap.attribution.gaps import gaps, why
from irshap.errors import IrshapError
from irshap.ir.core import MixesBatch, Node, Output, Role
from irshap.ir.types import TensorType
from irshap.ir.walks import is_float, varying_values
from irshap.lowering import lift
from irshap.lowering.importer import IMPORTERS, kind_of
from irshap.lowering.ops.sequence import SEQUENCES
from irshap.ops.families import NonDifferentiable
from irshap.passes.canonicalize import Canonicalize
from irshap.passes.piecewise import PiecewiseFunctions
from irshap.pipeline.base import Context

TARGET = Path(__file__).parents[2] / "docs" / "operators.md"
OLDEST = 7
STATES = ("rule", "body", "rows", "refused")
DECIDED = {
    "If": "inlined where its condition is known while lifting",
    "Loop": "unrolled where its trips are known while lifting",
    "Scan": "unrolled where the number of its steps is known while lifting",
    **dict.fromkeys(SEQUENCES, "taken apart where the items of its sequence are known while lifting"),
}
"""Ops that disappear while lifting; onnx's tests, whose inputs are all open, don't show it."""
BY_SAMPLE = {
    "DynamicQuantizeLinear": "a step function; its range is that of each sample, where the batch is known, "
    "which it isn't in onnx's tests",
}
"""Ops whose form depends on where the samples are."""


@dataclass(frozen=True)
class Form:
    """What came of one model: a state, and the reason where it isn't a rule."""

    state: str
    reason: str = ""


def schemas(domain: str = "") -> dict[str, onnx.defs.OpSchema]:
    """The newest definition of each op that isn't deprecated."""
    found = {s.name: s for s in onnx.defs.get_all_schemas() if s.domain == domain}
    return {name: found[name] for name in sorted(found) if not found[name].deprecated}


def models() -> Iterator[tuple[str, list[onnx.ModelProto]]]:
    """onnx's models of one node, each with its op: as they are, and as exporters write them.

    That is with what isn't float (shapes, axes, bounds, flags) held constant, but for the first input, and
    with that, too.
    """
    for case in load_model_tests(kind="node"):
        model = case.model
        if model is None or len(model.graph.node) != 1:
            continue
        for entry in model.opset_import:
            entry.version = max(entry.version, OLDEST)
        found = [model]
        for inputs, _ in case.data_sets or ():
            found += [_held(model, inputs, first) for first in (1, 0)]
        yield kind_of(model.graph.node[0]), found


def _held(model: onnx.ModelProto, inputs: Sequence[Any], first: int) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value, given in zip(model.graph.input[first:], inputs[first:], strict=False):
        if isinstance(given, np.ndarray | np.generic) and (given.dtype.kind in "iub" or given.ndim == 0):
            copy.graph.input.remove(value)
            copy.graph.initializer.append(numpy_helper.from_array(np.asarray(given), value.name))
    return copy


def form(kind: str, forms: list[onnx.ModelProto]) -> Form:
    """What irshap does with a node, at best."""
    return min((_form(kind, model) for model in forms), key=lambda f: STATES.index(f.state))


def _form(kind: str, model: onnx.ModelProto) -> Form:
    try:
        graph = lift(model, batch="keep")
    except IrshapError as error:
        return Form("refused", str(error))
    sources = [Output(str(v.name), v, Role.SOURCE) for v in graph.inputs if is_float(v)]
    reached = varying_values(graph.nodes, [o.value for o in sources])
    targets = [o.value for o in graph.outputs if is_float(o.value) and o.value in reached]
    for target in targets:
        asked = replace(graph, outputs=(*sources, Output("target", target, Role.TARGET)))
        asked = PiecewiseFunctions().run(Canonicalize().run(asked, Context()), Context())
        if found := gaps(asked):
            nodes = (n for n in asked.nodes if n.label == found[0].where)
            return Form("rows" if all(map(_row_wise, nodes)) else "refused", found[0].reason)
    if targets:
        return Form("rule" if kind in IMPORTERS else "body")
    # nothing that varies as floats do goes through it
    rest = [n for n in graph.nodes if n.operands and isinstance(n.op, NonDifferentiable)]
    if not rest:
        return Form("rule" if kind in IMPORTERS else "body")
    return Form("rows" if all(map(_row_wise, rest)) else "refused", why(rest[0]))


def _row_wise(node: Node) -> bool:
    """Whether rows of the first operand, or of all, stay apart."""
    ranks = [len(t.shape or ()) if isinstance(t := v.type, TensorType) else 0 for v in node.operands]
    if not ranks or any(not isinstance(v.type, TensorType) for v in (*node.operands, *node.results)):
        return False
    every = tuple(0 if rank else None for rank in ranks)
    for axes in (every, (every[0], *(None for _ in every[1:]))):
        try:
            found = node.op.batch_axes(
                axes, [v.tensor for v in node.operands], [v.tensor for v in node.results]
            )
        except (MixesBatch, ValueError):
            continue
        if any(a is not None for a in found):
            return True
    return False


def row(kind: str, schema: onnx.defs.OpSchema, found: list[Form]) -> str:
    """A line of the table."""
    forms = "-"
    if kind in DECIDED:
        state, note = "rule", DECIDED[kind]
    elif kind in BY_SAMPLE:
        state, note = "rows", BY_SAMPLE[kind]
    elif not found:
        state, note = "rule" if kind in IMPORTERS else "refused", "onnx ships no model of it"
    else:
        state = min((f.state for f in found), key=STATES.index)
        forms = f"{sum(f.state == state for f in found)} of {len(found)}"
        reasons = Counter(f.reason for f in found if f.reason)
        note = reasons.most_common(1)[0][0] if reasons else ""
    return f"| {kind} | {schema.since_version} | {state} | {forms} | {_cell(note)} |"


def _cell(text: str) -> str:
    line = " ".join(text.split()).replace("|", "/")
    return line if len(line) <= 120 else line[:117] + "..."


def page() -> str:
    """The whole page."""
    found: dict[str, list[Form]] = {}
    for kind, model in models():
        found.setdefault(kind, []).append(form(kind, model))
    rows = [row(kind, schema, found.get(kind, [])) for kind, schema in schemas().items()]
    counts = Counter(line.split(" | ")[2] for line in rows)
    summary = ", ".join(f"{state}: {counts[state]}" for state in STATES)
    head = f"""# Op by op: what irshap does with ONNX's list

Written by `tests/bench/operators.py`, from the models of one node that onnx {onnx.__version__} ships (opset
{onnx.defs.onnx_opset_version()}).  Of {len(rows)} ops: {summary}.

- **rule**: differences go through it by a complete local rule;
- **body**: through the function that the standard defines it by, whose ops have rules;
- **rows**: it runs, each row by itself, but has no rule: it may stand before or beside what is attributed;
  on the path from there to the target it is refused, with the reason;
- **refused**: it runs, but how rows go through it isn't known: where samples do, it is refused by name.

The state is the best of its forms (attributes, optional inputs, element types), the next column says of how
many, and the last one has the commonest reason of the others, or of a refusal.  ONNX Runtime's own ops are
lifted to these ([lifting](lift_and_lower.md)).

| op | since | state | forms | reason, or what it takes |
| --- | --- | --- | --- | --- |
"""
    return head + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET}", file=sys.stderr)

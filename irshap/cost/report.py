"""The cost of explaining a model, as data: what `irshap cost` prints, and writes as JSON or HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from irshap.cost.choose import candidates
from irshap.cost.devices import Device, roofline
from irshap.cost.formula import Binding, evaluate, refuse_open_axes
from irshap.cost.limits import needed, references_within
from irshap.cost.nodes import GraphCost, NodeCost, Phase, cost, counted
from irshap.cost.session import Memory, SessionModel, Settings, version_note
from irshap.errors import PipelineError, ReferencesError
from irshap.ir.core import Graph
from irshap.ir.dims import Dim, N, R, symbols_of
from irshap.ir.rewrite import map_nodes
from irshap.ir.types import Array, TensorType
from irshap.lowering.lift import Lift
from irshap.ops.program import batch_from_shape
from irshap.pipeline.base import Pass
from irshap.pipeline.stages import Stage, stages
from irshap.pipeline.strategies import has_strategies, slot_of

__all__ = ["Program", "Query", "Report", "curve", "report", "report_of_step"]


@dataclass(frozen=True)
class Query:
    """What is asked.

    Attributes:
        references, samples: the numbers R and N.
        limit: bytes of memory.
        settings: how a session is made.
        device: times are estimated for it.
        each_pass: whether the programs between passes are costed, too.
    """

    references: int = 10
    samples: int = 1
    limit: int | None = None
    settings: Settings = field(default_factory=Settings)
    device: Device | None = None
    each_pass: bool = False

    @property
    def binding(self) -> Binding:
        """The numbers of the dimension symbols."""
        return {N: self.samples, R: self.references}


@dataclass(frozen=True)
class Program:
    """One form of the program: the model alone, or an explanation after some pass.

    `session` has the number of references as a symbol; `exact` is that of the program which is compiled for
    the query's number, where that differs: few references need no loop.
    """

    name: str
    cost: GraphCost
    session: SessionModel
    exact: SessionModel | None = None

    def memory(self, query: Query, *, references: int | None = None) -> Memory:
        """Its memory at the query's numbers, or about that at another number of references."""
        if references is None:
            return (self.exact or self.session).predict(query.binding, query.settings)
        return self.session.predict({**query.binding, R: references}, query.settings)


@dataclass(frozen=True)
class Report:
    """All programs, and the query that they are costed for; the first is the model alone.

    `strategies` are the main program with each strategy; `notes` say how far the numbers can be trusted.
    """

    query: Query
    programs: tuple[Program, ...]
    strategies: tuple[Program, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def inference(self) -> Program:
        """The model alone."""
        return self.programs[0]

    @property
    def main(self) -> Program:
        """The program that tables are about: the end of the pipeline."""
        return self.programs[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        query = self.query
        data: dict[str, Any] = {
            "references": query.references,
            "samples": query.samples,
            "memory_limit": query.limit,
            "session": {
                "cpu_mem_arena": True,
                "mem_pattern": query.settings.pattern,
                "runs": query.settings.runs,
                "on_device": query.settings.device,
            },
            "device": None if query.device is None else vars(query.device),
            "programs": [self._program(p) for p in self.programs],
            "strategies": [self._program(p) for p in self.strategies],
        }
        data["by_op"] = self._groups(lambda n: n.kind)
        data["by_layer"] = self._groups(lambda n: n.layer)
        data["uncosted"] = [{"node": n.node.label, "reason": n.unknown} for n in self.main.cost.unknown]
        data["notes"] = list(self.notes)
        return data

    def _program(self, program: Program) -> dict[str, Any]:
        query, costs = self.query, program.cost
        memory = program.memory(query)
        once = evaluate(self.inference.cost.flops(), query.binding)
        flops = evaluate(costs.flops(), query.binding)
        explains = program is not self.inference
        entry = {
            "name": program.name,
            "nodes": len(costs.nodes),
            "flops": flops,
            "flops_formula": str(costs.flops()),
            "forward_flops": evaluate(costs.flops(Phase.FORWARD), query.binding),
            "explanation_flops": evaluate(costs.flops(Phase.EXPLANATION), query.binding),
            "load_flops": evaluate(costs.flops(Phase.LOAD), query.binding),
            "times_inference": flops / once if once else None,
            "moved_bytes": evaluate(costs.moved(), query.binding),
            "moved_bytes_formula": str(costs.moved()),
            "weight_bytes": evaluate(costs.weights, query.binding),
            "stored_bytes": evaluate(costs.stored, query.binding) + evaluate(costs.references, query.binding),
            "file_bytes": evaluate(costs.file_bytes, query.binding),
            "file_bytes_formula": str(costs.file_bytes),
            "memory": {
                "peak": memory.peak,
                "load_peak": memory.load_peak,
                "loaded": memory.loaded,
                "first_run": memory.first,
                "later_runs": memory.later,
                "private": memory.private,
                "live": memory.live,
                "at": memory.where,
            },
            "uncosted": len(costs.unknown),
        }
        if query.device is not None:
            entry["seconds_estimate"] = roofline(costs.nodes, query.device, query.binding)
        if query.limit is not None:
            entry["needed_bytes"] = needed(memory, query.settings)
        if explains and query.limit is not None:
            known = (query.references, memory)
            found = references_within(program.session, query.limit, query.binding, query.settings, known)
            entry["largest_references"] = found.references
            entry["more_fit"] = found.capped
        return entry

    def _groups(self, key: Callable[[NodeCost], str]) -> list[dict[str, Any]]:
        rows = []
        for name, (count, flops, moved) in counted(self.main.cost.grouped(key)).items():
            numbers = evaluate(flops, self.query.binding), evaluate(moved, self.query.binding)
            entry = {"name": name, "nodes": count, "flops": numbers[0], "moved_bytes": numbers[1]}
            rows.append({**entry, "flops_formula": str(flops), "moved_bytes_formula": str(moved)})
        return sorted(rows, key=lambda row: (-row["flops"], -row["moved_bytes"]))


def report(
    model: Any,
    query: Query,
    pipelines: Mapping[str, Sequence[Pass]],
    given: Mapping[str, Array] | None = None,
    per_sample: bool = False,
    groups: Mapping[str, Array] | None = None,
) -> Report:
    """Costs a model alone and after each pipeline; the model is lifted once.

    Args:
        model: a path, bytes or a ModelProto.
        pipelines: by name; the last is the one that tables are about.
        given: references by input ("": one array without a name), for what they say of open axes.
        per_sample: they are those of each sample [N, R, ...], which say nothing of them.
        groups: of cells that methods replace together, by input.

    Raises:
        ReferencesError: references that no input takes.
        PipelineError: a pipeline doesn't begin with lift, doesn't fit together, or gives no attributions.
        UserError: an axis other than the batch is open.
    """
    count = query.references
    lifted: dict[Pass, Graph] = {}
    programs: list[Program] = []
    strategies: list[Program] = []
    for position, (name, passes) in enumerate(pipelines.items(), 1):
        first, main = passes[0], position == len(pipelines)
        if first not in lifted:
            lifted[first] = stages(model, passes[:1], given={} if per_sample else given)[0].graph
            _require_fit(lifted[first], given or {}, 1 + per_sample)
            refuse_open_axes(lifted[first])
        start = Stage(first.name, lifted[first], False)
        found = (start, *stages(start.graph, passes[1:], expected=count, groups=groups))
        if not programs:
            programs.append(_program("inference", start))
        *before, end = _decided(name, found)
        if main and query.each_pass:
            programs += [_program(f"after {s.name}", s) for s in before]
        exact = None
        if main and has_strategies(passes):
            slot = found[slot_of(passes) - 1].graph
            for_these = candidates(slot, passes, count, exact=True)
            sessions = {c.passes: _session(c.stage) for c in for_these}
            exact = sessions.get(tuple(passes))
            for_any = candidates(slot, passes, count)
            strategies = [_program(c.strategy, c.stage, sessions.get(c.passes)) for c in for_any]
        programs.append(_program(name, end, exact))
    note = version_note()
    return Report(query, tuple(programs), tuple(strategies), () if note is None else (note,))


_OWN_R = "R_"
"""What lifting calls an axis R of the file, since R is that of an explanation."""


def report_of_step(model: Any, query: Query, dims: str = "") -> Report:
    """Costs a training step as it is.

    Args:
        model: a path, bytes or a ModelProto, with the number of samples called N.
        dims: sizes of other open axes, as `Lift` takes them.

    Raises:
        UserError: an axis other than those of samples and references is open.
    """
    # as it is written: its samples meet in the loss
    (stage,) = stages(model, [Lift("keep", dims=dims)])
    counts = {d: R for v in stage.graph.inputs for d in symbols_of(v.shape or ()) if str(d) == _OWN_R}
    stage = replace(stage, graph=map_nodes(stage.graph, binding=counts))
    refuse_open_axes(stage.graph)
    note = version_note()
    return Report(query, (_program("training step", stage),), (), () if note is None else (note,))


def _require_fit(graph: Graph, given: Mapping[str, Array], counting: int) -> None:
    """Refuses references that no input takes: their number is what costs are told for."""
    shapes = {str(v.name): v.type.shape or () for v in graph.inputs if isinstance(v.type, TensorType)}
    axes = {name: batch_from_shape(shape) for name, shape in shapes.items()}
    sizes = {
        n: [d for i, d in enumerate(s) if i != axes[n]] for n, s in shapes.items() if axes[n] is not None
    }
    for name, array in given.items():
        own = array.shape[counting:]
        wanted = sizes.values() if not name else [sizes[name]] if name in sizes else []
        if not any(_fits(own, one) for one in wanted):
            listed = ", ".join(f"{n} {[str(d) for d in s]}" for n, s in sizes.items()).replace("'", "")
            head = "[R, ...]" if counting == 1 else "[N, R, ...]"
            what = f"of shape {list(array.shape)} are none of any input: {head} with samples {listed}"
            raise ReferencesError(what, where=f"references {name!r}" if name else "references")


def _fits(own: tuple[int, ...], wanted: Sequence[Dim]) -> bool:
    return len(own) == len(wanted) and all(
        not isinstance(w, int) or w == o for o, w in zip(own, wanted, strict=True)
    )


def _decided(name: str, found: Sequence[Stage]) -> list[Stage]:
    decided = [s for s in found if s.decided]
    if not decided:
        raise PipelineError(
            f"{name} gives no attributions, whose cost is asked for",
            where="pipeline",
            mend="put a method's pass into it, such as deeplift behind target and autodiff",
        )
    return decided


def _session(stage: Stage) -> SessionModel:
    return SessionModel.of(stage.graph, stored=stage.stored)


def _program(name: str, stage: Stage, exact: SessionModel | None = None) -> Program:
    return Program(name, cost(stage.graph, stored=stage.stored), _session(stage), exact)


def curve(program: Program, query: Query, counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """For each number of references: that number, the peak of memory and the FLOPs."""
    rows = []
    for count in counts:
        flops = evaluate(program.cost.flops(), {**query.binding, R: count})
        rows.append((count, program.memory(query, references=count).peak, flops))
    return rows

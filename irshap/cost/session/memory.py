"""Peak memory of a lowered model in ONNX Runtime on a CPU, by simulating what it allocates and when.

A process grows in three stages.  *Load*: the file is parsed, each initializer becomes a tensor of its own,
then weights are copied into the layouts that kernels want (twice the weights or more, for a moment).  *First
run*: every tensor is allocated when its node runs, and freed behind its last reader.  *Later runs*: with
memory patterns on, one block for all tensors is allocated beside what an arena kept from the first run.

docs/cost.md tells how each constant here was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from irshap.cost.formula import Binding, evaluate
from irshap.cost.session.allocators import Arena, Heap, Pattern
from irshap.cost.session.plan import plan
from irshap.cost.session.schedule import schedule
from irshap.cost.session.steps import BLOCKED, Schedule, Step, packs
from irshap.errors import PipelineError, near
from irshap.ir.core import Graph
from irshap.lowering.files.protos import OUTLINE_OVER
from irshap.lowering.files.save import MAX_PROTO
from irshap.ops.scan import Scan
from irshap.pipeline.named import SESSIONS

__all__ = ["Memory", "SessionModel", "Settings", "predict"]

LIBRARY = 8 << 20
"""What ONNX Runtime itself takes: its code that a session touches, registries, kernels."""

PER_NODE, PER_CONSTANT = 3072, 1536
"""What a session keeps for each node (names, kernel, edges) and for each initializer."""

RUNNING = 7 << 20
"""Stacks and buffers of its threads, from the first run on."""

ALIGN = 64
PARSE_BUFFER = 4 << 20

CONTEXT = 400 << 20
"""What a CUDA context and its libraries take of a device's memory."""

_TRIPS = 3
"""How many trips of a loop are simulated."""

OBJECTS = 448
"""Names, shapes and the like, which a parser puts beside each tensor, and keeps."""

MMAP_THRESHOLD = 212 << 10
"""malloc's, after Python's imports have mapped and freed a buffer of this size (traced)."""

CODE = 14 << 20
"""Of LIBRARY and RUNNING, pages of ONNX Runtime's code, which are mapped from its file."""


@dataclass(frozen=True)
class Settings:
    """How a session is made, with its arena (enable_cpu_mem_arena), and how often it runs on the same shapes.

    Attributes:
        pattern: enable_mem_pattern.
        runs: 1, or more.
        external_over: bytes above which weights stand in a data file, from which they are mapped.
        cuts: while weights that are mapped are reordered, small objects take the cuts beside their copies, so
            that the place of one is too small for the next.  Some processes need less.
        device: on an accelerator: constants are held once, in no further layouts, and a context of the
            device's runtime takes the place of the process.  A rough figure: it is not measured.
    """

    pattern: bool = True
    runs: int = 2
    device: bool = False
    external_over: int = MAX_PROTO
    cuts: bool = True

    @classmethod
    def of(cls, session: str) -> Settings:
        """Those of one of `SESSIONS`, which runs several times.

        Raises:
            PipelineError: there is no such session.
        """
        if session not in SESSIONS:
            raise PipelineError(f"no session is called {session!r}", mend=near(str(session), SESSIONS))
        return cls(pattern=session != "explainer")


@dataclass(frozen=True)
class Memory:
    """Resident bytes, as measured from the process before the session is made.

    Attributes:
        load_peak: the most while the model is loaded.
        loaded: what stays after that.
        first: the most in the first run.
        later: the most in any later run, 0 if there is none.
        private: the most at any time without the pages of mapped files, which the system can drop and read
            again: what a hard limit of memory must allow.
        live: the most bytes of tensors alive at once in a run, constants apart.
        where: the ONNX node at which that is, or its op type; None where no step has a tensor.
    """

    load_peak: int
    loaded: int
    first: int
    later: int
    private: int
    live: int
    where: str | None

    @property
    def peak(self) -> int:
        """The most at any time."""
        return max(self.load_peak, self.first, self.later)


@dataclass(frozen=True, eq=False)
class SessionModel:
    """A session that runs a graph's lowered model: scheduled once, for any numbers and settings."""

    schedule: Schedule

    @classmethod
    def of(cls, graph: Graph, *, stored: bool = False) -> SessionModel:
        """The session of the model that `graph` lowers to.

        Args:
            stored: whether what follows from the references alone is computed while compiling; otherwise the
                references are constants of the file, where they aren't bound yet.
        """
        return cls(schedule(graph, stored=stored))

    def predict(self, binding: Binding, settings: Settings | None = None) -> Memory:
        """The memory that it takes at these numbers of samples and references.

        Raises:
            IRError: a dimension symbol of the graph has no number.
        """
        return _Process(self.schedule, binding, settings or Settings()).run()

    def is_mapped(self, binding: Binding, settings: Settings | None = None) -> bool:
        """Whether what is stored stands in a data file at these numbers, from which it is mapped."""
        constants = (self.schedule.slots[i].size for part in self.schedule.walk() for i in part.constants)
        return sum(evaluate(size, binding) for size in constants) > (settings or Settings()).external_over


def predict(
    graph: Graph, binding: Binding, settings: Settings | None = None, *, stored: bool = False
) -> Memory:
    """`SessionModel.of(graph, stored=stored).predict(binding, settings)`, for one prediction of a graph."""
    return SessionModel.of(graph, stored=stored).predict(binding, settings)


_Event: TypeAlias = tuple[Step, list[int], int, list[int]]
"""A step, the slots that it makes, the bytes that it needs while it runs, the slots that are free then."""


class _Process:
    def __init__(self, schedule: Schedule, binding: Binding, settings: Settings) -> None:
        self.schedule, self.settings = schedule, settings
        self.sizes = [evaluate(slot.size, binding) for slot in schedule.slots]
        self.binding = binding
        self.patterns: dict[Schedule, Pattern] = {}
        self.events: dict[Schedule, list[_Event]] = {}
        self.heap = Heap(MMAP_THRESHOLD)
        self.arena = Arena(self.heap)
        self.ran = False
        self.mapped: set[int] = set()
        self.held: dict[int, int] = {}
        self.gone: set[int] = set()
        """Constants of which only packed copies are left."""

    def run(self) -> Memory:
        if self.settings.device:
            return self._on_device()
        self._load()
        self.heap.owned = True
        load_peak, loaded = self.heap.peak, self.heap.resident
        parts = list(self.schedule.walk())
        base = LIBRARY + sum(PER_NODE * len(p.steps) + PER_CONSTANT * len(p.constants) for p in parts)
        live, where = self._trace(self.schedule)
        self.heap.peak = 0
        self._run(self.schedule, again=False)
        first, later = self.heap.peak, 0
        if self.settings.runs > 1:
            self.heap.peak = 0
            for _ in range(min(self.settings.runs - 1, 2)):
                self._run(self.schedule, again=True)
            later = self.heap.peak + base + RUNNING
        private = self.heap.private_peak + base + RUNNING - CODE
        first += base + RUNNING
        return Memory(load_peak + base, loaded + base, first, later, private, live, _label(where))

    def _on_device(self) -> Memory:
        for part in self.schedule.walk():
            for i in part.constants:
                self.heap.alloc(self.sizes[i])
        loaded = self.heap.resident + CONTEXT
        live, where = self._trace(self.schedule)
        self._run(self.schedule, again=False)
        peak = self.heap.peak + CONTEXT
        return Memory(loaded, loaded, peak, 0, peak, live, _label(where))

    def _load(self) -> None:
        """In the order of session creation (inference_session.cc, session_state.cc)."""
        slots, steps = self.schedule.slots, [s for part in self.schedule.walk() for s in part.steps]
        held = self._parse()
        wanted = [packs(step, slots) for step in steps]
        # small objects go where parsing has left small gaps; where the weights are mapped there are none
        self.heap.kept = self.settings.cuts and bool(self.mapped)
        for i in dict.fromkeys(i for found in wanted for i, layout in found.items() if layout == BLOCKED):
            self._read(held, i)
            self._block(self.sizes[i])
        self.heap.kept = False
        readers: dict[int, set[str]] = {i: set() for i in held}
        for step, found in zip(steps, wanted, strict=True):
            # what a body captures is read by its own steps
            captured = step.body.captured if step.body is not None else ()
            for i in step.operands:
                if i in held and i not in captured:
                    readers[i].add(found.get(i, "as it is"))
        for i in [i for i in held if readers[i] <= {BLOCKED}]:
            # what only a load reads is forgotten; a blocked copy replaces its original
            self.heap.free(held.pop(i))
        self._pack(held, readers, list(zip(steps, wanted, strict=True)))
        self.held = held

    def _parse(self) -> dict[int, int]:
        """The addresses of all constants: parsed first, then each moved into a tensor."""
        heap, sizes, parts = self.heap, self.sizes, list(self.schedule.walk())
        constants = [i for part in parts for i in part.constants]
        if sum(sizes[i] for i in constants) > self.settings.external_over:
            # external data, which is mapped instead of parsed; a body's own constants stay in the file
            self.mapped = {i for i in self.schedule.constants if sizes[i] > OUTLINE_OVER}
        buffer = heap.alloc(PARSE_BUFFER)
        heap.between = OBJECTS
        inner = [i for part in parts[1:] for i in part.constants]
        for i in inner:
            # the attribute that holds a body keeps its message
            heap.alloc(sizes[i])
        parsed = [i for i in self.schedule.constants if i not in self.mapped]
        raw = [heap.alloc(sizes[i]) for i in parsed]
        heap.between = 0
        heap.free(buffer)
        # a body is copied twice: into the node's attribute, for a moment, and into the body's graph
        copy = [heap.alloc(sizes[i]) for i in inner]
        heap.between = OBJECTS
        raw += [heap.alloc(sizes[i]) for i in inner]
        heap.between = 0
        parsed += inner
        for address in copy:
            heap.free(address)
        held = {i: heap.map(sizes[i]) for i in self.mapped}
        heap.kept = True  # names and the like
        for i, address in zip(parsed, raw, strict=True):
            held[i] = heap.alloc(sizes[i], align=ALIGN)
            heap.free(address)
        heap.kept = False
        self._fold(held)
        return held

    def _fold(self, held: dict[int, int]) -> None:
        """constant_folding.cc: a step's operands are copied for it; the originals go at the end."""
        heap, sizes, parts = self.heap, self.sizes, list(self.schedule.walk())
        heap.kept = self.settings.cuts
        folded = [step for part in parts for step in part.loaded]
        for step in folded:
            copies = [heap.alloc(sizes[i], align=ALIGN) for i in step.operands if i in held]
            for i in step.results:
                held[i] = heap.alloc(sizes[i], align=ALIGN)
            for i in step.operands:
                self._read(held, i)
            for address in copies:
                heap.free(address)
        heap.kept = False
        read = {i for part in parts for step in part.steps for i in step.operands}
        for i in dict.fromkeys(i for step in folded for i in step.operands if i not in read):
            if i in held:
                heap.free(held.pop(i))

    def _pack(
        self,
        held: dict[int, int],
        readers: dict[int, set[str]],
        wanted: Sequence[tuple[Step, Mapping[int, str]]],
    ) -> None:
        """Copies in layouts of kernels: equal ones are shared; originals go with their last reader."""
        packed: set[tuple[int, str]] = set()
        for _, found in sorted(wanted, key=lambda pair: pair[0].results):
            for i, layout in found.items():
                if layout == BLOCKED:
                    continue
                self._read(held, i)
                # those of products are reserved beside the arena
                reserved = not layout.startswith("ConvTranspose")
                size = self.sizes[i]
                new = self.heap.alloc(size, align=ALIGN) if reserved else self.arena.alloc(size)
                if (i, layout) in packed:
                    (self.heap if reserved else self.arena).free(new)
                packed.add((i, layout))
                readers[i].discard(layout)
                if not readers[i] - {BLOCKED} and i in held:
                    self.heap.free(held.pop(i))
                    self.gone.add(i)

    def _read(self, held: Mapping[int, int], i: int) -> None:
        if i in self.mapped and i in held:
            self.heap.touch(held[i], 0, self.sizes[i])

    def _block(self, size: int) -> None:
        """nchwc_transformer.cc: the weights, reordered, as a message and as a tensor; the last one stays."""
        heap = self.heap
        parts = [heap.alloc(size, align=ALIGN), heap.alloc(size), heap.alloc(size)]
        heap.alloc(size, align=ALIGN)
        for part in reversed(parts):
            heap.free(part)

    def _events(self, schedule: Schedule) -> list[_Event]:
        """Its steps in order, with the slots that they make and free: the same in each run."""
        if schedule not in self.events:
            owner, frees = plan(schedule)
            body = schedule is not self.schedule
            found = self.events[schedule] = list[_Event]()
            for step, freed in zip(schedule.steps, frees, strict=True):
                # what a body gives goes into buffers of the loop
                own = [s for s in step.results if not (body and schedule.slots[s].outside)]
                fresh = [s for s in own if owner[s] == s and self.sizes[s]]
                found.append((step, fresh, evaluate(step.scratch, self.binding), freed))
        return self.events[schedule]

    def _trace(self, schedule: Schedule) -> tuple[int, Step | None]:
        """Makes the pattern; the most bytes alive, and where."""
        live = best = 0
        where = None
        pattern = self.patterns[schedule] = Pattern()
        for step, fresh, scratch, freed in self._events(schedule):
            for slot in fresh:
                live += self.sizes[slot]
                if not schedule.slots[slot].outside:
                    pattern.alloc(slot, -(-self.sizes[slot] // 256) * 256)
            within, inner = self._trace(step.body) if step.body is not None else (0, None)
            if live + scratch + within > best:
                best, where = live + scratch + within, inner or step
            for slot in freed:
                if self.sizes[slot]:
                    live -= self.sizes[slot]
                    pattern.free(slot)
        return best, where

    def _run(self, schedule: Schedule, *, again: bool) -> None:
        """One run, or one trip of a loop; `again`: not the first one, so that there may be a pattern."""
        pattern = self.patterns[schedule] if again and self._has_pattern(schedule) else None
        block = self.arena.alloc(pattern.size) if pattern and pattern.size else None
        held: dict[int, int] = {}
        slots = schedule.slots
        for step, fresh, scratch, freed in self._events(schedule):
            if self.mapped and not self.ran:
                for slot in self.mapped.intersection(step.operands):
                    self._read(self.held, slot)
            for slot in fresh:
                if block is None or slots[slot].outside:
                    held[slot] = self.arena.alloc(self.sizes[slot])
            room = self.arena.alloc(scratch) if scratch else None
            if step.body is not None:
                self._loop(step, step.body, again)
            if room is not None:
                self.arena.free(room)
            for slot in freed:
                if slot in held:
                    self.arena.free(held.pop(slot))
        for address in held.values():
            self.arena.free(address)
        if block is not None:
            self.arena.free(block)
        self.ran = self.ran or schedule is self.schedule

    def _has_pattern(self, schedule: Schedule) -> bool:
        """Whether there is a pattern behind the first run (execution_frame.cc).

        It is made where all that a graph is fed with are tensors.  What a body captures is fed to it, and a
        weight whose original is gone, since kernels have packed it, is none.
        """
        return self.settings.pattern and not self.gone.intersection(schedule.captured)

    def _loop(self, step: Step, body: Schedule, again: bool) -> None:
        """The trips of a loop: from the third on each is as the one before."""
        assert step.node is not None and isinstance(step.node.op, Scan)
        trips = evaluate(step.node.op.trips([v.tensor for v in step.node.operands]), self.binding)
        for trip in range(min(trips, _TRIPS)):
            self._run(body, again=again or trip > 0)


def _label(step: Step | None) -> str | None:
    return None if step is None else step.node.label if step.node else step.kind

"""Which tensors of a schedule share memory, and when each buffer is free: no sizes are needed for it."""

from __future__ import annotations

from functools import lru_cache

from irshap.cost.session.schedule import IN_PLACE, VIEWS
from irshap.cost.session.steps import Schedule

__all__ = ["plan"]


@lru_cache(maxsize=16)
def plan(schedule: Schedule) -> tuple[list[int], list[list[int]]]:
    """For each slot the slot whose buffer it uses, and for each step the buffers that are freed behind it."""
    owner = _owners(schedule)
    return owner, _frees(schedule, owner)


def _owners(schedule: Schedule) -> list[int]:
    """The slot whose buffer each slot uses: its own, an operand's, or one that is free by then.

    As allocation_planner.cc does it: views share; some kernels write over an operand of the same known shape
    that nobody reads again; a result may take over a dead buffer of the same known shape.
    """
    slots = schedule.slots
    owner = list(range(len(slots)))
    uses = [0] * len(slots)
    for step in schedule.steps:
        for slot in (*step.operands, *step.results):
            uses[slot] += 1
    for i, kept in enumerate(slots):
        uses[i] += kept.constant or kept.outside or i < schedule.first
    dead: list[int] = []

    def share(slot: int, other: int) -> None:
        owner[slot] = owner[other]
        uses[owner[other]] += uses[slot]

    for step in schedule.steps:
        for slot in step.results:
            if slots[slot].outside:
                continue
            if step.kind in VIEWS and step.operands:
                share(slot, step.operands[0])
                continue
            shape = slots[slot].shape
            if shape is None or len(shape) < 2:
                continue
            over = step.operands[:2] if step.kind in IN_PLACE else ()
            if step.added is not None:
                over = (step.added,)
            if over:
                found = [s for s in over if uses[owner[s]] == 1 and slots[s].shape == shape]
                if found:
                    share(slot, found[0])
                    continue
            again = next((s for s in dead if slots[s].shape == shape), None)
            if again is not None:
                dead.remove(again)
                share(slot, again)
        for slot in (*step.operands, *step.results):
            uses[owner[slot]] -= 1
            if not uses[owner[slot]]:
                dead.insert(0, owner[slot])
    return owner


def _frees(schedule: Schedule, owner: list[int]) -> list[list[int]]:
    """The buffers that are freed behind each step."""
    last: dict[int, int] = {}
    for position, step in enumerate(schedule.steps):
        for slot in (*step.operands, *step.results):
            last[owner[slot]] = position
    made = {owner[s] for step in schedule.steps for s in step.results}
    kept = {owner[i] for i, slot in enumerate(schedule.slots) if slot.outside or slot.constant}
    kept |= set(range(schedule.first))
    frees: list[list[int]] = [[] for _ in schedule.steps]
    for slot, position in last.items():
        if slot in made and slot not in kept:
            frees[position].append(slot)
    return frees

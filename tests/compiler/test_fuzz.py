"""A few hundred random models; tests/bench/fuzz.py runs as many as wanted."""

from __future__ import annotations

import pytest
from fuzz_check import Outcome, check, smallest
from fuzz_graphs import OPS, generate

pytestmark = pytest.mark.slow

SEEDS, CHUNK = 240, 20


def fail_with(outcomes: list[Outcome]) -> None:
    faults = [o for o in outcomes if o.fault]
    if faults:
        size, least = smallest(faults[0].seed)
        pytest.fail(
            f"{len(faults)} faults; seed {faults[0].seed} with {size} moves: {least.kind}: {least.detail}"
        )


def test_attributions_of_nothing_but_rounding() -> None:
    """A sum of softmaxes doesn't change at all: attributions of 1e-16, beside outputs of 1."""
    fail_with([check(9759)])


@pytest.mark.parametrize("start", range(0, SEEDS, CHUNK))
def test_random_models_are_exact_or_refused(start: int) -> None:
    outcomes = [check(seed) for seed in range(start, start + CHUNK)]
    fail_with(outcomes)
    unexpected = [o.detail for o in outcomes if o.detail.startswith("unexpected: ")]
    assert not unexpected
    # refusing everything would pass, too
    assert sum(o.kind == "exact" for o in outcomes) >= CHUNK // 2


def test_a_seed_gives_the_same_model_and_a_size_its_beginning() -> None:
    whole, again = generate(3), generate(3)
    assert whole is not None
    assert again is not None
    assert whole.model.SerializeToString() == again.model.SerializeToString()
    part = generate(3, 1)
    assert part is not None
    assert part.kinds[0] == whole.kinds[0]
    assert len(part.kinds) <= len(whole.kinds)


def test_many_kinds_of_ops_come_up() -> None:
    cases = [c for seed in range(400) if (c := generate(seed)) is not None]
    assert len({kind for c in cases for kind in c.kinds}) >= 80
    assert len(OPS) >= 30


def test_a_wrong_rule_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from irshap.ops.elementwise import Sigmoid

    monkeypatch.setattr(Sigmoid, "chord", lambda self, x, x0, y, y0: self.slope(x, y))
    seeds = [s for s in range(60) if (c := generate(s)) is not None and "Sigmoid" in c.kinds]
    assert any(check(seed).kind == "wrong" for seed in seeds[:6])

"""The search for settings: pairs, rungs, what goes on, what is chosen, and how often that is right."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.pairs import least_pairs, ratio, together
from pocketvlm.analyse.tune.plan import schedule, spread
from pocketvlm.analyse.tune.search import Seen, choose, progress
from pocketvlm.analyse.tune.tables import candidate_rows
from pocketvlm.config.space import DEFAULTS
from pocketvlm.errors import ConfigError, WorkloadError
from tests.unit.tuning_cases import UNSEEN, Noise, Search, log_cost, plan_of, run_of, space_of

EFFECTS = {
    ("threads", 1): 0.8, ("threads", 4): -0.1, ("batch", 128): 0.05, ("batch", 256): -0.03,
    ("cache", "q8_0"): 0.04, ("quantisation", "Q8_0"): 0.2,
}  # fmt: skip


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of all signs of 7 differences the interval leaves out 1 about as often as is allowed, and not more."""
    sizes = np.array([0.01, 0.02, 0.03, 0.05, 0.08, 0.13, 0.21])
    outside = 0
    for signs in product((-1, 1), repeat=7):
        found = ratio(list(np.exp(sizes * signs)), [1.0] * 7, confidence=0.95)
        assert found.low is not None and found.high is not None
        outside += not found.low < 1.0 < found.high
    assert 0.5 * 0.05 < outside / 2**7 <= 0.05


def test_a_constant_ratio_is_found_through_any_drift() -> None:
    drift = np.exp(np.linspace(0, 2, 8))
    found = ratio(list(1.1 * drift), list(drift), confidence=0.95)
    assert found.value == pytest.approx(1.1) and found.low == pytest.approx(1.1)
    assert found.n == 8 and found.of_medians == pytest.approx(1.1)


def test_too_few_pairs_have_no_interval() -> None:
    assert ratio([2.0] * 5, [1.0] * 5, confidence=0.95).low is None
    for intervals in (1, 2, 3):
        least = least_pairs(0.95, intervals)
        confidence = together(0.95, intervals)
        assert ratio([2.0] * least, [1.0] * least, confidence=confidence).low is not None
        assert ratio([2.0] * (least - 1), [1.0] * (least - 1), confidence=confidence).low is None


@pytest.mark.parametrize("count", [1, 2, 3, 7, 36, 500])
@pytest.mark.parametrize("runs", [24, 40, 64, 300])
def test_rungs_halve_and_keep_to_the_budget(count: int, runs: int) -> None:
    rungs = schedule(count, runs, warmups=2, first_rounds=2, confidence=0.95)
    assert rungs is not None
    assert sum(rung.cost(2) for rung in rungs) <= runs
    sizes = [rung.candidates for rung in rungs]
    assert sizes[0] <= count and sizes[-1] <= 2
    assert all(after == max(2, (before + 1) // 2) for before, after in pairwise(sizes))
    assert rungs[-1].rounds > least_pairs(0.95, sizes[-1])


def test_a_budget_that_decides_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"10 runs are too few .* takes 16 .*tune\.runs"):
        plan_of(runs=10)
    plan_of(runs=16)


def test_those_that_begin_show_every_value() -> None:
    candidates = space_of().candidates
    names = spread(candidates, 8, seed=1)
    assert names == spread(candidates, 8, seed=1) and len(set(names)) == 8
    for value in ("threads=1 ", "threads=8 ", "batch=128", "batch=512", "cache=q8_0", "quantisation=Q8_0"):
        assert 2 <= sum(value in name for name in names) <= 6
    assert set(spread(candidates, 1000, seed=1)) == {each.name for each in candidates}


def exact(name: str, rung: int, count: int) -> Seen:
    return run_of(name, rung, count, math.exp(log_cost(PLANNED.of(name), EFFECTS)))


PLANNED = plan_of()


def test_the_best_is_found_though_it_did_not_begin() -> None:
    best = min(PLANNED.candidates.values(), key=lambda each: log_cost(each, EFFECTS))
    assert best.name not in PLANNED.start, "else this test is of nothing"
    state = Search(PLANNED, exact).finish()
    assert best.name in [name for rung in state.rungs for name in rung.proposed]
    choice = choose(PLANNED, state)
    assert choice.name == best.name and "faster than the defaults: 1.139 times" in choice.reason
    assert sum(len(runs) for rung in state.rungs for runs in rung.runs.values()) <= 64
    assert [len(rung.ratios) for rung in state.rungs] == [8, 4, 2]


def test_a_killed_search_goes_on_with_the_round_it_was_in() -> None:
    search = Search(PLANNED, exact)
    for _ in range(3):
        state = search.step()
    assert state.next is not None
    rung, count, names = state.next
    half = [exact(name, rung, count) for name in names[:2]]
    again = progress(PLANNED, [*search.seen, *half], {})
    assert again.next == (rung, count, names), "a round is made in one go or again"
    late = [run_of(name, rung, count, 1.0, block="20270101T000000-bbbbbb") for name in names]
    after = progress(PLANNED, [*late, *reversed(search.seen), *half], {}).next
    assert after is not None and after[:2] != (rung, count)


def test_pairs_are_of_one_block() -> None:
    """The first block was twice as slow: across blocks the ratio would be wrong."""
    planned = plan_of({"batch": [128]}, runs=20)
    first, second = "20260101T000000-aaaaaa", "20260102T000000-bbbbbb"
    (name,) = planned.start
    seen = [run_of(DEFAULTS, 0, 1, 8.0, block=first)]
    for count in range(1, planned.rungs[0].rounds + 1):
        seen += [run_of(each, 0, count, 4.0, block=second) for each in (DEFAULTS, name)]
    state = progress(planned, seen, {})
    assert state.next is None and state.rungs[0].ratios[name].value == pytest.approx(1.0)


def test_what_fails_is_out_and_the_rest_goes_on() -> None:
    search = Search(PLANNED, lambda *run: None if "q8_0" in run[0] else exact(*run))
    state = search.finish()
    assert {name for name, out in state.out.items() if out.how == "failed"} == set(search.failed)
    assert 3 <= len(search.failed) <= 6, "what they have in common is avoided"
    chosen = choose(PLANNED, state).name or ""
    assert chosen.startswith("threads=4 batch=") and chosen.endswith("cache=f16 quantisation=Q4_0")
    assert len(state.rungs[1].ratios) == 4, "places that nobody takes are filled with what was not tried"


def test_all_that_fails_leaves_the_defaults() -> None:
    state = Search(PLANNED, lambda *run: exact(*run) if run[0] == DEFAULTS else None).finish()
    choice = choose(PLANNED, state)
    assert choice.name == DEFAULTS and "no candidate came through" in choice.reason


def test_what_exceeds_a_limit_runs_once_and_is_never_chosen() -> None:
    planned = plan_of(limits={"cpu_celsius": 60, "memory_mib": 500})

    def make(name: str, rung: int, count: int) -> Seen:
        hot = {"cpu_celsius": Value(70.5 if "threads=4" in name else 50.0)}
        return run_of(name, rung, count, math.exp(log_cost(planned.of(name), EFFECTS)), celsius=hot)

    search = Search(planned, make)
    state = search.finish()
    for name in planned.start:
        if "threads=4" in name:
            assert state.out[name].reason == "cpu_celsius was 70.5, 60 is allowed"
            assert sum(run.candidate == name for run in search.seen) == 1
    chosen = choose(planned, state).name
    assert chosen is not None and "threads=4" not in chosen


def test_defaults_beyond_a_limit_are_not_chosen() -> None:
    planned = plan_of(limits={"energy_j": 9})

    def make(name: str, rung: int, count: int, frugal: str = "threads=1") -> Seen:
        energy = Value(5.0 if frugal in name else 10.0)
        return run_of(name, rung, count, 2.0 if frugal in name else 1.0, energy_j=energy)

    choice = choose(planned, Search(planned, make).finish())
    assert choice.name is not None and "threads=1" in choice.name, "slower, and the only one within the limit"
    assert "the defaults do not keep the limits (energy_j was 10, 9 is allowed)" in choice.reason
    nothing = choose(planned, Search(planned, lambda *run: make(*run, frugal="none")).finish())
    assert nothing.name is None and "no candidate that was tried does" in nothing.reason


def test_a_limit_that_nobody_can_check_is_an_error() -> None:
    planned = plan_of(limits={"energy_j": 9})
    search = Search(planned, lambda *run: run_of(*run, 1.0, energy_j=UNSEEN))
    with pytest.raises(
        WorkloadError, match=r"energy_j cannot be checked: no power supply .*Remove the limit"
    ):
        search.step()
    few = Value(None, 4, "4 samples in the phase, 5 are needed")
    with pytest.raises(WorkloadError, match=r"energy_j cannot be checked in 2 of 2 runs: 4 samples"):
        Search(planned, lambda *run: run_of(*run, 1.0, energy_j=few)).finish()


def test_a_limit_may_be_unseen_in_a_run_and_not_in_most() -> None:
    planned = plan_of(limits={"energy_j": 20})
    few = Value(None, 4, "4 samples in the phase, 5 are needed")

    def make(name: str, rung: int, count: int) -> Seen:
        unseen = count == 1 or "threads=1" in name
        run = exact(name, rung, count)
        return replace(run, energy_j=few) if unseen else run

    state = Search(planned, make).finish()
    gone = {name: out.reason for name, out in state.out.items() if out.how == "limit"}
    assert gone and all("threads=1" in name for name in gone)
    assert set(gone.values()) == {
        "energy_j cannot be checked in 2 of 2 runs: 4 samples in the phase, 5 are needed"
    }
    assert len(state.finalists) == 2


def test_withheld_runs_make_no_pair() -> None:
    def make(name: str, rung: int, count: int) -> Seen:
        withheld = "threads=4" in name or (name == DEFAULTS and count == 1 and rung == 2)
        return run_of(name, rung, count, None if withheld else 1.0)

    state = Search(PLANNED, make).finish()
    gone = {name: out for name, out in state.out.items() if out.how == "withheld"}
    assert set(gone) >= {name for name in PLANNED.start if "threads=4" in name}
    assert all(out.reason == "0 of 2 pairs count: the probe took 9 % of a core" for out in gone.values())
    assert all(found.n == PLANNED.rungs[2].rounds - 1 for found in state.rungs[2].ratios.values())
    with pytest.raises(WorkloadError, match="2 of 2 runs of the defaults are withheld: the probe took"):
        Search(PLANNED, lambda *run: run_of(*run, None if run[0] == DEFAULTS else 1.0)).finish()


def simulated(effects: dict[tuple[str, object], float], seed: int) -> tuple[str, float, float]:
    """Return what a noisy search chose, and its true log cost against the defaults' and against the best."""
    noise = Noise(seed)

    def make(name: str, rung: int, count: int) -> Seen:
        cost = math.exp(log_cost(PLANNED.of(name), effects) + noise())
        return run_of(name, rung, count, cost)

    name = choose(PLANNED, Search(PLANNED, make).finish()).name
    assert name is not None
    true = log_cost(PLANNED.of(name), effects)
    best = min(log_cost(each, effects) for each in (PLANNED.defaults, *PLANNED.candidates.values()))
    return name, true - log_cost(PLANNED.defaults, effects), true - best


def test_those_that_fell_out_early_do_not_outrun_the_finalists() -> None:
    """All were lucky in the first rung; only of the finalists the last one shows it."""
    planned = plan_of({"threads": [1, 4], "batch": [128, 256]}, runs=64)
    luck = (1.30, 1.28, 1.22, 1.18)
    first = dict(zip(planned.start, luck, strict=True))

    def make(name: str, rung: int, count: int) -> Seen:
        speed = 1.0 if name == DEFAULTS else first[name] if rung == 0 else 1.12
        return run_of(name, rung, count, 1 / speed)

    state = Search(planned, make).finish()
    rows = candidate_rows(planned, state, choose(planned, state), {})
    out = [row for row in rows if row["status"] == "slower"]
    assert out and max(row["speedup"] for row in out) > 1.2, "else this test is of nothing"
    on = {row["candidate"] for row in rows if row["front"] == "yes"}
    assert on == set(planned.start[:2])


def test_with_the_noise_of_a_real_machine_it_is_right() -> None:
    found = [simulated(EFFECTS, seed) for seed in range(100)]
    assert max(gain for _, gain, _ in found) <= 0, "never slower than the defaults"
    assert np.mean([gain < -0.05 for _, gain, _ in found]) >= 0.9, "nearly always most of the 13 %"
    assert np.mean([lost < 0.05 for _, _, lost in found]) >= 0.85


def test_among_equals_the_defaults_stay() -> None:
    chosen = [simulated({}, seed)[0] for seed in range(100)]
    assert np.mean([name != DEFAULTS for name in chosen]) <= 0.05

"""A gate withholds what failed its check, says why, and leaves the rest alone."""

from __future__ import annotations

from typing import Any

import pytest

from pocketvlm.analyse import records
from pocketvlm.analyse.bounds import Limit
from pocketvlm.analyse.gates import judge
from pocketvlm.errors import ConfigError

ALL = {
    "min_sensor_coverage_percent": 90,
    "min_samples_per_phase": 5,
    "min_phase_ms": 100,
    "agreement_percent": 2,
    "agreement_ms": 5,
    "max_probe_cpu_percent": 5,
    "max_wake_late_p99_ms": 50,
}
GOOD = {
    ("run", "duration"): 5000.0,
    ("run", "probe_cpu"): 0.2,
    ("run", "sensor_coverage"): 99.0,
    ("run", "wake_late_p99"): 3.0,
    ("run", "power"): 2.0,
    ("run", "reported.prompt_eval"): 3000.0,
    ("run", "agreement.prompt_eval"): 0.3,
    ("run", "unannounced.prompt_eval"): 0.0,
    ("text_prefill", "duration"): 200.0,
    ("text_prefill", "tokens_per_second"): 100.0,
    ("decode", "duration"): 1000.0,
    ("decode", "tokens"): 16.0,
    ("decode", "token_budget"): 16.0,
    ("decode", "tokens_per_second"): 15.0,
    ("decode", "energy"): 2.0,
    ("decode", "reported.decode"): 1000.0,
    ("decode", "agreement.decode"): 0.1,
}


def gates(
    changes: dict[tuple[str, str], float | None],
    thresholds: dict[str, float] = ALL,
    bounds: dict[tuple[str, str, str], Limit] | None = None,
    **row: Any,
) -> dict[tuple[str, str], str]:
    rows = [
        {"run": "r", "phase": phase, "metric": metric, "value": value, "unit": "", "source": "",
         "samples": 10, "lower_is_better": None, "reason": "" if value is not None else "why", **row}
        for (phase, metric), value in {**GOOD, **changes}.items()
    ]  # fmt: skip
    judged = judge(records.table("metrics", rows), thresholds, bounds=bounds, cells={"r": "c"})
    assert judged.num_rows == len(rows)
    assert judged.column("value").to_pylist() == [row["value"] for row in rows]
    return {(r["phase"], r["metric"]): r["gate"] for r in judged.to_pylist() if r["gate"]}


def test_a_good_run_passes() -> None:
    assert gates({}) == {}


def test_no_thresholds_no_gates_but_the_budgets() -> None:
    bad = {("run", "probe_cpu"): 80.0, ("decode", "agreement.decode"): 50.0, ("run", "sensor_coverage"): 1.0}
    assert gates(bad, {}) == {}
    assert gates({("decode", "tokens"): 3.0}, {})


def test_a_planted_disagreement_withholds_the_phase() -> None:
    closed = gates({("decode", "agreement.decode"): 2.5})
    assert set(closed) == {("decode", "duration"), ("decode", "tokens_per_second"), ("decode", "energy")}
    assert "differ by 2.5 % and 25 ms, more than 2 % and 5 ms" in closed["decode", "duration"]
    assert gates({("decode", "agreement.decode"): -2.5}).keys() == closed.keys()


def test_agreement_within_percent_or_milliseconds_is_enough() -> None:
    assert gates({("decode", "agreement.decode"): 1.9}) == {}
    short = {("decode", "reported.decode"): 40.0, ("decode", "agreement.decode"): 12.0}
    assert gates(short) == {}  # 12 % of 40 ms are 4.8 ms
    assert gates({**short, ("decode", "agreement.decode"): 13.0})


def test_a_disagreement_on_the_prompt_is_one_on_its_text() -> None:
    closed = gates({("run", "agreement.prompt_eval"): 4.0})
    assert set(closed) == {("text_prefill", "duration"), ("text_prefill", "tokens_per_second")}


def test_work_that_nothing_announces_explains_a_longer_phase_but_no_shorter_one() -> None:
    longer = {("run", "agreement.prompt_eval"): 4.0, ("run", "unannounced.prompt_eval"): 150.0}
    closed = gates(longer)  # 120 ms of decoding the image file: the rate is wrong, the duration is what it is
    assert set(closed) == {("text_prefill", "tokens_per_second")}
    assert "120 ms of the phase are work of another kind" in closed["text_prefill", "tokens_per_second"]
    assert ("text_prefill", "duration") in gates({**longer, ("run", "agreement.prompt_eval"): -4.0})
    assert ("text_prefill", "duration") in gates({**longer, ("run", "agreement.prompt_eval"): 8.0})
    # Sampling belongs to decoding: the rate of tokens stays.
    sampling = {("decode", "agreement.decode"): 4.0, ("decode", "unannounced.decode"): 60.0}
    assert gates(sampling) == {}
    assert gates({**sampling, ("decode", "agreement.decode"): -4.0})


def test_a_wrong_number_of_tokens_withholds_the_run() -> None:
    closed = gates({("decode", "tokens"): 7.0})
    assert closed["run", "duration"] == "the run sampled 7 tokens, its budget is 16"
    assert ("decode", "tokens") not in closed
    assert ("decode", "tokens_per_second") in closed


def test_an_expensive_probe_and_a_stalled_machine_withhold_the_run() -> None:
    assert "the probe used 6 %" in gates({("run", "probe_cpu"): 6.0})["run", "duration"]
    assert "80 ms late" in gates({("run", "wake_late_p99"): 80.0})["decode", "duration"]


def test_missing_samples_withhold_what_stands_on_them() -> None:
    closed = gates({("run", "sensor_coverage"): 80.0})
    assert set(closed) == {("run", "power"), ("decode", "energy")}
    assert set(gates({}, samples=4)) == {("run", "power"), ("decode", "energy")}


def test_a_short_phase_gives_no_rate() -> None:
    closed = gates({("decode", "duration"): 90.0})
    assert set(closed) == {("decode", "tokens_per_second"), ("decode", "energy")}


def test_a_number_that_is_missing_is_not_withheld() -> None:
    missing: dict[tuple[str, str], float | None] = {
        ("decode", "energy"): None,
        ("decode", "tokens_per_second"): None,
        ("run", "power"): None,
    }
    bad: dict[tuple[str, str], float | None] = {
        ("decode", "duration"): 90.0,
        ("decode", "tokens"): 7.0,
        ("decode", "agreement.decode"): 50.0,
        ("run", "sensor_coverage"): 80.0,
        ("run", "wake_late_p99"): 80.0,
        ("run", "probe_cpu"): 6.0,
    }
    closed = gates({**missing, **bad}, samples=4)
    assert ("decode", "duration") in closed
    assert not closed.keys() & missing.keys()


def test_numbers_have_no_exponent() -> None:
    why = gates({("run", "wake_late_p99"): 123_456.0})["run", "duration"]
    assert why == "wake-ups were 123500 ms late (p99), more than 50 ms"


def test_reasons_add_up() -> None:
    closed = gates({("decode", "tokens"): 7.0, ("run", "probe_cpu"): 6.0})
    assert closed["run", "duration"].count(";") == 1


def test_unknown_thresholds_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_speed"):
        gates({}, {"max_speed": 1})
    with pytest.raises(ConfigError, match="belong together"):
        gates({}, {"agreement_ms": 1})


BOUNDS = {
    ("c", "decode", "tokens_per_second"): Limit(10.0, 0.05, "bandwidth", lower=False),
    ("c", "decode", "duration"): Limit(2000.0, 0.05, "bandwidth", lower=True),
    ("c", "text_prefill", "duration"): Limit(100.0, 0.05, "operations", lower=True),
    ("other", "text_prefill", "tokens_per_second"): Limit(1.0, 0.05, "operations", lower=False),
}


def test_what_is_faster_than_physics_is_withheld_and_says_by_how_much() -> None:
    closed = gates({}, bounds=BOUNDS, unit="1/s")
    assert set(closed) == {("decode", "tokens_per_second"), ("decode", "duration")}
    assert closed["decode", "tokens_per_second"] == (
        "measured 15 1/s is beyond the physical bound of 10 1/s (bandwidth) by 50 %, "
        "5 % are allowed for the error of the peak"
    )
    assert (
        "measured 1000 1/s is beyond the physical bound of 2000 1/s (bandwidth) by 100 %"
        in closed["decode", "duration"]
    )


def test_the_margin_is_allowed_and_no_more() -> None:
    within = {("decode", "tokens_per_second"): 10.4, ("decode", "duration"): 1910.0}
    assert gates(within, bounds=BOUNDS) == {}
    beyond = {("decode", "tokens_per_second"): 10.6, ("decode", "duration"): 1890.0}
    assert len(gates(beyond, bounds=BOUNDS)) == 2


def test_a_missing_value_is_not_beyond_a_bound() -> None:
    missing = {("decode", "tokens_per_second"): None, ("decode", "duration"): None}
    assert gates(missing, bounds=BOUNDS) == {}

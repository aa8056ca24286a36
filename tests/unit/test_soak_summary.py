"""What a device keeps up: the first minute, the last third, when it throttled, and what cannot be told."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pocketvlm.analyse.soak.summary import Quantity, Wanted, rolling, summarise, throttled_at, windows
from pocketvlm.analyse.stats import bootstrap_ratio
from tests.synthetic_soaks import BOOTSTRAP, blind, heated, soak_of

HALF_AN_HOUR = Wanted(1800, 100, 60, 10)


def found(quantities: list[Quantity]) -> dict[str, Quantity]:
    by_name = {one.quantity: one for one in quantities}
    assert len(by_name) == len(quantities), "a quantity stands there twice"
    return by_name


def summary(speeds: list[float | None], wanted: Wanted, **options: float) -> dict[str, Quantity]:
    return found(summarise(soak_of(speeds, **options), wanted, BOOTSTRAP, name="a"))


def test_a_fall_is_found_when_it_happens_and_the_speeds_around_it() -> None:
    runs, _ = heated(1800, falls_at_s=600)
    told = found(summarise(runs, HALF_AN_HOUR, BOOTSTRAP, name="a"))
    at = told["time_to_throttle"].value
    assert at is not None and 600 <= at < 605, "the first run after the fall"
    assert told["first_speed"].value == pytest.approx(14, rel=0.02)
    assert told["sustained_speed"].value == pytest.approx(10.5, rel=0.02)
    ratio = told["sustained_ratio"]
    assert ratio.value == pytest.approx(0.75, rel=0.02)
    assert ratio.ci_low is not None and ratio.ci_high is not None
    assert ratio.ci_low < ratio.value < ratio.ci_high < 0.8
    assert told["throttled"].value == pytest.approx(100 * 1200 / 1800, abs=1)
    assert told["power_first"].value == 6.0 and told["power_sustained"].value == 4.2
    assert told["clock_first.policy4"].value == 2800 and told["clock_sustained.policy4"].value == 2000


def test_a_steady_device_is_not_throttled_and_says_within_what() -> None:
    told = summary([10.0] * 400, Wanted(1640, 100, 60, 10))
    assert told["time_to_throttle"].value is None
    assert told["time_to_throttle"].note.startswith("not throttled within 1640 s (below 9 tokens/s, 90 %")
    assert told["throttled"].value == 0 and told["sustained_ratio"].value == 1


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_throttling(seed: int) -> None:
    speeds = 10 * np.random.default_rng(seed).normal(1, 0.06, 400)
    assert throttled_at(speeds, 4.0 * np.arange(400), 9.0, 60) is None


@pytest.mark.parametrize("slow", [1, 2, 3, 10, 14])
def test_a_few_slow_runs_are_no_throttling(slow: int) -> None:
    speeds = np.array([10.0] * 50 + [5.0] * slow + [10.0] * 50)
    assert throttled_at(speeds, 4.0 * np.arange(len(speeds)), 9.0, 60) is None


@pytest.mark.parametrize("place", [1, 2, 10, 83, 84])
def test_a_step_is_found_at_its_first_slow_run(place: int) -> None:
    speeds = np.where(np.arange(100) < place, 10.0, 8.0)
    assert throttled_at(speeds, 4.0 * np.arange(100), 9.0, 60) == place


def test_it_stays_for_three_medians_even_where_runs_are_longer_than_the_first_minute() -> None:
    starts = 100.0 * np.arange(20)
    assert throttled_at(np.array([10.0] * 10 + [8.0] * 2 + [10.0] * 8), starts, 9.0, 60) is None
    assert throttled_at(np.array([10.0] * 10 + [8.0] * 3 + [10.0] * 7), starts, 9.0, 60) == 10


def test_a_fall_that_recovers_is_found_and_its_share_tells_it_from_one_that_lasts() -> None:
    told = summary([10.0] * 100 + [8.0] * 20 + [10.0] * 280, Wanted(1640, 100, 60, 10))
    assert told["time_to_throttle"].value == pytest.approx(100 * 4.1)
    assert told["throttled"].value == pytest.approx(5, abs=0.3)
    assert told["sustained_ratio"].value == 1


@pytest.mark.parametrize("slow", [2, 3, 4, 14])
def test_a_fall_too_near_the_end_is_not_told_as_one_but_said(slow: int) -> None:
    told = summary([10.0] * 45 + [8.0] * slow, Wanted(240, 100, 60, 10))
    assert told["time_to_throttle"].value is None
    assert f"it fell below in the last {slow} runs, too late" in told["time_to_throttle"].note


def test_too_few_runs_give_no_speed_and_say_how_many_are_needed() -> None:
    told = summary([10.0] * 5, Wanted(60, 100, 60, 10))
    for name in ("first_speed", "sustained_speed", "sustained_ratio", "time_to_throttle", "throttled"):
        assert (
            told[name].value is None
            and told[name].note == "too few runs with a speed: 5 of the 6 that are needed"
        )
    assert told["runs"].value == 5
    assert told["power_first"].value is None and told["clock_first.policy0"].value is None
    assert told["temperature_end.cpu"].value == 35


def test_the_first_minute_of_a_short_soak_is_a_third_of_it_and_that_is_said() -> None:
    told = summary([10.0] * 15, Wanted(60, 100, 60, 10))
    assert told["first_speed"].note == "the first 20 s, a third of the soak, instead of 60 s"
    assert told["first_speed"].n == 5 and told["sustained_speed"].n == 5
    assert told["sustained_speed"].note == ""


def test_long_runs_are_three_at_least_at_either_end() -> None:
    told = summary([10.0] * 20, Wanted(1000, 100, 60, 10), run_s=50)
    assert told["first_speed"].note == "the first 3 runs, for 2 began within 60 s"
    assert told["first_speed"].n == 3
    told = summary([10.0] * 7, Wanted(1000, 100, 60, 10), run_s=150)
    assert told["sustained_speed"].note == "the last 3 runs, for 2 began in the last third"


def test_first_and_last_runs_never_overlap() -> None:
    for count, length in itertools.product(range(6, 30), (30, 60, 200, 1800)):
        starts = [number * length / count for number in range(count)]
        chosen = windows(starts, Wanted(length, 100, 60, 10))
        assert not set(chosen.first) & set(chosen.last)
        assert (len(chosen.first) >= 3 and len(chosen.last) >= 3) or chosen.why_none


def test_runs_without_a_speed_are_left_out_and_counted() -> None:
    told = summary(
        [10.0, None, 10.0, 10.0, None, 10.0, 10.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0], Wanted(53, 100, 60, 10)
    )
    assert told["runs_without_speed"].value == 2
    assert told["runs_without_speed"].note == "the answer came in one piece"
    assert told["time_to_throttle"].value == pytest.approx(7 * 4.1)


def test_without_any_speed_there_is_no_ratio() -> None:
    told = summary([None] * 10, Wanted(40, 100, 60, 10))
    assert told["sustained_ratio"].value is None
    assert told["sustained_ratio"].note == "too few runs with a speed: 0 of the 6 that are needed"


def test_what_the_device_does_not_show_is_na_with_its_reason() -> None:
    runs = blind(soak_of([10.0] * 20))
    told = found(summarise(runs, Wanted(80, 100, 60, 10), BOOTSTRAP, name="a"))
    for name, why in (
        ("power_first", "no power supply"),
        ("energy", "no power supply"),
        ("clock_sustained", "no cpufreq"),
        ("temperature_max", "no thermal zone"),
    ):
        assert told[name].value is None and told[name].note.startswith(why)
    assert told["sustained_ratio"].value == 1


def test_duty_is_what_it_was_and_not_what_was_asked() -> None:
    told = summary([10.0] * 10, Wanted(80, 50, 60, 10), run_s=4, gap_s=5)
    assert told["busy"].value == pytest.approx(100 * 40 / 85)
    assert told["busy"].note.startswith("50 % were asked for")
    assert told["gap"].value == pytest.approx(5)


def test_rolling_medians_stand_on_both_neighbours() -> None:
    medians = rolling(np.array([1.0, 5.0, 2.0, 3.0]))
    assert np.isnan(medians[[0, -1]]).all() and medians[1:-1].tolist() == [2.0, 3.0]
    assert np.isnan(rolling(np.array([1.0, 2.0]))).all()


def test_the_interval_of_a_ratio_covers_it_and_is_the_same_every_time() -> None:
    above, below = np.array([8.0, 8.1, 7.9, 8.2]), np.array([10.0, 10.2, 9.8])
    low, high = bootstrap_ratio(above, below, **BOOTSTRAP, name="a")
    assert low <= 8.05 / 10 <= high and (low, high) == bootstrap_ratio(above, below, **BOOTSTRAP, name="a")
    assert bootstrap_ratio(above, above, resamples=50, confidence=0.95, seed=1, name="b")[0] > 0.9

"""Mean clocks from the time at each frequency, and how far they fell since a cell's first seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.analyse.clocks import ClockDrops, clock_mean, policies
from pocketvlm.analyse.phases import Interval
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.sensors import Sensors, Value
from tests.unit.handmade import output, write_run

START, WALL = 7_000_000_000, 10_000_000
KHZ = {0: (600_000, 1_800_000), 4: (1_000_000, 3_000_000)}


def identity(*quantities: str) -> dict[str, Any]:
    """Two policies with two frequencies each, and the times of cores 0 and 4."""
    sensors = [
        {"name": f"clock.{policy}.{khz}", "group": "clock", "path": "/x", "quantity": "time_in_state",
         "component": f"policy{policy}.{khz}", "unit": "s", "scale": 0.01, "kind": "counter"}
        for policy, points in KHZ.items()
        for khz in points
    ]  # fmt: skip
    sensors += [
        {"name": f"cpu.{core}.user", "group": "clock", "path": "/proc/stat", "quantity": "cpu_time",
         "component": f"cpu{core}.user", "unit": "s", "scale": 0.01, "kind": "counter"}
        for core in KHZ
    ]  # fmt: skip
    return {
        "id": "pixel",
        "sensors": [s for s in sensors if not quantities or s["quantity"] in quantities],
        "missing": [{"quantity": "time_in_state", "component": "", "reason": "no statistics of cpufreq"}],
    }


def recorded(
    folder: Path,
    share: Callable[[int, float], float],
    *,
    busy: dict[int, float] | None = None,
    every_ms: int = 500,
) -> Any:
    """A run in which policies are at their higher clock for `share(policy, seconds)` of the time."""
    busy = busy or {0: 0.05, 4: 0.9}
    names = [s["name"] for s in identity()["sensors"]]
    counters = dict.fromkeys(names, 0.0)
    lines = [",".join(["t_us", *names])]
    for t_ms in range(0, WALL // 1000 + 1, every_ms):
        lines.append(",".join([str(START + t_ms * 1000), *(f"{counters[name]:.3f}" for name in names)]))
        for policy, (low, high) in KHZ.items():
            up = share(policy, t_ms / 1000)
            counters[f"clock.{policy}.{high}"] += every_ms / 10 * up
            counters[f"clock.{policy}.{low}"] += every_ms / 10 * (1 - up)
            counters[f"cpu.{policy}.user"] += every_ms / 10 * busy[policy]
    files = {"clock.csv": ("\n".join(lines) + "\n").encode()}
    write_run(folder, output([], [], WALL), files=files, start_us=START)
    return read_run(folder)


def decoding(start_s: float = 2, end_s: float = 10) -> list[Interval]:
    start, end = int(start_s * 1e6), int(end_s * 1e6)
    return [
        Interval("load", 0, 0, start, "", "", True, True),
        Interval("decode", 0, start, end, "", "", True, True),
    ]


def run_at(tmp_path: Path, number: int, *args: Any, **options: Any) -> Any:
    return recorded(tmp_path / "raw" / ("a" * 64) / f"{number:02d}", *args, **options)


def test_a_mean_weights_each_frequency_by_its_time(tmp_path):
    sensors = Sensors(run_at(tmp_path, 0, lambda policy, s: 0.25), identity())
    assert policies(sensors) == {"policy0": [600_000, 1_800_000], "policy4": [1_000_000, 3_000_000]}
    assert clock_mean(sensors, "policy0", [(0, WALL)]).value == pytest.approx(900)
    assert clock_mean(sensors, "policy4", [(0, WALL)]).value == pytest.approx(1500)
    changing = Sensors(run_at(tmp_path, 1, lambda policy, s: 1.0 if s < 5 else 0.0), identity())
    assert clock_mean(changing, "policy4", [(0, 5_000_000)]).value == pytest.approx(3000)
    assert clock_mean(changing, "policy4", [(5_000_000, WALL)]).value == pytest.approx(1000)
    assert clock_mean(changing, "policy4", [(2_500_000, 7_500_000)]).value == pytest.approx(2000)


def test_too_few_samples_and_a_counter_that_goes_back_give_none(tmp_path):
    sensors = Sensors(run_at(tmp_path, 0, lambda policy, s: 1.0), identity())
    few = clock_mean(sensors, "policy4", [(0, 1_000_000)])
    assert (few.value, few.reason) == (None, "2 samples in the phase, 5 are needed")
    sensors.series[3].values[10:] -= 4
    assert "went back" in clock_mean(sensors, "policy4", [(0, WALL)]).reason
    assert clock_mean(sensors, "policy9", [(0, WALL)]).value is None


def dropped(runs: list[tuple[Any, dict[str, Any]]], of: dict[str, Any] | None = None) -> list[Value]:
    drops = ClockDrops(of or identity())
    for run, entry in runs:
        drops.add(run, decoding(), {"cell": "c", "block": "b", **entry})
    found = drops.drops()
    return [found[run.name] for run, _ in runs]


def test_a_run_is_compared_with_the_first_seconds_of_the_cells_first_run(tmp_path):
    full = run_at(tmp_path, 0, lambda policy, s: 1.0 if s < 6 else 0.5)  # throttled from its 6th second on
    half = run_at(tmp_path, 1, lambda policy, s: 0.5)
    warmup, measured = dropped([(full, {"position": 1}), (half, {"position": 2})])
    # Decoding lasts from 2 to 10 s: 4 s at 3 GHz and 4 s at 2 GHz against 3 GHz, then all of it at 2 GHz.
    assert warmup.value == pytest.approx(100 * (1 - 2.5 / 3))
    assert measured.value == pytest.approx(100 * (1 - 2 / 3))


def test_the_order_is_that_of_the_block_and_each_block_and_cell_has_its_own(tmp_path):
    full = run_at(tmp_path, 0, lambda policy, s: 1.0)
    half = run_at(tmp_path, 1, lambda policy, s: 0.5)
    assert dropped([(half, {"position": 5}), (full, {"position": 4})])[0].value == pytest.approx(100 / 3)
    assert dropped([(half, {"position": 4}), (full, {"position": 5})])[1].value == pytest.approx(-50)
    for other in ({"block": "other"}, {"cell": "other"}):
        assert dropped([(full, {"position": 4}), (half, {"position": 5, **other})])[1].value == 0


def test_the_fastest_policy_is_asked_that_worked(tmp_path):
    def throttled(policy: int, seconds: float) -> float:
        return 1.0 if policy == 0 else 0.0 if seconds > 5 else 1.0

    fast = run_at(tmp_path, 0, throttled)
    assert dropped([(fast, {"position": 1})])[0].value > 20
    slow = run_at(tmp_path, 1, throttled, busy={0: 0.9, 4: 0.02})
    assert dropped([(slow, {"position": 1})])[0].value == pytest.approx(0, abs=1e-9)
    untold = dropped([(slow, {"position": 1})], identity("time_in_state"))[0]
    assert untold.value is not None and untold.value > 20, "without the cores' times the fastest of all"


def test_where_there_are_no_statistics_there_is_no_drop_and_why(tmp_path):
    run = run_at(tmp_path, 0, lambda policy, s: 1.0)
    none = dropped([(run, {"position": 1})], identity("cpu_time"))[0]
    assert (none.value, none.reason) == (None, "no statistics of cpufreq")
    drops = ClockDrops(identity())
    drops.add(run, decoding(9.5, 10), {"cell": "c", "block": "b", "position": 1})
    short = drops.drops()[run.name]
    assert short.value is None and "samples in the phase, 5 are needed" in short.reason
    drops = ClockDrops(identity())
    drops.add(run, decoding()[:1], {"cell": "c", "block": "b", "position": 1})
    assert "no time in the phase decode" in drops.drops()[run.name].reason

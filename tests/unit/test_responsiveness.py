"""Missed deadlines, shell round trips and frames of a run, by phase, with known answers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import IDENTITY
from test_frames import MS, printed, row
from watched import START_US, watched_run

from pocketvlm.analyse.gpuwork import gpu_time, table
from pocketvlm.analyse.metrics import LOWER, compute
from pocketvlm.analyse.phases import segment
from pocketvlm.analyse.raw import read_run
from pocketvlm.analyse.responsiveness import WAKE_US, Responsiveness, _deadlines
from pocketvlm.analyse.sensors import Value
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks.llamacpp.grammar import parse as understood

RUN = [(0, 5_000_000)]
DECODE = [(3_600_000, 3_900_000)]
PINGS = {"shell_ping_ms": 500}
ACTIVITY = {"foreground_activity": "com.android.settings/.Settings"}


def responsive(tmp_path: Path, **options: Any) -> Responsiveness:
    folder = tmp_path / ("ab" * 32) / "00"
    watched_run(folder, **options)
    return Responsiveness(read_run(folder))


def values(one: Responsiveness, phase: str = "run", spans: Any = RUN, skip: str = "") -> dict[str, Value]:
    return {name: value for name, _, _, value in one.of_phase(phase, spans, skip=skip)}


def wake(rows: list[tuple[int, int]]) -> dict[str, bytes]:
    lines = ["t_us,late_us", *(f"{START_US + t},{late}" for t, late in rows)]
    return {"wake.csv": ("\n".join(lines) + "\n").encode()}


def test_deadlines_that_were_met_and_missed(tmp_path: Path) -> None:
    # Each 16.667 ms: ten on time, two 9 ms late, two 20 ms late (each skips the one that fell due meanwhile).
    rows, due = [], 0
    for late in [100] * 10 + [9_000] * 2 + [20_000] * 2:
        due += WAKE_US
        rows.append((due + late, late))
        due += late // WAKE_US * WAKE_US
    found = values(responsive(tmp_path, files=wake(rows)))
    assert found["missed_deadlines_60hz"] == Value(pytest.approx(100 * 2 / 16), 16)
    # At 120 Hz those that were skipped came 3.3 ms late: in time.
    assert found["missed_deadlines_120hz"] == Value(pytest.approx(100 * 4 / 16), 16)


def test_a_stall_misses_every_deadline_in_it(tmp_path: Path) -> None:
    rows = [(WAKE_US * n, 0) for n in range(1, 31)] + [(WAKE_US * 31 + 500_000, 500_000)]
    found = values(responsive(tmp_path, files=wake(rows)))["missed_deadlines_60hz"]
    # 500 ms hold 29 periods more; of the 30 deadlines of the stall the last one came 16.6 ms late.
    assert found.samples == 60
    assert found.value == pytest.approx(100 * 29 / 60)


def test_a_deadline_belongs_to_the_phase_in_which_it_was_due(tmp_path: Path) -> None:
    rows = [(WAKE_US * n, 0) for n in range(1, 200)] + [(3_600_000, 3_600_000 - WAKE_US * 200)]
    one = responsive(tmp_path, files=wake(rows))
    assert values(one, "decode", DECODE)["missed_deadlines_60hz"].value is None
    before = values(one, "image_prefill", [(3_333_000, 3_600_000)])["missed_deadlines_60hz"]
    assert before.value is not None
    assert before.value > 80


def test_few_deadlines_are_no_share(tmp_path: Path) -> None:
    found = values(responsive(tmp_path, files=wake([(10, 0)])))["missed_deadlines_60hz"]
    assert (found.value, found.reason) == (None, "1 wake-ups were due, 5 are needed")


@pytest.mark.parametrize("late", [[1 << 62], [-5], [0, 1 << 60, 1 << 60]])
def test_lateness_that_cannot_be_makes_no_mountain_of_deadlines(late: list[int]) -> None:
    woke = np.arange(1, len(late) + 1, dtype=np.int64) * 20_000
    due, lateness = _deadlines(woke, np.array(late, dtype=np.int64))
    assert due is not None
    assert due.size == lateness.size < 5000


def test_more_wake_ups_than_a_run_can_have() -> None:
    due, _ = _deadlines(np.array([0, 1 << 50]), np.array([0, 1 << 50]))
    assert due is None


def shell(rows: list[tuple[int, int | None]]) -> dict[str, bytes]:
    lines = ["t_us,round_trip_us", *(f"{START_US + t},{'' if took is None else took}" for t, took in rows)]
    return {"shell.csv": ("\n".join(lines) + "\n").encode()}


def test_round_trips_by_phase(tmp_path: Path) -> None:
    rows: list[tuple[int, int | None]] = [(500_000 * n, 20_000 + 1000 * n) for n in range(10)]
    rows += [(4_900_000, None)]
    one = responsive(tmp_path, files=shell(rows), responsiveness=PINGS)
    assert values(one)["shell_round_trip_p50"] == Value(pytest.approx(24.5), 10)
    assert values(one)["shell_round_trip_p99"].value == pytest.approx(28.91)
    few = values(one, "decode", DECODE)["shell_round_trip_p50"]
    assert (few.value, few.reason) == (None, "0 pings were sent, 5 are needed")


def test_pings_that_were_all_lost(tmp_path: Path) -> None:
    one = responsive(tmp_path, files=shell([(n, None) for n in range(7)]), responsiveness=PINGS)
    found = values(one)["shell_round_trip_p50"]
    assert (found.value, found.reason) == (None, "0 of 7 pings were answered, 5 are needed")


@pytest.mark.parametrize(
    "data", [b"t_us,x\n1,2\n", b"t_us,round_trip_us\n1,-2\n", b"t_us,round_trip_us\n2,1\n1,1\n", b"\xff"]
)
def test_pings_that_are_no_table_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(IntegrityError, match=r"shell\.csv"):
        responsive(tmp_path, files={"shell.csv": data}, responsiveness=PINGS)


def test_what_is_not_asked_for_has_one_row_with_the_reason(tmp_path: Path) -> None:
    one = responsive(tmp_path)
    found = values(one)
    assert found["shell_round_trip_p50"].reason == "the experiment asks for no shell round trips"
    assert found["jank_percent"].reason == "the experiment names no foreground activity"
    assert set(values(one, "decode", DECODE)) == {"missed_deadlines_60hz", "missed_deadlines_120hz"}


def test_a_phase_that_is_not_observed_has_that_reason(tmp_path: Path) -> None:
    found = values(responsive(tmp_path, responsiveness=PINGS | ACTIVITY), "decode", [], skip="not seen")
    assert {value.reason for value in found.values()} == {"not seen"}
    assert len(found) == 6


def drawn(first_ms: float, count: int, janky: int, total: str = "") -> dict[str, bytes]:
    """Frames each 16.6 ms from a moment of the run on, of which the first few took 40 ms."""
    begin = START_US / 1000 + first_ms
    rows = [row(begin + 16.6 * n, 40 if n < janky else 8) for n in range(count)]
    return {"framestats.txt": printed(rows, total=total)}


def test_frames_and_jank_by_phase(tmp_path: Path) -> None:
    one = responsive(tmp_path, files=drawn(3600, 10, 4), responsiveness=ACTIVITY)
    found = values(one, "decode", DECODE)
    assert found["frames"] == Value(10.0, 10)
    assert found["jank_percent"] == Value(pytest.approx(40.0), 10)
    none = values(one, "load", [(0, 1_000_000)])
    assert none["frames"] == Value(0.0, 0)
    assert none["jank_percent"].reason == "0 frames were drawn, 5 are needed"


def test_the_clock_of_frames_is_moved_to_the_clock_of_the_run(tmp_path: Path) -> None:
    one = responsive(
        tmp_path,
        files=drawn(3600 - 250, 10, 4),
        responsiveness=ACTIVITY,
        probe={"monotonic_offset_us": 250_000},
    )
    assert values(one, "decode", DECODE)["frames"].value == 10


def test_without_the_clocks_distance_frames_have_no_phase(tmp_path: Path) -> None:
    one = responsive(
        tmp_path, files=drawn(1, 10, 4), responsiveness=ACTIVITY, probe={"monotonic_offset_us": None}
    )
    assert "CLOCK_MONOTONIC" in values(one)["frames"].reason


def test_of_more_frames_than_are_kept_the_run_has_the_devices_own_count(tmp_path: Path) -> None:
    total = "Total frames rendered: 280\nJanky frames: 28 (10.00%)"
    one = responsive(tmp_path, files=drawn(2000, 120, 4, total), responsiveness=ACTIVITY)
    assert values(one)["frames"].value == 280
    assert values(one)["jank_percent"].value == pytest.approx(10.0)
    early = values(one, "load", [(0, 1_000_000)])["frames"]
    assert (early.value, early.reason) == (
        None,
        "gfxinfo keeps the latest frames only, and the phase began before them",
    )
    assert values(one, "decode", DECODE)["frames"].value == 18


def test_surfaceflinger_stands_in_where_gfxinfo_has_no_frames(tmp_path: Path) -> None:
    begin = START_US * 1000 + 3_600 * MS
    rows = "\n".join(
        f"{begin + n * 17 * MS}\t{begin + n * 17 * MS}\t{begin + (n * 17 + 9) * MS}" for n in range(8)
    )
    files = {"framestats.txt": printed([]), "surfaceflinger.txt": f"16666667\n{rows}\n".encode()}
    found = values(responsive(tmp_path, files=files, responsiveness=ACTIVITY), "decode", DECODE)
    assert found["frames"].value == 8
    assert found["jank_percent"].value == 0


def test_a_device_without_these_programs_says_so(tmp_path: Path) -> None:
    observed = {"missing": {"frames": "the device has no am; really"}}
    one = responsive(tmp_path, responsiveness=ACTIVITY, observed=observed)
    assert values(one)["jank_percent"].reason == "the device has no am, really"
    (tmp_path / "b").mkdir()
    other = responsive(tmp_path / "b", responsiveness=ACTIVITY, observed={"missing": []})
    assert values(other)["jank_percent"].reason == "the device printed no table of frames"


GPU = b"GPU work information.\ngpu_id uid total_active_duration_ns total_inactive_duration_ns\n"


def gpu(before: bytes | None, after: bytes | None, tmp_path: Path, **options: Any) -> dict[str, Value]:
    files = {
        f"gpu_work-{when}.txt": data
        for when, data in (("before", before), ("after", after))
        if data is not None
    }
    folder = tmp_path / ("ab" * 32) / "00"
    identity = options.pop(
        "identity", {**IDENTITY, "snapshots": {"gpu_work": ["dumpsys", "gpu", "--gpuwork"]}}
    )
    watched_run(folder, files=files, **options)
    return {name: value for name, _, _, value in gpu_time(read_run(folder), identity)}


def test_gpu_time_is_split_by_uid(tmp_path: Path) -> None:
    before = GPU + b"0 1000 5000000 1\n0 2000 1000000 1\n0 10050 7000000 1\n"
    after = (
        GPU + b"0 1000 9000000 1\n1 2000 500000 1\n0 2000 3500000 1\n0 10050 7000000 1\n0 10099 2000000 1\n"
    )
    found = gpu(before, after, tmp_path)
    assert found["gpu_time_workload"].value == pytest.approx(3.0)
    assert found["gpu_time_screen"].value == pytest.approx(4.0)
    assert found["gpu_time_uid.10099"].value == pytest.approx(2.0)
    assert "gpu_time_uid.10050" not in found


@pytest.mark.parametrize(("uid", "workload"), [(0, 8.0), (2000, 1.0)])
def test_the_workload_is_whoever_the_commands_run_as(tmp_path: Path, uid: int, workload: float) -> None:
    after = GPU + b"0 0 8000000 1\n0 2000 1000000 1\n"
    found = gpu(GPU, after, tmp_path, observed={"uid": uid, "missing": {}})
    assert found["gpu_time_workload"].value == pytest.approx(workload)


def test_on_a_rooted_phone_the_workload_is_root(tmp_path: Path) -> None:
    identity = {**IDENTITY, "root": True, "snapshots": {"gpu_work": ["x"]}}
    found = gpu(GPU, GPU + b"0 0 8000000 1\n", tmp_path, identity=identity)
    assert found["gpu_time_workload"].value == pytest.approx(8.0)


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (None, GPU, "before the run"),
        (GPU, b"Can't find service: gpu\n", "after the run"),
        (GPU + b"0 1000 5 1\n", GPU + b"0 1000 4 1\n", "went back"),
        (GPU + b"0 1000 5 1\n", GPU + b"0 2000 4 1\n", "went back"),
        (GPU, GPU, "lists no uid"),
    ],
)
def test_tables_that_tell_nothing(tmp_path: Path, before: bytes | None, after: bytes, why: str) -> None:
    found = gpu(before, after, tmp_path)
    assert set(found) == {"gpu_time_workload", "gpu_time_screen"}
    for value in found.values():
        assert value.value is None
        assert why in value.reason


def test_a_device_that_has_no_such_table(tmp_path: Path) -> None:
    assert "bench names no source" in gpu(None, None, tmp_path, identity=IDENTITY)["gpu_time_workload"].reason


def test_no_bytes_whatever_break_the_table_of_gpu_work() -> None:
    generator = random.Random(5)
    for _ in range(3000):
        data = bytearray(GPU + b"0 1000 5000000 1\n0 2000 1000000 1\n")
        for _ in range(generator.randrange(1, 9)):
            at = generator.randrange(len(data))
            data[at : at + generator.randrange(5)] = bytes(generator.randrange(256) for _ in range(3))
        found = table(bytes(data))
        assert found is None or all(active >= 0 for active in found.values())


def test_all_of_it_is_among_the_metrics_of_a_run(tmp_path: Path) -> None:
    folder = tmp_path / ("ab" * 32) / "00"
    rows: list[tuple[int, int | None]] = [(10_000 * n, 20_000) for n in range(500)]
    files = {
        **drawn(3600, 10, 4),
        **shell(rows),
        "gpu_work-before.txt": GPU,
        "gpu_work-after.txt": GPU + b"0 2000 9 1\n",
    }
    watched_run(
        folder,
        files=files,
        responsiveness=PINGS | ACTIVITY,
        settings={"affinity": "0"},
        threads=[(5, 2, "x", "0")],
        probe={"threads": {"omitted": 0}},
    )
    run = read_run(folder)
    report = understood(run.output, max_tokens=4, exact=True)
    identity = {**IDENTITY, "snapshots": {"gpu_work": ["dumpsys"]}}
    metrics = compute(
        run, segment(report.boundaries, run.wall_us), report, identity, idle_power=Value(None), budget=4
    )
    found = {(metric.phase, metric.metric): metric for metric in metrics}
    assert len(found) == len(metrics)
    for metric in (
        "missed_deadlines_60hz",
        "missed_deadlines_120hz",
        "shell_round_trip_p50",
        "frames",
        "jank_percent",
    ):
        assert found["decode", metric].value is not None
        assert found["run", metric].value is not None
    for metric in ("threads_misplaced", "gpu_time_workload", "gpu_time_screen"):
        assert found["run", metric].value is not None
    assert found["run", "missed_deadlines_60hz"].lower_is_better is True
    assert {"missed_deadlines", "shell_round_trip", "jank_percent", "gpu_time", "threads_misplaced"} <= set(
        LOWER
    )

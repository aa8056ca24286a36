"""Soaking: a key of its own, the time and duty that were asked for, and one go or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.config import soaking
from pocketvlm.errors import ConfigError, DeviceError, WorkloadError
from pocketvlm.measure import soak
from pocketvlm.measure.jobs import Job
from pocketvlm.measure.soak import Duty, measure_soak, soak_job, soaks_of, told
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import write_json
from tests.synthetic_soaks import blind, soak_of
from tests.unit.handmade import BUDGET, CELL, IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run

RUN_S, AROUND_S = 5.0, 0.2
NAME = CELL["cell"]
JOB = Job(("x",), {}, {"workload": {"id": "w", "max_tokens": BUDGET, "ignore_eos": True}})


class Clock:
    """The host's and the device's time, which only runs and sleeps move."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Device:
    """A device with nothing on it."""

    id = "bench"
    kind = "local"


class FakeRunner:
    """Runs take five seconds and cost 0.2 s around them; one may be spoilt, or the device restarted."""

    fails_at: int | None = None
    restarts_at: int | None = None

    def __init__(self, clock: Clock, store: RawStore, scratch: Path) -> None:
        self.clock, self.store, self.scratch = clock, store, scratch
        self.device, self.identity = Device(), IDENTITY
        self.deployed: list[Job] = []
        self.made = 0

    def deploy(self, jobs: list[Job]) -> None:
        self.deployed += jobs

    def run(
        self, job: Job, meta: Mapping[str, Any], what: str, after: Callable[[], Mapping[str, Any]]
    ) -> StoredRun:
        if self.made == self.fails_at:
            raise WorkloadError("the workload crashed", where=what, do="see")
        self.clock.now += AROUND_S / 2
        start_us = round(self.clock.now * 1e6) if self.made != self.restarts_at else 1_000_000
        folder = self.scratch / f"{self.made}/{'c' * 64}/00"
        write_run(folder, output(stdout_0_3_16(), stderr_0_3_16()), start_us=start_us)
        self.clock.now += RUN_S + AROUND_S / 2
        self.made += 1
        with self.store.draft() as draft:
            gathered = draft / "run"
            shutil.copytree(folder, gathered)
            (gathered / "meta.json").unlink()
            return self.store.add(gathered, job.key_inputs, {**meta, **after()})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(soak, "time", clock)
    return clock


@pytest.fixture
def runner(clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """A runner that stands in for the device of every soak of the test."""
    made = FakeRunner(clock, RawStore(tmp_path / "results/raw"), tmp_path / "scratch")
    monkeypatch.setattr(soak, "runner_for", lambda *_: made)
    monkeypatch.setattr(soak, "hold", lambda *_: nullcontext(made.device))
    monkeypatch.setattr(soak, "check_identity", lambda *_: None)
    monkeypatch.setattr(soak, "unfit", lambda *_, **__: {})
    monkeypatch.setattr(soak, "cell_job", lambda *_: JOB)
    write_json(tmp_path / "results/devices/bench/identity.json", IDENTITY)
    return made


def measure(
    folder: Path, *, duration_s: int = 60, busy_percent: float = 100, absent: str | None = None, **more: Any
) -> dict[str, Any]:
    """Soak, and return the index."""
    cell = {
        "cell": NAME, "adapter": "llamacpp", "version": "0.3.16", "bundle": "b", "weights": {},
        "workload": {}, "model": {}, "settings": {}, "quirks": {},
    }  # fmt: skip
    block = {
        "experiment": "x",
        "device": {"id": "bench"},
        "probe": "probe",
        "absent": absent,
        "rows": True,
        "unmeasured": {},
        "protocol": {"repeats": 1, "warmups": 0, "idle_s": 1, "deadline_s": 9, "order_seed": 1, "state": {}},
        "cells": [cell],
    }
    wanted = {"duration_s": duration_s, "busy_percent": busy_percent, "first_s": 60}
    index = folder / "results/x/soak/bench.json"
    measure_soak(block, wanted, results=folder / "results", index=index, **more)
    found: dict[str, Any] = json.loads(index.read_text())
    return found


def test_its_runs_have_a_key_of_their_own_that_only_shape_changes() -> None:
    keys = {
        soak_job(JOB, Duty(60, 100)).key,
        soak_job(JOB, Duty(61, 100)).key,
        soak_job(JOB, Duty(60, 50)).key,
    }
    assert len(keys | {JOB.key}) == 4
    assert soak_job(JOB, Duty(60, 100)).argv == JOB.argv


def test_it_lasts_as_long_as_asked_and_is_measured_once(runner: FakeRunner, tmp_path: Path) -> None:
    index = measure(tmp_path)
    (listed,) = index["soaks"]
    # Runs begin at 0, 5.2, … s; the twelfth begins at 57.2 s and is finished.
    assert len(listed["runs"]) == 12 and listed["cut_short"] == []
    metas = [runner.store.run(one["run"]).meta for one in listed["runs"]]
    assert {meta["role"] for meta in metas} == {"soak"}
    assert [meta["position"] for meta in metas] == list(range(12))
    assert {meta["key_inputs"]["soak"]["duration_s"] for meta in metas} == {60}
    assert measure(tmp_path) == index and runner.made == 12, "a whole soak is not made again"


def test_pauses_give_the_duty_that_was_asked_for(runner: FakeRunner, clock: Clock, tmp_path: Path) -> None:
    index = measure(tmp_path, duration_s=100, busy_percent=50)
    # What a run costs around it is part of its pause: 5 s of work, 5 s without.
    assert clock.slept == pytest.approx([RUN_S - AROUND_S] * 9)
    assert len(index["soaks"][0]["runs"]) == 10
    spans = soaks_of(runner.store, soak_job(JOB, Duty(100, 50)))[0].spans()
    assert [start for start, _ in spans] == pytest.approx([10.0 * n for n in range(10)])


def test_without_pauses_it_never_sleeps(runner: FakeRunner, clock: Clock, tmp_path: Path) -> None:
    measure(tmp_path)
    assert set(clock.slept) == {0.0}


def test_one_that_was_cut_short_is_kept_and_not_counted(
    runner: FakeRunner, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner.fails_at = 4
    with pytest.raises(WorkloadError, match="crashed"):
        measure(tmp_path)
    (early,) = soaks_of(runner.store, soak_job(JOB, Duty(60, 100)))
    assert len(early.runs) == 4 and not early.complete(Duty(60, 100))
    runner.fails_at = None
    (listed,) = measure(tmp_path)["soaks"]
    assert "cut short after 4 runs in 21 s" in caplog.text and "begins anew" in caplog.text
    assert listed["soak"] != early.id and len(listed["runs"]) == 12
    assert not {run.name for run in early.runs} & {one["run"] for one in listed["runs"]}
    assert listed["cut_short"] == [{"soak": early.id, "runs": 4, "seconds": 20.6}]
    assert len(runner.store.complete(early.runs[0].key)) == 16, "nothing that was measured is lost"


def test_one_that_lacks_a_run_is_not_whole(runner: FakeRunner, tmp_path: Path) -> None:
    listed = measure(tmp_path)["soaks"][0]
    shutil.rmtree(tmp_path / "results/raw" / listed["runs"][3]["run"])
    again = measure(tmp_path)["soaks"][0]
    assert again["soak"] != listed["soak"] and runner.made == 24


def test_again_measures_anew_and_the_earlier_one_does_not_count(runner: FakeRunner, tmp_path: Path) -> None:
    before = measure(tmp_path)["soaks"][0]
    after = measure(tmp_path, again=True)["soaks"][0]
    assert after["soak"] != before["soak"] and after["cut_short"] == []
    assert measure(tmp_path)["soaks"][0] == after


def test_a_device_that_restarts_ends_it(runner: FakeRunner, tmp_path: Path) -> None:
    runner.restarts_at = 3
    with pytest.raises(DeviceError, match="restarted"):
        measure(tmp_path)
    (early,) = soaks_of(runner.store, soak_job(JOB, Duty(60, 100)))
    assert not early.complete(Duty(15, 100)), "its clock went back: it is not one go"


def test_a_phone_that_is_away_is_a_row_and_what_it_has_counts(runner: FakeRunner, tmp_path: Path) -> None:
    index = measure(tmp_path, absent="bench is not connected")
    assert index["soaks"] == [] and index["unmeasured"] == {NAME: "bench is not connected"}
    assert runner.made == 0
    measure(tmp_path)
    index = measure(tmp_path, absent="bench is not connected")
    assert len(index["soaks"]) == 1 and index["unmeasured"] == {}


def test_progress_says_time_speed_and_the_hottest_zone() -> None:
    runs = soak_of([10.0, 10.0, 9.0])
    assert (
        told(runs, 1800, 60)
        == "soak: 12 of 1800 s, run 3, 9 tokens/s (90 % of the first 60 s), hottest cpu 33.0 °C"
    )
    line = told(blind(soak_of([None])), 1800, 60)
    assert line == "soak: 4 of 1800 s, run 1, speed not known, no temperature to be had"


def test_defaults_are_filled_in_and_an_experiment_without_one_is_told() -> None:
    assert soaking.wanted({}) == {}
    assert soaking.wanted({"soak": {"duration_s": 60, "first_s": 10}}) == {
        "duration_s": 60, "busy_percent": 100, "first_s": 10, "throttle_percent": 10,
    }  # fmt: skip
    assert "throttle_percent" not in soaking.measured(soaking.wanted({"soak": {"duration_s": 60}}))
    folder = Path(__file__).parents[2] / "config/experiments"
    with pytest.raises(ConfigError, match=r"demo asks for no soak.*soak, soak-short"):
        soaking.require({}, "demo", folder)
    soaking.require({"soak": {"duration_s": 60}}, "x", folder)

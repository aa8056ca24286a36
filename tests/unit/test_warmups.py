"""Warm-ups go on until their times agree, up to a limit; a number stays that number."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import yaml

from pocketvlm.config.protocol import check_protocol
from pocketvlm.config.schema import validate
from pocketvlm.errors import ConfigError, TransientDeviceError
from pocketvlm.measure import block
from pocketvlm.measure.block import Protocol
from pocketvlm.measure.jobs import Job
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.measure.warmups import Warming, variation, warm_ups
from pocketvlm.provenance import write_json
from tests.experiments import cell_text, experiment_text

ADAPTIVE = {"least": 1, "most": 6, "cv_percent": 2, "window": 3}


def made(times: list[float], **changes: Any) -> Warming:
    warming = Warming(warm_ups({**ADAPTIVE, **changes}))
    for seconds in times:
        assert not warming.enough("a")
        warming.add("a", seconds)
    return warming


def test_the_coefficient_of_variation():
    assert variation([9.0, 10.0, 11.0]) == pytest.approx(10.0)
    assert variation([5.0, 5.0]) == 0.0
    assert variation([5.0]) is None
    assert variation([5.0, 5.0], 3) is None
    assert variation([0.0, 0.0]) is None


def test_they_end_when_the_last_ones_agree():
    warming = made([12.0, 10.4, 10.0, 10.1, 10.05])
    assert warming.enough("a")
    assert warming.record("a") == {"warmups": {"made": 5, "cv_percent": 0.498, "steady": True}}
    assert not warming.enough("b"), "each cell has its own"


def test_they_end_at_the_limit_and_say_that_they_never_agreed():
    warming = made([12.0, 10.0, 12.0, 10.0, 12.0, 10.0])
    assert warming.enough("a")
    record = warming.record("a")["warmups"]
    assert (record["made"], record["steady"]) == (6, False)
    assert record["cv_percent"] > 10


def test_there_are_at_least_so_many():
    warming = made([10.0, 10.0, 10.0, 10.0], least=5)
    assert not warming.enough("a")


def test_a_number_is_that_number_and_records_nothing():
    warming = Warming(warm_ups(2))
    for _ in range(2):
        assert not warming.enough("a")
        warming.add("a", 10.0)
    assert warming.enough("a")
    assert warming.record("a") == {}
    assert Warming(warm_ups(0)).enough("a")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"warmups": {**ADAPTIVE, "least": 7}}, "least is 7 and most is 6"),
        ({"warmups": {**ADAPTIVE, "window": 7}}, "the last 7 warm-ups"),
        ({"heat": {"deadline_s": 3, "at_deadline": "refuse"}}, "no temperature is named"),
    ],
)
def test_keys_that_do_not_fit_together_are_refused(change, told):
    good = {"warmups": ADAPTIVE, "heat": {"above_first_k": 1, "deadline_s": 3, "at_deadline": "refuse"}}
    check_protocol(good, "x.yaml")
    check_protocol({"warmups": 0}, "x.yaml")
    with pytest.raises(ConfigError, match=told):
        check_protocol({**good, **change}, "x.yaml")


EXPERIMENT = yaml.safe_load(experiment_text("x", cell_text()))
HEAT = {"skin_celsius": 36.5, "above_first_k": 0, "deadline_s": 9, "at_deadline": "continue"}


@pytest.mark.parametrize(
    "change",
    [{"warmups": 3}, {"warmups": ADAPTIVE}, {"heat": HEAT}, {"heat": {**HEAT, "cpu_celsius": 40}}],
)
def test_the_schema_takes_both_forms(change):
    validate({**EXPERIMENT, **change}, "experiment", where="x.yaml")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"warmups": -1}, "warmups"),
        ({"warmups": {"least": 1, "most": 6}}, "warmups"),
        ({"warmups": {**ADAPTIVE, "cv_percent": 0}}, "warmups"),
        ({"warmups": {**ADAPTIVE, "more": 1}}, "warmups"),
        ({"heat": {"cpu_celsius": 40}}, "heat"),
        ({"heat": {**HEAT, "at_deadline": "pray"}}, "at_deadline"),
        ({"heat": {**HEAT, "gpu_celsius": 40}}, "heat"),
    ],
)
def test_and_nothing_else(change, key):
    with pytest.raises(ConfigError, match=key):
        validate({**EXPERIMENT, **change}, "experiment", where="x.yaml")


class Untouched:
    """A device whose state nobody asks for."""

    def before_run(self) -> None:
        """Look at nothing."""

    def after_run(self) -> dict[str, Any]:
        """Say nothing."""
        return {}


class Bench:
    """A runner whose runs take what the test says, in the store of a folder."""

    def __init__(self, folder: Path, times: dict[str, list[float]], fails_at: int = 99) -> None:
        self.store = RawStore(folder)
        self.device, self.identity = SimpleNamespace(calls=0), {"sensors": []}
        self.times, self.fails_at, self.done = times, fails_at, 0

    def deploy(self, jobs: list[Job]) -> None:
        """Push nothing."""

    def run(self, job: Job, meta: dict[str, Any], what: str, after: Any) -> StoredRun:
        """Store a run of the next time of its cell."""
        self.done += 1
        if self.done >= self.fails_at:
            raise TransientDeviceError("gone", do="look")
        seconds = self.times[what].pop(0) if self.times.get(what) else 10.0
        with self.store.draft() as draft:
            (draft / "run").mkdir()
            write_json(draft / "run/probe.json", {"start_us": 0, "end_us": int(seconds * 1e6)})
            return self.store.add(draft / "run", job.key_inputs, meta)


JOBS = {name: Job((name,), {}, {"cell": name}) for name in ("a", "b")}


def measured(bench: Bench, warmups: Any = ADAPTIVE) -> None:
    protocol = Protocol(2, warmups, 1, 60, 1, {})
    planned = block._lacking(JOBS, protocol, bench.store)
    idle = Job(("sleep",), {}, {"cell": None})
    block._measure(planned, JOBS, idle, bench, protocol, Untouched())  # type: ignore[arg-type]


def runs(bench: Bench) -> list[tuple[int, str, str]]:
    found = [run for job in JOBS.values() for run in bench.store.complete(job.key)]
    return sorted((run.meta["position"], run.meta["role"], run.meta["argv"][0]) for run in found)


def test_a_block_makes_as_many_as_each_cell_needs(tmp_path):
    bench = Bench(tmp_path, {"a": [13.0, 10.0, 10.0, 10.0], "b": [10.0, 10.0, 10.0]})
    measured(bench)
    found = runs(bench)
    assert [p for p, _, _ in found] == list(range(1, 12)), "without gaps, after the idle run"
    assert [role for _, role, _ in found] == ["warmup"] * 7 + ["measured"] * 4
    assert [cell for _, role, cell in found if role == "warmup"].count("a") == 4
    (first, second) = [r for r in bench.store.complete(JOBS["a"].key) if r.meta["role"] == "measured"]
    assert first.meta["warmups"] == {"made": 4, "cv_percent": 0.0, "steady": True} == second.meta["warmups"]


def test_each_run_waits_for_the_device_and_only_workloads_tell_whether_its_zones_move(tmp_path, monkeypatch):
    class Gate:
        waited: ClassVar[list[str]] = []
        ran_in: ClassVar[list[Path]] = []

        def wait(self, what: str) -> dict[str, Any]:
            self.waited.append(what)
            return {"waited_s": len(self.waited)}

        def ran(self, folder: Path) -> None:
            self.ran_in.append(folder)

    monkeypatch.setattr(block, "heat_gate", lambda *_: Gate())
    bench = Bench(tmp_path, {})
    measured(bench, 1)
    assert Gate.waited[0] == "run 1 of 7, idle: idle"
    assert len(Gate.waited) == 7
    assert len(Gate.ran_in) == 6
    found = [run for job in JOBS.values() for run in bench.store.complete(job.key)]
    assert sorted(run.meta["heat"]["waited_s"] for run in found) == [2, 3, 4, 5, 6, 7]


def test_a_number_of_them_is_planned_as_ever(tmp_path):
    bench = Bench(tmp_path, {})
    measured(bench, 2)
    assert [role for _, role, _ in runs(bench)] == ["warmup"] * 4 + ["measured"] * 4
    assert not any("warmups" in run.meta for job in JOBS.values() for run in bench.store.complete(job.key))


def test_what_a_killed_block_lacks_is_measured_after_warm_ups_of_its_own(tmp_path):
    killed = Bench(tmp_path, {}, fails_at=1 + 6 + 3 + 1)  # idle, warm-ups, three of four
    with pytest.raises(TransientDeviceError):
        measured(killed)
    assert [role for _, role, _ in runs(killed)].count("measured") == 3
    again = Bench(tmp_path, {})
    measured(again)
    assert again.done == 1 + 3 + 1, "idle, three warm-ups of the one cell that lacks a run, and this"
    assert [role for _, role, _ in runs(again)].count("measured") == 4
    nothing = Bench(tmp_path, {})
    measured(nothing)
    assert nothing.done == 0

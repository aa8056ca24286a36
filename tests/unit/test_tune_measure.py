"""Measuring a search: finished rounds are not made again, what fails is told, and all of it is found."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.analyse.figures.tune import draw_tune
from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.front import front
from pocketvlm.analyse.tune.overlay import overlay
from pocketvlm.analyse.tune.plan import plan_of, resolve
from pocketvlm.analyse.tune.runs import read_tune_run
from pocketvlm.analyse.tune.search import Choice, Seen, progress
from pocketvlm.analyse.tune.tables import tabulate
from pocketvlm.config.schema import validate
from pocketvlm.config.space import DEFAULTS, Space
from pocketvlm.config.study import Cell
from pocketvlm.config.tuning import Tuning
from pocketvlm.errors import DeviceError, IntegrityError, WorkloadError
from pocketvlm.measure import tune
from pocketvlm.measure.jobs import CellFiles, Job
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.measure.tune import measure_tune
from pocketvlm.provenance import write_json
from tests.unit.handmade import BUDGET, CELL, IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run
from tests.unit.tuning_cases import PHONE, UNSEEN, space_of

WORKLOAD = {"id": "w", "max_tokens": BUDGET, "ignore_eos": True}
AXES = {"threads": [1, 8], "batch": [128, 256, 512]}
TUNING = Tuning(
    cell=Cell("bench", "llama.cpp", "0.3.16", "cpu", "m", "Q4_0", "w", {}, "host"),
    quantised={},
    wanted={"axes": AXES, "runs": 40, "objective": "run", "first_rounds": 1, "confidence": 0.9},
    warmups=1,
    seed=3,
    adapter="llamacpp",
    quirks={},
    quantisations=("Q4_0",),
    where="x.yaml: tune",
)
AT = {"round": 1, "block": "20260101T000000-aaaaaa"}
SVG = "{http://www.w3.org/2000/svg}"


class Killed(BaseException):
    """The process is gone."""


class FakeRunner:
    """Half of the defaults' 5 s with a batch of 128, twice with one thread; the rest as `spoilt` says."""

    def __init__(self, store: RawStore, scratch: Path) -> None:
        self.store, self.scratch = store, scratch
        self.device, self.identity = type("Device", (), {"id": "bench"})(), IDENTITY
        self.made: list[str] = []
        self.roles: list[str] = []
        self.fails = "batch=256"
        self.dies_at: int | None = None

    def deploy(self, jobs: list[Job]) -> None:
        assert jobs

    def run(
        self, job: Job, meta: Mapping[str, Any], what: str, after: Callable[[], Mapping[str, Any]]
    ) -> StoredRun:
        if len(self.made) == self.dies_at:
            raise Killed
        name = job.key_inputs["settings"]["name"]
        self.made.append(name)
        self.roles.append(meta["role"])
        if self.fails in name:
            raise WorkloadError("the workload ended with status 3", where=what, do="see")
        extra = (0 if "batch=128" in name else 4_000_000) + (5_000_000 if "threads=1" in name else 0)
        # A little of its own for each run, as no two are alike.
        wall_us = 5_000_000 + extra + 1000 * (len(self.made) % 7)
        folder = self.scratch / f"{len(self.made)}-{self.dies_at}/{'c' * 64}/00"
        write_run(folder, output(stdout_0_3_16(), stderr_0_3_16(), wall_us=wall_us))
        with self.store.draft() as draft:
            gathered = draft / "run"
            shutil.copytree(folder, gathered)
            (gathered / "meta.json").unlink()
            return self.store.add(gathered, job.key_inputs, {**meta, **after()})


class Bench:
    """A search on a device that answers at once.

    Attributes:
        runner: what makes the runs.
        folder: of results.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "results"
        self.runner = FakeRunner(RawStore(self.folder / "raw"), folder / "scratch")
        held = type("Held", (), {"before_run": lambda _: None, "after_run": lambda _: {}})()
        monkeypatch.setattr(tune, "runner_for", lambda *_: self.runner)
        monkeypatch.setattr(tune, "hold", lambda *_: nullcontext(self.runner.device))
        monkeypatch.setattr(tune, "in_state", lambda *_, **__: nullcontext(held))
        monkeypatch.setattr(tune, "check_identity", lambda *_: None)
        monkeypatch.setattr(tune, "unfit", self._unfit)
        monkeypatch.setattr(tune, "cell_job", self._job)
        self.starved: dict[str, str] = {}
        self.space = resolve(TUNING, PHONE)
        write_json(self.folder / "devices/bench/identity.json", IDENTITY)
        write_json(self.folder / "cells.json", {"cells": [{**CELL, "device": "bench"}]})

    @staticmethod
    def _job(cell: CellFiles, *_: Any, **__: Any) -> Job:
        return Job(("x",), {}, {"workload": WORKLOAD, "settings": {"name": cell.cell}})

    def _unfit(self, _: object, cells: Mapping[str, CellFiles], *, rows: bool) -> dict[str, str]:
        return {name: why for name, why in self.starved.items() if name in cells}

    def measure(self, *, absent: str | None = None, **more: Any) -> dict[str, Any]:
        """Search, and return the index."""
        cell = {
            "cell": "c", "adapter": "llamacpp", "version": "0.3.16", "bundle": "b", "weights": {},
            "workload": {}, "model": {}, "settings": {}, "quirks": {},
        }  # fmt: skip
        protocol = {"repeats": 1, "warmups": 1, "idle_s": 1, "deadline_s": 9, "order_seed": 1, "state": {}}
        block = {
            "experiment": "x", "device": {"id": "bench"}, "probe": "probe", "absent": absent, "rows": True,
            "unmeasured": {}, "protocol": protocol, "cells": [cell],
        }  # fmt: skip
        index = self.folder / "x/tune/bench.json"
        weights: dict[str, dict[str, str]] = {"Q4_0": {}}
        measure_tune(block, TUNING, self.space, weights, {}, results=self.folder, index=index, **more)
        found: dict[str, Any] = json.loads(index.read_text())
        return found

    def tabulate(self) -> Path:
        """Write the tables and the figure; return their folder."""
        folder = self.folder / "x/tune"
        names = {name: folder / f"{name}.csv" for name in ("candidates", "rungs", "runs", "front")}
        tabulate(
            folder / "bench.json",
            plan_of(TUNING, Space.of(self.space)),
            adapter="llamacpp",
            identity=self.folder / "devices/bench/identity.json",
            cells=self.folder / "cells.json",
            raw_root=self.folder / "raw",
            gates={},
            destinations={**names, "chosen": folder / "chosen.yaml"},
        )
        cells = json.loads((self.folder / "cells.json").read_text())["cells"]
        files = [folder / "tune.svg", folder / "tune.png"]
        draw_tune(names["candidates"], names["rungs"], folder / "chosen.yaml", cells, "run", files)
        return folder


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench on which nothing has run."""
    return Bench(tmp_path, monkeypatch)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_a_search_from_first_run_to_overlay(bench: Bench) -> None:
    index = bench.measure()
    made = len(bench.runner.made)
    # The first warm-up is of a candidate that fails.
    assert made <= 40 and bench.runner.roles.count("warmup") == len(bench.space["rungs"]) + 1
    assert set(index["failed"]) == {"threads=1 batch=256", "threads=8 batch=256"}
    assert sum("batch=256" in name for name in bench.runner.made) == 2, "what failed does not run again"
    stored = [bench.runner.store.run(run["run"]).meta for run in index["runs"]]
    assert {meta["role"] for meta in stored} == {"tune"}
    assert stored[-1]["tune"]["failed"] == index["failed"]
    assert stored[-1]["key_inputs"]["tune"] == {"experiment": "x"}
    assert bench.measure() == index and len(bench.runner.made) == made, (
        "a search that is over is not made again"
    )
    assert bench.measure(absent="it is not connected") == index

    folder = bench.tabulate()
    found = {row["candidate"]: row for row in rows(folder / "candidates.csv")}
    best = found["threads=8 batch=128"]
    assert best["status"] == "chosen" and float(best["speedup"]) == pytest.approx(9 / 5, rel=0.01)
    assert best["front"] == "yes" and found[DEFAULTS]["status"] == "defaults"
    assert float(found[DEFAULTS]["energy_ratio"]) == 1 and float(best["energy_ratio"]) < 0.7
    assert 44 < float(best["cpu_celsius"]) < 46 and best["skin_celsius"] == ""
    assert "skin_celsius: " in best["reason"]
    assert found["threads=1 batch=256"]["reason"] == "the workload ended with status 3"
    assert found["threads=1 batch=256"]["speedup"] == ""
    assert [row["candidate"] for row in rows(folder / "front.csv")] == ["threads=8 batch=128"]
    assert len(rows(folder / "runs.csv")) == len(index["runs"])
    assert {row["fate"] for row in rows(folder / "rungs.csv")} == {"goes on", "slower", "finalist"}
    chosen = yaml.safe_load((folder / "chosen.yaml").read_text())
    assert chosen["settings"] == {"threads": 8, "batch": 2048, "ubatch": 128}
    assert chosen["for"]["device"] == "bench" and chosen["quantisation"] == "Q4_0"
    text = " ".join(
        " ".join(one.itertext()) for one in ET.parse(folder / "tune.svg").getroot().iter(f"{SVG}text")
    )
    for part in ("Tuning for the time of a run", "threads=8 batch=128 (chosen)", "NA: failed", "Memory, MiB"):
        assert part in text, part
    assert "SYNTHETIC WEIGHTS" in text, "as the cell is"


def taken(folder: Path, *_: object) -> Seen:
    """Read of a run how long it took and nothing else, which is quicker."""
    meta, probe = (json.loads((folder / f"{name}.json").read_text()) for name in ("meta", "probe"))
    cost = Value((probe["end_us"] - probe["start_us"]) / 1e6)
    place = meta["tune"]
    name = "/".join(folder.parts[-2:])
    return Seen(
        place["candidate"], place["rung"], meta["round"], meta["block"], cost, UNSEEN, UNSEEN, {}, name
    )


@pytest.fixture
def quick(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A bench of whose runs only the time is read."""
    monkeypatch.setattr(tune, "read_tune_run", taken)
    return bench


@pytest.mark.parametrize("dies_at", [0, 3, 8, 20, 29])
def test_a_killed_search_makes_at_most_one_round_again(quick: Bench, dies_at: int) -> None:
    bench = quick
    bench.runner.dies_at = dies_at
    with pytest.raises(Killed):
        bench.measure()
    bench.runner.dies_at = None
    index = bench.measure()
    rungs = bench.space["rungs"]
    assert len(bench.runner.made) <= 40 + rungs[0]["candidates"] + 1 + len(rungs)
    rounds: dict[tuple[int, int], set[str]] = {}
    for run in index["runs"]:
        rounds.setdefault((run["rung"], run["round"]), set()).add(run["block"])
    assert all(len(blocks) == 1 for blocks in rounds.values())
    assert sum("batch=256" in name for name in bench.runner.made) <= 4
    assert index["runs"][-1]["rung"] == len(rungs) - 1


def test_what_does_not_fit_into_memory_is_out_before_it_runs(quick: Bench) -> None:
    quick.starved = {"threads=8 batch=128": "it needs 9 GB of memory and 4 GB are free"}
    index = quick.measure()
    assert "threads=8 batch=128" not in quick.runner.made
    assert index["failed"]["threads=8 batch=128"]["reason"].startswith("it needs 9 GB")


def test_a_warm_up_that_fails_leaves_another_to_make(quick: Bench) -> None:
    state = progress(plan_of(TUNING, Space.of(quick.space)), [], {})
    assert state.next is not None
    quick.runner.fails = first = state.next[2][0]
    assert first != DEFAULTS, "else this test is of nothing"
    quick.measure()
    made = list(zip(quick.runner.roles, quick.runner.made, strict=True))
    assert made[0] == ("warmup", first)
    assert made[1][0] == "warmup" and made[1][1] != first


def test_defaults_that_fail_end_the_search(quick: Bench) -> None:
    quick.runner.fails = DEFAULTS
    with pytest.raises(WorkloadError, match="ended with status 3"):
        quick.measure()


def test_retune_begins_anew_and_keeps_what_was(quick: Bench) -> None:
    first = quick.measure()
    again = quick.measure(again=True)
    assert not {run["run"] for run in first["runs"]} & {run["run"] for run in again["runs"]}
    assert all(quick.runner.store.run(run["run"]) for run in first["runs"])


def test_a_device_that_is_not_there_is_told(quick: Bench) -> None:
    with pytest.raises(DeviceError, match=r"search on bench is not over.* it is not connected"):
        quick.measure(absent="it is not connected")


def test_an_index_of_another_search_is_refused(quick: Bench) -> None:
    quick.measure()
    path = quick.folder / "x/tune/bench.json"
    index = json.loads(path.read_text())
    write_json(path, {**index, "runs": index["runs"][:5]})
    with pytest.raises(
        IntegrityError, match=r"lists 5 runs, and the search goes on .*--forcerun measure_tune"
    ):
        quick.tabulate()


@pytest.mark.parametrize(
    ("objective", "seconds"), [("answer", 4.0), ("run", 5.0), ("first_token", 2.6), ("decode", 0.1)]
)
def test_every_objective_is_in_seconds(tmp_path: Path, objective: str, seconds: float) -> None:
    folder = tmp_path / f"{'c' * 64}/00"
    place = {"candidate": "a", "rung": 1, "failed": {}}
    write_run(folder, output(stdout_0_3_16(), stderr_0_3_16()), role="tune", noted={"tune": place, **AT})
    run = read_tune_run(folder, None, "llamacpp", IDENTITY, {}, objective)
    assert (run.candidate, run.rung) == ("a", 1) and run.cost.value == pytest.approx(seconds)
    assert run.energy_j.value == pytest.approx(10.0, rel=0.05), "2 W for 5 s"
    assert run.limited("cpu_celsius").value == pytest.approx(44.9, abs=0.2)
    assert run.limited("battery_celsius").value is None and run.limited("battery_celsius").reason
    strict = read_tune_run(folder, None, "llamacpp", IDENTITY, {"max_probe_cpu_percent": 1e-9}, objective)
    assert strict.cost.value is None and "probe" in strict.cost.reason


def test_an_output_that_means_nothing_is_withheld(tmp_path: Path) -> None:
    folder = tmp_path / f"{'c' * 64}/00"
    place = {"candidate": "a", "rung": 0, "failed": {}}
    write_run(folder, output([(1000, b"nonsense")], []), role="tune", noted={"tune": place, **AT})
    run = read_tune_run(folder, None, "llamacpp", IDENTITY, {}, "run")
    assert run.cost.value is None and run.cost.reason and run.limited("cpu_celsius").reason


def test_an_overlay_takes_an_affinity_away_that_was_varied() -> None:
    axes = {"threads": [1, 4], "affinity": ["any", "4-7"]}
    planned = plan_of(replace(TUNING, wanted={**TUNING.wanted, "axes": axes}), space_of(axes))
    free, kept, nothing = (
        overlay(planned, Choice(name, "so"), CELL, "x")
        for name in ("threads=4 affinity=any", "threads=4 affinity=4-7", None)
    )
    assert free["settings"] == {"threads": 4, "affinity": None}
    assert kept["settings"] == {"threads": 4, "affinity": "4-7"}
    assert nothing["settings"] is None and nothing["quantisation"] is None
    for each in (free, kept, nothing):
        validate(each, "tuned", where="chosen.yaml")


def test_the_front_is_what_nothing_beats() -> None:
    points: list[dict[str, float | None]] = [
        {"time": 1.0, "energy": 10.0, "memory": 100.0},
        {"time": 2.0, "energy": 5.0, "memory": 100.0},
        {"time": 2.0, "energy": 10.0, "memory": 100.0},
        {"time": 1.002, "energy": 10.0, "memory": 100.0},
        {"time": 0.5, "energy": None, "memory": 100.0},
    ]
    assert front(points) == [True, True, False, True, None]
    near = [{"time": 1.0, "memory": 100.0}, {"time": 1.7, "memory": 99.96}, {"time": 1.7, "memory": 90.0}]
    assert front(near) == [True, False, True], "a difference of less than 1 % is none"
    blind: list[dict[str, float | None]] = [{**point, "energy": None} for point in points]
    assert front(blind) == [False, False, False, False, True]
    assert front([{"time": None}]) == [None] and front([]) == []


def test_three_that_differ_by_little_do_not_empty_the_front() -> None:
    """Each is within 1 % of the next but in one thing, in which it is better."""
    step = 1.01
    shares = ((0, 0, 0), (1.5, -0.75, -0.75), (0.75, 0.75, -1.5))
    points: list[dict[str, float | None]] = [
        {"time": step**time, "energy": 10 * step**energy, "memory": 100 * step**memory}
        for time, energy, memory in shares
    ]
    for turned in (points, points[1:] + points[:1], points[::-1]):
        assert any(front(turned))


def test_a_search_is_plain_values() -> None:
    assert replace(TUNING, seed=4).plain()["seed"] == 4

"""The benchmark beside a cell: what is started, how deep, rounds that are whole, and one way to go on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from pocketvlm.config import benching
from pocketvlm.errors import ConfigError, DeviceError, WorkloadError
from pocketvlm.measure import bench
from pocketvlm.measure.bench import PARTS, bench_job, measure_bench
from pocketvlm.measure.jobs import Job
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import write_json
from tests.unit.handmade import BUDGET, CELL, IDENTITY, output, stderr_0_3_16, stdout_0_3_16, write_run

NAME = CELL["cell"]
JOB = Job(
    ("@bundle/bin/llama-mtmd-cli",),
    {},
    {
        "workload": {"id": "w", "max_tokens": BUDGET, "ignore_eos": True},
        "weights": {"model": "m" * 64, "mmproj": "p" * 64},
        "bundle": "b" * 64,
        "device": {"id": "bench"},
    },
    affinity="0",
)
QUIRKS = {
    "flash_attention": {"enabled": ["-fa", "1"], "disabled": ["-fa", "0"]},
    "mmap": {"enabled": ["-mmp", "1"], "disabled": ["-mmp", "0"]},
}


SENSED = {"cpu.csv": b"t_us,cpu.total.user\n7000000000,0\n", "wake.csv": b"t_us,late_us\n7000000000,100\n"}


class FakeRunner:
    """A device on which every start takes no time; it may end after so many."""

    ends_after: int | None = None
    prints = staticmethod(stdout_0_3_16)

    def __init__(self, store: RawStore, scratch: Path) -> None:
        self.store, self.scratch = store, scratch
        self.device, self.identity = SimpleNamespace(id="bench", kind="local"), IDENTITY
        self.deployed: list[Job] = []
        self.made: list[tuple[str, tuple[str, ...]]] = []

    def deploy(self, jobs: list[Job]) -> None:
        self.deployed += jobs

    def run(
        self, job: Job, meta: Mapping[str, Any], what: str, after: Callable[[], Mapping[str, Any]]
    ) -> StoredRun:
        if len(self.made) == self.ends_after:
            raise DeviceError("the cable was pulled", do="plug it in")
        folder = self.scratch / f"{len(self.made)}-{id(self)}/{'c' * 64}/00"
        write_run(folder, output(self.prints(), stderr_0_3_16()), files=SENSED)
        self.made.append((str(meta["part"]), job.argv))
        with self.store.draft() as draft:
            gathered = draft / "run"
            shutil.copytree(folder, gathered)
            (gathered / "meta.json").unlink()
            return self.store.add(gathered, job.key_inputs, {**meta, **after()})


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeRunner:
    """A runner that stands in for the device of every block of the test."""
    made = FakeRunner(RawStore(tmp_path / "results/raw"), tmp_path / "scratch")
    monkeypatch.setattr(bench, "runner_for", lambda *_: made)
    monkeypatch.setattr(bench, "hold", lambda *_: nullcontext(made.device))
    monkeypatch.setattr(bench, "check_identity", lambda *_: None)
    monkeypatch.setattr(bench, "unfit", lambda *_, **__: {})
    monkeypatch.setattr(bench, "cell_job", lambda *_: JOB)
    write_json(tmp_path / "results/devices/bench/identity.json", IDENTITY)
    write_json(tmp_path / "results/bundles/bench-x/manifest.json", {"files": {}})
    return made


def measure(folder: Path, *, rounds: int = 3, absent: str | None = None, **more: Any) -> dict[str, Any]:
    """Measure, and return the index."""
    cell = {
        "cell": NAME, "adapter": "llamacpp", "version": "0.3.16", "bundle": "b",
        "weights": {"model": "model.gguf", "mmproj": "mmproj.gguf"}, "workload": {"image_position": "first"},
        "model": {}, "settings": {"threads": 2, "affinity": "0"}, "quirks": {},
    }  # fmt: skip
    block = {
        "experiment": "x", "device": {"id": "bench"}, "probe": "probe", "absent": absent, "rows": True,
        "unmeasured": {}, "cells": [cell],
        "protocol": {"repeats": 1, "warmups": 1, "idle_s": 1, "deadline_s": 9, "order_seed": 1, "state": {}},
    }  # fmt: skip
    plan = {
        "rounds": rounds,
        "repetitions": 2,
        "bundles": {NAME: str(folder / "results/bundles/bench-x")},
        "quirks": {NAME: QUIRKS},
    }
    index = folder / "results/x/bench/bench.json"
    measure_bench(block, plan, results=folder / "results", index=index, **more)
    found: dict[str, Any] = json.loads(index.read_text())
    return found


def test_it_goes_as_deep_as_the_cell_did(runner: FakeRunner, tmp_path: Path) -> None:
    (listed,) = measure(tmp_path)["cells"]
    # 600 tokens of prompt of which 576 are the image's, and three evaluations after the first of four tokens.
    assert listed["tests"] == {
        "decode": {"prompt": 0, "answer": 3, "depth": 600, "repetitions": 2},
        "prefill": {"prompt": 576, "answer": 0, "depth": 0, "repetitions": 2},
    }
    argv = dict(runner.made)
    assert " --n-prompt 0 --n-gen 3 --n-depth 600 --repetitions 2 --threads 2 " in " ".join(argv["decode"])
    assert " --n-prompt 576 --n-gen 0 --n-depth 0 " in " ".join(argv["prefill"])
    assert listed["settings"] == {"threads": 2}, "what the workflow sees to is none of the benchmark's"


def test_rounds_are_whole_and_in_another_order_each(runner: FakeRunner, tmp_path: Path) -> None:
    (listed,) = measure(tmp_path, rounds=4)["cells"]
    parts = [part for part, _ in runner.made]
    assert parts[0] == "cell", "the warm-up"
    rounds = [tuple(parts[1 + 3 * n : 4 + 3 * n]) for n in range(4)]
    assert all(sorted(each) == sorted(PARTS) for each in rounds) and len(set(rounds)) > 1
    assert [one["round"] for one in listed["rounds"]] == [1, 2, 3, 4]
    metas = [runner.store.run(one[part]["run"]).meta for one in listed["rounds"] for part in PARTS]
    assert {meta["role"] for meta in metas} == {"bench"} and len({meta["block"] for meta in metas}) == 1
    assert measure(tmp_path, rounds=4)["cells"] == [listed] and len(runner.made) == 13
    assert len(measure(tmp_path, rounds=3)["cells"][0]["rounds"]) == 3, "fewer are wanted: the first ones"
    assert len(runner.made) == 13


def test_every_program_has_a_key_of_its_own(runner: FakeRunner, tmp_path: Path) -> None:
    (listed,) = measure(tmp_path)["cells"]
    metas = {part: runner.store.run(listed["rounds"][0][part]["run"]).meta for part in PARTS}
    keys = {meta["key"] for meta in metas.values()}
    assert len(keys | {JOB.key}) == 4, "the cell's ordinary runs are others"
    decode = metas["decode"]["key_inputs"]
    assert decode["weights"] == {"model": "m" * 64} and decode["bundle"] != JOB.key_inputs["bundle"]
    assert decode["device"] == JOB.key_inputs["device"] and decode["workload"]["depth"] == 600
    assert {job.affinity for job in runner.deployed} == {"0"}, "kept on the same CPUs"
    assert bench_job(JOB).argv == JOB.argv


def test_a_round_that_was_cut_short_does_not_count(runner: FakeRunner, tmp_path: Path) -> None:
    runner.ends_after = 1 + 3 + 2
    with pytest.raises(DeviceError, match="cable"):
        measure(tmp_path)
    runner.ends_after = None
    (listed,) = measure(tmp_path)["cells"]
    blocks = [runner.store.run(one["cell"]["run"]).meta["block"] for one in listed["rounds"]]
    assert len(set(blocks)) == 2 and sorted(one["round"] for one in listed["rounds"]) == [1, 1, 2]
    # Two of the first block's second round, a warm-up, and two rounds.
    assert len(runner.made) == 6 + 1 + 6
    for one in listed["rounds"]:
        assert len({runner.store.run(one[part]["run"]).meta["block"] for part in PARTS}) == 1


def test_anew_takes_other_runs(runner: FakeRunner, tmp_path: Path) -> None:
    (first,) = measure(tmp_path)["cells"]
    (second,) = measure(tmp_path, again=True)["cells"]
    used = [{one[part]["run"] for one in each["rounds"] for part in PARTS} for each in (first, second)]
    assert not used[0] & used[1] and len(used[1]) == 9


def test_a_device_that_is_not_there_is_told(runner: FakeRunner, tmp_path: Path) -> None:
    index = measure(tmp_path, absent="not connected")
    assert index["cells"] == [] and index["unmeasured"] == {NAME: "not connected"} and runner.made == []


def test_an_output_that_counts_no_image_cannot_be_compared(runner: FakeRunner, tmp_path: Path) -> None:
    runner.prints = lambda: [piece for piece in stdout_0_3_16() if b"imag" not in piece[1]]
    with pytest.raises(WorkloadError, match="how many tokens prompt, image and answer"):
        measure(tmp_path)


def study(tmp_path: Path, **experiment: Any) -> Any:
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"bench": {"rounds": 3}}))
    return SimpleNamespace(
        name="x",
        experiment=experiment,
        paths={"experiments": tmp_path},
        frameworks={"llama.cpp": {"bench": {}}, "mllm": {}},
        cells=[SimpleNamespace(framework="mllm", unavailable=None)],
    )


def test_what_an_experiment_must_have(tmp_path: Path) -> None:
    assert benching.wanted({"bench": {"rounds": 4}}) == {
        "rounds": 4, "repetitions": 1, "tolerance_percent": 5,
    }  # fmt: skip
    assert "tolerance_percent" not in benching.measured(benching.wanted({"bench": {"rounds": 4}}))
    with pytest.raises(ConfigError, match=r"bench: \{rounds: 10\}.*that has it: other"):
        benching.require(study(tmp_path))
    with pytest.raises(ConfigError, match="mllm has no benchmark of its own"):
        benching.require(study(tmp_path, bench={"rounds": 3}))

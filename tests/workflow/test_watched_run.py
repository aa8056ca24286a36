"""An experiment that keeps its workload on a CPU and pings the shell, all the way on this machine."""

from __future__ import annotations

import os

import pandas as pd
import pytest

from tests.experiments import cell_text, experiment_text
from tests.workflow.conftest import Project, checkout

CPU = min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = checkout(tmp_path_factory.mktemp("watched"))
    text = experiment_text(
        "a workload that is kept on a CPU, and a shell that is pinged",
        cell_text(settings=f'{{threads: 2, affinity: "{CPU}"}}'),
        repeats=1,
    )
    asked = "responsiveness: {shell_ping_ms: 50, foreground_activity: com.android.settings/.Settings}\n"
    (project.path / "config/experiments/watched.yaml").write_text(
        text.replace("cells:\n", f"{asked}cells:\n")
    )
    done = project.snakemake("results/watched/tables/cells.csv", experiment="watched")
    assert done.returncode == 0, done.stdout[-4000:]
    return project


def test_its_metrics_reach_the_tables(watched: Project) -> None:
    cells = pd.read_csv(watched.path / "results/watched/tables/cells.csv").set_index(["phase", "metric"])
    assert cells.loc[("run", "threads_misplaced"), "median"] == 0
    assert not cells["gate"].astype(str).str.contains("not kept on the CPUs|no thread of the workload").any()
    assert cells.loc[("run", "missed_deadlines_60hz"), "unit"] == "%"
    assert cells.loc[("run", "jank_percent"), "gate"] == "the device has no am"
    assert ("decode", "shell_round_trip_p50") in cells.index
    assert f"affinity={CPU}" in cells["settings"].iloc[0]


def test_what_was_asked_for_is_in_the_key_and_what_it_costs_in_the_log(watched: Project) -> None:
    (meta,) = watched.raw_runs().values()
    inputs = meta["key_inputs"]
    assert isinstance(inputs, dict)
    assert inputs["settings"]["affinity"] == str(CPU)
    assert inputs["responsiveness"]["shell_ping_ms"] == 50
    assert not any("affinity" in str(word) for word in inputs["argv"]), "no adapter has seen it"
    log = (watched.path / "results/logs/watched.measure_block.local.log").read_text()
    assert "device calls per run: " in log
    assert "host CPU per run: " in log


def test_a_list_that_is_none_ends_the_workflow_with_the_fix(watched: Project) -> None:
    watched.edit("config/experiments/watched.yaml", f'affinity: "{CPU}"', 'affinity: "3-1"')
    done = watched.snakemake("-n", experiment="watched")
    watched.edit("config/experiments/watched.yaml", 'affinity: "3-1"', f'affinity: "{CPU}"')
    assert done.returncode != 0
    assert "affinity is '3-1'" in done.stdout
    assert "Give a list of CPUs in quotes" in done.stdout
    assert "Traceback" not in done.stdout

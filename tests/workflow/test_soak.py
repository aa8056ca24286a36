"""A short soak as a user starts it, on the emulated phone: killed, begun anew, then nothing to be done."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.experiments import cell_text, experiment_text
from tests.workflow.conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.phone]

SOAKED = "soak: {duration_s: 15, busy_percent: 90}\n" + experiment_text(
    "a soak of seconds, for tests", cell_text(device="emulated-phone"), deadline_s=120
)


def soaks(project: Project) -> dict[str, list[str]]:
    """The runs of each soak in the raw store."""
    found: dict[str, list[str]] = {}
    for name, meta in project.raw_runs("soak").items():
        found.setdefault(str(meta["block"]), []).append(name)
    return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def index(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project.path / "results/soaked/soak/emulated-phone.json").read_text())
    return found


def test_a_killed_soak_begins_anew_and_everything_comes_out(project: Project) -> None:
    (project.path / "config/experiments/soaked.yaml").write_text(SOAKED)
    process = project.start("soak", experiment="soaked")
    deadline = time.monotonic() + 900
    while not soaks(project):
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (early,) = soaks(project)
    kept = soaks(project)[early]

    done = project.snakemake("soak", experiment="soaked")
    assert done.returncode == 0, done.stdout[-3000:]
    assert f"was cut short after {len(kept)} run" in done.stdout and "begins anew" in done.stdout
    assert "of the first 5 s" in done.stdout and "hottest " in done.stdout
    (listed,) = index(project)["soaks"]
    (late,) = set(soaks(project)) - {early}
    assert listed["soak"] == late and [one["soak"] for one in listed["cut_short"]] == [early]
    assert soaks(project)[early] == kept, "what was measured is not lost"
    assert [one["run"] for one in listed["runs"]] == soaks(project)[late]
    assert project.raw_runs("measured") == {}, "the target soak measures nothing else"

    tables = project.path / "results/soaked/tables"
    runs = rows(tables / "soak.csv")
    assert [run["run"] for run in runs] == soaks(project)[late]
    starts, ends = ([float(run[name]) for run in runs] for name in ("start_s", "end_s"))
    assert starts[0] == 0 and starts[-1] < 15 and all(a < b for a, b in zip(ends, starts[1:], strict=False))
    for run in runs:
        assert run["device_kind"] == "emulated" and float(run["temperature_end.cpu"]) > 20
        assert run["clock_source"] in ("gauge", "time in state") and float(run["clock_mhz.policy0"]) > 0
        for column in ("tokens_per_second", "power_w", "energy_j"):
            assert run[column] or f"{column}: " in run["reason"]
    summary = {row["quantity"]: row for row in rows(tables / "soak_summary.csv")}
    assert summary["cut_short"]["value"] == "1" and int(summary["runs"]["value"]) == len(runs)
    assert all(row["value"] or row["note"] for row in summary.values()), "NA always has a reason"
    figure = (project.path / "results/soaked/figures/soak.svg").read_text()
    assert "EMULATED PHONE" in figure and "Decoding, tokens/s" in figure

    again = project.snakemake("soak", experiment="soaked")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout[-2000:]

    everything = project.snakemake("all", experiment="soaked")
    assert everything.returncode == 0, everything.stdout[-3000:]
    page = (project.path / "results/soaked/report/index.html").read_text()
    assert '<section id="soak">' in page and "measure_soak" in page
    ordinary = project.raw_runs("measured")
    assert len(ordinary) == 2 and set(soaks(project)) == {early, late}
    keys = {name.split("/")[0] for name in ordinary}
    assert not keys & {name.split("/")[0] for names in soaks(project).values() for name in names}


def test_an_experiment_without_a_soak_says_what_to_write(project: Project) -> None:
    done = project.snakemake("soak")
    assert done.returncode != 0
    assert (
        "the experiment micro asks for no soak" in done.stdout and "soak: {duration_s: 1800}" in done.stdout
    )
    assert "Traceback" not in done.stdout

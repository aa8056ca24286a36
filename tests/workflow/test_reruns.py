"""What reruns after a change, and what never does: a measurement is made once."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import time
from collections import Counter

import pytest

from .conftest import Project

pytestmark = pytest.mark.slow


def test_a_second_run_has_nothing_to_do(finished: Project) -> None:
    done = finished.snakemake("all")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout


@pytest.mark.parametrize(
    ("path", "old", "new", "stage"),
    [
        ("workflow/pocketvlm/analyse/phases.py", '"""', '"""Mended. ', "parse_block"),
        ("workflow/pocketvlm/analyse/gates.py", '"""', '"""Mended. ', "judge_block"),
        ("workflow/pocketvlm/weights/cost.py", '"""', '"""Mended. ', "compute_bounds"),
        ("config/config.yaml", "resamples: 2000", "resamples: 1999", "aggregate_tables"),
    ],
)
def test_code_and_thresholds_after_the_measurement_measure_nothing(
    rerun: Project, path: str, old: str, new: str, stage: str
) -> None:
    before = rerun.raw_runs(None)
    file = rerun.path / path
    file.write_text(file.read_text().replace(old, new, 1))
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout[-3000:]
    assert stage in done.stdout
    assert "measure_block" not in done.stdout
    assert "measure_peaks" not in done.stdout
    assert rerun.raw_runs(None) == before


def test_a_log_line_of_the_measurement_measures_nothing(rerun: Project) -> None:
    before = rerun.raw_runs(None)
    rerun.edit("workflow/pocketvlm/measure/block.py", "nothing to measure", "nothing is to be measured")
    script = rerun.path / "workflow/scripts/measure_block.py"
    script.write_text(script.read_text() + "# a remark\n")
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "measure_block" in done.stdout, "the stage's own script changed: the job runs, its runs do not"
    assert rerun.raw_runs(None) == before


def test_a_caption_draws_the_report_only(rerun: Project) -> None:
    before = rerun.raw_runs(None)
    template = next((rerun.path / "workflow/report").glob("*.j2"))
    template.write_text(template.read_text() + "<!-- another caption -->\n")
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "render_report" in done.stdout
    assert "parse_block" not in done.stdout
    assert rerun.raw_runs(None) == before


def test_building_the_same_bytes_again_measures_nothing(
    rerun: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = rerun.raw_runs(None)
    empty = tmp_path_factory.mktemp("cache")
    rerun.environment["SNAKEMAKE_OUTPUT_CACHE"] = str(empty)
    done = rerun.snakemake("all", "--forcerun", "build_probe")
    assert done.returncode == 0, done.stdout[-3000:]
    assert any(empty.iterdir()), "the probe came from a cache instead of the compiler"
    assert "measure_block" in done.stdout
    assert rerun.raw_runs(None) == before


def new_runs(project: Project, before: dict[str, dict[str, object]]) -> Counter[str]:
    """How many measured runs each cell has that it had not before."""
    return Counter(str(run["cell"]) for run in project.index() if run["run"] not in before)


def test_a_setting_measures_exactly_its_cell(rerun: Project) -> None:
    before = rerun.raw_runs()
    rerun.edit("config/experiments/micro.yaml", "batch: 512", "batch: 256")
    assert rerun.snakemake("all").returncode == 0
    assert list(new_runs(rerun, before).values()) == [2]
    assert "Q8_0" in next(iter(new_runs(rerun, before)))
    assert set(before) < set(rerun.raw_runs())


def test_a_byte_of_a_workload_measures_exactly_its_cells(rerun: Project) -> None:
    before = rerun.raw_runs()
    path = rerun.path / "config/workloads/other.yaml"
    text = path.read_text()
    assert "prompt:" in text
    head, prompt = text.split("prompt:", 1)
    letter = next(i for i, c in enumerate(prompt) if c.isalpha())
    path.write_text(f"{head}prompt:{prompt[:letter]}{prompt[letter].swapcase()}{prompt[letter + 1 :]}")
    assert rerun.snakemake("all").returncode == 0
    assert list(new_runs(rerun, before).values()) == [2]
    assert "Q8_0" in next(iter(new_runs(rerun, before)))


def test_another_probe_measures_every_cell(rerun: Project) -> None:
    before = rerun.raw_runs()
    source = next(
        path
        for path in sorted((rerun.path / "workflow/probe").glob("*.[ch]"))
        if "PROBE_VERSION" in path.read_text()
    )
    text = source.read_text()
    line = next(line for line in text.splitlines() if "PROBE_VERSION" in line and '"' in line)
    source.write_text(text.replace(line, line.replace('"', '"9', 1), 1))
    assert rerun.snakemake("all").returncode == 0
    assert sorted(new_runs(rerun, before).values()) == [2, 2]


def test_remeasure_measures_on_purpose_and_keeps_the_old(rerun: Project) -> None:
    before = rerun.raw_runs()
    done = rerun.snakemake("remeasure")
    assert done.returncode == 0, done.stdout[-3000:]
    assert sorted(new_runs(rerun, before).values()) == [2, 2]
    assert set(before) < set(rerun.raw_runs())
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "measure_block" not in done.stdout
    assert "parse_block" in done.stdout


@pytest.mark.parametrize("finished_runs", [0, 1, 3])
def test_a_killed_workflow_loses_at_most_the_run_in_flight(rerun: Project, finished_runs: int) -> None:
    shutil.rmtree(rerun.path / "results/raw")
    shutil.rmtree(rerun.path / "results/micro")
    process = rerun.start("all")
    deadline = time.monotonic() + 300
    while len(rerun.raw_runs()) < finished_runs or not (rerun.path / "results/raw").exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = rerun.raw_runs()
    assert len(kept) >= finished_runs
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout[-3000:]
    after = rerun.raw_runs()
    assert {name: after[name] for name in kept} == kept
    assert sorted(Counter(str(run["cell"]) for run in rerun.index()).values()) == [2, 2]
    assert len(after) == 4
    assert list((rerun.path / "results/raw/.drafts").iterdir()) == []


def intervals(project: Project) -> list[tuple[int, int]]:
    """When each run of a project's raw store began and ended, microseconds of the kernel's clock."""
    found = []
    for path in (project.path / "results/raw").glob("*/*/probe.json"):
        record = json.loads(path.read_text())
        found.append((record["start_us"], record["end_us"]))
    return found


def test_two_workflows_at_once_never_measure_at_the_same_time(
    rerun: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = rerun.copy(tmp_path_factory.mktemp("other"))
    for project in (rerun, other):
        shutil.rmtree(project.path / "results/raw")
        shutil.rmtree(project.path / "results/micro")
    processes = [project.start("all") for project in (rerun, other)]
    for process in processes:
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out[-3000:]
    spans = sorted(intervals(rerun) + intervals(other))
    assert len(spans) == 2 * 7
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_second_workflow_in_the_same_folder_is_refused(rerun: Project) -> None:
    shutil.rmtree(rerun.path / "results/raw")
    shutil.rmtree(rerun.path / "results/micro")
    first = rerun.start("all")
    while not (rerun.path / "results/raw").exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = rerun.snakemake("all")
    assert second.returncode != 0
    assert str(first.pid) in second.stdout
    out, _ = first.communicate(timeout=600)
    assert first.returncode == 0, out[-3000:]


def test_another_version_of_a_framework_lists_its_own_stages_and_what_follows(rerun: Project) -> None:
    path = rerun.path / "config/experiments/micro.yaml"
    head, last = path.read_text().rsplit('"0.3.16"', 1)
    path.write_text(f'{head}"0.3.36"{last}')
    done = rerun.snakemake("all", "-n")
    assert done.returncode == 0, done.stdout[-3000:]
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    own = {name: jobs.pop(name, None) for name in ("fetch_source", "build_framework", "measure_block")}
    assert own == {"fetch_source": "1", "build_framework": "1", "measure_block": "1"}
    assert "results/sources/llama.cpp-0.3.36.tar.gz" in done.stdout
    before = {
        *("build_probe", "build_peaks", "identify_device", "measure_peaks"),
        *("synthesise_weights", "quantise_model", "audit_published"),
    }
    assert jobs and not before & set(jobs), "neither weights nor the probe nor the device change"

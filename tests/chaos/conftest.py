"""The finished project that every fault starts from, and the table at the end."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from pocketvlm.measure.state import journal
from tests.chaos.checks import rows
from tests.chaos.fault import FAULTS, Survived, table
from tests.chaos.scene import DEVICE, EXPERIMENT, TABLE, Scene
from tests.experiments import cell_text, experiment_text
from tests.project import Project, checkout

# The name under which a test's report carries its row of the table; the report may come from another process.
_ROW = "survived"

# A question of a few words and a short answer: the run is there to be disturbed, not to be measured.
_WORKLOAD = """\
image: coffee.png
image_position: first
prompt: What is on the table?
max_tokens: 16
ignore_eos: true
temperature: 0
seed: 1
"""

# What is set on the phone for the block, and must be as before when all is over.
_STATE = "state: {airplane_mode: true, brightness: 90, screen_timeout_ms: 600000, governor: performance}\n"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each fault at its first point, or at all of them."""
    if "fault" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-points")
        cases = [(each, point) for each in FAULTS for point in (each.points if every else each.points[:1])]
        names = [f"{each.name}-{point}".replace(" ", "_") for each, point in cases]
        metafunc.parametrize(("fault", "point"), cases, ids=names)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table of the faults, or print it."""
    reports = terminalreporter.getreports("passed")
    kept = [value for report in reports for name, value in report.user_properties if name == _ROW]
    if not kept:
        return
    survived = [Survived(**row) for row in kept]
    file = config.getoption("--chaos-report")
    if file:
        Path(file).write_text(table(survived))
        return
    terminalreporter.section("faults")
    terminalreporter.write(table(survived))


@pytest.fixture
def survived(record_property: Callable[[str, object], None]) -> Callable[[Survived], None]:
    """Return what adds a row to the table."""
    return lambda row: record_property(_ROW, asdict(row))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project in which the experiment has run to its tables; its phone is a folder of its own."""
    project = checkout(tmp_path_factory.mktemp("whole"))
    cell = cell_text(device=DEVICE, workload="brief")
    text = experiment_text("one run, for faults", cell, repeats=1).replace("cells:", f"{_STATE}cells:")
    (project.path / f"config/experiments/{EXPERIMENT}.yaml").write_text(text)
    (project.path / "config/workloads/brief.yaml").write_text(_WORKLOAD)
    device = f"config/devices/{DEVICE}.yaml"
    shutil.copy2(project.path / "config/devices/emulated-phone.yaml", project.path / device)
    project.edit(device, "id: emulated-phone", f"id: {DEVICE}")
    project.edit(device, 'folder: "{cache}/emulated-phone"', "folder: phone")
    # A device that answers nothing for so long counts as stopped.
    project.edit(device, "host_cores: true", "host_cores: true\nroot: true\nstall_seconds: 4")
    done = project.snakemake(TABLE, experiment=EXPERIMENT)
    assert done.returncode == 0, done.stdout[-4000:]
    return project


@pytest.fixture(scope="session")
def names(whole: Project) -> set[tuple[str, str]]:
    """Phase and metric of every row of the table where nothing went wrong."""
    return {(row["phase"], row["metric"]) for row in rows(Scene(whole))}


@pytest.fixture
def scene(whole: Project, tmp_path: Path) -> Iterator[Scene]:
    """A copy in which nothing was measured, and nothing is on the phone."""
    project = whole.copy(tmp_path)
    for path in (project.path / f"results/{EXPERIMENT}").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
    for folder in ("results/raw", "results/logs"):
        shutil.rmtree(project.path / folder)
    (project.path / "phone/data/local").rename(project.path / "phone/.local")
    scene = Scene(project)
    yield scene
    scene.mend()
    scene.close()
    scene.leave()
    scene.gone()
    # A fault that was not survived must not be given back to the next phone of this name.
    for left in journal.folder().glob("*.json"):
        if str(json.loads(left.read_text())["device"]["id"]) == DEVICE:
            left.unlink()

"""The real graph on an emulated phone that is hot: it waits, is refused, or its runs are marked."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.experiments import cell_text, experiment_text

from .conftest import Project, checkout

pytestmark = [pytest.mark.slow, pytest.mark.phone]

LIMIT = 50.0


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A working copy with a phone of its own in a cold room, and nothing measured yet."""
    project = checkout(tmp_path_factory.mktemp("heat"))
    project.edit(
        "config/devices/emulated-phone.yaml", '"{cache}/emulated-phone"', str(project.path / "phone")
    )
    project.edit("config/devices/emulated-phone.yaml", "ambient_celsius: 25", "ambient_celsius: -15")
    return project


def experiment(project: Project, heat: str) -> None:
    text = experiment_text("a hot phone", cell_text(device="emulated-phone"), repeats=1, warmups=1)
    adaptive = "warmups: {least: 1, most: 2, cv_percent: 0.001, window: 2}"
    text = text.replace("warmups: 1", f"heat: {heat}\n{adaptive}")
    (project.path / "config/experiments/hot.yaml").write_text(text)


def heat_up(project: Project, celsius: float) -> None:
    """Let the phone begin its next lease with this case and battery, whenever that is."""
    temperatures = dict.fromkeys(("cpu", "gpu", "pmic", "skin", "battery"), celsius)
    # As if saved in the future: no time has gone by since, in which it would have cooled.
    state = {"format": 1, "saved_at": time.time() + 3600, "temperatures": temperatures, "charge": 10_000.0}
    (project.path / "phone").mkdir(exist_ok=True)
    (project.path / "phone/state.json").write_text(json.dumps(state))


def log_of(project: Project) -> str:
    return (project.path / "results/logs/hot.measure_block.emulated-phone.log").read_text()


def test_a_phone_that_stays_hot_is_refused_at_the_deadline(phone: Project) -> None:
    experiment(phone, "{skin_celsius: -30, deadline_s: 2, at_deadline: refuse}")
    done = phone.snakemake("all", experiment="hot")
    assert done.returncode != 0
    assert re.search(
        r"emulated-phone is not cool enough to begin: skin -?[\d.]+ degC, at most -30", done.stdout
    )
    assert "at_deadline: continue" in done.stdout
    assert phone.raw_runs(None) == {}


def test_it_waits_until_the_phone_is_cool_and_goes_on(phone: Project) -> None:
    experiment(phone, f"{{skin_celsius: {LIMIT}, above_first_k: 1, deadline_s: 300, at_deadline: refuse}}")
    heat_up(phone, LIMIT + 3)
    done = phone.snakemake("all", experiment="hot")
    assert done.returncode == 0, done.stdout[-4000:]
    runs = sorted(phone.raw_runs(None).values(), key=lambda meta: int(str(meta["position"])))
    assert [meta["role"] for meta in runs] == ["idle", "warmup", "warmup", "measured"]
    heat = [meta["heat"] for meta in runs]
    assert heat[0]["waited_s"] > 2
    first = heat[0]["first"]
    assert first["skin"] <= LIMIT
    for each in heat:
        assert each["hot"] is None
        assert each["first"] == first
        assert each["temperatures"]["skin"] <= LIMIT + 1
    assert runs[3]["warmups"]["made"] == 2
    log = log_of(phone)
    assert "waiting for emulated-phone to cool: skin 5" in log
    assert "is cool after" in log
    cells = pd.read_csv(phone.path / "results/hot/tables/cells.csv").set_index(["phase", "metric"])
    assert cells.loc[("run", "duration"), "n"] == 1
    assert cells.loc[("run", "start_hot"), "median"] == 0
    assert cells.loc[("run", "warmups_made"), "median"] == 2
    assert cells.loc[("run", "warmups_cv"), "median"] > 0


def test_or_its_runs_are_marked_and_withheld(phone: Project) -> None:
    experiment(phone, "{skin_celsius: -30, deadline_s: 0, at_deadline: continue}")
    done = phone.snakemake("all", "verify", experiment="hot")
    assert done.returncode == 0, done.stdout[-4000:]
    (run,) = [entry["run"] for entry in phone.index("hot", "emulated-phone")]
    meta = phone.raw_runs()[str(run)]
    assert str(meta["heat"]["hot"]).startswith("it began hot: skin ")  # type: ignore[index]
    cells = pd.read_csv(phone.path / "results/hot/tables/cells.csv").set_index(["phase", "metric"])
    assert cells.loc[("run", "duration"), "n"] == 0
    assert cells.loc[("run", "duration"), "gate"] == meta["heat"]["hot"]  # type: ignore[index]
    assert cells.loc[("run", "start_hot"), "median"] == 1
    page = Path(phone.path / "results/hot/report/index.html").read_text()
    assert "it began hot: skin" in page

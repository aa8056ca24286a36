"""A framework that is an Android app, all the way on the emulated phone: a recorded app stands in for one."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from tests.apps import recorded
from tests.experiments import cell_text, experiment_text
from tests.project import Project, checkout

pytestmark = pytest.mark.phone

OVERLAY = "config/own/frameworks.yaml"


def write_app(project: Project, table: dict[str, Any], apk: bytes) -> None:
    folder = (project.path / OVERLAY).parent
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pocketchat.apk").write_bytes(apk)
    (project.path / OVERLAY).write_text(yaml.safe_dump(table, sort_keys=False))


def write_experiment(project: Project, name: str, *, deadline_s: int = 60) -> None:
    cell = cell_text(
        device="emulated-phone",
        framework=recorded.FRAMEWORK,
        version=f'"{recorded.VERSION}"',
        workload="picture",
        settings="{}",
    )
    text = experiment_text("a recorded app on the emulated phone", cell, repeats=1, deadline_s=deadline_s)
    (project.path / f"config/experiments/{name}.yaml").write_text(text)
    workload = {
        "image": "coffee.png", "image_position": "first", "prompt": recorded.PROMPT, "max_tokens": 64,
        "ignore_eos": False, "temperature": 0, "seed": 1,
    }  # fmt: skip
    (project.path / "config/workloads/picture.yaml").write_text(yaml.safe_dump(workload))


def start(project: Project, *words: str, experiment: str = "app") -> tuple[int, str]:
    done = project.snakemake(*words, experiment=experiment)
    return done.returncode, done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("app")
    project = checkout(folder)
    device = yaml.safe_load((project.path / "config/devices/emulated-phone.yaml").read_text())
    device["emulated"]["folder"] = str(folder / "results/phone")
    device["battery"]["calibration_s"] = 3
    (project.path / "config/devices/emulated-phone.yaml").write_text(yaml.safe_dump(device))
    project.edit(
        "config/config.yaml",
        "  frameworks: config/frameworks.yaml\n",
        f"  frameworks: config/frameworks.yaml\n  frameworks_overlay: {OVERLAY}\n",
    )
    apk = recorded.archive()
    write_app(project, recorded.table(apk), apk)
    write_experiment(project, "app")
    status, out = start(project, "all", "pack")
    assert status == 0, out[-6000:]
    return project


def metrics(project: Project) -> pd.DataFrame:
    return pd.read_parquet(project.path / "results/app/tables/runs.parquet").set_index(["phase", "metric"])


def test_time_of_interaction_is_in_no_phase_and_no_total(measured: Project) -> None:
    rows = metrics(measured)
    run = str(rows["run"].iloc[0])
    phases = pd.read_parquet(measured.path / "results/app/records/emulated-phone/phases.parquet")
    mine = phases[phases["run"] == run].sort_values("start_us")
    assert list(mine["phase"]) == [
        "interaction", "load", "interaction", "text_prefill", "decode", "interaction",
    ]  # fmt: skip
    lengths = (mine["end_us"] - mine["start_us"]).groupby(mine["phase"]).sum() / 1e3
    probe = json.loads((measured.path / "results/raw" / run / "probe.json").read_text())
    assert abs(lengths.sum() - (probe["end_us"] - probe["start_us"]) / 1e3) <= 1
    value = rows["value"]
    assert value["run", "duration"] == pytest.approx(lengths.sum() - lengths["interaction"], abs=0.01)
    assert value["run", "interaction_time"] == pytest.approx(lengths["interaction"], abs=0.01)
    before = lengths["load"] + lengths["text_prefill"]
    assert value["run", "time_to_first_token"] == pytest.approx(before, abs=0.01)
    # The recorded app takes 1.5, 1.5 and 2 s; what lies between are the taps, some of a second each.
    assert 1400 < lengths["load"] < 4000
    assert 1900 < value["decode", "duration"] < 4500
    if pd.isna(value["load", "duration"]):
        # On a machine that is busy with other things a tap takes longer than a tenth of so short a load.
        assert "s only: taps and looks" in rows["reason"]["load", "duration"]
    else:
        assert value["load", "duration"] == pytest.approx(lengths["load"], abs=0.01)


def test_what_cannot_be_seen_is_na_with_the_reason(measured: Project) -> None:
    rows = metrics(measured)
    for phase in ("text_prefill", "image_encode", "image_prefill"):
        assert pd.isna(rows.loc[(phase, "duration"), "value"])
        assert "does not show where" in rows.loc[(phase, "duration"), "reason"]
    assert pd.isna(rows.loc[("run", "reported.total"), "value"])
    assert "shows no time.total" in rows.loc[("run", "reported.total"), "reason"]


def test_the_apps_own_numbers_and_answer_reach_the_tables(measured: Project) -> None:
    value = metrics(measured)["value"]
    assert value["decode", "reported_rate.decode"] == 12.0
    assert value["run", "reported_rate.prompt_eval"] == 402.6
    assert value["decode", "tokens"] == 24
    assert value["load", "reported.load"] == 1490
    answers = pd.read_parquet(measured.path / "results/app/records/emulated-phone/answers.parquet")
    assert (
        answers["text"].iloc[0].startswith("A cup of coffee on a wooden table. <b>I am sure</b> & calm &amp;")
    )
    page = (measured.path / "results/app/report/index.html").read_text()
    assert "<b>I am sure" not in page and "I am sure" in page
    assert recorded.FRAMEWORK in page


def test_the_sensors_of_the_workload_are_the_apps(measured: Project) -> None:
    value = metrics(measured)["value"]
    assert value["decode", "workload_cpu"] > 10, "the recorded app is busy while it answers"
    assert value["run", "rss_peak"] > 0


def test_the_script_was_followed_and_nothing_of_it_is_left(measured: Project) -> None:
    phone = measured.path / "results/phone"
    assert (phone / f"data/activity/typed/{recorded.PACKAGE}").read_text() == recorded.PROMPT
    assert not list((phone / "sdcard").rglob("*.png"))
    assert not (phone / f"data/activity/running/{recorded.PACKAGE}").exists()
    (meta,) = measured.raw_runs().values()
    inputs = meta["key_inputs"]
    assert isinstance(inputs, dict)
    assert inputs["app"]["variables"]["prompt"] == recorded.PROMPT
    assert "statistics" not in inputs["app"]
    assert "app.jsonl" in meta["files"]  # type: ignore[operator]


def test_the_experiment_can_be_sent_without_the_app(measured: Project) -> None:
    with tarfile.open(measured.path / "results/app/app.pocketvlm.tar.gz") as archive:
        names = archive.getnames()
    assert any(name.endswith("/app.jsonl") for name in names)
    assert not any(name.endswith(".apk") for name in names)


def test_mending_a_pattern_measures_nothing_and_finds_the_number(measured: Project) -> None:
    apk = recorded.archive()
    table = recorded.table(apk)
    recorded.app(table)["statistics"]["time.total"] = {
        "from": "stats",
        "pattern": r"load: (\S+) s",
        "unit": "s",
    }
    write_app(measured, table, apk)
    before = set(measured.raw_runs(None))
    status, out = start(measured, "results/app/tables/runs.parquet")
    assert status == 0, out[-4000:]
    assert set(measured.raw_runs(None)) == before
    assert metrics(measured)["value"]["run", "reported.total"] == 1490


def test_a_view_that_is_not_there_ends_it_with_the_step_and_the_last_screen(measured: Project) -> None:
    apk = recorded.archive()
    table = recorded.table(apk)
    recorded.app(table)["script"]["run"][0] = {"tap": {"id": "no_such_button"}, "timeout_s": 0.5}
    write_app(measured, table, apk)
    write_experiment(measured, "failing")
    status, out = start(measured, "results/failing/tables/runs.parquet", experiment="failing")
    assert status != 0
    assert "tap id='no_such_button'" in out and "script.run.0" in out
    assert "the screen shows: Pocket Chat" in out
    assert "Traceback" not in out
    (kept,) = [path for path in measured.path.glob("results/failed/*/*") if path.is_dir()]
    assert "Pocket Chat" in (kept / "last-screen.xml").read_text()
    assert Path(kept / "app.jsonl").is_file()

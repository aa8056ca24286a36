"""The state of the emulated phone: set for a block, in each run's record, given back; also after a kill."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from pocketvlm.devices.locks import host_lock
from pocketvlm.measure.state import journal
from tests.experiments import cell_text, experiment_text
from tests.workflow.conftest import Project

pytestmark = pytest.mark.phone

STATE = {
    "airplane_mode": True,
    "brightness": 30,
    "animation_scale": 0,
    "governor": "performance",
    "max_frequency_percent": 50,
    "charging": False,
}
OPEN = """
import time
from pathlib import Path
from pocketvlm.config.schema import load_yaml
from pocketvlm.measure.block import hold
from pocketvlm.measure.state import in_state
config = load_yaml(Path("config/devices/kept-phone.yaml"), "device")
with hold(config, Path("results")):
    pass
"""
# A block that sets the state, says so, and never comes to its end.
SET = """
state = load_yaml(Path("config/experiments/kept.yaml"), "experiment")["state"]
with (
    hold(config, Path("results")) as device,
    in_state(device, state, config=config, results=Path("results")) as held,
):
    held.before_run()
    print(sorted(held.after_run()["state"]["set"]), flush=True)
    time.sleep(600)
"""


def kept_phone(project: Project, name: str = "kept-phone", like: str = "emulated-phone-rooted") -> Path:
    """Give the project a phone and an experiment that wants its state; return the phone's folder."""
    folder = project.path / f"phone of {name}"
    config = yaml.safe_load((project.path / f"config/devices/{like}.yaml").read_text())
    config["id"] = name
    config["emulated"] |= {"folder": str(folder), "charger_connected": True}
    (project.path / f"config/devices/{name}.yaml").write_text(yaml.safe_dump(config))
    return folder


def experiment(project: Project, *devices: str) -> None:
    cells = [cell_text(device=device) for device in devices]
    text = experiment_text("a phone that is kept in a state", *cells, repeats=1, deadline_s=300)
    path = project.path / "config/experiments/kept.yaml"
    path.write_text(text + yaml.safe_dump({"state": STATE}))


def settings(folder: Path) -> dict[str, str]:
    """Every setting, governor, limit and switch of a phone."""
    files = [
        *(folder / "data/settings").rglob("*"),
        *(folder / "sys").glob("**/cpufreq/policy*/scaling_[gm]*"),
        folder / "sys/class/power_supply/battery/input_suspend",
    ]
    return {
        str(path.relative_to(folder)): path.read_text().strip("\0\n ") for path in files if path.is_file()
    }


def test_the_next_command_of_any_kind_undoes_a_killed_block(project):
    folder = kept_phone(project)
    experiment(project, "kept-phone")
    command = ["env", f"PYTHONPATH={project.path / 'workflow'}", sys.executable, "-c"]
    # Nothing runs yet: the phone's own settings, once it has been up.
    subprocess.run([*command, OPEN], cwd=project.path, check=True, timeout=300)
    before = settings(folder)
    block = subprocess.Popen([*command, OPEN + SET], cwd=project.path, stdout=subprocess.PIPE, text=True)
    assert block.stdout is not None
    assert block.stdout.readline().strip() == str(sorted(STATE))
    assert settings(folder)["data/settings/global/airplane_mode_on"] == "1"
    block.send_signal(signal.SIGKILL)
    block.wait()
    block.stdout.close()
    with host_lock(deadline=60):
        pass
    time.sleep(2)
    left = settings(folder)
    assert left != before
    assert left["data/settings/system/screen_brightness"] == "30"
    [waiting] = journal.folder().glob("kept-phone-*.json")
    # Another experiment, which does not even use this phone, and a dry run at that.
    done = project.snakemake("-n", experiment="local")
    assert done.returncode == 0, done.stdout
    assert "kept-phone has its settings back" in done.stdout
    assert settings(folder) == before
    assert not waiting.exists()
    assert not (folder / "data/local/tmp/pocketvlm" / journal.NAME).exists()


def test_what_was_set_and_what_was_not_is_in_the_records_and_the_tables(project):
    rooted = kept_phone(project)
    plain = kept_phone(project, "plain-phone", "emulated-phone")
    experiment(project, "kept-phone", "plain-phone")
    done = project.snakemake("all", experiment="kept")
    assert done.returncode == 0, done.stdout
    states = {}
    for meta in project.raw_runs(role=None).values():
        states.setdefault(meta["key_inputs"]["device"]["id"], []).append(meta["state"])
    assert len(states["kept-phone"]) == len(states["plain-phone"]) == 2
    for state in states["kept-phone"]:
        assert set(state["set"]) == set(STATE)
        assert state["unmet"] == {}
        assert "power_not_clean" not in state
    for state in states["plain-phone"]:
        assert set(state["unmet"]) == {"governor", "max_frequency_percent", "charging"}
        assert "status is Charging" in state["power_not_clean"]
        assert state["unmet"]["governor"].startswith("needs root")
        assert state["set"]["airplane_mode"] is True
    for folder in (rooted, plain):
        now = settings(folder)
        assert now["data/settings/global/airplane_mode_on"] == "0"
        assert now["data/settings/system/screen_brightness"] != "30"
        assert all("performance" not in value for name, value in now.items() if name.startswith("sys/"))
    with (project.path / "results/kept/tables/cells.csv").open(newline="") as stream:
        rows = {(row["device"], row["phase"], row["metric"]): row for row in csv.DictReader(stream)}
    assert rows["kept-phone", "decode", "tokens_per_second"]["n"] == "1"
    withheld = rows["plain-phone", "decode", "tokens_per_second"]
    assert withheld["n"] == "0"
    assert "not as wanted (governor): needs root" in withheld["gate"]
    assert rows["plain-phone", "decode", "tokens"]["n"] == "1"
    assert "needs root" in rows["plain-phone", "run", "unmet.governor"]["gate"]
    assert project.snakemake("verify", experiment="kept").returncode == 0
    page = (project.path / "results/kept/report/index.html").read_text()
    assert "governor: performance wanted, {policy0: schedutil" in page
    assert "met in 0 of 1 runs; needs root" in page

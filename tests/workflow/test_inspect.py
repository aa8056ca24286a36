"""`snakemake inspect` as it really runs: this machine, and emulated phones with gauges of other makers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config.schema import validate
from tests.browser import opened
from tests.project import ROOT, Project

PHONE = yaml.safe_load((ROOT / "config/devices/emulated-phone.yaml").read_text())


def read(project: Project, device: str, name: str) -> Any:
    return json.loads((project.path / f"results/devices/{device}/{name}.json").read_text())


def add_phone(project: Project, name: str, battery: dict[str, Any], gauge: dict[str, Any]) -> None:
    """Give the project another emulated phone, with a folder of its own."""
    emulated = {**PHONE["emulated"], "folder": str(project.path / name)}
    if gauge:
        emulated["gauge"] = gauge
    device = {**PHONE, "id": name, "battery": {**PHONE["battery"], **battery}, "inspect_s": 2}
    file = project.path / f"config/devices/{name}.yaml"
    file.write_text(yaml.safe_dump({**device, "emulated": emulated}))
    validate(yaml.safe_load(file.read_text()), "device", where=str(file))


def inspect(project: Project, device: str) -> str:
    with project.start("inspect", config=(f"device={device}",)) as process:
        said, _ = process.communicate(timeout=900)
    assert process.returncode == 0, said[-4000:]
    return said


def test_this_machine_is_inspected_and_loses_no_time_to_a_battery(project, browser):
    inspect(project, "local")
    profile, identity = read(project, "local", "profile"), read(project, "local", "identity")
    if not any(sensor["quantity"] == "current" for sensor in identity["sensors"]):
        assert read(project, "local", "calibration")["seconds"] == 0
    assert [each["name"] for each in profile["sensors"]] == [each["name"] for each in identity["sensors"]]
    stat = next(each for each in profile["sensors"] if each["name"] == "cpu.total.user")
    assert stat["permission"]["mode"].startswith("-r--r--r--")
    assert stat["reads"] > 10
    assert profile["missing"] and all(lack["reason"] for lack in profile["missing"])
    assert profile["inspection"]["seconds"] >= profile["inspection"]["watched_s"] > 2
    assert profile["fingerprint"]["storage"]["free_bytes"] > 0
    page = project.path / "results/devices/local/profile.html"
    for width, scheme in ((1400, "light"), (1400, "dark"), (380, "light")):
        with opened(browser, page, width=width, scheme=scheme) as (shown, seen):
            assert shown.evaluate("document.documentElement.scrollWidth") <= width
            assert len(seen.requests) == 1 and seen.messages == [] and seen.dialogs == []
            assert shown.locator("#sensors tbody tr").count() == len(profile["sensors"])
    # A profile is a record: nothing measured depends on it, and what is there is not looked for again.
    with project.start("inspect", "-n", config=("device=local",)) as process:
        assert "Nothing to be done" in process.communicate(timeout=300)[0]


def test_a_device_that_is_not_known_is_refused_with_the_names_of_those_that_are(project):
    with project.start("inspect", config=("device=emulated-phne",)) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "emulated-phne" in said and "emulated-phone" in said and "Traceback" not in said


@pytest.mark.phone
@pytest.mark.parametrize(
    ("name", "gauge", "scale"),
    [
        ("gauge-milli", {"current_unit": "mA", "current_sign": "discharging_positive"}, 1e-3),
        ("gauge-alone", {"current_sign": "discharging_positive", "charge_counter": False}, 1e-6),
    ],
    ids=["milliampere and positive", "positive and no counter"],
)
def test_a_gauge_that_breaks_the_kernels_rules_is_found_out(project, name, gauge, scale):
    add_phone(project, name, {}, gauge)
    inspect(project, name)
    calibration, identity = read(project, name, "calibration"), read(project, name, "identity")
    assert calibration["current_scale"] == scale, calibration["reason"]
    (current,) = [sensor for sensor in identity["sensors"] if sensor["quantity"] == "current"]
    assert current["scale"] == scale
    shown = {sensor["name"]: sensor for sensor in read(project, name, "profile")["sensors"]}
    assert 0.05 < shown["battery.current"]["sample"] < 5
    assert shown["gpu.busy"]["asked_ms"] == 10


@pytest.mark.phone
def test_a_devices_file_that_contradicts_the_evidence_leaves_power_out(project):
    add_phone(project, "gauge-wrong", {"current_scale": 1e-3}, {})
    said = inspect(project, "gauge-wrong")
    assert "the battery's current is uncalibrated, so power is NA" in said
    identity = read(project, "gauge-wrong", "identity")
    assert not [sensor for sensor in identity["sensors"] if sensor["quantity"] == "current"]
    (reason,) = [lack["reason"] for lack in identity["missing"] if lack["quantity"] == "current"]
    assert reason == ("uncalibrated: the device's file says 0.001 A for a unit, and an experiment -1e-06")
    page = (project.path / "results/devices/gauge-wrong/profile.html").read_text()
    assert "uncalibrated" in page and "power and energy of the battery are NA" in page
    assert "power, energy" in page
    assert Path(project.path / "results/devices/gauge-wrong/calibration.json").stat().st_size > 500

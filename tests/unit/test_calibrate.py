"""What a battery's current means, found in series as phones of several makers would give them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pocketvlm.devices import calibrate
from pocketvlm.devices.calibrate import Sample, analyse
from pocketvlm.devices.identify import calibration_of, identify
from pocketvlm.devices.local import LocalDevice
from pocketvlm.provenance import canonical_json

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config/devices/local.yaml").read_text())


def series(
    *,
    unit: float = 1e-6,
    sign: int = -1,
    idle: float = 0.35,
    load: float = 1.4,
    external: float = 0.0,
    noise: float = 0.01,
    counter: Callable[[float], float | None] = lambda coulomb: 3_000_000 - coulomb / 3.6e-3,
    status: str = "Discharging",
    part: int = 20,
) -> list[Sample]:
    """Return what a phone shows that draws `idle` and `load` ampere, of which a cable gives `external`.

    Args:
        unit: ampere for one unit of current_now; sign: of discharging.
        counter: what the charge counter says after so much charge has left, in As.
        part: samples a phase.
    """
    rolled = random.Random(7)
    samples, left = [], 0.0
    for number in range(3 * part):
        phase = "load" if part <= number < 2 * part else "idle"
        amperes = (load if phase == "load" else idle) - external
        left += amperes * 0.1
        shown = sign * (amperes + rolled.gauss(0, noise)) / unit
        samples.append(Sample(100 + number * 0.1, phase, round(shown), 3.9e6, counter(left), status))
    return samples


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("unit", "name"), [(1e-6, "uA"), (1e-3, "mA")])
@pytest.mark.parametrize("external", [0.0, 2.5], ids=["on its battery", "on a cable"])
def test_unit_and_sign_are_found_by_step_and_counter(unit, name, sign, external):
    status = "Charging" if external else "Discharging"
    findings = analyse(series(unit=unit, sign=sign, external=external, status=status))
    assert (findings.unit, findings.sign, findings.moved) == (name, sign, True)
    assert findings.scale == sign * unit
    assert findings.reason == ""


def test_a_counter_that_stands_still_leaves_the_step_and_its_size():
    for counter in (lambda _: 3_000_000.0, lambda _: None):
        findings = analyse(series(unit=1e-3, sign=1, counter=counter))
        assert findings.scale == 1e-3
        assert not findings.moved
    assert "no charge counter" in findings.counter


def test_a_coarse_counter_is_held_against_the_current_between_its_edges():
    def coarse(coulomb: float) -> float:
        return 3_000_000 - coulomb / 3.6e-3 // 250 * 250

    findings = analyse(series(counter=coarse, part=40))
    assert findings.moved
    assert findings.scale == -1e-6


@pytest.mark.parametrize(
    ("counter", "told"),
    [
        (lambda coulomb: 3_000_000 + coulomb / 3.6e-3, "positive and uA by the charge counter"),
        (lambda coulomb: 3_000_000 - coulomb / 3.6, "and in no known unit by the charge counter"),
        (lambda coulomb: 3_000_000 - coulomb / 3.6e-6, "negative and mA by the charge counter"),
        (lambda coulomb: 3_000_000 - 5 * coulomb / 3.6e-3, "in no known unit by the charge counter"),
    ],
    ids=["counts the other way", "a thousandth", "a thousandfold", "five times too fast"],
)
def test_a_counter_that_contradicts_leaves_no_scale_and_both_findings(counter, told):
    findings = analyse(series(counter=counter, part=80))
    assert findings.scale is None
    assert len(findings.conflict) == 2
    assert all(each in findings.reason for each in findings.conflict)
    assert told in findings.told
    assert "negative while discharging by a step of load" in findings.told


def test_a_status_of_discharging_contradicts_a_current_of_the_other_sign():
    """A gauge that tells no sign, on a cable that a faked status hides."""
    findings = analyse(series(sign=1, external=2.5, counter=lambda _: None))
    assert findings.scale is None
    assert "the status was Discharging" in findings.reason
    assert "another sign by the status" in findings.told


def test_noise_is_no_step():
    findings = analyse(series(idle=0.5, load=0.5, noise=0.3, counter=lambda _: None))
    assert findings.scale is None
    assert "no more than its noise" in findings.reason
    assert findings.told == "no step under load, uA by its size, nothing by the charge counter"


def test_a_drift_is_no_step():
    drifting = [
        replace(sample, current=-300_000.0 - 20_000 * number, charge=None)
        for number, sample in enumerate(series())
    ]
    assert analyse(drifting).scale is None


def test_a_current_too_small_or_too_large_for_a_device_has_no_unit():
    for factor in (1e-5, 20.0, 500.0):
        samples = [
            replace(sample, current=(sample.current or 0) * factor, charge=None)
            for sample in series(unit=1e-6, noise=0.001)
        ]
        findings = analyse(samples)
        assert findings.scale is None, factor
        assert "absurd" in findings.reason or "none that a device draws" in findings.reason


def test_absurd_values_are_told_as_such():
    findings = analyse([replace(sample, current=-2_147_483_648.0) for sample in series()])
    assert findings.scale is None
    assert findings.told == "current_now says absurd values"


def test_a_current_that_is_always_zero_means_nothing():
    findings = analyse([replace(sample, current=0.0) for sample in series()])
    assert findings.scale is None
    assert "current_now was 0 while the charge counter moved" in findings.reason


@pytest.mark.parametrize("kept", [0, 3])
def test_too_few_readings_are_told_as_such(kept):
    samples = [
        sample if number % 20 < kept else replace(sample, current=None)
        for number, sample in enumerate(series())
    ]
    findings = analyse(samples)
    assert findings.scale is None
    assert findings.told == "current_now could not be read often enough"
    assert ("nothing in 60 looks" in findings.reason) is (kept == 0)
    assert analyse([]).scale is None


def test_an_outlier_changes_nothing():
    samples = series()
    samples[25] = replace(samples[25], current=9_999_999.0)
    samples[3] = replace(samples[3], current=0.0)
    assert analyse(samples).scale == -1e-6


def test_a_battery_that_charges_and_discharges_by_turns_is_judged_by_the_step():
    findings = analyse(series(external=0.7, status="Charging"))
    assert not findings.moved
    assert findings.scale == -1e-6


def test_two_rounds_are_one_series():
    first = series(part=15)
    later = [replace(sample, t_s=sample.t_s + 100) for sample in series(part=15)]
    assert analyse([*first, *later]).scale == -1e-6


def test_what_the_recorder_prints_is_read_and_anything_else_left_out():
    printed = (
        "1.50\tidle\t-401000\t3900000\t3000000\tDischarging\nsh: oops\n1.60\tload\t\tn/a\t\t\n"
        "x\tidle\t1\t1\t1\tFull\n1.7\tother\t1\t1\t1\tFull\n1.8\tidle\tinf\t1\t1\tFull\n"
    )
    assert calibrate.parse(printed) == [
        Sample(1.5, "idle", -401000.0, 3900000.0, 3000000.0, "Discharging"),
        Sample(1.6, "load", None, None, None, None),
        Sample(1.8, "idle", None, 1.0, 1.0, "Full"),
    ]


@pytest.fixture
def phone(tmp_path: Path) -> LocalDevice:
    """This machine with a battery whose files stand still."""
    root = tmp_path / "a phone's root"
    supply = root / "sys/class/power_supply/battery"
    supply.mkdir(parents=True)
    for name, content in {
        "type": "Battery",
        "current_now": "-401000",
        "voltage_now": "3900000",
        "charge_counter": "3000000",
        "status": "Discharging",
    }.items():
        (supply / name).write_text(content + "\n")
    device = LocalDevice("phone", tmp_path / "device")
    device.sysfs_root = str(root)
    return device


def test_the_recorder_really_reads_the_files_and_loads_the_cores(phone):
    calibration = calibration_of(phone, {**CONFIG, "battery": {"calibration_s": 3}})
    phases = [line.split()[1] for line in calibration["samples"]]
    assert phases == ["idle"] * 10 + ["load"] * 10 + ["idle"] * 10
    assert {line.split(" ", 2)[2] for line in calibration["samples"]} == {
        "-401000.0 3900000.0 3000000.0 Discharging"
    }
    assert calibration["current_scale"] is None
    assert calibration["told"] == "no step under load, uA by its size, nothing by the charge counter"
    identity = identify(phone, CONFIG, calibration)
    reasons = {lack["quantity"]: lack["reason"] for lack in identity["missing"]}
    assert reasons["current"] == f"uncalibrated: {calibration['told']}"
    assert canonical_json(identity) == canonical_json(identify(phone, CONFIG, calibration))


def answering(monkeypatch: pytest.MonkeyPatch, samples: list[Sample]) -> list[int]:
    """Let the recorder find these samples, a third of them each time; return what counts its rounds."""
    rounds: list[int] = []

    def parse(_: str) -> list[Sample]:
        rounds.append(1)
        return samples

    monkeypatch.setattr("pocketvlm.devices.calibrate.run", lambda *_: "")
    monkeypatch.setattr("pocketvlm.devices.calibrate.parse", parse)
    return rounds


def test_what_the_devices_file_says_is_held_against_the_evidence(phone, monkeypatch):
    answering(monkeypatch, series(unit=1e-3, sign=1))
    for claimed, scale in ((1e-3, 1e-3), (None, 1e-3), (-1e-6, None)):
        battery = {} if claimed is None else {"current_scale": claimed}
        calibration = calibration_of(phone, {**CONFIG, "battery": battery})
        assert calibration["current_scale"] == scale
    assert calibration["told"] == "the device's file says -1e-06 A for a unit, and an experiment 0.001"
    assert "load moved current_now" in calibration["reason"]


def test_a_counter_that_does_not_move_is_awaited_until_the_deadline(phone, monkeypatch):
    rounds = answering(monkeypatch, series(counter=lambda _: 1.0))
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr("pocketvlm.devices.calibrate.time.monotonic", lambda: next(clock))
    assert calibration_of(phone, {**CONFIG, "battery": {"calibration_s": 30}})["current_scale"] == -1e-6
    assert len(rounds) == 5
    moving = answering(monkeypatch, series())
    assert calibration_of(phone, CONFIG)["current_scale"] == -1e-6
    assert len(moving) == 1


def test_without_a_battery_nothing_is_done(tmp_path, monkeypatch):
    device = LocalDevice("local", tmp_path)
    device.sysfs_root = str(tmp_path / "nothing")
    monkeypatch.setattr("pocketvlm.devices.calibrate.run", lambda *_: pytest.fail("the device was kept busy"))
    calibration = calibration_of(device, CONFIG)
    assert calibration["current_scale"] is None
    assert calibration["samples"] == []
    assert calibration["reason"] == "no current of a battery can be read"

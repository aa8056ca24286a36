"""Runs begin on a cool device: waiting, its deadline, and sensors that cannot be believed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.devices.base import Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError, TransientDeviceError
from pocketvlm.measure.heat import HeatGate, Thermometer, campaign_first, heat_gate, shaping
from pocketvlm.measure.jobs import Job, idle_job
from pocketvlm.measure.store import RawStore
from pocketvlm.provenance import write_json

ZONES = {
    "thermal.cpu-0-0": ("cpu.cpu-0-0", 0.001),
    "thermal.cpu-0-1": ("cpu.cpu-0-1", 0.001),
    "thermal.gpuss-0": ("gpu.gpuss-0", 0.001),
    "thermal.skin": ("skin.skin", 0.001),
    "battery.temp": ("battery.power_supply", 0.1),
    "thermal.modem": ("other.modem", 0.001),
}
LIMITS = {"cpu_celsius": 45, "battery_celsius": 35, "deadline_s": 120, "at_deadline": "refuse"}


def identity(*without: str, folder: str = "/sys") -> dict[str, Any]:
    """A device with the zones above, but for some."""
    return {
        "sensors": [
            {"name": name, "path": f"{folder}/{name}", "quantity": "temperature", "component": component,
             "scale": scale}
            for name, (component, scale) in ZONES.items()
            if name not in without
        ]
    }  # fmt: skip


class Kettle:
    """A device whose zones say what functions of the time say, and a clock that its waits drive."""

    id = "pixel"
    root = False

    def __init__(self, **zones: str | Callable[[float], str]) -> None:
        cool = {"cpu-0-0": "40000", "cpu-0-1": "40100", "gpuss-0": "39000", "skin": "31000", "temp": "300"}
        self.zones = {
            **cool,
            "modem": "99000",
            **{name.replace("_", "-"): say for name, say in zones.items()},
        }
        self.now = 0.0
        self.reads = 0
        self.naps: list[float] = []

    def shell(self, argv: list[str], timeout: float) -> Result:
        """Answer with a line for each file."""
        self.reads += 1
        assert argv[:2] == ["sh", "-c"]
        says = [self.zones[path.split(".")[-1]] for path in argv[4:]]
        return Result(0, "".join(f"{say if isinstance(say, str) else say(self.now)}\n" for say in says), "")

    def sleep(self, seconds: float) -> None:
        """Let time go by."""
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds

    def gate(self, wanted: dict[str, Any], first: dict[str, float] | None = None, *without: str) -> HeatGate:
        """The gate before its runs."""
        thermometer = Thermometer(self, identity(*without))  # type: ignore[arg-type]
        return HeatGate(thermometer, wanted, first, clock=lambda: self.now, sleep=self.sleep)


def falling(start: float, rate: float, floor: float = 30.0, scale: float = 1000) -> Callable[[float], str]:
    """A zone that loses `rate` kelvin a second down to `floor`."""
    return lambda now: str(round(scale * max(floor, start - rate * now)))


def test_a_cool_device_is_not_waited_for_and_its_temperatures_are_kept():
    device = Kettle()
    record = device.gate(LIMITS).wait("run 1")
    assert record == {
        "temperatures": {"cpu": 40.1, "gpu": 39.0, "skin": 31.0, "battery": 30.0},
        "first": {"cpu": 40.1, "gpu": 39.0, "skin": 31.0, "battery": 30.0},
        "missing": {},
        "waited_s": 0.0,
        "hot": None,
    }
    assert device.reads == 1


def test_a_hot_device_is_waited_for_until_its_hottest_zone_is_cool(caplog):
    caplog.set_level("INFO")
    device = Kettle(cpu_0_1=falling(60, 0.5))
    record = device.gate(LIMITS).wait("run 1")
    assert record["temperatures"]["cpu"] == 45.0
    assert record["waited_s"] == 30.0
    assert record["hot"] is None
    assert (
        "waiting for pixel to cool: cpu 60.0 degC, at most 45.0 degC (0 s waited, 120 s left)" in caplog.text
    )
    assert "cpu 55.0 degC, at most 45.0 degC (10 s waited, 110 s left)" in caplog.text
    assert "pixel is cool after 30 s: cpu 45.0 degC" in caplog.text
    assert len(caplog.records) == 4, "a line each ten seconds, not each second"


@pytest.mark.parametrize(("zone", "kind"), [("gpuss_0", "gpu"), ("temp", "battery"), ("cpu_0_0", "cpu")])
def test_each_class_is_waited_for(zone, kind):
    scale = 10 if zone == "temp" else 1000
    device = Kettle(**{zone: falling(70, 1, scale=scale)})
    record = device.gate(LIMITS).wait("run 1")
    assert record["waited_s"] == {"gpu": 25, "battery": 35, "cpu": 25}[kind]


def test_a_class_without_a_limit_is_not_waited_for():
    device = Kettle(skin=falling(60, 0.1))
    assert device.gate(LIMITS).wait("run 1")["waited_s"] == 0
    assert device.gate({**LIMITS, "skin_celsius": 55}).wait("run 1")["waited_s"] > 0


def test_back_at_the_first_temperature_is_cool_enough_whatever_the_limit():
    first = {"cpu": 48.0, "gpu": 39.0, "skin": 31.0, "battery": 30.0}
    device = Kettle(cpu_0_1=falling(60, 1))
    assert device.gate({**LIMITS, "above_first_k": 2}, first).wait("run 2")["waited_s"] == 10
    device = Kettle(cpu_0_1=falling(60, 1))
    assert device.gate(LIMITS, first).wait("run 2")["waited_s"] == 15, "not asked for, not enough"
    # A class that has no limit must come back to where it was.
    device = Kettle(skin=falling(40, 1))
    assert device.gate({**LIMITS, "above_first_k": 2}, first).wait("run 2")["waited_s"] == 7


def test_an_experiment_that_begins_hot_is_no_excuse_for_itself():
    device = Kettle(cpu_0_1=falling(60, 1))
    gate = device.gate({**LIMITS, "above_first_k": 2})
    assert gate.wait("run 1")["first"]["cpu"] == 45.0
    device.zones["cpu-0-1"] = "46900"
    assert gate.wait("run 2")["hot"] is None
    device.zones["cpu-0-1"] = "47100"
    with pytest.raises(DeviceError):
        gate.wait("run 3")


def test_a_marked_run_is_no_beginning():
    device = Kettle(cpu_0_1="60000")
    gate = device.gate({**LIMITS, "above_first_k": 2, "at_deadline": "continue", "deadline_s": 1})
    assert set(gate.wait("run 1")["first"].values()) == {None}
    assert gate.wait("run 2")["hot"] is not None, "as hot as before is still hot"
    device.zones["cpu-0-1"] = "44000"
    assert gate.wait("run 3")["first"]["cpu"] == 44.0


def test_where_the_shell_may_be_root_the_sensors_are_read_as_root_and_told_once():
    device = Kettle(cpu_0_1=falling(60, 1))
    asked: list[list[str]] = []

    def as_root(argv: list[str]) -> list[str]:
        asked.append(argv)
        return ["su", *argv]

    shell, device.root, device.as_root = device.shell, True, as_root  # type: ignore[attr-defined]
    device.shell = lambda argv, timeout: shell(argv[1:], timeout)  # type: ignore[method-assign]
    assert device.gate(LIMITS).wait("run 1")["waited_s"] == 15
    assert len(asked) == 1


def test_the_deadline_refuses_with_what_where_and_what_to_do():
    device = Kettle(temp="412")
    with pytest.raises(DeviceError) as caught:
        device.gate(LIMITS).wait("run 3 of 9, measured: cell")
    assert not isinstance(caught.value, TransientDeviceError), "a retry would wait as long again"
    assert "pixel is not cool enough to begin: battery 41.2 degC, at most 35.0 degC" in caught.value.what
    assert "battery.temp has not moved for" in caught.value.what, "it was stuck, and that is said"
    assert caught.value.where == "run 3 of 9, measured: cell"
    assert "at_deadline: continue" in caught.value.do
    assert 120 <= device.now < 121
    assert device.reads < 100, "long waits look less often"


def test_or_goes_on_and_marks_the_run():
    device = Kettle(cpu_0_0=falling(80, 0.1))
    record = device.gate({**LIMITS, "at_deadline": "continue"}).wait("run 1")
    assert record["hot"] == "it began hot: cpu 68.0 degC, at most 45.0 degC, after a wait of 120 s"
    assert record["temperatures"]["cpu"] == 68.0


@pytest.mark.parametrize(
    ("says", "told"),
    [
        ("", "cannot be read"),
        ("n/a", "says 'n/a'"),
        ("-273000", "which cannot be"),
        ("187000", "which cannot be"),
        ("0", "as a zone does that is off"),
        ("9" * 30, "says"),
    ],
)
def test_what_is_no_temperature_is_said_never_cool_and_never_a_hang(says, told):
    device = Kettle(temp=says)
    with pytest.raises(DeviceError, match="battery not known") as caught:
        device.gate({**LIMITS, "deadline_s": 3600}).wait("run 1")
    assert told in caught.value.what
    assert device.now <= 31, "it will hardly mend itself: nobody waits an hour for it"
    device = Kettle(temp=says)
    record = device.gate({**LIMITS, "at_deadline": "continue"}).wait("run 1")
    assert record["temperatures"]["battery"] is None
    assert told in record["missing"]["battery"]
    assert "battery not known" in record["hot"]


def test_a_zone_that_is_unreadable_for_a_moment_is_waited_for():
    device = Kettle(temp=lambda now: "" if now < 5 else "300")
    assert device.gate(LIMITS).wait("run 1")["waited_s"] == 5


def test_the_other_zones_stand_for_one_that_is_off(caplog):
    caplog.set_level("INFO")
    device = Kettle(cpu_0_0="-40000")
    gate = device.gate(LIMITS)
    assert gate.wait("run 1")["temperatures"]["cpu"] == 40.1
    gate.wait("run 2")
    assert caplog.text.count("thermal.cpu-0-0 says -40.0 degC") == 1


def test_a_device_that_says_something_else_is_not_cool():
    device = Kettle()
    device.shell = lambda argv, timeout: Result(0, "39000\n", "")  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="cpu not known"):
        device.gate(LIMITS).wait("run 1")


def test_a_device_without_sensors_is_recorded_as_such(caplog):
    device = Kettle()
    record = device.gate(LIMITS, None, *ZONES).wait("run 1")
    assert device.reads == 0
    assert record["temperatures"] == dict.fromkeys(("cpu", "gpu", "skin", "battery"))
    assert record["missing"]["battery"] == "the device has no sensor of it"
    assert (record["hot"], record["waited_s"]) == (None, 0.0)
    assert "no temperature sensor of its battery" in caplog.text


def ran(folder: Path, changes: int, seconds: int = 8, reads: int = 80) -> Path:
    """A run in which the zones changed so often."""
    folder.mkdir(exist_ok=True)
    counts = {name: {"reads": reads, "unreadable": 0, "changes": changes} for name in ZONES}
    record = {"start_us": 0, "end_us": seconds * 1_000_000, "sensors": counts}
    (folder / "probe.json").write_text(json.dumps(record))
    return folder


def test_a_processor_that_does_not_warm_through_a_run_is_not_believed(tmp_path):
    device = Kettle()
    gate = device.gate(LIMITS)
    gate.ran(ran(tmp_path, 12))
    assert gate.wait("run 2")["hot"] is None
    gate.ran(ran(tmp_path, 0, seconds=2))
    gate.ran(ran(tmp_path, 0, reads=5))
    assert gate.wait("run 3")["hot"] is None, "too short, or read too rarely, to tell"
    gate.ran(ran(tmp_path, 0))
    with pytest.raises(DeviceError, match=r"cpu not known \(thermal.cpu-0-1 did not move through the run"):
        gate.wait("run 4")
    device.zones["cpu-0-1"] = "40200"
    assert gate.wait("run 5")["hot"] is None, "it moves again"


def test_without_heat_nothing_is_asked():
    device = Kettle()
    assert heat_gate(device, identity(), {}, None, []) is None  # type: ignore[arg-type]
    assert device.reads == 0


def test_the_limits_are_part_of_the_key_and_an_experiment_without_keeps_its_own(tmp_path):
    write_json(tmp_path / "manifest.json", {})
    plain = idle_job({"id": "pixel"}, tmp_path, 3)
    assert "heat" not in plain.key_inputs
    assert idle_job({"id": "pixel"}, tmp_path, 3, {}).key == plain.key
    assert idle_job({"id": "pixel"}, tmp_path, 3, {"heat": shaping(LIMITS)}).key != plain.key


def test_the_limits_shape_a_run_and_the_patience_does_not():
    assert shaping({}) == {}
    assert shaping({**LIMITS, "above_first_k": 1}) == {
        "above_first_k": 1,
        "battery_celsius": 35,
        "cpu_celsius": 45,
    }


def test_the_first_temperature_is_that_of_the_earliest_run_that_counts(tmp_path):
    store = RawStore(tmp_path)
    jobs = [Job(("a",), {}, {"cell": name}) for name in ("a", "b")]
    assert campaign_first(store, jobs) is None

    def add(job: Job, started: str, cpu: float | None) -> None:
        with store.draft() as draft:
            (draft / "run").mkdir()
            heat = {"first": {"cpu": cpu, "skin": None}}
            store.add(draft / "run", job.key_inputs, {"started": started, "position": 1, "heat": heat})

    add(jobs[0], "2025-12-31T00:00:00Z", None)
    assert campaign_first(store, jobs) is None, "a marked run"
    add(jobs[0], "2026-01-02T00:00:00Z", 41.0)
    add(jobs[1], "2026-01-01T00:00:00Z", 39.5)
    assert campaign_first(store, jobs) == {"cpu": 39.5}
    assert campaign_first(store, jobs[:1]) == {"cpu": 41.0}
    for job in jobs:
        store.set_aside(job.key)
    assert campaign_first(store, jobs) is None, "measured anew, it begins anew"


def test_the_command_reads_real_files(tmp_path):
    """By the shell of this machine: no line end, no file, a folder, and names that must be quoted."""
    folder = tmp_path / "a 'b'; $(touch x)"
    folder.mkdir()
    for name in ZONES:
        (folder / name).write_text("38500" if name.startswith("thermal.cpu") else "290\nmore\n")
    (folder / "thermal.cpu-0-0").unlink()
    (folder / "thermal.skin").unlink()
    (folder / "thermal.skin").mkdir()
    device = LocalDevice("local", tmp_path / "there")
    reading = Thermometer(device, identity(folder=str(folder))).read()
    assert reading.temperatures == {"cpu": 38.5, "gpu": 0.29, "battery": 29.0}
    assert reading.unknown == {"skin": "thermal.skin cannot be read"}

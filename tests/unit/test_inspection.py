"""The close look at a device: what is read out of the probe's record and the device's words, and its page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError
from pocketvlm.inspection import metrics
from pocketvlm.inspection.fingerprint import describe, parse, permissions
from pocketvlm.inspection.page import amperes, rate, render, sample
from pocketvlm.inspection.rates import summarise, watched

TEMPLATES = Path(__file__).parents[2] / "workflow/report"


def sensor(name: str, quantity: str, group: str, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "group": group,
        "path": f"{{sysfs_root}}/sys/{name}",
        "select": "first",
        "quantity": quantity,
        "component": "gpu",
        "unit": "%",
        "scale": 1.0,
        "kind": "gauge",
        **others,
    }


IDENTITY: dict[str, Any] = {
    "model": "Maker Phone",
    "soc": "SM8650",
    "os": "Android 14",
    "kernel": "6.1",
    "cpus": 8,
    "memory_bytes": 12 << 30,
    "groups": {"gpu": {"period_ms": 100}, "battery": {"period_ms": 1000}, "clock": {"period_ms": 50}},
    "sensors": [
        sensor("gpu.busy", "gpu_busy", "gpu"),
        sensor("gpu.clock", "gpu_frequency", "gpu", unit="Hz"),
        sensor("battery.current", "current", "battery", component="battery", unit="A", scale=-1e-6),
        sensor("battery.status", "battery_status", "battery", unit="text", scale=None, select="text"),
        sensor("clock.a", "time_in_state", "clock", component="policy0.300000", unit="s", scale=0.01),
    ],
    "missing": [
        {"quantity": "temperature", "component": "skin.quiet", "reason": "/sys/z/temp cannot be read"},
        {"quantity": "npu_busy", "component": "npu", "reason": "no node of an NPU's load is known here"},
    ],
}


def test_the_gpus_load_is_asked_every_10_ms_and_nothing_less_often_than_100():
    found = watched(IDENTITY, {"sysfs_root": "/phone"})
    assert found["groups"] == {
        "gpu": {"period_ms": 100},
        "battery": {"period_ms": 100},
        "clock": {"period_ms": 50},
        "gpu_busy": {"period_ms": 10},
    }
    assert found["sensors"][0]["group"] == "gpu_busy"
    assert found["sensors"][0]["path"] == "/phone/sys/gpu.busy"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """The record of two seconds: the GPU's load holds its value for 500 ms, its clock stands still."""
    counts = {each["name"]: {"reads": 20, "unreadable": 0, "changes": 0} for each in IDENTITY["sensors"]}
    counts["gpu.busy"] = {"reads": 200, "unreadable": 0, "changes": 3}
    counts["battery.current"] = {"reads": 20, "unreadable": 20, "changes": 0}
    told = {"start_us": 0, "end_us": 2_000_000, "sensors": counts}
    (tmp_path / "probe.json").write_text(json.dumps(told))
    busy = [f"{t * 10_000},{t // 50 + 3}" for t in range(200)]
    (tmp_path / "gpu_busy.csv").write_text("\n".join(["t_us,gpu.busy", *busy]) + "\n")
    (tmp_path / "gpu.csv").write_text("t_us,gpu.clock\n0,585000000\n100000,585000000\n")
    (tmp_path / "battery.csv").write_text("t_us,battery.current\n0,\n100000,\n")
    (tmp_path / "clock.csv").write_text("t_us,clock.a\n0,100\n100000,110\n")
    (tmp_path / "events.jsonl").write_text(
        '{"t_us":1,"event":"start","pid":2}\n'
        '{"t_us":1,"event":"text","sensor":"battery.status","value":"Full"}\n'
    )
    return tmp_path


def test_rates_are_those_at_which_values_really_change(recorded):
    seconds, seen = summarise(watched(IDENTITY, {}), recorded)
    assert seconds == 2.0
    assert seen["gpu.busy"] | {"sample": None, "raw": None} == {
        "sample": None,
        "raw": None,
        "reads": 200,
        "unreadable": 0,
        "changes": 3,
        "changes_per_s": 1.5,
        "interval_ms": 500.0,
    }
    assert seen["gpu.clock"]["changes_per_s"] is None
    assert seen["gpu.clock"]["sample"] == 585e6
    assert seen["battery.current"]["sample"] is None
    assert seen["battery.status"]["sample"] == "Full"
    assert seen["clock.a"]["sample"] == pytest.approx(1.1)
    listed = {each["name"]: {**each, **seen[each["name"]]} for each in IDENTITY["sensors"]}
    assert [rate(listed[name]) for name in ("gpu.busy", "gpu.clock", "battery.current")] == [
        "1.50",
        "never",
        "not read",
    ]
    assert sample(listed["gpu.clock"]) == "585 MHz"
    assert sample(listed["battery.current"]) == "could not be read"


def test_a_record_that_is_not_complete_is_an_error(recorded):
    (recorded / "probe.json").write_text("{}")
    with pytest.raises(DeviceError, match="not complete: KeyError"):
        summarise(watched(IDENTITY, {}), recorded)


PRINTED = """\
cluster.policy4.related_cpus\t4 5 6
cluster.policy4.cpuinfo_max_freq\t2918400
cluster.policy4.cpuinfo_min_freq\t499200
cluster.policy0.related_cpus\t0 1
cluster.policy0.scaling_governor\twalt
cluster.policy10.related_cpus\t10
battery.cycle_count\t212
battery.charge_full\t5321000
battery.charge_full_design\t5500000
battery.capacity\t
dumpsys.level\t81
dumpsys.health\t2
gpu.kgsl\tAdreno750v2
selinux.mode\tEnforcing
uid\t2000
su\t
swap\t4194300
storage\t/dev/block/dm-5 of mine 234000000 100 120000000 48% /data
nonsense
; rm -rf /\tx
"""


def test_what_a_phone_says_of_itself_becomes_its_fingerprint():
    found = describe(IDENTITY, parse(PRINTED), {"ro.build.display.id": "CPH2645_14"})
    assert [cluster["policy"] for cluster in found["clusters"]] == ["policy0", "policy4", "policy10"]
    assert found["clusters"][1]["max_khz"] == 2_918_400
    assert found["clusters"][0]["governor"] == "walt"
    assert found["clusters"][0]["max_khz"] is None
    assert found["battery"] == {
        "health": "Good",
        "technology": None,
        "status": None,
        "cycles": 212,
        "level_percent": 81,
        "full_mah": 5321.0,
        "design_mah": 5500.0,
    }
    assert found["storage"] == {"bytes": 234_000_000 * 1024, "free_bytes": 120_000_000 * 1024}
    assert found["root"] == {"uid": 2000, "su": None, "used": False}
    assert (found["gpu"], found["selinux"]) == ("Adreno750v2", "Enforcing")
    assert (found["build_id"], found["swap_bytes"]) == ("CPH2645_14", 4_194_300 * 1024)
    nothing = describe(IDENTITY, {}, {})
    assert nothing["battery"] is None and nothing["storage"] is None and nothing["clusters"] == []


def test_permissions_are_told_for_whatever_name_a_file_has(tmp_path):
    file = tmp_path / "a 'file' $(touch x); with; a name"
    file.write_text("1")
    file.chmod(0o640)
    found = permissions(LocalDevice("local", tmp_path / "device"), [str(file), str(tmp_path / "none")])
    assert set(found) == {str(file)}
    assert found[str(file)]["mode"] == "-rw-r-----"
    assert ":" in found[str(file)]["owner"]
    assert not (tmp_path / "device/x").exists() and not Path("x").exists()


def rows(of: list[metrics.Row]) -> dict[str, tuple[str | None, str | None]]:
    return {row.metric: (row.unrooted, row.rooted) for row in of}


def test_metrics_by_permission_of_one_phone_looked_at_twice():
    rooted = {
        **IDENTITY,
        "root": True,
        "sensors": [
            *IDENTITY["sensors"],
            sensor("t", "temperature", "thermal", component="skin.quiet"),
            sensor("v", "voltage", "battery", component="battery"),
        ],
        "snapshots": {"gpu_work": ["dumpsys", "gpu", "--gpuwork"]},
    }
    found = rows(metrics.compare(IDENTITY, rooted))
    assert found["gpu_busy"] == (None, None)
    assert found["temperature.skin"] == ("/sys/z/temp cannot be read", None)
    assert found["power, energy"] == ("no sensor of voltage", None)
    assert found["gpu_time_workload, gpu_time_screen"] == ("the device has no `dumpsys gpu --gpuwork`", None)
    alone = rows(metrics.outlook(IDENTITY))
    assert alone["temperature.skin"][1] == "perhaps: the file is there and denied"
    assert alone["npu_busy"][0] == alone["npu_busy"][1] == "no node of an NPU's load is known here"
    assert rows(metrics.outlook(rooted))["gpu_busy"] == ("not looked at", None)
    table = metrics.markdown(metrics.compare(IDENTITY, rooted))
    assert "| temperature.skin | NA: /sys/z/temp cannot be read | yes |" in table


def test_energy_of_rapl_is_power_without_a_battery():
    laptop = {"sensors": [sensor("r", "energy", "rapl", component="rapl.package-0")], "missing": []}
    assert metrics.yields(laptop)["power, energy"] is None


def profile(text: str) -> dict[str, Any]:
    """A profile in which every text that a device gives is this one."""
    seen = {
        "reads": 2,
        "unreadable": 0,
        "changes": 0,
        "changes_per_s": None,
        "interval_ms": None,
        "asked_ms": 100,
    }
    listed = [
        {**each, "permission": {"mode": text, "owner": text}, **seen, "sample": text, "component": text}
        for each in IDENTITY["sensors"]
    ]
    told = describe({**IDENTITY, "model": text, "os": text, "kernel": text}, parse(PRINTED), {})
    return {
        "format": 1,
        "device": "phone",
        "kind": "phone",
        "notice": text,
        "taken": "2026-01-01T00:00:00Z",
        "fingerprint": {**told, "selinux": text, "build": text},
        "sensors": [{**each, "path": text, "name": text} for each in listed],
        "missing": [{"quantity": text, "component": text, "reason": text, "permission": None}],
        "snapshots": ["gpu_work"],
        "current": {
            "current_scale": None,
            "configured": -1e-6,
            "reason": text,
            "findings": {"step": text, "counter": text, "size": text},
            "seconds": 6.0,
        },
        "metrics": [{"metric": "gpu_busy", "unrooted": text, "rooted": None}],
        "inspection": {"watched_s": 6.0, "calibration_s": 6.0, "seconds": 12.0},
    }


def test_the_page_escapes_whatever_a_device_says(tmp_path):
    page = tmp_path / "profile.html"
    hostile = "</style><script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202eevil" + "x" * 5000
    render(profile(hostile), templates=TEMPLATES, destination=page)
    text = page.read_text()
    assert "<script" not in text and "<img" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "\x1b" not in text and "\u202e" not in text
    assert len(text) < 200_000
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in text
    assert text.count("</style>") == 1


def test_the_page_says_what_is_uncalibrated(tmp_path):
    page = tmp_path / "profile.html"
    render(profile("plain"), templates=TEMPLATES, destination=page)
    text = page.read_text()
    assert "uncalibrated" in text and "power and energy of the battery are NA" in text
    assert "\u22121 µA for a unit" in text


@pytest.mark.parametrize(
    ("scale", "text"), [(-1e-6, "\u22121 µA"), (1e-3, "1 mA"), (0.5, "0.5 A"), (-1e-3, "\u22121 mA")]
)
def test_a_scale_is_told_in_words(scale, text):
    assert amperes(scale) == text

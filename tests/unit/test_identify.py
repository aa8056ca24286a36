"""What a device is found to be: this machine, and phones of several makers as their files stand there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from pocketvlm.devices.identify import expand, identify, parse, stable
from pocketvlm.devices.local import LocalDevice
from pocketvlm.devices.sensors import Found, component_of, find
from pocketvlm.errors import DeviceError
from pocketvlm.measure import sensorlist
from pocketvlm.provenance import canonical_json

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config/devices/local.yaml").read_text())
KGSL = "/sys/class/kgsl/kgsl-3d0"
CALIBRATED = {"current_scale": -1e-6, "told": None}


def find_in(**files: str | None) -> dict[str, dict[str, object]]:
    sensors = find(Found(files, 4096, 100, -1e-6))
    return {sensor["name"]: sensor for sensor in sensors.used} | {
        f"missing {lack['quantity']} {lack['component']}": lack for lack in sensors.missing
    }


@pytest.fixture
def phone(tmp_path: Path) -> LocalDevice:
    """This machine with another root for `sys`: a phone's files."""
    root = tmp_path / "root of a phone"
    files = {
        "class/thermal/thermal_zone0/type": "cpu-1-0",
        "class/thermal/thermal_zone0/temp": "45200",
        "class/thermal/thermal_zone2/type": "cpu-1-0",
        "class/thermal/thermal_zone2/temp": "45300",
        "class/thermal/thermal_zone10/type": "quiet therm!",
        "class/thermal/thermal_zone10/temp": "31000",
        "class/thermal/thermal_zone3/type": "modem-cfg",
        "class/thermal/thermal_zone3/temp": "-40000",
        "class/thermal/thermal_zone4/type": "battery",
        "class/thermal/thermal_zone4/temp": "289",
        "class/power_supply/battery/current_now": "-401000",
        "class/power_supply/battery/status": "Discharging",
        "class/kgsl/kgsl-3d0/gpu_busy_percentage": "4 %",
        "devices/system/cpu/cpufreq/policy4/scaling_cur_freq": "1804800",
    }
    for name, content in files.items():
        path = root / "sys" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    device = LocalDevice("phone", tmp_path / "device")
    device.sysfs_root = str(root)
    return device


def test_this_machine_is_identified_and_its_sensor_list_is_one(tmp_path):
    device = LocalDevice("local", tmp_path)
    identity = identify(device, CONFIG)
    assert identity["kind"] == "local"
    assert identity["notice"] is None
    assert identity["cpus"] >= 1
    assert identity["memory_bytes"] > 1e8
    assert identity["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    names = {sensor["name"] for sensor in identity["sensors"]}
    assert {"cpu.total.user", "cpu.0.idle", "mem.available", "proc.utime", "proc.rss"} <= names
    assert {sensor["group"] for sensor in identity["sensors"]} == set(identity["groups"])
    assert canonical_json(identify(device, CONFIG)) == canonical_json(identity)
    assert str(tmp_path) not in canonical_json(identity)
    local = {
        **identity,
        "sensors": [{**s, "path": s["path"].replace("{sysfs_root}", "")} for s in identity["sensors"]],
    }
    assert sensorlist.text(local).startswith("pocketvlm-sensors\t1\n")


def test_a_phones_files_become_sensors_below_its_root(phone, tmp_path):
    identity = identify(phone, CONFIG, CALIBRATED)
    sensors = {sensor["name"]: sensor for sensor in identity["sensors"]}
    assert sensors["thermal.cpu-1-0"]["path"] == "{sysfs_root}/sys/class/thermal/thermal_zone0/temp"
    assert sensors["thermal.cpu-1-0.2"]["path"] == "{sysfs_root}/sys/class/thermal/thermal_zone2/temp"
    assert sensors["thermal.quiet_therm_"]["component"] == "skin.quiet therm!"
    assert sensors["thermal.battery"]["scale"] == 0.1
    assert sensors["freq.policy4"]["scale"] == 1000.0
    assert sensors["battery.current"]["scale"] == -1e-6
    assert sensors["battery.status"]["select"] == "text"
    assert sensors["proc.utime"]["path"] == "/proc/{pid}/stat"
    missing = {(lack["quantity"], lack["component"]): lack["reason"] for lack in identity["missing"]}
    assert "says '-40000'" in missing["temperature", "other.modem-cfg"]
    assert missing["voltage", "battery"].endswith("voltage_now is not there")
    assert "gpu_frequency" in {quantity for quantity, _ in missing}
    assert str(tmp_path) not in canonical_json(identity)
    calibration = {"current_scale": 1e-3, "told": None}
    again = {sensor["name"]: sensor for sensor in identify(phone, CONFIG, calibration)["sensors"]}
    assert again["battery.current"]["scale"] == 1e-3


@pytest.mark.parametrize(
    ("calibration", "reason"),
    [
        (None, "uncalibrated: nobody has looked what it means"),
        ({"current_scale": None, "told": "no step under load"}, "uncalibrated: no step under load"),
    ],
)
def test_a_current_whose_meaning_is_not_known_is_missing_and_nothing_is_assumed(phone, calibration, reason):
    identity = identify(phone, CONFIG, calibration)
    assert not [sensor for sensor in identity["sensors"] if sensor["quantity"] == "current"]
    assert {"quantity": "current", "component": "battery", "reason": reason} in identity["missing"]


def test_another_temperature_is_the_same_identity(phone):
    before = canonical_json(identify(phone, CONFIG))
    for name, value in (("thermal/thermal_zone0/temp", "81900"), ("power_supply/battery/current_now", "12")):
        Path(phone.sysfs_root, "sys/class", name).write_text(value)
    assert canonical_json(identify(phone, CONFIG)) == before


def test_a_part_that_sleeps_is_the_same_device(phone):
    before = identify(phone, CONFIG)
    Path(phone.sysfs_root, "sys/class/thermal/thermal_zone10/temp").write_text("-273000\n")
    after = identify(phone, CONFIG)
    assert after["sensors"] != before["sensors"]
    assert stable(after) == stable(before)
    for name in ("kernel", "os", "memory_bytes", "model", "target", "notice"):
        assert stable({**before, name: "other"}) != stable(before)


LAPTOP = {
    "AC/type": "Mains",
    "BAT0/type": "Battery",
    "BAT0/current_now": "812000",
    "BAT0/voltage_now": "11900000",
    "BAT0/charge_now": "3100000",
    "BAT0/status": "Discharging",
    "hidpp_battery_0/type": "Battery",
    "hidpp_battery_0/scope": "Device",
    "hidpp_battery_0/voltage_now": "3900000",
}
SUPPLIES = "/sys/class/power_supply"


def laptop(phone: LocalDevice, files: dict[str, str]) -> dict[str, dict[str, object]]:
    """Identify a device with these files below /sys/class/power_supply and no other supply."""
    folder = Path(phone.sysfs_root + SUPPLIES)
    shutil.rmtree(folder)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")
    identity = identify(phone, CONFIG, CALIBRATED)
    return {sensor["name"]: sensor for sensor in identity["sensors"]} | {
        f"missing {lack['quantity']} {lack['component']}": lack for lack in identity["missing"]
    }


def test_a_laptops_battery_is_found_by_its_type_and_a_mouses_is_not_its(phone):
    found = laptop(phone, LAPTOP)
    for name, file in {
        "battery.current": "current_now",
        "battery.voltage": "voltage_now",
        "battery.charge": "charge_now",
        "battery.status": "status",
    }.items():
        assert found[name]["path"] == f"{{sysfs_root}}{SUPPLIES}/BAT0/{file}"
    assert found["battery.charge"]["scale"] == 1e-6
    assert found["missing temperature battery.power_supply"]["reason"].endswith("BAT0/temp is not there")


def test_a_laptop_that_tells_watt_says_so(phone):
    files = {"BAT1/type": "Battery", "BAT1/power_now": "9000000", "BAT1/energy_now": "40000000"}
    found = laptop(phone, files)
    base = f"{SUPPLIES}/BAT1"
    assert found["missing current battery"]["reason"] == (
        f"{base}/current_now is not there; power_now is, which is not used"
    )
    assert found["missing charge battery"]["reason"] == (
        f"{base}/charge_now is not there; energy_now is, which is not used"
    )
    assert found["missing voltage battery"]["reason"] == f"{base}/voltage_now is not there"


def test_androids_battery_comes_before_others(phone):
    files = {f"{name}/type": "Battery" for name in ("BAT0", "battery", "a-gauge")}
    files |= {f"{name}/current_now": "1" for name in ("BAT0", "battery", "a-gauge")}
    found = laptop(phone, files)
    assert found["battery.current"]["path"].endswith("/battery/current_now")


def test_two_batteries_are_no_current_of_one(phone):
    files = {f"{name}/{file}": "1" for name in ("BAT0", "BAT1") for file in ("current_now", "voltage_now")}
    found = laptop(phone, files)
    assert "battery.current" not in found
    assert found["missing current battery"]["reason"].startswith("BAT0 and BAT1 share the load")


def test_only_where_there_is_no_battery_it_says_so(phone):
    mouse = {name: content for name, content in LAPTOP.items() if not name.startswith("BAT0")}
    reason = str(laptop(phone, mouse)["missing current battery"]["reason"])
    assert reason == f"no battery of the device under {SUPPLIES}; hidpp_battery_0 is a peripheral's"
    for lone in ({"battery/type": "Unknown"}, {"BAT0/status": "Full"}, {"max1/type": "Battery"}):
        lacks = [lack for name, lack in laptop(phone, lone).items() if name.startswith("missing current")]
        assert [str(lack["reason"]).partition(" ")[2] for lack in lacks] == ["is not there"]


@pytest.mark.parametrize(
    ("zone", "component"),
    [
        ("cpu-0-0", "cpu"), ("cpuss-1", "cpu"), ("gpuss-0", "gpu"), ("nspss-2", "npu"),
        ("skin-msm-therm", "skin"),
        ("battery", "battery"), ("pm8550_tz", "pmic"), ("ddr", "other"), ("mtktscpu", "cpu"), ("TPU", "npu"),
        ("BIG", "cpu"), ("G3D", "gpu"), ("quiet_therm", "skin"), ("x86_pkg_temp", "cpu"), ("acpitz", "other"),
        ("mtktsbattery", "battery"), ("pmih010x_tz", "pmic"), ("xo-therm", "skin"),
        ("modem-lte-sub6-pa1", "other"),
    ],
)  # fmt: skip
def test_zones_are_known_by_their_type(zone, component):
    assert component_of(zone) == component


# Zones as an SM8650 has them: of its public device tree (qcom/sm8650.dtsi, with `-thermal`) and of Android's
# kernel for it (`<name>-<number>`), each with a reading in the unit of its driver.
SM8650 = {
    "cpu": {"aoss0-thermal": "41200", "cpuss-1": "45600", "cpu2-top-thermal": "47300",
            "cpu7-middle-thermal": "61000", "cpu-1-0-1": "48100"},
    "gpu": {"gpuss-0": "39800", "gpuss7-thermal": "40200"},
    "npu": {"nsphvx-0": "38100", "nsphvx1-thermal": "38500", "nsphmx3-thermal": "37900"},
    "skin": {"shell_front": "33100", "shell_back": "32800", "skin-therm": "33300", "quiet-therm": "34100"},
    "battery": {"battery": "312"},
    "pmic": {"pm8550_tz": "37000", "pm8550vs_c_tz": "37000", "usb-therm": "31500"},
    "other": {"ddr-thermal": "40700", "video": "39900", "camera-0": "39000", "mdmss-2": "38000",
              "modem3-thermal": "38300"},
    "none": {"socd": "12", "soc": "88", "pm8550b-bcl-lvl0": "0", "pm8550b-ibat-lvl1": "4400",
             "vbat": "4123"},
}  # fmt: skip


def test_the_phone_of_the_study_is_read_by_names_wherever_its_zones_stand():
    zones = [(name, reading) for group in SM8650.values() for name, reading in group.items()]
    for order in (zones, zones[::-1]):
        files = {"/sys/devices/system/cpu/cpufreq/policy7/scaling_cur_freq": "3187200"}
        files |= {f"{KGSL}/gpu_busy_percentage": "93 %", f"{KGSL}/devfreq/cur_freq": "903000000"}
        files |= {
            f"/sys/class/power_supply/battery/{name}": "1" for name in ("current_now", "voltage_now", "temp")
        }
        for number, (name, reading) in enumerate(order):
            files[f"/sys/class/thermal/thermal_zone{number}/type"] = name
            files[f"/sys/class/thermal/thermal_zone{number}/temp"] = reading
        found = find_in(**files)
        for component, group in SM8650.items():
            for name, reading in group.items():
                sensor = found.get(f"thermal.{name}")
                if component == "none":
                    assert sensor is None
                    continue
                assert sensor is not None
                assert sensor["component"] == f"{component}.{name}"
                assert 30 < float(reading) * float(str(sensor["scale"])) < 65
        assert found["gpu.busy"]["unit"] == "%"
        assert found["gpu.clock"]["path"] == f"{{sysfs_root}}{KGSL}/devfreq/cur_freq"
        assert found["freq.policy7"]["scale"] == 1000.0
        assert found["battery.current"]["scale"] == -1e-6
        assert not any(name.startswith("missing temperature ") and name.count(".") == 0 for name in found)


def test_another_phone_is_not_taken_for_the_one_that_is_meant(phone, monkeypatch):
    properties = {
        "ro.soc.model": "SM8650",
        "ro.product.model": "CPH2645",
        "ro.product.manufacturer": "OnePlus",
    }
    monkeypatch.setattr(phone, "properties", lambda: properties)
    assert identify(phone, {**CONFIG, "soc": "SM8650"})["soc"] == "SM8650"
    properties["ro.soc.model"] = "SM8550"
    with pytest.raises(
        DeviceError, match=r"should have the chip SM8650; what answers is OnePlus CPH2645 with SM8550"
    ):
        identify(phone, {**CONFIG, "soc": "SM8650"})


def test_what_the_shell_may_not_read_is_missing_and_not_zero():
    found = find_in(**{f"{KGSL}/gpu_busy_percentage": None, f"{KGSL}/gpuclk": None})
    assert "gpu.busy" not in found
    assert found["missing gpu_busy gpu"]["reason"].endswith("gpu_busy_percentage cannot be read")
    assert found["missing gpu_frequency gpu"]["reason"].endswith("gpuclk cannot be read")


def test_mali_and_mediatek_are_found_where_adreno_is_not():
    mali = find_in(**{"/sys/class/misc/mali0/device/utilization": "7"})
    assert mali["gpu.busy"]["path"] == "{sysfs_root}/sys/class/misc/mali0/device/utilization"
    ged = find_in(
        **{"/sys/module/ged/parameters/gpu_loading": "7", "/sys/class/devfreq/13000000.mali/cur_freq": "1"}
    )
    assert ged["gpu.busy"]["path"].endswith("/gpu_loading")
    assert ged["gpu.clock"]["path"].endswith("/13000000.mali/cur_freq")


def test_the_hexagons_monitor_is_read_by_ioctl_and_is_no_file_of_sysfs():
    found = find_in(**{"/dev/sysmon_subsystem_stats": "ioctl"})
    assert found["npu.hvx"]["select"] == "ioctl:0x80047101"
    assert found["npu.q6"]["unit"] == "KCPS"
    assert found["npu.q6"]["path"] == "/dev/sysmon_subsystem_stats"


def test_rapl_is_used_where_it_can_be_read():
    base = "/sys/class/powercap/intel-rapl:0"
    found = find_in(**{f"{base}/name": "package-0", f"{base}/energy_uj": "12"})
    assert found["rapl.package-0"]["component"] == "rapl.package-0"
    assert "range" not in found["rapl.package-0"]
    denied = find_in(**{f"{base}/name": "package-0", f"{base}/energy_uj": None})
    assert denied["missing energy rapl.package-0"]["reason"].endswith("by root only")


def test_a_rapl_counter_says_where_it_begins_again(phone):
    folder = Path(phone.sysfs_root, "sys/class/powercap/intel-rapl:0")
    folder.mkdir(parents=True)
    for name, content in {
        "name": "package-0",
        "energy_uj": "7",
        "max_energy_range_uj": "262143328850",
    }.items():
        (folder / name).write_text(content + "\n")
    sensors = {sensor["name"]: sensor for sensor in identify(phone, CONFIG)["sensors"]}
    assert sensors["rapl.package-0"]["range"] == 262_143_328_851
    assert "range" not in sensors["cpu.total.user"]


def test_zones_come_in_the_order_of_their_numbers():
    files = {
        f"/sys/class/thermal/thermal_zone{n}/{f}": v
        for n in (10, 9, 1)
        for f, v in (("type", f"z{n}"), ("temp", "1000"))
    }
    names = [name for name in find_in(**files) if name.startswith("thermal.")]
    assert names == ["thermal.z1", "thermal.z9", "thermal.z10"]


@pytest.mark.parametrize(
    ("ranges", "cores"),
    [("0-3", [0, 1, 2, 3]), ("0", [0]), ("0-1,4-5", [0, 1, 4, 5]), ("", []), ("a-b", []), ("0-", [])],
)
def test_ranges_of_cores(ranges, cores):
    assert expand(ranges) == cores


def test_lines_that_are_none_are_left_out():
    files, values = parse("R\t/a\t 5 \nD\t/b\ngarbage\nV\tkernel\t6.1\nV\tempty\t\nR\t/c\n\n")
    assert files == {"/a": "5", "/b": None}
    assert values == {"kernel": "6.1"}


def test_what_is_no_linux_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pocketvlm.devices.identify._SCRIPT", "echo hello")
    with pytest.raises(DeviceError, match="does not answer as a Linux system"):
        identify(LocalDevice("local", tmp_path), CONFIG)

"""Android's programs on the emulated phone: asked over adb as a real phone's, answering from its state."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import shlex
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.config.schema import validate
from pocketvlm.devices import open_device
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.base import run
from pocketvlm.devices.identify import identify
from pocketvlm.errors import DeviceError, TransientDeviceError
from pocketvlm.measure.jobs import idle_job
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.store import RawStore
from tests.probe.recording import built

pytestmark = pytest.mark.phone

BATTERY = "class/power_supply/battery"
DEVICES = Path(__file__).parents[2] / "config/devices"


def config_of(name: str, folder: Path) -> dict[str, Any]:
    config = yaml.safe_load((DEVICES / f"{name}.yaml").read_text())
    assert config["emulated"]["folder"] == f"{{cache}}/{name}", "two files never mean one folder"
    config = copy.deepcopy(config)
    config["emulated"]["folder"] = str(folder)
    return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Whoever forgets to quote the phone's folder is found out.
    return tmp_path_factory.mktemp("android") / 'a phone\'s "own" $folder'


@pytest.fixture(scope="module")
def rooted(folder: Path) -> Iterator[AdbDevice]:
    with open_device(config_of("emulated-phone-rooted", folder), results=folder.parent) as device:
        assert isinstance(device, AdbDevice)
        yield device


def ask(phone: AdbDevice, command: str) -> str:
    """What a command line of words prints, without the last line feed."""
    return run(phone, shlex.split(command), 20).removesuffix("\n")


def test_settings_are_kept_listed_and_deleted(rooted, folder):
    assert ask(rooted, "settings get system screen_brightness") == "102"
    assert ask(rooted, "settings get global animator_duration_scale") == "null"
    assert ask(rooted, "settings delete global animator_duration_scale") == "Deleted 0 rows"
    value = 'it\'s "$HOME" `id`; x=1\\'
    run(rooted, ["settings", "put", "secure", "a.note:1", value], 20)
    assert run(rooted, ["settings", "get", "secure", "a.note:1"], 20) == f"{value}\n"
    assert (folder / "data/settings/secure/a.note:1").read_text() == f"{value}\n"
    assert f"a.note:1={value}" in ask(rooted, "settings list secure").splitlines()
    assert ask(rooted, "settings delete secure a.note:1") == "Deleted 1 rows"
    assert ask(rooted, "settings --user 0 get secure a.note:1") == "null"


@pytest.mark.parametrize(
    "command",
    [
        ["settings", "get", "elsewhere", "x"],
        ["settings", "put", "global", "../../../escaped", "1"],
        ["settings", "put", "global", ".hidden", "1"],
        ["settings", "put", "global", "no_value"],
        ["settings", "rename", "global", "x"],
        ["cmd", "connectivity", "airplane-mode", "maybe"],
        ["cmd", "connectivity", "reboot"],
        ["cmd", "power", "set-fixed-performance-mode-enabled"],
        ["cmd", "no-such-service"],
        ["svc", "power", "stayon", "maybe"],
        ["am", "start"],
        ["am", "force-stop"],
        ["am", "start", "-n", "no.such.app/.Main"],
        ["pm", "uninstall", "android"],
        ["logcat"],
        ["su", "nobody", "id"],
        ["id", "--nonsense"],
    ],
)
def test_what_a_program_does_not_take_is_refused_and_changes_nothing(rooted, folder, command):
    before = {path: path.read_bytes() for path in (folder / "data/settings").rglob("*") if path.is_file()}
    result = rooted.shell(command, 20)
    assert result.status != 0
    assert result.stderr.strip()
    after = {path: path.read_bytes() for path in (folder / "data/settings").rglob("*") if path.is_file()}
    assert after == before
    assert not list(folder.parent.rglob("escaped"))


def test_switches_change_the_settings_that_they_change_on_a_phone(rooted, folder):
    assert ask(rooted, "cmd connectivity airplane-mode") == "disabled"
    assert ask(rooted, "cmd connectivity airplane-mode enable") == ""
    assert ask(rooted, "settings get global airplane_mode_on") == "1"
    assert ask(rooted, "cmd connectivity airplane-mode") == "enabled"
    ask(rooted, "settings put global airplane_mode_on 0")
    assert ask(rooted, "cmd connectivity airplane-mode") == "disabled"
    for word, bits in {"true": 15, "usb": 2, "ac": 1, "wireless": 4, "false": 0}.items():
        ask(rooted, f"svc power stayon {word}")
        assert ask(rooted, "settings get global stay_on_while_plugged_in") == str(bits)
    for word in ("true", "false"):
        ask(rooted, f"cmd power set-fixed-performance-mode-enabled {word}")
        assert (folder / "data/power/fixed_performance").read_text() == f"{word}\n"


def test_properties_say_that_it_is_emulated_and_leave_its_identity_as_it_was(rooted):
    properties = rooted.properties()
    assert properties["ro.pocketvlm.emulated"] == "1"
    for name in ("ro.product.model", "ro.soc.model", "ro.build.fingerprint"):
        assert "emulated" in properties[name]
        assert ask(rooted, f"getprop {name}") == properties[name]
    assert ask(rooted, "getprop no.such.property") == ""
    assert ask(rooted, "getprop no.such.property other") == "other"
    identity = identify(rooted, config_of("emulated-phone-rooted", Path("unused")))
    assert identity["model"] == "emulated phone"
    assert identity["os"].startswith("none; the commands of ")
    assert identity["root"] is True


def test_apps_start_run_and_are_stopped(rooted, folder):
    front, running = folder / "data/activity/foreground", folder / "data/activity/running"
    packages = ask(rooted, "pm list packages").splitlines()
    assert "package:com.android.settings" in packages
    assert ask(rooted, "cmd package list packages -3 settings") == "package:com.android.settings"
    assert "com.android.email" in ask(rooted, "ps -A -o PID,NAME")
    ask(rooted, "am force-stop com.android.email")
    assert "com.android.email" not in ask(rooted, "ps -A -o PID,NAME")
    assert not (running / "com.android.email").exists()
    printed = ask(rooted, "am start -n com.android.settings/.Settings")
    assert printed == "Starting: Intent { cmp=com.android.settings/.Settings }"
    assert front.read_text() == "com.android.settings/.Settings\n"
    assert (running / "com.android.settings").exists()
    ask(rooted, "am force-stop com.android.settings")
    assert front.read_text() == "com.android.launcher3/.Launcher\n"
    assert "Status: ok" in ask(rooted, "am start -W -n com.android.settings/.Settings")
    ask(rooted, "am start -a android.intent.action.MAIN -c android.intent.category.HOME")
    assert front.read_text() == "com.android.launcher3/.Launcher\n"
    ask(rooted, "am force-stop ../../../../x")


def test_processes_are_the_phones_own(rooted):
    process = rooted.spawn(["sleep", "61"])
    try:
        header, *lines = ask(rooted, "ps -A -o PID,PPID,USER,NAME,ARGS").splitlines()
        assert header.split() == ["PID", "PPID", "USER", "NAME", "ARGS"]
        (found,) = [line.split() for line in lines if line.split()[0] == str(process.pid)]
        assert found[2:] == ["shell", "sleep", "sleep", "61"]
        listed = {int(line.split()[0]) for line in lines}
        assert not listed & {os.getpid(), os.getppid(), 1}, "this machine's own are none of the phone's"
    finally:
        process.kill()


def test_the_log_is_what_was_appended_to_it(rooted, folder):
    ask(rooted, "logcat -c")
    assert ask(rooted, "logcat -d -b events -b main") == ""
    line = (
        "11-29 06:00:00.000   600   600 I lowmemorykiller: Kill 'com.android.email' (2304), uid 10103, "
        "oom_score_adj 900 to free 51200kB rss, 0kB swap; reason: low watermark is breached"
    )
    with (folder / "data/misc/logd/logcat").open("a") as log:
        log.write(f"11-29 05:59:00.000   1   1 I init: before\n{line}\n")
    assert ask(rooted, "logcat -d").splitlines()[-1] == line
    assert ask(rooted, "logcat -d -t 1 -b main") == line


def table(printed: str) -> dict[str, str]:
    """Lines of `name: value`."""
    return {
        name.strip(): value
        for name, _, value in (line.partition(": ") for line in printed.splitlines())
        if value
    }


def node(phone: AdbDevice, path: str) -> str:
    return ask(phone, f"cat {shlex.quote(f'{phone.sysfs_root}/sys/{path}')}").strip()


def write(phone: AdbDevice, path: str, text: str) -> str:
    """Write to a file of sysfs as root, and return what stands there once the model has looked twice."""
    there = f"{phone.sysfs_root}/sys/{path}"
    script = 'printf "%s\\n" "$2" > "$1"'
    assert phone.root_shell(["sh", "-c", script, "sh", there, text], 5).status == 0
    time.sleep(0.6)
    return node(phone, path)


def test_the_battery_and_the_heat_are_those_of_sysfs(rooted):
    shown = table(ask(rooted, "dumpsys battery"))
    assert shown["status"] == "3"
    assert shown["USB powered"] == "false"
    assert abs(int(shown["temperature"]) - int(node(rooted, f"{BATTERY}/temp"))) <= 2
    assert abs(int(shown["voltage"]) * 1000 - int(node(rooted, f"{BATTERY}/voltage_now"))) < 100_000
    assert abs(int(shown["Charge counter"]) - int(node(rooted, f"{BATTERY}/charge_counter"))) < 2000
    printed = ask(rooted, "dumpsys thermalservice")
    assert table(printed)["Thermal Status"] in tuple("0123456")
    current = printed.partition("Current temperatures from HAL:")[2]
    pattern = r"\tTemperature\{mValue=([\d.]+), mType=(\d), mName=([^,]+), mStatus=\d\}"
    heat = {name: (int(kind), float(value)) for value, kind, name in re.findall(pattern, current)}
    assert {kind for kind, _ in heat.values()} == {0, 1, 2, 3, 9}
    assert abs(heat["battery"][1] * 10 - int(shown["temperature"])) <= 2


def test_gpu_work_grows_for_the_screen_and_with_the_load_for_the_shell(rooted):
    def look() -> dict[int, int]:
        first, header, *lines = ask(rooted, "dumpsys gpu --gpuwork").splitlines()
        assert first == "GPU work information."
        assert header == "gpu_id uid total_active_duration_ns total_inactive_duration_ns"
        return {int(uid): int(active) for _, uid, active, _ in map(str.split, lines)}

    before = look()
    rooted.shell(["timeout", "3", "sh", "-c", "while :; do :; done"], 20)
    after = look()
    assert after[1000] > before[1000]
    assert after[2000] - before[2000] > 300_000_000, "three busy seconds are work for the GPU, too"


def test_frames_of_the_activity_in_front(rooted):
    layer = "com.android.settings/com.android.settings.Settings#0"
    assert ask(rooted, "dumpsys gfxinfo com.android.deskclock framestats").startswith("No process found for")
    ask(rooted, "am start -n com.android.settings/.Settings")
    begun = time.monotonic_ns()
    time.sleep(1.5)
    assert layer in ask(rooted, "dumpsys SurfaceFlinger --list").splitlines()
    printed = ask(rooted, "dumpsys gfxinfo com.android.settings framestats")
    ended = time.monotonic_ns()
    total = int(table(printed)["Total frames rendered"])
    assert total > 40
    header, *rows = printed.split("---PROFILEDATA---")[1].strip().splitlines()
    assert 0 < len(rows) <= 120
    for row in rows:
        frame = dict(zip(header.split(","), row.split(","), strict=True))
        assert frame["Flags"] == "0"
        assert begun - 200_000_000 < int(frame["IntendedVsync"]) < int(frame["FrameCompleted"]) < ended
        stages = [
            "FrameStartTime",
            "HandleInputStart",
            "AnimationStart",
            "PerformTraversalsStart",
            "DrawStart",
        ]
        stages += ["SyncQueued", "SyncStart", "IssueDrawCommandsStart", "SwapBuffers", "FrameCompleted"]
        times = [int(frame[stage]) for stage in stages]
        assert times == sorted(times)
    period, *lines = ask(rooted, f"dumpsys SurfaceFlinger --latency {shlex.quote(layer)}").splitlines()
    assert period == "16666667"
    assert 0 < len(lines) <= 128
    for line in lines:
        desired, shown, ready = map(int, line.split("\t"))
        assert ready <= shown < ended + 1_000_000_000
        assert desired <= shown
    ask(rooted, "dumpsys gfxinfo com.android.settings reset")
    ask(rooted, "dumpsys SurfaceFlinger --latency-clear")
    again = table(ask(rooted, "dumpsys gfxinfo com.android.settings"))
    assert int(again["Total frames rendered"]) < total
    assert ask(rooted, "dumpsys SurfaceFlinger --latency nobody") == "16666667"
    ask(rooted, "am force-stop com.android.settings")


@pytest.mark.parametrize(
    "service", [["no-such"], ["gpu"], ["gfxinfo"], ["gfxinfo", "../x"], ["SurfaceFlinger"]]
)
def test_services_that_are_not_there_are_refused(rooted, service):
    assert rooted.shell(["dumpsys", *service], 20).status != 0


def test_what_is_in_front_and_what_runs_is_told(rooted):
    printed = ask(rooted, "dumpsys activity activities")
    assert "topResumedActivity=ActivityRecord{1a2b3c4 u0 com.android.launcher3/.Launcher t1}" in printed
    ask(rooted, "svc power stayon usb")
    assert "mStayOnWhilePluggedInSetting=2" in ask(rooted, "dumpsys power")
    ask(rooted, "svc power stayon false")


def test_governors_and_limits_take_effect_and_nonsense_does_not(rooted):
    policy = "devices/system/cpu/cpufreq/policy0"
    top = node(rooted, f"{policy}/cpuinfo_max_freq")
    assert "powersave" in node(rooted, f"{policy}/scaling_available_governors").split()
    assert write(rooted, f"{policy}/scaling_governor", "performance") == "performance"
    assert node(rooted, f"{policy}/scaling_cur_freq") == top
    limit = node(rooted, f"{policy}/scaling_available_frequencies").split()[2]
    assert write(rooted, f"{policy}/scaling_max_freq", limit) == limit
    assert node(rooted, f"{policy}/scaling_cur_freq") == limit
    assert write(rooted, f"{policy}/scaling_governor", "turbo") == "performance"
    assert write(rooted, f"{policy}/scaling_max_freq", top) == top
    assert write(rooted, f"{policy}/scaling_governor", "schedutil") == "schedutil"
    spent = node(rooted, f"{policy}/stats/time_in_state").splitlines()
    assert dict(line.split() for line in spent)[limit] != "0"
    assert ask(rooted, "getenforce") == "Enforcing"
    assert write(rooted, "fs/selinux/enforce", "0") == "0"
    assert ask(rooted, "getenforce") == "Permissive"
    assert write(rooted, "fs/selinux/enforce", "1") == "1"


def test_a_charger_charges_until_its_input_is_suspended(tmp_path):
    config = config_of("emulated-phone-rooted", tmp_path / "phone")
    config["emulated"] |= {
        "charger_connected": True,
        "gauge": {"current_unit": "mA", "current_sign": "discharging_positive", "charge_counter": False},
    }
    validate(config, "device", where="charging.yaml")
    with open_device(config, results=tmp_path) as phone:
        time.sleep(0.6)
        assert node(phone, f"{BATTERY}/status") == "Charging"
        assert -1600 < int(node(phone, f"{BATTERY}/current_now")) < -100
        assert table(ask(phone, "dumpsys battery"))["status"] == "2"
        assert phone.shell(["cat", f"{phone.sysfs_root}/sys/{BATTERY}/charge_counter"], 5).status != 0
        assert write(phone, f"{BATTERY}/input_suspend", "1") == "1"
        assert node(phone, f"{BATTERY}/status") == "Discharging"
        assert 100 < int(node(phone, f"{BATTERY}/current_now")) < 5000


def test_a_phone_as_it_was_sold_denies_what_phones_do_and_nothing_tries_root(tmp_path):
    config = config_of("emulated-phone-unrooted", tmp_path / "phone")
    rooted = config_of("emulated-phone-rooted", tmp_path / "phone")
    with open_device(rooted, results=tmp_path) as phone:
        everything = identify(phone, rooted)
    with open_device(config, results=tmp_path) as phone:
        # Whoever tries to be root here is found out.
        trap = tmp_path / "phone/bin/su"
        trap.write_text('#!/bin/sh\necho "$@" >> "$POCKETVLM_PHONE/tried"\nexit 1\n')
        trap.chmod(0o755)
        identity = identify(phone, config)
        assert phone.root is False
        names = {sensor["name"] for sensor in identity["sensors"]}
        assert {"battery.voltage", "freq.policy0", "gpu.clock", "thermal.battery"} <= names
        lost = {sensor["name"] for sensor in everything["sensors"]} - names
        assert {"gpu.busy", "thermal.cpu-0-0"} <= lost
        assert not any(name.startswith(("battery.", "freq.", "cpu.", "mem.")) for name in lost)
        reasons = {lack["quantity"]: lack["reason"] for lack in identity["missing"]}
        assert "gpu_busy_percentage cannot be read; `dumpsys gpu --gpuwork` tells" in reasons["gpu_busy"]
        assert "root" not in identity
        there = f"{phone.sysfs_root}/sys/devices/system/cpu/cpufreq/policy0/scaling_governor"
        phone.shell(["sh", "-c", 'echo performance > "$1"', "sh", there], 5)
        time.sleep(0.6)
        assert node(phone, "devices/system/cpu/cpufreq/policy0/scaling_governor") == "schedutil"
        assert table(ask(phone, "dumpsys battery"))["status"] == "3"
        assert "mName=cpu-0-0" in ask(phone, "dumpsys thermalservice")
        assert ask(phone, "getprop ro.product.model") == "emulated phone"
        assert not (tmp_path / "phone/tried").exists()
    # What was denied in this folder is there again on the phone that does not.
    with open_device(rooted, results=tmp_path) as phone:
        assert identify(phone, rooted) == everything


def test_root_is_reached_through_su_and_told(rooted, caplog):
    with caplog.at_level(logging.INFO, "pocketvlm"):
        assert rooted.root_shell(["id", "-u"], 5).stdout == "0\n"
    assert "as root on emulated-phone-rooted: id -u" in [record.getMessage() for record in caplog.records]
    assert ask(rooted, "id -u") == "2000"
    words = ["a  b", "it's", "$HOME", "`id`", "\\", "*", '"']
    argv = ["sh", "-c", 'id -un; printf "%s|" "$@"', "sh", *words]
    assert rooted.root_shell(argv, 5).stdout == "root\n" + "".join(f"{word}|" for word in words)
    assert rooted.root_shell(["sh", "-c", "exit 7"], 5).status == 7
    assert ask(rooted, "su 0 id -un") == "root"
    assert ask(rooted, "su shell id -un") == "shell"


def test_what_root_runs_is_ended_with_its_children(rooted):
    process = rooted.spawn(rooted.as_root(["sh", "-c", "sleep 876 & sleep 876"]))
    assert process.poll() is None
    time.sleep(0.3)
    assert ask(rooted, "ps -A -o ARGS").splitlines().count("sleep 876") == 2
    process.kill()
    assert process.wait(5).status == 128 + 9
    with pytest.raises(TransientDeviceError, match=r"did not end within 0\.5 s"):
        rooted.root_shell(["sleep", "876"], 0.5)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and "sleep 876" in ask(rooted, "ps -A -o ARGS"):
        time.sleep(0.1)
    assert "sleep 876" not in ask(rooted, "ps -A -o ARGS")


@pytest.mark.parametrize("name", ["emulated-phone-rooted", "emulated-phone-unrooted"])
def test_a_run_is_recorded_by_root_where_the_file_says_so_and_else_nothing_tries(name, tmp_path, caplog):
    config = config_of(name, tmp_path / "phone")
    bundle = tmp_path / "probe"
    (bundle / "bin").mkdir(parents=True)
    shutil.copy2(built(config["target"]), bundle / "bin/probe")
    (bundle / "manifest.json").write_text("{}")
    store = RawStore(tmp_path / "raw")
    with caplog.at_level(logging.INFO, "pocketvlm"), open_device(config, results=tmp_path) as phone:
        su = tmp_path / "phone/bin/su"
        was = su.read_text().partition("\n")[2] if su.exists() else "exit 1\n"
        su.write_text('#!/bin/sh\necho "$*" >> "$POCKETVLM_PHONE/tried"\n' + was)
        su.chmod(0o755)
        identity = identify(phone, config)
        runner = Runner(phone, identity, bundle, 30, store, tmp_path / "failed")
        job = idle_job(identity, bundle, 1)
        runner.deploy([job])
        stored = runner.run(job, {"role": "idle", "argv": list(job.argv), "block": "b"}, "idle")
        assert phone.shell(["ls", runner.runs], 5).stdout == "", "what root wrote, root removed"
    record = json.loads((stored.folder / "probe.json").read_text())
    assert record["exited"] and record["status"] == 0
    assert (stored.folder / "gpu.csv").is_file()
    logged = [line.getMessage() for line in caplog.records if line.getMessage().startswith("as root on")]
    tried = tmp_path / "phone/tried"
    if "root" in config:
        assert any("run --sensors" in line for line in logged)
        assert any("run --sensors" in line for line in tried.read_text().splitlines())
    else:
        assert logged == []
        assert not tried.exists()


def test_settings_outlive_a_lease_and_what_runs_does_not(tmp_path):
    config = config_of("emulated-phone-rooted", tmp_path / "phone")
    with open_device(config, results=tmp_path) as first:
        run(first, ["settings", "put", "system", "screen_brightness", "7"], 5)
        run(first, ["settings", "delete", "global", "window_animation_scale"], 5)
        run(first, ["cmd", "power", "set-fixed-performance-mode-enabled", "true"], 5)
        run(first, ["am", "force-stop", "com.android.email"], 5)
    with open_device(config, results=tmp_path) as second:
        assert run(second, ["settings", "get", "system", "screen_brightness"], 5) == "7\n"
        assert run(second, ["settings", "get", "global", "window_animation_scale"], 5) == "null\n"
        assert not (tmp_path / "phone/data/power").exists()
        assert "com.android.email" in run(second, ["ps", "-A", "-o", "NAME"], 5)


def test_a_phone_without_root_has_no_su_even_when_it_was_rooted_once(tmp_path):
    config = config_of("emulated-phone-rooted", tmp_path / "phone")
    with open_device(config, results=tmp_path) as rooted:
        assert rooted.shell(["su", "-c", "true"], 5).status == 0
    del config["root"]
    with open_device(config, results=tmp_path) as phone:
        assert phone.root is False
        assert not (tmp_path / "phone/bin/su").exists()
        with pytest.raises(DeviceError, match="nothing runs as root on"):
            phone.as_root(["id"])

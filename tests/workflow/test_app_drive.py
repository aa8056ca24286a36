"""Driving a recorded app on the emulated phone: what stands in the way is told, with what to do."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.apps import script
from pocketvlm.apps.driven import App
from pocketvlm.devices import leftovers, open_device
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.base import run
from pocketvlm.errors import DeviceError, WorkloadError
from pocketvlm.measure.app import Drive
from pocketvlm.measure.install import install
from tests.apps import recorded
from tests.project import ROOT

pytestmark = pytest.mark.phone

PREPARE: list[dict[str, Any]] = [{"start": {}}, {"wait": {"text": "Pocket Chat"}}]
KILLED = "home log 300 I lowmemorykiller Kill 'x' (@PID@), uid 1\nhome crash 500\n"
RUN = [{"wait": {"id": "never"}, "phase": ["load", "text_prefill", "decode"]}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Whoever forgets to quote the phone's folder is found out.
    return tmp_path_factory.mktemp("app") / 'a phone\'s "own" $folder'


@pytest.fixture(scope="module")
def phone(folder: Path) -> Iterator[AdbDevice]:
    config = copy.deepcopy(yaml.safe_load((ROOT / "config/devices/emulated-phone.yaml").read_text()))
    config["emulated"]["folder"] = str(folder)
    with open_device(config, results=folder.parent) as device:
        assert isinstance(device, AdbDevice)
        run(device, ["mkdir", "-p", f"{device.remote_dir}/runs"], 20)
        yield device


def app_of(prepare: list[dict[str, Any]], **more: Any) -> App:
    given = {"prepare": prepare, "run": RUN}
    variables = {"prompt": recorded.PROMPT, "image": "picture.png", "model": "tiny-vlm-q4", "max_tokens": "8"}
    parsed = script.parse(given, where="script", variables=variables)
    return App(recorded.PACKAGE, ".MainActivity", (), "{root}/sdcard/Pictures/picture.png", parsed, **more)


def put(phone: AdbDevice, folder: Path, apk: bytes) -> str:
    local = folder.parent / "made.apk"
    local.write_bytes(apk)
    phone.push(local, f"{phone.remote_dir}/made.apk")
    return f"{phone.remote_dir}/made.apk"


def installed(phone: AdbDevice, folder: Path, moves: str = "") -> None:
    printed = run(phone, ["pm", "install", "-r", put(phone, folder, recorded.archive(moves=moves))], 20)
    assert printed == "Success\n"


def drive(phone: AdbDevice, steps: list[dict[str, Any]], start: bool = True) -> Drive:
    app = app_of([*(PREPARE if start else PREPARE[:1]), *steps])
    made = Drive(phone, app, f"{phone.remote_dir}/made.apk", f"{phone.remote_dir}/runs/x", "cell", 30)
    try:
        made.prepare()
    finally:
        made.finish()
    return made


def refused(phone: AdbDevice, steps: list[dict[str, Any]], start: bool = True) -> WorkloadError:
    with pytest.raises(WorkloadError) as error:
        drive(phone, steps, start)
    assert error.value.do
    return error.value


def test_the_whole_way_of_a_question(phone: AdbDevice, folder: Path) -> None:
    # Quicker than the recorded app, whose times nothing here depends on.
    installed(
        phone, folder, "loading after 400 ready\nprefill after 200 decoding\ndecoding after 600 answered\n"
    )
    steps = [
        {"push_image": {}},
        {"tap": {"id": "load"}},
        {"wait": {"id": "progress"}},
        {"wait": {"id": "progress", "gone": True}},
        {"tap": {"id": "attach"}},
        {"scroll": {"to": "up", "text": "pocketvlm-cc02f8ca.png"}},
        {"tap": {"text": "pocketvlm-cc02f8ca.png"}},
        {"type": "100%sure? {prompt}", "into": {"id": "input"}},
        {"key": "enter"},
        {"tap": {"id": "send"}},
        # While an answer streams, a screen is never idle: uiautomator gives up, and that is no error yet.
        {"wait": {"contains": "decode:"}},
        {"read": {"id": "stats"}, "as": "stats"},
        {"read": {"log": "^PocketChat: first"}, "as": "line"},
    ]
    done = drive(phone, steps)
    reads = {event["name"]: event["text"] for event in done.recorder.events if event["event"] == "read"}
    assert reads["stats"].startswith("prefill: 402.6 tok/s")
    assert reads["line"] == "PocketChat: first token"
    assert (folder / f"data/activity/typed/{recorded.PACKAGE}").read_text() == f"100%sure? {recorded.PROMPT}"
    places = [event["step"] for event in done.recorder.events if event["event"] == "step"]
    assert places == [f"prepare.{number}" for number in range(len(steps) + 2)]
    assert not (folder / "sdcard/Pictures/picture.png").exists()
    assert run(phone, ["sh", "-c", f"pidof {recorded.PACKAGE} || echo gone"], 20) == "gone\n"


@pytest.mark.parametrize(
    ("moves", "step", "what"),
    [
        ("", {"tap": {"id": "lode"}, "timeout_s": 0.4}, r"within 0\.4 s; the screen shows: Pocket Chat"),
        ("", {"tap": {"matches": "Pocket Chat|Load"}, "timeout_s": 1}, "2 views are matches="),
        ("", {"wait": {"log": "nothing of it"}, "timeout_s": 0.4}, "its log has no such line"),
        ("home after 300 asking\n", {"wait": {"id": "x"}}, "asks for a permission: Allow Pocket Chat"),
        ("home after 300 hanging\n", {"wait": {"id": "x"}}, "does not respond: Pocket Chat isn't responding"),
        ("home crash 500\n", {"wait": {"id": "x"}}, "process [0-9]+ is gone: .*FATAL EXCEPTION: main"),
        (KILLED, {"wait": {"id": "x"}}, "was killed because memory ran out"),
        ("home crash 500\n", {"wait": {"log": "x"}}, "process [0-9]+ is gone"),
        ("home restless\n", {"wait": {"id": "x"}, "timeout_s": 0.4}, "could not get idle state"),
        ("home after 0 typing\n", {"tap": {"id": "send"}, "timeout_s": 0.5}, "the keyboard stays in the way"),
        ("home after 0 ready\n", {"tap": {"id": "send"}, "timeout_s": 0.5}, "is there and disabled"),
    ],
)  # fmt: skip
def test_what_stands_in_the_way_is_told(
    phone: AdbDevice, folder: Path, moves: str, step: dict[str, Any], what: str
) -> None:
    # No key closes the keyboard of this one.
    installed(phone, folder, moves + ("typing key 4 600000 typed\n" if "typing" in moves else ""))
    error = refused(phone, [step], start=False)
    assert re.search(what, error.what), error.what
    assert error.where == "cell, script.prepare.1"


def test_a_screen_that_is_off_or_locked(phone: AdbDevice, folder: Path) -> None:
    installed(phone, folder)
    power = folder / "data/power"
    power.mkdir(exist_ok=True)
    (power / "wakefulness").write_text("Asleep\n")
    (power / "locked").write_text("true\n")
    drive(phone, [])
    assert (power / "wakefulness").read_text() == "Awake\n"
    assert not (power / "locked").exists()
    (power / "locked").write_text("secure\n")
    error = refused(phone, [])
    assert "the phone is locked" in error.what and "PIN" in error.do
    (power / "locked").unlink()


def test_an_app_is_installed_where_another_is_there_and_must_be_the_one_meant(
    phone: AdbDevice, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    apk = recorded.archive()
    meant = app_of(PREPARE, apk_sha256=hashlib.sha256(apk).hexdigest(), version_name="1.2.0")
    installed(phone, folder, "home restless\n")
    there = put(phone, folder, apk)
    caplog.set_level("INFO")
    install(phone, meant, there)
    assert "installing" in caplog.text
    caplog.clear()
    install(phone, meant, there)
    assert "installing" not in caplog.text
    with pytest.raises(DeviceError, match=r"has org\.example\.pocketchat 1\.2\.0, wanted is 2"):
        install(phone, app_of(PREPARE, version_name="2"), None)
    other = app_of(PREPARE, apk_sha256="0" * 64)
    with pytest.raises(DeviceError, match="is not the file that was given"):
        install(phone, other, there)
    with pytest.raises(DeviceError, match=r"cannot be installed.*NOT_APK"):
        install(phone, other, put(phone, folder, b"no archive"))


class Recording:
    """The probe, which has ended with this status, or runs."""

    pid = 0

    def __init__(self, status: int | None) -> None:
        self.status = status

    def poll(self) -> int | None:
        return self.status


@pytest.mark.parametrize(
    ("deadline_s", "status", "begins", "what"),
    [
        (0.3, None, True, r"the run did not end before its deadline of 0\.3 s at the step wait id='never'"),
        (30, 0, True, "the recording ended before the script at the step wait id='never'"),
        (30, 3, False, "the recording does not begin"),
    ],
)
def test_a_recording_that_ends_too_early_or_late(
    phone: AdbDevice, folder: Path, deadline_s: float, status: int | None, begins: bool, what: str
) -> None:
    installed(phone, folder)
    made = Drive(phone, app_of(PREPARE), "", f"{phone.remote_dir}/runs/r", "cell", deadline_s)
    made.prepare()
    if begins:
        run(phone, ["touch", made.ready], 20)
    with pytest.raises(WorkloadError, match=what):
        made.record(Recording(status))  # type: ignore[arg-type]
    made.finish()
    assert phone.shell(["ls", made.ready], 20).status != 0


def test_what_a_killed_workflow_left_is_stopped_and_removed(phone: AdbDevice, folder: Path) -> None:
    installed(phone, folder)
    app = replace(app_of([*PREPARE, {"push_image": {}}]), image="{root}/sdcard/Pictures/pocketvlm-1.png")
    made = Drive(phone, app, f"{phone.remote_dir}/made.apk", f"{phone.remote_dir}/runs/z", "cell", 30)
    made.prepare()
    picture = folder / "sdcard/Pictures/pocketvlm-1.png"
    others = folder / "sdcard/Pictures/mine.png"
    others.write_text("x")
    (folder / "data/local/tmp/pocketvlm/runs/other.app").write_text(f"no.such.app\n{others}\n")
    assert picture.exists()
    leftovers.clear(phone)
    assert not picture.exists()
    assert others.exists()
    assert phone.shell(["pidof", recorded.PACKAGE], 20).status != 0
    run(phone, ["mkdir", "-p", f"{phone.remote_dir}/runs"], 20)


def test_an_activity_that_is_not_there(phone: AdbDevice, folder: Path) -> None:
    app = App("org.example.absent", ".Main", (), "/x", app_of(PREPARE).script)
    made = Drive(phone, app, "", f"{phone.remote_dir}/runs/y", "cell", 30)
    with pytest.raises(WorkloadError, match=r"could not be started: .*does not exist"):
        made.prepare()


@pytest.mark.parametrize(
    "command",
    [
        ["uiautomator", "events"], ["input", "tap", "x", "1"], ["input", "text", "\u00e9"],
        ["input", "dance"],
        ["wm", "reset"], ["content", "insert", "--uri", "x"], ["pm", "grant", "no.such.app", "x"],
        ["pm", "path", "../../x"], ["pidof", "no.such.app"],
    ],
)  # fmt: skip
def test_what_a_program_does_not_take_is_refused(phone: AdbDevice, command: list[str]) -> None:
    assert phone.shell(command, 20).status != 0

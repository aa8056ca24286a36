"""A block that is killed, and the next command: the phone has exactly its own settings back."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvlm.devices import lock_name
from pocketvlm.devices.locks import device_lock
from pocketvlm.errors import TransientDeviceError
from pocketvlm.measure import block
from pocketvlm.measure.state import in_state, journal, left, recover
from tests.fake_phone import CONFIG, FakePhone, fake_phone

WANTED = {
    "airplane_mode": True,
    "brightness": 77,
    "stay_on": True,
    "fixed_performance": True,
    "governor": "performance",
    "charging": False,
}
HOSTILE = "1; touch {marker}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))


def a_block(phone: FakePhone) -> None:
    with in_state(phone, WANTED, config=CONFIG, results=Path("results")) as held:
        held.before_run()
        phone.after()
        held.after_run()


def killed(phone: FakePhone, work: Callable[[], object], step: int) -> bool:
    """Do some work on a phone in a process that is killed after so many steps; False if it ended before."""
    child = os.fork()
    if child == 0:
        passed = 0

        def count() -> None:
            nonlocal passed
            passed += 1
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)

        phone.after = count
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def journals(phone: FakePhone) -> tuple[Path, Path]:
    host = journal.host_path(journal.of_this_phone(phone, CONFIG))
    return host, Path(journal.device_path(phone))


def is_as_before(phone: FakePhone, before: dict[str, str], step: object = None) -> None:
    assert phone.everything() == before, step
    assert not any(path.exists() for path in journals(phone)), step
    assert (phone.folder / "fixed_performance").read_text() in ("", "false\n"), step


def left_set(folder: Path) -> tuple[FakePhone, dict[str, str]]:
    """A phone as a killed block leaves it, and what it was like before."""
    phone = fake_phone(folder)
    (folder / "fixed_performance").touch()
    before = phone.everything()
    step = 10
    while phone.setting("global/stay_on_while_plugged_in") is None:
        assert killed(phone, lambda: a_block(phone), step)
        step += 2
    assert phone.setting("global/airplane_mode_on") == "1"
    assert all(path.is_file() for path in journals(phone))
    return phone, before


def test_killed_at_every_step_the_next_command_gives_everything_back(tmp_path):
    phone = fake_phone(tmp_path)
    (tmp_path / "fixed_performance").touch()
    before = phone.everything()
    changed = step = 0
    while killed(phone, lambda: a_block(phone), step := step + 1):
        differs = phone.everything() != before
        changed += differs
        # Before the first change both journals are there.
        assert not differs or all(path.is_file() for path in journals(phone)), step
        recover(phone, CONFIG)
        is_as_before(phone, before, step)
    is_as_before(phone, before, "not killed")
    assert step > 20
    assert changed > 10


def test_a_recovery_that_is_killed_at_every_step_is_done_by_the_next(tmp_path):
    phone, before = left_set(tmp_path)
    step = 0
    while killed(phone, lambda: recover(phone, CONFIG), step := step + 1):
        pass
    assert step > 6
    is_as_before(phone, before)


def test_a_pulled_cable_is_the_error_and_the_next_command_gives_back(tmp_path, caplog):
    phone = fake_phone(tmp_path)
    (tmp_path / "fixed_performance").touch()
    before = phone.everything()

    def pulled() -> None:
        raise TransientDeviceError("the connection was lost", do="plug it in")

    # While it is set, while it runs, and while it is given back.
    for calls in (9, 17, 22):
        left_over = iter(range(calls))
        phone.after = lambda left_over=left_over: None if next(left_over, None) is not None else pulled()
        with pytest.raises(TransientDeviceError, match="connection was lost"):
            a_block(phone)
        phone.after = lambda: None
        assert phone.everything() != before, calls
        assert all(path.is_file() for path in journals(phone)), calls
        assert recover(phone, CONFIG)
        is_as_before(phone, before, calls)
    assert "the connection was lost" in caplog.text


def test_the_hosts_journal_alone_and_the_devices_alone_are_enough(tmp_path):
    for gone in (0, 1):
        phone, before = left_set(tmp_path / str(gone))
        journals(phone)[gone].unlink()
        assert recover(phone, CONFIG)
        is_as_before(phone, before)


def test_of_two_journals_the_older_is_the_original(tmp_path):
    phone, before = left_set(tmp_path)
    host, on_device = journals(phone)
    # Another host that did not give back first: what it saved is what the first had set.
    newer = json.loads(on_device.read_text())
    newer["id"], newer["saved_ns"] = "other", newer["saved_ns"] + 1
    newer["values"] |= {"global/airplane_mode_on": "1", "system/screen_off_timeout": "15000"}
    for place in (host, on_device):
        other = on_device if place is host else host
        kept = other.read_text()
        place.write_text(json.dumps(newer))
        assert recover(phone, CONFIG)
        is_as_before(phone, before | {"settings/system/screen_off_timeout": "15000"})
        host.write_text(kept)
        on_device.write_text(kept)
        phone.put("global/airplane_mode_on", "1")


def damages(whole: str) -> dict[str, str]:
    """Journals that are none, or that ask for what no journal may."""
    content = json.loads(whole)

    def but(**changes: object) -> str:
        return json.dumps(copy.deepcopy(content) | changes)

    return {
        "empty": "",
        "cut": whole[: len(whole) // 2],
        "cut at the end": whole[:-3],
        "no text": "\x00\x01\x02" * 50,
        "list": "[]",
        "null": "null",
        "deep": "[" * 100_000,
        "long": '{"format": 1, "values": {' + '"a": "b",' * 60_000 + "}}",
        "number": "9" * 10_000,
        "no values": but(values=None),
        "values are a list": but(values=["global/airplane_mode_on"]),
        "many values": but(values={str(number): "1" for number in range(1000)}),
        "no time": but(saved_ns="yesterday"),
        "no device": but(device=17),
        "another format": but(format=2),
    }


@pytest.mark.parametrize("kind", sorted(damages('{"values": {}}')))
def test_a_damaged_journal_runs_nothing_and_the_other_is_enough(tmp_path, caplog, kind):
    phone, before = left_set(tmp_path)
    whole = journals(phone)[0].read_text()
    for damaged in (0, 1):
        journals(phone)[damaged].write_text(damages(whole)[kind])
        assert recover(phone, CONFIG)
        is_as_before(phone, before)
        assert "is damaged" in caplog.text
        for path in journals(phone):
            path.write_text(whole)
        phone.put("global/airplane_mode_on", "1")
    set_by_block = phone.everything()
    for path in journals(phone):
        path.write_text(damages(whole)[kind])
    # Nothing tells what it was: it is said, and the damaged ones are kept to be looked at.
    assert not recover(phone, CONFIG)
    assert phone.everything() == set_by_block
    assert not any(path.exists() for path in journals(phone))
    assert list(journals(phone)[0].parent.glob("*.damaged-*"))
    assert Path(f"{journals(phone)[1]}.damaged").is_file()


def test_hostile_entries_are_never_run_and_the_others_are_given_back(tmp_path, caplog):
    phone, before = left_set(tmp_path)
    marker = tmp_path / "marker"
    hostile = HOSTILE.format(marker=marker)
    outside = tmp_path / "outside"
    outside.write_text("untouched")
    for path in journals(phone):
        content = json.loads(path.read_text())
        content["values"] |= {
            "global/heads_up_notifications_enabled": hostile,
            "system/screen_brightness": f"$(touch {marker})",
            "global/adb_enabled": "0",
            hostile: "1",
            "sys/../outside": "x",
            "sys/devices/system/cpu/cpufreq/policy0/../../../../../../outside": "x",
            "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": [hostile],
            "sys/devices/system/cpu/cpufreq/policy0/scaling_governor\n": "powersave",
            "fixed_performance": {"a": 1},
            "global/window_animation_scale": 1.0,
        }
        path.write_text(json.dumps(content))
    assert recover(phone, CONFIG)
    after = phone.everything()
    assert after.pop("settings/system/screen_brightness") == "77"
    assert after == {name: value for name, value in before.items() if not name.endswith("screen_brightness")}
    assert not marker.exists()
    assert outside.read_text() == "untouched"
    assert "is no setting of a device" in caplog.text
    assert list(journals(phone)[0].parent.glob("*.damaged-*"))


def test_whoever_holds_the_device_next_gives_back_first(tmp_path, monkeypatch):
    phone, before = left_set(tmp_path)
    monkeypatch.setattr(block, "open_device", lambda config, results: _opened(phone))
    with block.hold(CONFIG, tmp_path) as held:
        assert held is phone
        is_as_before(phone, before)


def _opened(phone: FakePhone):
    return contextlib.nullcontext(phone)


def test_the_start_of_a_workflow_gives_back_what_it_can_reach(tmp_path, monkeypatch):
    phone, before = left_set(tmp_path)
    set_by_block = phone.everything()
    host = journals(phone)[0]
    assert left.waiting() == [host]
    monkeypatch.setattr(left, "absence", lambda config: "no phone is connected")
    assert "pixel has settings to be given back" in left.give_back_one(host)
    assert phone.everything() == set_by_block
    monkeypatch.setattr(left, "absence", lambda config: None)
    monkeypatch.setattr(left, "open_device", lambda config, results: _opened(phone))
    # A block is at work on it: that one gives back itself.
    with device_lock(lock_name(CONFIG)):
        ready = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(ready[1], left.give_back_one(host).encode() or b"-")
            os._exit(0)
        assert os.read(ready[0], 1000) == b"-"
        os.waitpid(child, 0)
        for descriptor in ready:
            os.close(descriptor)
    assert phone.everything() == set_by_block
    assert "has its settings back" in left.give_back_one(host)
    is_as_before(phone, before)
    assert left.waiting() == []


def test_the_start_says_one_line_of_a_phone_that_is_away_and_of_a_damaged_journal(tmp_path):
    phone, _ = left_set(tmp_path)
    host = journals(phone)[0]
    content = json.loads(host.read_text())
    # A port where no adb server listens, nor can one be started.
    content["device"]["transport"]["server_port"] = 1
    host.write_text(json.dumps(content))
    host.with_name("other.json").write_text("{")
    lines: list[str] = []
    left.give_back_left(lines.append)
    assert len(lines) == 2, lines
    assert "other.json" in lines[0]
    assert "is damaged" in lines[0]
    assert "pixel has settings to be given back, saved 2" in lines[1]
    assert left.waiting() == sorted([host, host.with_name("other.json")])


def test_a_device_that_hangs_holds_no_start_up(tmp_path, monkeypatch):
    phone, _ = left_set(tmp_path)
    monkeypatch.setattr(left, "_DEADLINE_S", 0.01)
    lines: list[str] = []
    left.give_back_left(lines.append)
    assert len(lines) == 1
    assert "did not answer within" in lines[0]
    assert journals(phone)[0].is_file()


def test_the_command_of_a_start_says_nothing_of_a_journal_that_is_gone(tmp_path):
    command = [sys.executable, "-P", "-m", "pocketvlm.measure.state", str(tmp_path / "none.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""

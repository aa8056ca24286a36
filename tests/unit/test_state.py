"""The state that an experiment wants its phone in: asked before each run, never set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pocketvlm.devices.base import Result
from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError
from pocketvlm.measure.jobs import idle_job
from pocketvlm.measure.state import check_state, read_state
from pocketvlm.provenance import write_json

# As Android's program answers: a number, `null` for what was never set, or an exception for an unknown table.
SETTINGS = """#!/bin/sh
case "$2 $3" in
    "global airplane_mode_on") echo {airplane} ;;
    "system screen_brightness_mode") echo {brightness_mode} ;;
    "system screen_brightness") echo 128 ;;
    *) echo "java.lang.IllegalArgumentException" ; exit 255 ;;
esac
"""


class Phone(LocalDevice):
    """This machine with Android's `settings` among its commands."""

    commands = ""

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command where `settings` is found."""
        return super().shell(["env", f"PATH={self.commands}:/usr/bin:/bin", *argv], timeout)


def phone(folder: Path, **values: str) -> Phone:
    given = {"airplane": "1", "brightness_mode": "0", **values}
    program = folder / "bin/settings"
    program.parent.mkdir(exist_ok=True)
    program.write_text(SETTINGS.format(**given))
    program.chmod(0o755)
    device = Phone("pixel", folder / "device")
    device.commands = str(program.parent)
    return device


WANTED = {"airplane_mode": True, "automatic_brightness": False}


def test_a_phone_in_the_wanted_state_tells_all_of_it(tmp_path):
    state = check_state(phone(tmp_path), WANTED)
    uid = state.pop("uid")
    assert state == {"airplane_mode": True, "automatic_brightness": False, "brightness": 128}
    assert isinstance(uid, int)


def test_another_state_is_refused_with_what_to_type(tmp_path):
    device = phone(tmp_path, airplane="0", brightness_mode="1")
    with pytest.raises(DeviceError) as caught:
        check_state(device, WANTED)
    message = str(caught.value)
    assert "airplane_mode is off and should be on" in message
    assert "automatic_brightness is on and should be off" in message
    assert "adb shell cmd connectivity airplane-mode enable" in message
    assert "adb shell settings put system screen_brightness_mode 0" in message
    assert check_state(device, {"airplane_mode": False})["automatic_brightness"] is True


@pytest.mark.parametrize("said", ["null", "", "'1; rm'", "99999999999999999999999999", "-1"])
def test_what_is_no_setting_is_not_told(tmp_path, said):
    device = phone(tmp_path, airplane=said)
    assert read_state(device)["airplane_mode"] in (None, False)
    with pytest.raises(DeviceError, match="airplane_mode is"):
        check_state(device, {"airplane_mode": True})


def test_a_machine_without_settings_tells_nothing(tmp_path):
    device = LocalDevice("local", tmp_path)
    assert read_state(device)["airplane_mode"] is None
    with pytest.raises(DeviceError, match="airplane_mode is not told and should be on"):
        check_state(device, {"airplane_mode": True})


def test_a_wanted_state_is_part_of_a_runs_key_and_none_is_not(tmp_path):
    write_json(tmp_path / "manifest.json", {})
    identity = {"id": "pixel"}
    plain = idle_job(identity, tmp_path, 3)
    assert "state" not in plain.key_inputs
    assert idle_job(identity, tmp_path, 3, {}).key == plain.key
    assert idle_job(identity, tmp_path, 3, WANTED).key != plain.key

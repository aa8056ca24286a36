"""The state that an experiment wants its phone in: saved, set, verified, recorded, and given back."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pocketvlm.devices.local import LocalDevice
from pocketvlm.errors import DeviceError
from pocketvlm.measure.jobs import idle_job
from pocketvlm.measure.state import in_state, journal, recover
from pocketvlm.measure.state.wants import WANTS
from pocketvlm.provenance import write_json
from tests.fake_phone import CLOCKS, CONFIG, SUSPEND, fake_phone

ROOT = Path(__file__).parents[2]
SHELL = {
    "airplane_mode": True,
    "automatic_brightness": False,
    "brightness": 77,
    "screen_timeout_ms": 600000,
    "stay_on": True,
    "heads_up_notifications": False,
    "animation_scale": 0.5,
    "fixed_performance": True,
    "stop_apps": ["com.example.mail", "com.example.maps"],
}
NEED_ROOT = {
    "governor": "performance",
    "max_frequency_percent": 60,
    "min_frequency_percent": 60,
    "charging": False,
}
POLICY = "sys/devices/system/cpu/cpufreq/policy{}/scaling_{}"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))


def keep(phone, wanted, results: Path = Path("results")):
    return in_state(phone, wanted, config=CONFIG, results=results)


def recorded(phone, wanted):
    """The state that a run's record gets."""
    with keep(phone, wanted) as held:
        held.before_run()
        return held.after_run()["state"]


def host_journal(phone) -> Path:
    return journal.host_path(journal.of_this_phone(phone, CONFIG))


def device_journal(phone) -> Path:
    return Path(journal.device_path(phone))


def test_every_want_of_the_schema_is_known_and_tested():
    schema = yaml.safe_load((ROOT / "workflow/schemas/experiment.schema.yaml").read_text())
    assert set(schema["properties"]["state"]["properties"]) == {*WANTS, "stop_apps"} == {*SHELL, *NEED_ROOT}


def test_everything_is_set_recorded_and_given_back(tmp_path):
    phone = fake_phone(tmp_path)
    (tmp_path / "apps/com.example.mail").touch()
    (tmp_path / "apps/com.example.clock").touch()
    before = phone.everything()
    with keep(phone, SHELL | NEED_ROOT) as held:
        assert host_journal(phone).is_file()
        assert device_journal(phone).read_bytes() == host_journal(phone).read_bytes()
        held.before_run()
        state = held.after_run()["state"]
        assert phone.setting("global/airplane_mode_on") == "1"
        assert phone.setting("system/screen_brightness_mode") == "0"
        assert phone.setting("system/screen_brightness") == "77"
        assert phone.setting("system/screen_off_timeout") == "600000"
        assert phone.setting("global/stay_on_while_plugged_in") == "7"
        assert phone.setting("global/heads_up_notifications_enabled") == "0"
        scales = ("window_animation", "transition_animation", "animator_duration")
        assert {phone.setting(f"global/{name}_scale") for name in scales} == {"0.5"}
        assert (tmp_path / "fixed_performance").read_text() == "true\n"
        during = phone.everything()
        for number in (0, 4):
            assert during[POLICY.format(number, "governor")] == "performance"
            # 60 % of 2 GHz is no clock that it has: the next one below, for both limits.
            assert during[POLICY.format(number, "max_freq")] == "1000000"
            assert during[POLICY.format(number, "min_freq")] == "1000000"
        assert during[SUSPEND] == "1"
        assert not (tmp_path / "apps/com.example.mail").exists()
        assert (tmp_path / "apps/com.example.clock").exists()
    assert state["wanted"] == SHELL | NEED_ROOT
    assert state["unmet"] == {}
    assert "power_not_clean" not in state
    assert state["found"]["airplane_mode"] is False
    assert state["found"]["brightness"] == 128
    assert state["found"]["heads_up_notifications"] is True
    assert state["found"]["governor"] == {"policy0": "schedutil", "policy4": "schedutil"}
    assert state["found"]["charging"] is True
    assert state["found"]["stop_apps"] == ["com.example.mail"]
    for name in ("airplane_mode", "automatic_brightness", "brightness", "screen_timeout_ms", "stay_on"):
        assert state["set"][name] == SHELL[name]
    assert state["set"]["charging"] is False
    assert state["set"]["animation_scale"] == 0.5
    assert state["set"]["max_frequency_percent"] == {"policy0": 1000000, "policy4": 1000000}
    assert list(state["unverified"]) == ["fixed_performance"]
    # What was never set is not there again, and is no constant.
    assert phone.everything() == before
    assert (tmp_path / "fixed_performance").read_text() == "false\n"
    assert not host_journal(phone).exists()
    assert not device_journal(phone).exists()


def test_limits_never_pass_each_other(tmp_path):
    phone = fake_phone(tmp_path)
    seen = []

    def pairs() -> None:
        for number in (0, 4):
            low, high = (
                int(phone.everything()[POLICY.format(number, f"{end}_freq")]) for end in ("min", "max")
            )
            seen.append((low, high))

    for number in (0, 4):
        phone.put(POLICY.format(number, "min_freq"), str(CLOCKS[2]))
    phone.after = pairs
    with keep(phone, {"max_frequency_percent": 50, "min_frequency_percent": 25}):
        pass
    assert (CLOCKS[0], CLOCKS[1]) in seen
    assert all(low <= high for low, high in seen)
    assert phone.everything()[POLICY.format(0, "min_freq")] == str(CLOCKS[2])


def test_what_is_as_wanted_already_is_not_touched(tmp_path):
    phone = fake_phone(tmp_path)
    before = phone.everything()
    wanted = {"airplane_mode": False, "heads_up_notifications": True, "max_frequency_percent": 100}
    with keep(phone, wanted) as held:
        assert not host_journal(phone).exists()
        state = held.after_run()["state"]
    assert state["unmet"] == {}
    assert state["set"] == state["found"] | {"airplane_mode": False}
    assert phone.everything() == before


def test_without_root_what_needs_it_is_unmet_and_the_rest_is_set(tmp_path):
    phone = fake_phone(tmp_path, root=False)
    before = phone.everything()
    state = recorded(
        phone, {"airplane_mode": True, "min_frequency_percent": 25} | {"governor": "performance"}
    )
    assert state["set"] == {
        "airplane_mode": True,
        "min_frequency_percent": {"policy0": 500000, "policy4": 500000},
    }
    assert list(state["unmet"]) == ["governor"]
    assert state["unmet"]["governor"].startswith("needs root: ")
    assert "schedutil" in state["unmet"]["governor"]
    assert phone.everything() == before


def test_power_that_is_not_clean_is_recorded_with_and_without_a_wanted_state(tmp_path, caplog):
    phone = fake_phone(tmp_path, root=False)
    state = recorded(phone, {"charging": False})
    assert state["unmet"]["charging"].startswith("needs root")
    assert "status is Charging" in state["power_not_clean"]
    assert "power is not clean" in caplog.text
    assert recorded(phone, {}) == {
        "wanted": {},
        "found": {},
        "set": {},
        "unmet": {},
        "power_not_clean": state["power_not_clean"],
    }
    phone.put(SUSPEND, "1")
    with keep(phone, {}) as held:
        held.before_run()
        assert held.after_run() == {}


def test_a_charger_that_goes_on_charging_is_unmet(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.fake_phone._drive", lambda folder: None)
    monkeypatch.setattr("pocketvlm.measure.state.keep._SETTLE_CHARGER_S", 0.2)
    phone = fake_phone(tmp_path)
    (tmp_path / "sys/class/power_supply/battery/status").write_text("Charging\n")
    state = recorded(phone, {"charging": False})
    assert "status is Charging all the same" in state["unmet"]["charging"]
    assert state["power_not_clean"]
    assert phone.everything()[SUSPEND] == "0"


def test_a_machine_without_settings_meets_nothing_and_is_no_error(tmp_path):
    local = LocalDevice("local", tmp_path / "device")
    config = CONFIG | {"id": "local", "kind": "local"}
    with in_state(local, {"airplane_mode": True, "stay_on": True}, config=config, results=tmp_path) as held:
        held.before_run()
        state = held.after_run()["state"]
    assert state["set"] == {}
    assert state["found"] == {"airplane_mode": None, "stay_on": None}
    assert set(state["unmet"]) == {"airplane_mode", "stay_on"}
    assert "no `settings`" in state["unmet"]["airplane_mode"]
    assert not journal.folder().exists()
    with in_state(local, {}, config=config, results=tmp_path) as held:
        held.before_run()
        assert held.after_run() == {}


def test_airplane_mode_does_not_cut_off_a_phone_on_its_network(tmp_path):
    phone = fake_phone(tmp_path)
    for serial in ("192.168.1.7:5555", "adb-1a2b3c4d-AbCdEf._adb-tls-connect._tcp"):
        phone.serial = serial
        state = recorded(phone, {"airplane_mode": True})
        assert "would cut" in state["unmet"]["airplane_mode"]
    phone.serial = "emulator-5554"
    assert recorded(phone, {"airplane_mode": True})["unmet"] == {}


@pytest.mark.parametrize("strange", ["'1; rm -rf /'", "$(id)", "-1", "2", "99999999999999999999999999", "on"])
def test_what_could_not_be_given_back_is_not_changed(tmp_path, strange):
    phone = fake_phone(tmp_path)
    phone.put("global/airplane_mode_on", strange)
    state = recorded(phone, {"airplane_mode": True, "stay_on": True})
    assert "could not be given back" in state["unmet"]["airplane_mode"]
    assert ";" not in state["unmet"]["airplane_mode"]
    assert state["set"] == {"stay_on": True}
    assert phone.setting("global/airplane_mode_on") == strange


def test_a_phone_that_refuses_says_why(tmp_path):
    phone = fake_phone(tmp_path)
    program = tmp_path / "bin/settings"
    refused = "java.lang.SecurityException: Permission denial, must have WRITE_SECURE_SETTINGS"
    text = program.read_text().replace("    put)", f'    put) echo "{refused}" >&2; exit 255 ;;\n    never)')
    program.write_text(text)
    state = recorded(phone, {"screen_timeout_ms": 600000, "airplane_mode": True})
    assert refused in state["unmet"]["screen_timeout_ms"]
    assert "is 30000 and should be 600000" in state["unmet"]["screen_timeout_ms"]
    assert state["set"] == {"airplane_mode": True}


def test_a_phone_without_the_mode_of_fixed_performance_has_nothing_to_give_back(tmp_path):
    phone = fake_phone(tmp_path)
    # As PowerManagerShellCommand answers where the power HAL knows no modes.
    refused = "Failed to set FIXED_PERFORMANCE mode"
    program = tmp_path / "bin/cmd"
    program.write_text(program.read_text().replace('echo "$3" >', f'echo "{refused}"; exit 255; : >'))
    state = recorded(phone, {"fixed_performance": True, "airplane_mode": True})
    assert refused in state["unmet"]["fixed_performance"]
    assert state["set"] == {"airplane_mode": True}
    assert "unverified" not in state
    assert phone.setting("global/airplane_mode_on") == "0"
    assert not host_journal(phone).exists()


@pytest.mark.parametrize(
    ("wanted", "unmet", "why"),
    [
        ({"automatic_brightness": True, "brightness": 9}, {"brightness"}, "automatic brightness is wanted"),
        (
            {"max_frequency_percent": 25, "min_frequency_percent": 75},
            {"max_frequency_percent", "min_frequency_percent"},
            "the least is to be 75 %",
        ),
        ({"governor": "userspace"}, {"governor"}, "has no governor userspace"),
    ],
)
def test_what_cannot_be_had_is_unmet(tmp_path, wanted, unmet, why):
    state = recorded(fake_phone(tmp_path), wanted)
    assert set(state["unmet"]) == unmet
    assert all(why in reason for reason in state["unmet"].values())


def test_what_changes_during_a_run_marks_it_and_is_set_again(tmp_path, caplog):
    phone = fake_phone(tmp_path)
    with keep(phone, {"brightness": 77, "airplane_mode": True}) as held:
        held.before_run()
        phone.put("system/screen_brightness", "255")
        first = held.after_run()["state"]
        held.before_run()
        assert phone.setting("system/screen_brightness") == "77"
        second = held.after_run()["state"]
    assert "is 255 and should be 77" in first["unmet"]["brightness"]
    assert first["set"] == {"airplane_mode": True}
    assert second["unmet"] == {}
    assert "brightness changed during the block" in caplog.text
    assert phone.setting("system/screen_brightness") == "128"


def test_an_app_that_comes_back_is_stopped_again_and_marks_its_run(tmp_path):
    phone = fake_phone(tmp_path)
    app = tmp_path / "apps/com.example.mail"
    with keep(phone, {"stop_apps": ["com.example.mail"]}) as held:
        held.before_run()
        app.touch()
        assert "com.example.mail" in held.after_run()["state"]["unmet"]["stop_apps"]
        held.before_run()
        assert held.after_run()["state"]["unmet"] == {}
    assert not app.exists()


def test_an_error_in_the_block_gives_back_and_stays_the_error(tmp_path):
    phone = fake_phone(tmp_path)
    before = phone.everything()
    with pytest.raises(ZeroDivisionError), keep(phone, {"airplane_mode": True, "governor": "powersave"}):
        raise ZeroDivisionError
    assert phone.everything() == before
    assert not host_journal(phone).exists()


def test_a_full_device_is_not_changed(tmp_path, monkeypatch):
    phone = fake_phone(tmp_path)
    before = phone.everything()

    def full(*arguments, **named):
        raise DeviceError("no space left", do="make room")

    monkeypatch.setattr(phone, "push", full)
    with pytest.raises(DeviceError, match="no space"), keep(phone, {"airplane_mode": True}):
        raise AssertionError("nothing may run")
    assert phone.everything() == before
    assert not host_journal(phone).exists()


def test_what_cannot_be_given_back_is_said_with_what_to_type_and_kept(tmp_path):
    phone = fake_phone(tmp_path)
    before = phone.everything()
    block = keep(phone, {"airplane_mode": True, "governor": "performance", "brightness": 9})
    block.__enter__()
    phone.root = False
    cmd = tmp_path / "bin/cmd"
    kept = cmd.read_text()
    cmd.write_text("#!/bin/sh\necho broken >&2\nexit 1\n")
    with pytest.raises(DeviceError) as caught:
        block.__exit__(None, None, None)
    message = str(caught.value)
    assert "global/airplane_mode_on is 1 and was 0 (the device said: broken)" in message
    assert "adb shell cmd connectivity airplane-mode disable" in message
    assert "policy4/scaling_governor is performance and was schedutil" in message
    assert "adb shell su -c 'echo schedutil > " in message
    assert "brightness" not in message
    assert str(host_journal(phone)) in message
    assert device_journal(phone).is_file()
    # Nothing is forgotten: it is tried again, whoever comes next, and then it is as it was.
    with pytest.raises(DeviceError, match="airplane_mode_on is 1"):
        recover(phone, CONFIG)
    cmd.write_text(kept)
    phone.root = True
    assert recover(phone, CONFIG)
    assert phone.everything() == before
    assert not recover(phone, CONFIG)


def test_a_wanted_state_is_part_of_a_runs_key_and_none_is_not(tmp_path):
    write_json(tmp_path / "manifest.json", {})
    identity = {"id": "pixel"}
    plain = idle_job(identity, tmp_path, 3)
    assert "state" not in plain.key_inputs
    assert idle_job(identity, tmp_path, 3, {}).key == plain.key
    assert idle_job(identity, tmp_path, 3, {"state": {"airplane_mode": True}}).key != plain.key

"""What obeys on the emulated phone: governors, limits, charger, gauge, frames, and what a file refuses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvlm.devices.emulated import frames, hal, model, sysfs
from pocketvlm.devices.emulated.controls import (
    CPUFREQ,
    ENFORCE,
    GOVERNORS,
    INPUT_SUSPEND,
    Controls,
    Policy,
    accepted,
    choose,
    defaults,
)
from pocketvlm.devices.emulated.switches import Switches
from pocketvlm.devices.emulated.writer import SensorFiles, shown_by

PHONE = model.phone(2, ambient=25.0, charge_mah=4500)
CLUSTERS = {cluster.cpus[0]: cluster.clocks for cluster in PHONE.clusters}
BATTERY = "sys/class/power_supply/battery"
CHARGING = Controls(charging=True)


def run(state: model.State, cores: float, seconds: float, controls: Controls = model.USUAL) -> model.State:
    for _ in range(round(seconds / 0.1)):
        state = model.step(PHONE, state, cores, 0.1, controls)
    return state


@pytest.mark.parametrize("cores", [0.0, 0.7, 2.0])
def test_governors_choose_the_clock(cores):
    clocks = {
        governor: run(model.fresh(PHONE), cores, 1, Controls((Policy(governor), Policy(governor)))).clocks
        for governor in GOVERNORS
    }
    assert clocks["performance"] == tuple(cluster.clocks[-1] for cluster in PHONE.clusters)
    assert clocks["powersave"] == tuple(cluster.clocks[0] for cluster in PHONE.clusters)
    assert clocks["schedutil"] == run(model.fresh(PHONE), cores, 1).clocks


def test_limits_hold_for_every_governor_and_heat_goes_first():
    fast = PHONE.clusters[1].clocks
    for governor in GOVERNORS:
        policy = Policy(governor, fast[1], fast[3])
        for wanted in (0.0, float(fast[2]), 1e9):
            assert fast[1] <= choose(policy, fast, wanted, fast[-1]) <= fast[3]
    assert choose(Policy("performance", fast[4], fast[6]), fast, 0, 0.7 * fast[-1]) <= 0.7 * fast[-1]
    # No operating point lies between these limits: the one below holds the upper limit.
    assert choose(Policy("schedutil", fast[1] + 1, fast[2] - 1), fast, 1e9, fast[-1]) == fast[1]
    assert choose(Policy("powersave", None, fast[0] - 1), fast, 0, fast[-1]) == fast[0]


def test_a_fixed_performance_mode_holds_a_clock_that_heat_does_not_change():
    fixed = Controls(fixed_performance=True)
    cool = run(model.fresh(PHONE), 2, 1, fixed)
    hot = model.step(PHONE, replace(cool, temperatures={**cool.temperatures, "cpu": 90.0}), 2, 0.1, fixed)
    assert cool.clocks == hot.clocks
    assert all(
        clock <= 0.7 * cluster.clocks[-1] for clock, cluster in zip(cool.clocks, PHONE.clusters, strict=True)
    )
    assert cool.watts < run(model.fresh(PHONE), 2, 1).watts - 1


def test_power_follows_the_switches():
    busy = {name: run(model.fresh(PHONE), 1, 1, how).watts for name, how in {
        "usual": Controls(), "slow": Controls((Policy("powersave"), Policy("powersave"))),
        "dark": Controls(brightness=0), "bright": Controls(brightness=255),
    }.items()}  # fmt: skip
    assert busy["slow"] < busy["usual"] - 0.5
    assert busy["dark"] < busy["usual"] < busy["bright"]


def test_a_charger_turns_the_current_around_and_fills_the_battery_only_once():
    off, on = run(model.fresh(PHONE), 1, 5), run(model.fresh(PHONE), 1, 5, CHARGING)
    assert (off.status, on.status) == ("Discharging", "Charging")
    assert off.gauge[0] > 0 > on.gauge[0]
    assert on.gauge[0] >= -PHONE.charger - 1e-6
    assert on.gauge[1] > off.gauge[1], "the voltage rises while it charges"
    assert off.charge < model.fresh(PHONE).charge < on.charge
    start, state, coulombs = model.fresh(PHONE).charge, model.fresh(PHONE), 0.0
    for _ in range(50):
        state = run(state, 0, 0.1, CHARGING)
        coulombs += 0.1 * PHONE.charger
    assert state.charge - start == pytest.approx(coulombs, rel=0.02)
    full = replace(on, charge=PHONE.charge_full)
    rested = run(full, 0, 2, CHARGING)
    assert (rested.status, rested.charge) == ("Full", PHONE.charge_full)
    assert rested.gauge[0] == pytest.approx(0.0, abs=1e-9)
    # A phone that uses more than the charger gives takes the rest from its battery.
    weak = replace(PHONE, charger_watts=1.0)
    assert model.step(weak, model.fresh(PHONE), 2, 1, CHARGING).charge < model.fresh(PHONE).charge


def test_the_gpus_work_is_split_and_is_all_of_its_work():
    idle, busy = run(model.fresh(PHONE), 0, 5), run(model.fresh(PHONE), 2, 5)
    assert model.fresh(PHONE).gpu_work == (0.0, 0.0)
    assert idle.gpu_work[0] > 0 == pytest.approx(idle.gpu_work[1], abs=1e-9)
    assert busy.gpu_work[1] > 1.0
    shares, state = 0.0, model.fresh(PHONE)
    for _ in range(50):
        state = run(state, 2, 0.1)
        if state.gpu_sum == (0.0, 0.0):
            shares += state.gpu[0] / 1e6
    assert sum(state.gpu_work) == pytest.approx(shares, rel=0.05)


@pytest.mark.parametrize(
    ("gauge", "current"),
    [
        ({}, -1e6),
        ({"current_unit": "mA"}, -1e3),
        ({"current_sign": "discharging_positive"}, 1e6),
        ({"current_unit": "mA", "current_sign": "discharging_positive", "charge_counter": False}, 1e3),
    ],
)
def test_gauges_differ_as_phones_do(gauge, current):
    shown = shown_by({"gauge": gauge, "denied": False})
    state = run(model.fresh(PHONE), 2, 5)
    files = sysfs.changing(PHONE, state, shown)
    assert int(files[f"{BATTERY}/current_now"][1]) == round(state.gauge[0] * current)
    counted = gauge.get("charge_counter", True)
    assert (sysfs.COUNTER in files) is counted
    counter = dict(
        line.split() for line in hal.files(PHONE, state, counter=counted)["data/hal/battery"][1].splitlines()
    )
    assert (counter["charge_counter"] == "0") is not counted
    charging = sysfs.changing(PHONE, run(state, 0, 5, CHARGING), shown)
    assert int(charging[f"{BATTERY}/current_now"][1]) * current < 0
    assert charging[f"{BATTERY}/status"][1] == "Charging"


def test_what_is_denied_is_there_for_the_sensors_that_are_denied_only():
    denied = sysfs.denied(PHONE, model.fresh(PHONE))
    names = [zone for zone, _ in sysfs.zones(PHONE, model.fresh(PHONE))]
    readable = {
        names[index]
        for index in range(len(names))
        if f"sys/class/thermal/thermal_zone{index}/temp" not in denied
    }
    assert readable == {"skin-msm-therm", "battery"}
    assert "sys/class/kgsl/kgsl-3d0/gpu_busy_percentage" in denied
    assert not any("cpufreq" in path or "power_supply" in path or path.endswith("type") for path in denied)


def test_services_say_what_sysfs_says():
    state = run(model.fresh(PHONE), 2, 30)
    files = hal.files(PHONE, state, counter=True)
    for width, text in files.values():
        assert len(text) < width
    battery = dict(line.split() for line in files["data/hal/battery"][1].splitlines())
    shown = {
        path.rpartition("/")[2]: text
        for path, (_, text) in sysfs.changing(PHONE, state).items()
        if BATTERY in path
    }
    assert battery["temperature"] == shown["temp"]
    assert battery["charge_counter"] == shown["charge_counter"]
    assert abs(int(battery["voltage"]) - int(shown["voltage_now"]) / 1000) <= 0.5
    lines = files["data/hal/thermal"][1].splitlines()[1:]
    assert {line.split()[2]: float(line.split()[0]) for line in lines}.items() <= {
        zone: round(celsius, 1) for zone, celsius in sysfs.zones(PHONE, state)
    }.items()
    assert [hal.severity(celsius) for celsius in (25, 38.9, 39, 46, 90)] == [0, 0, 1, 4, 6]


@pytest.fixture
def switches(tmp_path: Path) -> Switches:
    return Switches(tmp_path, SensorFiles(tmp_path), CLUSTERS, rooted=True, charger=True)


def test_what_is_written_is_obeyed_and_nonsense_is_undone(switches, tmp_path):
    assert switches.look() == Controls(
        tuple(Policy("schedutil", clocks[0], clocks[-1]) for clocks in CLUSTERS.values()), charging=True
    )
    governor, most = (
        tmp_path / CPUFREQ / f"policy1/{name}" for name in ("scaling_governor", "scaling_max_freq")
    )
    governor.write_text("powersave\n")
    most.write_text("1248000")
    (tmp_path / INPUT_SUSPEND).write_text("1\n")
    found = switches.look()
    assert found.policies[1] == Policy("powersave", CLUSTERS[1][0], 1_248_000)
    assert found.policies[0].governor == "schedutil"
    assert found.charging is False
    for path, nonsense in (
        (governor, "turbo"), (governor, "powersave; reboot"), (governor, "\0\xff"),
        (most, "-1"), (most, "9" * 400), (most, "1248000.5"), (most, "1"), (most, "٣"),
        (tmp_path / INPUT_SUSPEND, "2"), (tmp_path / ENFORCE, "off"),
    ):  # fmt: skip
        path.write_text(nonsense)
        # A file that is being written is empty for a moment, so that nothing is undone at the first look.
        assert switches.look() == found
        assert path.read_text() == nonsense
        assert switches.look() == found
        assert path.read_text().strip() not in (nonsense, "")
    assert governor.read_text() == "powersave".ljust(16, "\n")
    most.write_text("99999999\n")
    assert switches.look().policies[1].most == CLUSTERS[1][-1]
    assert most.read_text().strip() == str(CLUSTERS[1][-1]), "a limit beyond the cluster's own is cut to it"


def test_a_file_being_written_is_taken_when_it_is_whole(switches, tmp_path):
    path = tmp_path / CPUFREQ / "policy0/scaling_governor"
    with path.open("w") as stream:
        assert switches.look().policies[0].governor == "schedutil"
        stream.write("performance\n")
    assert switches.look().policies[0].governor == "performance"


def test_without_root_nothing_is_obeyed(tmp_path):
    switches = Switches(tmp_path, SensorFiles(tmp_path), CLUSTERS, rooted=False, charger=True)
    before = switches.look()
    (tmp_path / INPUT_SUSPEND).write_text("1\n")
    assert [switches.look(), switches.look()] == [before, before]
    assert (tmp_path / INPUT_SUSPEND).read_text().strip() == "0"


def test_settings_reach_the_model(switches, tmp_path):
    assert (switches.look().brightness, switches.look().fixed_performance) == (102, False)
    for name, text in {"settings/system/screen_brightness": "7", "power/fixed_performance": "true"}.items():
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_text(text + "\n")
    assert (switches.look().brightness, switches.look().fixed_performance) == (7, True)
    for nonsense in ("256", "-1", "x", "9" * 5000):
        (tmp_path / "data/settings/system/screen_brightness").write_text(nonsense)
        assert switches.look().brightness == 102
    assert switches.foreground() == ""


@given(text=st.text(max_size=20), path=st.sampled_from(sorted(defaults(CLUSTERS))))
def test_whatever_is_accepted_keeps_the_limits_in_order(text, path):
    files = defaults(CLUSTERS)
    clocks = CLUSTERS[1] if "policy1" in path else CLUSTERS[0]
    taken = accepted(files, path, text, clocks)
    if taken is None:
        return
    files[path] = taken
    for first, points in CLUSTERS.items():
        folder = f"{CPUFREQ}/policy{first}"
        least, most = (int(files[f"{folder}/scaling_{name}_freq"]) for name in ("min", "max"))
        assert points[0] <= least <= most <= points[-1]


def draw_for(seconds: float, share: float) -> frames.Frames:
    drawn = frames.begin("a.b/.C", 5_000_000_000)
    for now in range(5_000_000_000, 5_000_000_000 + round(seconds * 1e9), 100_000_000):
        drawn = frames.advance(drawn, now, share)
    return drawn


def test_frames_come_with_the_beat_and_later_the_higher_the_load():
    idle, half, full = (draw_for(60, share) for share in (0.0, 0.5, 1.0))
    assert idle.total == pytest.approx(60 * 60, rel=0.01)
    assert idle.janky == 0
    assert 0 <= half.janky < full.janky
    assert 0.1 < full.janky / full.total < 0.5
    assert 3580 - 2 * full.janky < full.total < 3620 - full.janky, "late frames cost the next a beat or two"
    for drawn in (idle, full):
        assert len(drawn.last) == frames.KEPT
        for before, after in itertools.pairwise(drawn.last):
            assert before.presented <= after.intended
        for frame in drawn.last:
            assert frame.intended < frame.completed <= frame.presented
            assert (frame.presented - frame.intended) % frames.PERIOD_NS == 0
        width, text = frames.text(drawn)
        assert len(text) < width
        first, *_, last = text.splitlines()
        assert (first, last) == (f"a.b/.C 5000000000 {drawn.total} {drawn.janky}", f"end {drawn.total}")


@given(number=st.integers(0, 10**6), low=st.floats(0, 1), high=st.floats(0, 1))
def test_no_frame_is_drawn_faster_under_more_load(number, low, high):
    low, high = sorted((low, high))
    assert frames.duration(number, low) <= frames.duration(number, high) < 3 * frames.PERIOD_NS


def test_a_phone_that_slept_draws_nothing_for_the_time_between():
    drawn = frames.advance(frames.begin("a.b/.C", 0), 10**15, 0.0)
    assert drawn.total <= frames.KEPT + 1
    assert 10**15 - drawn.last[-1].presented < 2 * frames.PERIOD_NS
    assert frames.advance(frames.begin("", 0), 10**12, 1.0).total == 0

"""The emulated phone's sensors: physics that adds up, files that can be held open."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvlm.devices.emulated import load, model, sysfs
from pocketvlm.devices.emulated.writer import SensorFiles, known_below

PHONE = model.phone(2, ambient=25.0, charge_mah=4500)


def run(state: model.State, cores: float, seconds: float, tick: float = 0.1) -> model.State:
    for _ in range(round(seconds / tick)):
        state = model.step(PHONE, state, cores, tick)
    return state


def test_a_busy_minute_heats_by_several_degrees_and_rest_cools():
    idle = run(model.fresh(PHONE), 0, 30)
    busy = run(idle, 2, 60)
    after = run(busy, 0, 60)
    assert busy.temperatures["cpu"] - idle.temperatures["cpu"] > 5
    assert 1 < busy.temperatures["skin"] - idle.temperatures["skin"] < 6
    assert 0.1 < busy.temperatures["battery"] - idle.temperatures["battery"] < 4
    assert after.temperatures["cpu"] < busy.temperatures["cpu"] - 4


def test_heat_is_conserved():
    """What flows in is stored or lost to the ambient: sum of C dT + integral of G (T - ambient) = energy."""
    state, stored, lost, put_in = model.fresh(PHONE), 0.0, 0.0, 0.0
    for second in range(600):
        before = state
        state = model.step(PHONE, state, 2 if second % 3 else 0, 0.1)
        amperes, _ = model.draw(PHONE, before.charge, state.watts)
        # All power becomes heat in the phone, and so does the battery's own loss.
        put_in += 0.1 * (state.watts + amperes**2 * PHONE.resistance)
        stored += sum(
            PHONE.capacity[node] * (state.temperatures[node] - before.temperatures[node])
            for node in model.NODES
        )
        lost += 0.1 * sum(
            conductance * (before.temperatures[node] - PHONE.ambient)
            for (node, other), conductance in PHONE.conductance.items()
            if other == "ambient"
        )
    assert stored + lost == pytest.approx(put_in, rel=1e-6)


def test_charge_falls_by_the_integral_of_the_current():
    state, coulombs = model.fresh(PHONE), 0.0
    start = state.charge
    for _ in range(300):
        before = state
        state = model.step(PHONE, state, 2, 0.1)
        coulombs += 0.1 * model.draw(PHONE, before.charge, state.watts)[0]
    assert start - state.charge == pytest.approx(coulombs, rel=1e-9)


@given(charge=st.floats(0.01, 1.0), watts=st.floats(0.1, 12.0))
def test_the_battery_gives_the_power_that_is_drawn_and_sags(charge, watts):
    amperes, volts = model.draw(PHONE, charge * PHONE.charge_full, watts)
    assert amperes * volts == pytest.approx(watts, rel=1e-6)
    assert volts < model.open_circuit_volts(charge)


def test_voltage_rises_with_charge():
    volts = [model.open_circuit_volts(percent / 100) for percent in range(101)]
    assert volts == sorted(volts)
    assert 3.3 < volts[0] < volts[-1] < 4.45


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(-1, 50), st.floats(0, 20)), max_size=30))
def test_no_load_breaks_it(loads):
    state = model.fresh(PHONE)
    elapsed = 0.0
    for cores, seconds in loads:
        state = model.step(PHONE, state, cores, seconds)
        elapsed += seconds
    assert all(PHONE.ambient - 1e-6 <= celsius < 120 for celsius in state.temperatures.values())
    assert 0 < state.charge <= PHONE.charge_full
    for times in state.time_in_state:
        assert sum(times.values()) == pytest.approx(elapsed, abs=1e-6)
    for path, (width, text) in sysfs.changing(PHONE, state).items():
        assert len(text) < width, path


def test_clocks_follow_the_load_and_heat_caps_them():
    idle, busy = run(model.fresh(PHONE), 0, 1), run(model.fresh(PHONE), 2, 1)
    assert idle.clocks == tuple(cluster.clocks[0] for cluster in PHONE.clusters)
    assert busy.clocks == tuple(cluster.clocks[-1] for cluster in PHONE.clusters)
    one = run(model.fresh(PHONE), 1, 1)
    # A share of what is to be done runs on the slow cluster.
    assert PHONE.clusters[0].clocks[0] < one.clocks[0] < PHONE.clusters[0].clocks[-1]
    assert one.clocks[1] == PHONE.clusters[1].clocks[-1]
    hot = replace(busy, temperatures={**busy.temperatures, "cpu": 90.0})
    assert all(
        clock <= 0.7 * cluster.clocks[-1]
        for clock, cluster in zip(model.step(PHONE, hot, 2, 0.1).clocks, PHONE.clusters, strict=True)
    )


def test_the_gpu_shows_windows_of_a_second():
    state = run(model.fresh(PHONE), 0, 1.0)
    shown = {run(state, 2, seconds).gpu for seconds in (0.1, 0.5, 0.9)}
    assert shown == {state.gpu}
    later = run(state, 2, 2.0).gpu
    assert later[0] > state.gpu[0] > 0
    assert later[1] == pytest.approx(1_000_000, rel=0.11)


def test_the_gpu_answers_to_the_load_and_its_clock_steps():
    idle = run(model.fresh(PHONE), 0, 3)
    assert 1 <= percent(idle) <= 10
    assert idle.gpu[2] == PHONE.gpu_clocks[0]
    state, shown, clocks = idle, [], [idle.gpu[2]]
    for _ in range(8):
        state = run(state, 2, 1)
        shown.append(percent(state))
        clocks.append(state.gpu[2])
    assert min(shown) > 50
    assert len(set(shown)) >= 3, "it varies over a run"
    steps = [PHONE.gpu_clocks.index(clock) for clock in clocks]
    assert steps == sorted(steps)
    assert steps[-1] >= 2
    assert all(after - before <= 1 for before, after in itertools.pairwise(steps)), "one point a window"
    assert run(state, 2, 4).gpu == state.gpu, "a steady load comes to rest"
    assert percent(run(model.fresh(PHONE), 1, 8)) > percent(run(model.fresh(PHONE), 0.2, 8)) > percent(idle)
    after = run(state, 0, 8)
    assert (percent(after), after.gpu[2]) == (percent(idle), idle.gpu[2])


def percent(state: model.State) -> int:
    shown = sysfs.changing(PHONE, state)["sys/class/kgsl/kgsl-3d0/gpu_busy_percentage"][1]
    return int(shown.removesuffix(" %"))


@given(load=st.floats(0, 8), cores=st.integers(1, 8))
def test_every_busy_core_is_placed_once(load, cores):
    phone = model.phone(cores, ambient=25, charge_mah=3000)
    placed = model._place(phone, min(load, cores))
    assert sum(placed) == pytest.approx(min(load, cores))
    rooms = [len(cluster.cpus) for cluster in phone.clusters]
    assert all(0 <= busy <= room + 1e-9 for busy, room in zip(placed, rooms, strict=True))


def test_one_core_is_a_phone_too():
    phone = model.phone(1, ambient=20, charge_mah=3000)
    state = model.step(phone, model.fresh(phone), 1, 10)
    assert len(state.clocks) == 1
    assert sysfs.zones(phone, state)[0][0] == "cpu-0-0"


def test_state_outlives_a_lease_and_time_goes_by_meanwhile():
    hot = run(model.fresh(PHONE), 2, 120)
    saved = json.loads(json.dumps(model.to_json(hot, 1000.0)))
    at_once = model.from_json(PHONE, saved, 1000.0)
    later = model.from_json(PHONE, saved, 1120.0)
    full = model.from_json(PHONE, saved, 1000.0 + 1e6)
    assert at_once.temperatures["skin"] == pytest.approx(hot.temperatures["skin"], abs=0.2)
    assert at_once.charge == pytest.approx(hot.charge, abs=1)
    assert later.temperatures["skin"] < hot.temperatures["skin"] - 0.5
    assert later.charge == pytest.approx(hot.charge + 120 * PHONE.charger, abs=2)
    assert full.charge == pytest.approx(PHONE.charge_full, abs=2)
    assert full.temperatures["skin"] < 27


@pytest.mark.parametrize(
    "saved",
    [
        None,
        [],
        "text",
        {},
        {"temperatures": {}},
        {"temperatures": dict.fromkeys(model.NODES, 500), "charge": 1, "saved_at": 0},
    ],
)
def test_a_record_that_is_none_is_a_fresh_phone(saved):
    assert model.from_json(PHONE, saved, 5.0) == model.fresh(PHONE)


def test_a_clock_set_back_is_no_time_travel():
    saved = model.to_json(model.fresh(PHONE), 1000.0)
    assert model.from_json(PHONE, saved, 10.0).charge == pytest.approx(model.fresh(PHONE).charge, abs=1)


def test_units_and_signs_are_the_kernels():
    state = run(model.fresh(PHONE), 2, 20)
    files = {path.rpartition("/")[2]: text for path, (_, text) in sysfs.changing(PHONE, state).items()}
    amperes, volts = state.gauge
    assert int(files["current_now"]) == -round(amperes * 1e6) < -200_000
    assert int(files["voltage_now"]) == round(volts * 1e6)
    assert 250 <= int(files["temp"]) < 300 or 25_000 <= int(files["temp"]) < 60_000
    assert files["status"] == "Discharging"
    assert files["gpu_busy_percentage"].endswith(" %")
    assert len(files["gpubusy"].split()) == 2
    battery = sysfs.changing(PHONE, state)["sys/class/power_supply/battery/temp"][1]
    assert int(battery) == round(10 * state.temperatures["battery"])


def test_an_open_file_shows_the_new_value(tmp_path: Path):
    files = SensorFiles(tmp_path)
    files.write("a/temp", 16, "123456")
    with (tmp_path / "a/temp").open("rb", buffering=0) as held:
        inode = os.fstat(held.fileno()).st_ino
        files.write("a/temp", 16, "7")
        assert os.pread(held.fileno(), 64, 0) == b"7" + b"\n" * 15
    assert (tmp_path / "a/temp").stat().st_ino == inode
    with pytest.raises(ValueError, match="longer than 16 bytes"):
        files.write("a/temp", 16, "x" * 16)
    # A phone of another shape before left a longer file behind.
    (tmp_path / "b").write_text("y" * 99)
    files.write("b", 8, "1")
    assert (tmp_path / "b").read_bytes() == b"1" + b"\n" * 7


def test_no_read_is_torn(tmp_path: Path):
    files = SensorFiles(tmp_path)
    files.write("value", 16, "1" * 15)
    stop = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        descriptor = os.open(tmp_path / "value", os.O_RDONLY)
        while not stop.is_set():
            seen.add(os.pread(descriptor, 16, 0))
        os.close(descriptor)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(20_000):
        files.write("value", 16, "12"[number % 2] * 15)
    stop.set()
    reader.join()
    assert seen == {b"1" * 15 + b"\n", b"2" * 15 + b"\n"}


def test_cpu_time_counts_children_that_have_ended(tmp_path: Path):
    """A shell that ran a busy child: its time shows whether the child is alive, a zombie, or waited for."""
    script = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"
    before = load.cpu_seconds(os.getpid(), [])
    child = subprocess.Popen(["sh", "-c", f"sh -c '{script}'; read line"], stdin=subprocess.PIPE)
    deadline, alive = time.monotonic() + 20, 0.0
    while time.monotonic() < deadline and alive < 0.05:
        time.sleep(0.05)
        alive = load.cpu_seconds(os.getpid(), []) - before
    assert child.pid in load.descendants(os.getpid())
    assert load.cpu_seconds(os.getpid(), [child.pid]) - before < alive
    child.communicate(b"\n", timeout=20)
    assert load.cpu_seconds(os.getpid(), []) - before >= alive >= 0.05
    assert child.pid not in load.descendants(os.getpid())


def test_what_a_dead_parent_left_is_not_forgotten():
    gone = subprocess.Popen(["true"])
    gone.wait()
    orphans: dict[int, str | None] = {4711: "12"}
    assert known_below(gone.pid, orphans) == orphans
    below = known_below(os.getppid(), orphans)
    assert below[os.getpid()] == load.start_time(os.getpid())
    assert 4711 not in below


def test_both_ways_to_find_descendants_agree():
    inner = 'sh -c "sleep 30 & echo; wait" & wait'
    child = subprocess.Popen(["sh", "-c", inner], stdout=subprocess.PIPE)
    below: list[int] = []
    try:
        assert child.stdout is not None
        child.stdout.readline()
        below = load.descendants(child.pid)
        assert len(below) == 2
        # One goes by age, the other by number, which begin anew now and then.
        assert sorted(below) == sorted(load._descendants_by_parent(child.pid))
    finally:
        for process in [*below, child.pid]:
            os.kill(process, 9)
        child.wait()

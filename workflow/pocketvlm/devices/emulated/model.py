"""The emulated phone's sensors as a model: the CPU time it spends becomes power, heat, clocks and charge.

Pure functions and values; `writer` feeds them and writes what they say. The numbers are those of a plausible
phone, not of any real one: they exercise everything that reads sensors, and no result of them is a phone's.

Load: `load` is in cores (CPU seconds a second of all processes below adbd, at most the number of cores).
A fixed share of it runs on the slow cluster (services, I/O), the rest on the fast cluster first, as an
energy-aware scheduler does, then on the slow one. Which core a process really ran on is not looked at.

Clock (schedutil's rule, Documentation/scheduler/schedutil.rst): the slowest operating point of at least
1.25 x utilisation x maximum; a hot die caps it.

Power: screen + rest + per cluster busy cores x watts x (f/fmax)^2.5 + GPU. The exponent stands for f V^2 with
V rising a little slower than f.

Heat: a lumped RC network, C dT/dt = P + sum of G (Tother - T), five nodes and a fixed ambient.

Battery: open-circuit voltage by charge, a series resistance R; V = OCV - I R and P = V I give
I = (OCV - sqrt(OCV^2 - 4 R P)) / (2 R). While a lease holds the phone it discharges, unless a charger is
connected: then the charger gives what the phone uses and charges with the rest of what it can give, at most
at a constant current, until the battery is full. Between leases it charges at that current. It never falls
below 1 %, because the model has no shutdown.

Switches (`controls`): governors and limits choose the clock; a fixed performance mode holds it below 70 % of
the highest, as a hot die does; a brighter screen draws more.

GPU: nothing computes on one here. What it shows is a coupling to the CPU load, so that what reads it has
something to follow: busy cores stand for composition and copies, which saturate as memory bandwidth does.
demand = screen + copy x (1 - exp(-load / copy_cores)), as a share of what the highest clock does; the share
of time that it is busy is demand x fmax / f, at most 1. Like the public kgsl drivers it shows the mean of
windows of about a second, not a running value, and at the end of each the clock goes one operating point up
above 80 % and one down below 50 %.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pocketvlm.devices.emulated.controls import USUAL_BRIGHTNESS, Controls, Policy, choose

NODES = ("cpu", "gpu", "pmic", "skin", "battery")
USUAL = Controls()
_LONGEST_STEP = 0.25
# From this die temperature on, in degC, the clocks are capped.
_HOT = 85.0
_FORGOTTEN_AFTER = 6 * 3600.0


@dataclass(frozen=True)
class Cluster:
    """Cores that share a clock.

    Attributes:
        cpus: their numbers; the policy is named by the first.
        clocks: operating points in kHz, rising.
        watts: power of one busy core at the highest clock, in W.
    """

    cpus: tuple[int, ...]
    clocks: tuple[int, ...]
    watts: float


@dataclass(frozen=True)
class Phone:
    """What the phone is made of.

    Attributes:
        clusters: slow first.
        ambient: temperature around it, in degC.
        charge_full: in coulomb.
        slow_share: of the load, what runs on the slow cluster in any case.
        gpu_screen: load of a lit screen, as a share of what the GPU does at its highest clock.
        gpu_copy: what composition and copies add to it at most, in the same unit.
        gpu_copy_cores: busy cores at which they reach 63 % of that.
        regulator_loss: what the regulators turn into heat, as a fraction of what they pass on.
        capacity: heat capacity by node, J/K.
        conductance: between two nodes, or a node and `ambient`, W/K.
    """

    clusters: tuple[Cluster, ...]
    ambient: float = 25.0
    charge_full: float = 4500 * 3.6
    resistance: float = 0.085
    charger: float = 1.5
    charger_watts: float = 10.0
    charger_loss: float = 0.08
    slow_share: float = 0.25
    screen_watts: float = 0.55
    rest_watts: float = 0.30
    off_watts: float = 0.10
    regulator_loss: float = 0.10
    gpu_watts: float = 1.8
    gpu_clocks: tuple[int, ...] = (
        257_000_000,
        345_000_000,
        427_000_000,
        499_200_000,
        585_000_000,
        675_000_000,
    )
    gpu_screen: float = 0.015
    gpu_copy: float = 0.8
    gpu_copy_cores: float = 1.7
    gpu_window: float = 1.0
    gauge_window: float = 0.2
    capacity: Mapping[str, float] = field(
        default_factory=lambda: {"cpu": 2.0, "gpu": 1.5, "pmic": 4.0, "skin": 60.0, "battery": 45.0}
    )
    conductance: Mapping[tuple[str, str], float] = field(
        default_factory=lambda: {
            ("cpu", "skin"): 0.30,
            ("cpu", "gpu"): 0.25,
            ("gpu", "skin"): 0.25,
            ("pmic", "skin"): 0.30,
            ("pmic", "cpu"): 0.05,
            ("skin", "battery"): 0.35,
            ("skin", "ambient"): 0.18,
            ("battery", "ambient"): 0.02,
        }
    )

    @property
    def cores(self) -> int:
        """How many cores it has."""
        return sum(len(cluster.cpus) for cluster in self.clusters)


def phone(cores: int, *, ambient: float, charge_mah: float) -> Phone:
    """Return a phone with as many cores as the machine that computes for it: slow ones, then fast ones.

    Args:
        cores: at least 1.
        ambient: degC.
        charge_mah: full charge, mAh.
    """
    slow = Cluster(
        tuple(range(cores // 2)), (307_200, 556_800, 806_400, 1_113_600, 1_459_200, 1_804_800), 1.4
    )
    fast = Cluster(
        tuple(range(cores // 2, cores)),
        (499_200, 844_800, 1_248_000, 1_651_200, 2_054_400, 2_457_600, 2_841_600),
        2.2,
    )
    clusters = tuple(cluster for cluster in (slow, fast) if cluster.cpus)
    return Phone(clusters=clusters, ambient=ambient, charge_full=charge_mah * 3.6)


@dataclass(frozen=True)
class State:
    """What the phone remembers.

    Attributes:
        temperatures: degC by node.
        charge: in coulomb.
        clocks: kHz by cluster.
        time_in_state: seconds by cluster and clock, since the phone started.
        watts: power of the last step, in W, and of its clusters.
        gauge: what the battery gauge shows, A (positive = discharging) and V; it means over `gauge_window`.
        gpu: what the GPU shows, busy and total us of the last full window, and its clock in Hz.
        gpu_clock: the clock it runs at, in Hz.
        gpu_work: seconds of its work for the screen and for the workload, since the phone started.
        charger: whether a charger charges, or would if the battery were not full.
        status: of the battery, in the words of sysfs-class-power.
    """

    temperatures: Mapping[str, float]
    charge: float
    clocks: tuple[int, ...]
    time_in_state: tuple[Mapping[int, float], ...]
    watts: float = 0.0
    cluster_watts: tuple[float, ...] = ()
    gauge: tuple[float, float] = (0.0, 0.0)
    gpu: tuple[int, int, int] = (0, 0, 0)
    gauge_sum: tuple[float, float] = (0.0, 0.0)
    gpu_sum: tuple[float, float] = (0.0, 0.0)
    gpu_clock: int = 0
    gpu_work: tuple[float, float] = (0.0, 0.0)
    charger: bool = False
    status: str = "Discharging"


def fresh(phone: Phone) -> State:
    """Return a phone that has lain switched off at ambient temperature, 80 % charged."""
    return start(phone, dict.fromkeys(NODES, phone.ambient), 0.8 * phone.charge_full)


def start(phone: Phone, temperatures: Mapping[str, float], charge: float) -> State:
    """Return a phone that has just been switched on with this heat and charge."""
    state = State(
        temperatures=dict(temperatures),
        charge=charge,
        clocks=tuple(cluster.clocks[0] for cluster in phone.clusters),
        time_in_state=tuple(dict.fromkeys(cluster.clocks, 0.0) for cluster in phone.clusters),
        gpu_clock=phone.gpu_clocks[0],
    )
    # The gauges show something from the first moment: one full window of an idle phone.
    return replace(
        step(phone, state, 0.0, max(phone.gpu_window, phone.gauge_window)),
        time_in_state=state.time_in_state,
        gpu_work=state.gpu_work,
    )


def step(phone: Phone, state: State, load: float, seconds: float, controls: Controls = USUAL) -> State:
    """Let time go by.

    Args:
        phone: what it is made of.
        state: how it was.
        load: cores busy on average; more than it has counts as all.
        seconds: how long, >= 0.
        controls: how its switches stand meanwhile.
    """
    while seconds > _LONGEST_STEP:
        state = _step(phone, state, load, _LONGEST_STEP, controls)
        seconds -= _LONGEST_STEP
    return _step(phone, state, load, seconds, controls) if seconds > 0 else state


def rest(phone: Phone, state: State, seconds: float) -> State:
    """Let time go by switched off on the charger, as between two leases, and switch it on."""
    temperatures, left = dict(state.temperatures), min(max(seconds, 0.0), _FORGOTTEN_AFTER)
    while left > 0:
        length = min(left, 1.0)
        temperatures = _heat(phone, temperatures, {"skin": phone.off_watts}, length)
        left -= length
    charge = min(phone.charge_full, state.charge + phone.charger * max(seconds, 0.0))
    return start(phone, temperatures, charge)


def open_circuit_volts(fraction: float) -> float:
    """Return a lithium cell's open-circuit voltage at a state of charge of 0 to 1, in V."""
    points = ((0.0, 3.40), (0.1, 3.65), (0.3, 3.75), (0.5, 3.85), (0.8, 4.10), (1.0, 4.38))
    fraction = min(max(fraction, 0.0), 1.0)
    for (low, volts_low), (high, volts_high) in itertools.pairwise(points):
        if fraction <= high:
            return volts_low + (volts_high - volts_low) * (fraction - low) / (high - low)
    return points[-1][1]


def draw(phone: Phone, charge: float, watts: float) -> tuple[float, float]:
    """Return the current in A and the voltage in V at which the battery gives this power."""
    volts = open_circuit_volts(charge / phone.charge_full)
    root = max(volts**2 - 4 * phone.resistance * watts, 0.0)
    amperes = (volts - math.sqrt(root)) / (2 * phone.resistance)
    return amperes, volts - amperes * phone.resistance


def _step(phone: Phone, state: State, load: float, seconds: float, controls: Controls) -> State:
    load = min(max(load, 0.0), float(phone.cores))
    busy = _place(phone, load)
    clocks, cluster_watts = [], []
    capped = state.temperatures["cpu"] >= _HOT or controls.fixed_performance
    for number, (cluster, cores) in enumerate(zip(phone.clusters, busy, strict=True)):
        clock = _clock(cluster, cores / len(cluster.cpus), controls.policy(number), capped=capped)
        clocks.append(clock)
        # An idle cluster leaks a little.
        cluster_watts.append(0.02 + cores * cluster.watts * (clock / cluster.clocks[-1]) ** 2.5)
    gpu_clock, top = state.gpu_clock, phone.gpu_clocks[-1]
    demand = phone.gpu_screen + phone.gpu_copy * (1 - math.exp(-load / phone.gpu_copy_cores))
    gpu_busy = min(1.0, demand * top / gpu_clock)
    gpu_watts = 0.03 + gpu_busy * phone.gpu_watts * (gpu_clock / top) ** 2
    # At the usual brightness it is `screen_watts`; a dark screen still has its electronics.
    screen_watts = phone.screen_watts * (0.3 + 0.7 * controls.brightness / USUAL_BRIGHTNESS)
    used = screen_watts + phone.rest_watts + sum(cluster_watts) + gpu_watts
    watts = used * (1 + phone.regulator_loss)
    given, status = _charger(phone, state.charge, watts) if controls.charging else (0.0, "Discharging")
    amperes, _ = draw(phone, state.charge, watts - given)
    temperatures = _heat(
        phone,
        state.temperatures,
        {
            "cpu": sum(cluster_watts),
            "gpu": gpu_watts,
            "pmic": used * phone.regulator_loss + given * phone.charger_loss,
            "skin": screen_watts + phone.rest_watts,
            "battery": amperes**2 * phone.resistance,
        },
        seconds,
    )
    charge = min(max(state.charge - amperes * seconds, 0.01 * phone.charge_full), phone.charge_full)
    gauge, from_battery = state.gauge, watts - given
    gauge_sum = (state.gauge_sum[0] + from_battery * seconds, state.gauge_sum[1] + seconds)
    if gauge_sum[1] >= phone.gauge_window - 1e-9:
        gauge, gauge_sum = draw(phone, charge, gauge_sum[0] / gauge_sum[1]), (0.0, 0.0)
    gpu, gpu_sum = state.gpu, (state.gpu_sum[0] + gpu_busy * seconds, state.gpu_sum[1] + seconds)
    if gpu_sum[1] >= phone.gpu_window - 1e-9:
        gpu_clock = _gpu_clock(phone, gpu_clock, gpu_sum[0] / gpu_sum[1])
        gpu, gpu_sum = (round(gpu_sum[0] * 1e6), round(gpu_sum[1] * 1e6), gpu_clock), (0.0, 0.0)
    return State(
        temperatures=temperatures,
        charge=charge,
        clocks=tuple(clocks),
        time_in_state=tuple(
            {**times, clock: times[clock] + seconds}
            for times, clock in zip(state.time_in_state, clocks, strict=True)
        ),
        watts=watts,
        cluster_watts=tuple(cluster_watts),
        gauge=gauge,
        gpu=gpu,
        gauge_sum=gauge_sum,
        gpu_sum=gpu_sum,
        gpu_clock=gpu_clock,
        gpu_work=_gpu_work(phone, state, gpu_busy * seconds, demand),
        charger=controls.charging,
        status=status,
    )


def _charger(phone: Phone, charge: float, watts: float) -> tuple[float, str]:
    """Return what a charger gives a phone that uses so much, in W, and the battery's status."""
    if charge >= phone.charge_full - 1e-9:
        return min(watts, phone.charger_watts), "Full"
    volts = open_circuit_volts(charge / phone.charge_full)
    into_battery = phone.charger * (volts + phone.charger * phone.resistance)
    return min(phone.charger_watts, watts + into_battery), "Charging"


def _gpu_work(phone: Phone, state: State, busy: float, demand: float) -> tuple[float, float]:
    """Return the GPU's seconds for the screen and for the workload after `busy` seconds for both."""
    screen = busy * phone.gpu_screen / demand
    return state.gpu_work[0] + screen, state.gpu_work[1] + busy - screen


def _place(phone: Phone, load: float) -> list[float]:
    """Return the busy cores of each cluster, slow first; they sum to `load`, at most all cores."""
    rooms = [float(len(cluster.cpus)) for cluster in phone.clusters]
    slow = min(rooms[0], phone.slow_share * load if len(rooms) > 1 else load)
    busy, left = [slow, *[0.0] * (len(rooms) - 1)], load - slow
    for index in reversed(range(len(rooms))):
        taken = min(left, rooms[index] - busy[index])
        busy[index] += taken
        left -= taken
    return busy


def _gpu_clock(phone: Phone, clock: int, busy: float) -> int:
    """Return the clock after a window in which the GPU was busy for this share of the time."""
    point = phone.gpu_clocks.index(clock) + (busy > 0.8) - (busy < 0.5)
    return phone.gpu_clocks[min(max(point, 0), len(phone.gpu_clocks) - 1)]


def _clock(cluster: Cluster, utilisation: float, policy: Policy, *, capped: bool) -> int:
    top = cluster.clocks[-1]
    return choose(policy, cluster.clocks, 1.25 * utilisation * top, 0.7 * top if capped else top)


def _heat(
    phone: Phone, temperatures: Mapping[str, float], watts: Mapping[str, float], seconds: float
) -> dict[str, float]:
    """Advance the RC network by one Euler step of at most 1 s; its fastest time constant is 2 s."""
    flow = {node: watts.get(node, 0.0) for node in NODES}
    for (one, other), conductance in phone.conductance.items():
        there = phone.ambient if other == "ambient" else temperatures[other]
        passed = conductance * (there - temperatures[one])
        flow[one] += passed
        if other != "ambient":
            flow[other] -= passed
    return {node: temperatures[node] + seconds * flow[node] / phone.capacity[node] for node in NODES}


def to_json(state: State, saved_at: float) -> dict[str, Any]:
    """Return what outlives a lease, with the wall-clock time in seconds at which it was true."""
    return {
        "format": 1,
        "saved_at": saved_at,
        "temperatures": dict(state.temperatures),
        "charge": state.charge,
    }


def from_json(phone: Phone, saved: Any, now: float) -> State:
    """Return the phone of an earlier lease, switched on again after the time since then; else a fresh one.

    A record that is none (torn by a crash, of another version) is a fresh phone: nothing is measured by it
    yet.
    """
    try:
        temperatures = {node: float(saved["temperatures"][node]) for node in NODES}
        charge, elapsed = float(saved["charge"]), now - float(saved["saved_at"])
        plausible = all(-20 < value < 120 for value in temperatures.values()) and charge >= 0
    except (KeyError, TypeError, ValueError):
        return fresh(phone)
    if not plausible:
        return fresh(phone)
    return rest(phone, start(phone, temperatures, min(charge, phone.charge_full)), elapsed)

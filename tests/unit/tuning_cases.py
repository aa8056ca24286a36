"""Searches for settings that never ran: a device, what may be tried there, and runs with known speeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.plan import Plan, plan
from pocketvlm.analyse.tune.search import Failure, Seen, State, progress
from pocketvlm.config.space import Candidate, Space, space
from pocketvlm.devices.topology import Topology

PHONE = Topology(tuple((cpu,) for cpu in range(8)), ((7,), (4, 5, 6), (0, 1, 2, 3)))
AXES = {"threads": [1, 4, 8], "batch": [128, 256, 512], "cache": ["f16", "q8_0"], "quantisation": "auto"}
UNSEEN = Value(None, 0, "no power supply")


def space_of(axes: Mapping[str, Any] = AXES, topology: Topology = PHONE, **more: Any) -> Space:
    """Return what llama.cpp may try with these axes; two quantisations, Q4_0 by default."""
    given: dict[str, Any] = {
        "adapter": "llamacpp",
        "quirks": {},
        "settings": {},
        "quantisation": "Q4_0",
        "quantisations": ["Q4_0", "Q8_0"],
        "where": "x.yaml: tune.axes",
    }
    return space(axes=axes, topology=topology, **{**given, **more})


def plan_of(
    axes: Mapping[str, Any] = AXES,
    *,
    runs: int = 64,
    warmups: int = 1,
    limits: Mapping[str, float] | None = None,
    **wanted: Any,
) -> Plan:
    """Return a search with these axes."""
    given = {"objective": "answer", "first_rounds": 2, "confidence": 0.95, "runs": runs, **wanted}
    return plan(
        space_of(axes), {**given, "limits": limits or {}}, warmups=warmups, seed=1, where="x.yaml: tune"
    )


def run_of(candidate: str, rung: int, count: int, cost: float | None, **changes: Any) -> Seen:
    """Return a run that took `cost` seconds, 100 MiB and 10 J; None is withheld by a gate."""
    known: dict[str, Any] = {
        "block": "20260101T000000-aaaaaa",
        "cost": Value(cost) if cost is not None else Value(None, 0, "the probe took 9 % of a core"),
        "energy_j": Value(10.0),
        "memory_mib": Value(100.0),
        "celsius": {"cpu_celsius": Value(40.0)},
        "run": f"{'ab' * 32}/{rung}{count}",
    }
    return Seen(candidate, rung, count, **{**known, **changes})


class Search:
    """A search on a device that runs each candidate at a known cost.

    Args:
        planned: the search.
        make: the run of a candidate in a rung and round; None when it fails.
    """

    def __init__(self, planned: Plan, make: Callable[[str, int, int], Seen | None]) -> None:
        self.planned, self.make = planned, make
        self.seen: list[Seen] = []
        self.failed: dict[str, Failure] = {}

    def step(self) -> State:
        """Make one round, if there is one; return where the search then is."""
        state = progress(self.planned, self.seen, self.failed)
        if state.next is None:
            return state
        rung, count, names = state.next
        for name in names:
            run = None if name in self.failed else self.make(name, rung, count)
            if run is None:
                self.failed[name] = Failure(rung, count, "the workload crashed")
            else:
                self.seen.append(run)
        return progress(self.planned, self.seen, self.failed)

    def finish(self) -> State:
        """Make all rounds that there are."""
        while (state := self.step()).next is not None:
            pass
        return state


def values_of(candidate: Candidate) -> dict[str, Any]:
    """Return the value of every axis, the defaults' own among them."""
    return {"threads": 8, "batch": 512, "cache": "f16", "quantisation": "Q4_0", **candidate.axes}


def log_cost(candidate: Candidate, effects: Mapping[tuple[str, Any], float]) -> float:
    """Return the logarithm of the cost of a candidate: a sum of effects of its values."""
    return sum(effects.get(item, 0.0) for item in values_of(candidate).items())


class Noise:
    """What a machine adds to the logarithm of a time: noise, a slow drift, and now and then a disturbance.

    3 % from run to run, 2 % steps of a drift that decays, 3 in 100 runs slower by 30 % on average: as runs of
    some seconds on a virtual machine whose host is busy.
    """

    def __init__(self, seed: int) -> None:
        self._rng, self._level = np.random.default_rng(seed), 0.0

    def __call__(self) -> float:
        self._level = 0.9 * self._level + self._rng.normal(0, 0.02)
        disturbed = self._rng.exponential(0.3) if self._rng.random() < 0.03 else 0.0
        return float(self._level + self._rng.normal(0, 0.03) + disturbed)

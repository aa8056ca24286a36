"""Before the first run: how many candidates run how often in each rung, and which begin."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from pocketvlm.analyse.tune.pairs import least_pairs
from pocketvlm.config.space import Candidate, Space
from pocketvlm.config.tuning import Tuning
from pocketvlm.devices.topology import Topology
from pocketvlm.errors import ConfigError

log = logging.getLogger("pocketvlm")

FINALISTS = 2
FINAL_MOST = 20
"""More pairs than this decide nothing that these do not."""

SPARE = 1
"""Pairs of the last rung beyond the fewest that can decide: a run may be withheld."""


@dataclass(frozen=True)
class Rung:
    """One rung of the search.

    Attributes:
        candidates: how many run in it, besides the defaults.
        rounds: how often each of them and the defaults run.
    """

    candidates: int
    rounds: int

    def cost(self, warmups: int) -> int:
        """Return how many runs it takes, with so many warm-ups."""
        return (self.candidates + 1) * self.rounds + warmups


@dataclass(frozen=True)
class Plan:
    """A search before its first run.

    Attributes:
        defaults: what every candidate is compared with.
        candidates: all that may be tried, by name.
        start: the names of those that begin.
        rungs: what runs how often.
        warmups: runs before each rung, of each quantisation.
        objective: a name of OBJECTIVES.
        limits: cpu_celsius, skin_celsius, battery_celsius, energy_j, memory_mib, as far as given.
        confidence: with which what is chosen is faster than the defaults.
        seed: of the order within a round.
    """

    defaults: Candidate
    candidates: Mapping[str, Candidate]
    start: tuple[str, ...]
    rungs: tuple[Rung, ...]
    warmups: int
    objective: str
    limits: Mapping[str, float]
    confidence: float
    seed: int

    def of(self, name: str) -> Candidate:
        """Return a candidate, or the defaults, by name."""
        return self.candidates.get(name, self.defaults)


def plan(space: Space, wanted: Mapping[str, Any], *, warmups: int, seed: int, where: str) -> Plan:
    """Plan a search.

    Args:
        space: what may be tried.
        wanted: runs, objective, first_rounds, confidence, limits (maybe none).
        warmups: of each quantisation before each rung.
        seed: of the choice of who begins and of the order.
        where: the experiment's file and key, for messages.

    Raises:
        ConfigError: the runs are too few for a decision.
    """
    quantisations = {each.quantisation for each in (space.defaults, *space.candidates)}
    rungs = schedule(
        len(space.candidates),
        wanted["runs"],
        warmups=warmups * len(quantisations),
        first_rounds=wanted["first_rounds"],
        confidence=wanted["confidence"],
    )
    if rungs is None:
        least = _rungs(1, wanted["first_rounds"], wanted["confidence"])
        needed = sum(rung.cost(warmups * len(quantisations)) for rung in least)
        raise ConfigError(
            f"{wanted['runs']} runs are too few for a decision: comparing one candidate with the defaults "
            f"takes {needed}",
            where=f"{where}.runs",
            do=f"Allow {needed} at least, or a lower confidence",
        )
    return Plan(
        defaults=space.defaults,
        candidates={each.name: each for each in space.candidates},
        start=spread(space.candidates, rungs[0].candidates, seed),
        rungs=rungs,
        warmups=warmups,
        objective=wanted["objective"],
        limits=wanted.get("limits", {}),
        confidence=wanted["confidence"],
        seed=seed,
    )


def plan_of(tuning: Tuning, space: Space) -> Plan:
    """Return the plan of a search; raises as `plan`."""
    return plan(space, tuning.wanted, warmups=tuning.warmups, seed=tuning.seed, where=tuning.where)


def resolve(tuning: Tuning, topology: Topology) -> dict[str, Any]:
    """Return the content of `tune/space.json`: what may be tried on a device, and in which rungs."""
    space = tuning.space(topology)
    planned = plan_of(tuning, space)
    warmups = planned.warmups * len({each.quantisation for each in (space.defaults, *space.candidates)})
    log.info(
        "%d candidates may be tried, %d begin; %d rungs, at most %d runs",
        len(space.candidates),
        len(planned.start),
        len(planned.rungs),
        sum(rung.cost(warmups) for rung in planned.rungs),
    )
    return {
        "format": 1,
        "device": tuning.cell.device,
        "topology": topology.plain(),
        **space.plain(),
        "start": list(planned.start),
        "rungs": [rung.__dict__ for rung in planned.rungs],
    }


def schedule(
    count: int, runs: int, *, warmups: int, first_rounds: int, confidence: float
) -> tuple[Rung, ...] | None:
    """Return rungs that together take at most so many runs; None when not even one candidate can be judged.

    As many candidates begin as the runs allow; each rung half of them goes on, and runs once more often. The
    last two take what is left, and often enough to be told from the defaults with the confidence.

    Args:
        count: how many candidates there are.
        runs: how many runs there may be.
        warmups: how many of them are warm-ups, of each rung.
        first_rounds: how often each candidate of the first rung runs.
        confidence: of the decision.
    """
    for begin in range(count, 0, -1):
        rungs = _rungs(begin, first_rounds, confidence)
        left = runs - sum(rung.cost(warmups) for rung in rungs)
        if left >= 0:
            last = rungs[-1]
            more = min(left // (last.candidates + 1), max(0, FINAL_MOST - last.rounds))
            return (*rungs[:-1], Rung(last.candidates, last.rounds + more))
    return None


def _rungs(begin: int, first_rounds: int, confidence: float) -> list[Rung]:
    sizes = [begin]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, (sizes[-1] + 1) // 2))
    last = min(sizes[-1], FINALISTS)
    rungs = [Rung(size, first_rounds + place) for place, size in enumerate(sizes[:-1])]
    return [*rungs, Rung(last, least_pairs(confidence, last) + SPARE)]


def spread(candidates: Sequence[Candidate], count: int, seed: int) -> tuple[str, ...]:
    """Return the names of so many candidates that together show as much of every axis as they can.

    One after the other is taken: the one whose values, and pairs of values, were taken least often so far; of
    equals the one that the seed puts first. All of them, when there are no more.
    """
    left = list(candidates)
    random.Random(seed).shuffle(left)
    seen: Counter[tuple[Any, ...]] = Counter()
    chosen: list[str] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda each: sum(seen[part] for part in _parts(each)))
        left.remove(best)
        seen.update(_parts(best))
        chosen.append(best.name)
    return tuple(chosen)


def _parts(candidate: Candidate) -> list[tuple[Any, ...]]:
    values = [(axis, str(value)) for axis, value in candidate.axes.items()]
    return [*((value,) for value in values), *combinations(values, 2)]

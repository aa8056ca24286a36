"""What a search does next, from the runs that there are: the same for the same runs, killed or not.

A rung is a number of rounds. In a round every candidate that is still in and the defaults run once each,
in random order, in one go: only runs of one round of one block are compared. After a rung the faster half
goes on, and with it the untried combination that a sum of the axes' effects says is faster than any of
them. The last rung decides by its own runs alone: what brought the finalists there was in part luck.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.pairs import Ratio, ratio, together
from pocketvlm.analyse.tune.plan import Plan
from pocketvlm.analyse.tune.propose import proposals
from pocketvlm.errors import WorkloadError


@dataclass(frozen=True)
class Seen:
    """One counted run of a search.

    Attributes:
        candidate: its name.
        rung, round: from 0, from 1.
        block: the block that it was made in; blocks sort by when they began.
        cost: what the objective makes small; NA with its reason or the gate that withholds it.
        energy_j, memory_mib: of the run, the same.
        celsius: the highest temperature by limit (`cpu_celsius`, …), the same.
        run: `<key>/<nn>`, empty for what was never measured.
    """

    candidate: str
    rung: int
    round: int
    block: str
    cost: Value
    energy_j: Value
    memory_mib: Value
    celsius: Mapping[str, Value] = field(default_factory=dict)
    run: str = ""

    def limited(self, limit: str) -> Value:
        """Return what a limit is for."""
        own = {"energy_j": self.energy_j, "memory_mib": self.memory_mib}
        return own[limit] if limit in own else self.celsius.get(limit, Value(None, 0, "no such sensor"))


@dataclass(frozen=True)
class Failure:
    """A candidate whose run failed: in which round, and why."""

    rung: int
    round: int
    reason: str


@dataclass(frozen=True)
class Out:
    """How a candidate left the search: `failed`, `limit`, `withheld` or `slower`, in which rung, and why."""

    how: str
    rung: int
    reason: str


@dataclass(frozen=True)
class Judged:
    """A rung as it was judged.

    Attributes:
        ratios: by candidate, the best first.
        runs: by candidate, the defaults' among them: those that count.
        proposed: the candidates that were added to the next rung.
    """

    ratios: Mapping[str, Ratio]
    runs: Mapping[str, tuple[Seen, ...]]
    proposed: tuple[str, ...] = ()


@dataclass(frozen=True)
class State:
    """Where a search is.

    Attributes:
        next: rung, round and the candidates (the defaults among them) to run next in their order; None when
            the search is over.
        rungs: those that are complete.
        out: the candidates that have left it.
        finalists: those that were in the last rung to its end.
        defaults_break: why the defaults do not keep the limits, empty when they do.
    """

    next: tuple[int, int, tuple[str, ...]] | None
    rungs: tuple[Judged, ...]
    out: Mapping[str, Out]
    finalists: tuple[str, ...]
    defaults_break: str


@dataclass(frozen=True)
class Choice:
    """What is chosen: a name, None for nothing, and why in a sentence."""

    name: str | None
    reason: str
    ratio: Ratio | None = None


def progress(plan: Plan, seen: Iterable[Seen], failed: Mapping[str, Failure]) -> State:
    """Return where a search is.

    Args:
        plan: the search.
        seen: every counted run so far, in any order.
        failed: the candidates of which a run failed.

    Raises:
        WorkloadError: too many runs of the defaults are withheld, or a limit cannot be checked.
    """
    by_place: dict[tuple[int, int], dict[str, dict[str, Seen]]] = defaultdict(lambda: defaultdict(dict))
    for run in seen:
        by_place[run.rung, run.round][run.block].setdefault(run.candidate, run)
    out: dict[str, Out] = {}
    judged: list[Judged] = []
    broken = ""
    tried = set(plan.start)
    active = list(plan.start)
    for number, rung in enumerate(plan.rungs):
        participants = active
        runs: dict[str, list[Seen]] = defaultdict(list)
        for count in range(1, rung.rounds + 1):
            for name in [each for each in participants if each in failed and each not in out]:
                if (failed[name].rung, failed[name].round) <= (number, count):
                    out[name] = Out("failed", number, failed[name].reason)
            active = [name for name in participants if name not in out]
            if not active:
                break
            expected = [plan.defaults.name, *active]
            found = _complete(by_place.get((number, count), {}), expected)
            if found is None:
                order = _shuffled(expected, f"{plan.seed}.{number}.{count}")
                return State((number, count, order), tuple(judged), out, (), broken)
            for name in expected:
                runs[name].append(found[name])
                why = _beyond(found[name], plan.limits)
                if name != plan.defaults.name and why:
                    out[name] = Out("limit", number, why)
                elif name == plan.defaults.name:
                    broken = broken or why
                    _require_sensors(found[name], plan.limits)
        for name, why in _unchecked(plan, rung.rounds, runs).items():
            if name == plan.defaults.name:
                raise _uncheckable(why)
            out.setdefault(name, Out("limit", number, why))
        active = [name for name in participants if name not in out]
        ratios, withheld = _ratios(plan, rung.rounds, runs, active, number == len(plan.rungs) - 1)
        out |= {name: Out("withheld", number, why) for name, why in withheld.items()}
        ranked = sorted(ratios, key=lambda name: (-ratios[name].value, name))
        proposed: list[str] = []
        if number + 1 < len(plan.rungs):
            keep = plan.rungs[number + 1].candidates
            known = {name: one.value for past in judged for name, one in past.ratios.items()}
            known |= {name: one.value for name, one in ratios.items()}
            bad = [name for name, one in out.items() if one.how != "slower"]
            best = max((one.value for one in ratios.values()), default=None)
            untried, ahead = proposals(plan.candidates, known, bad, tried, best)
            # The first of them where it should beat all; others only fill places that nobody takes.
            going = ranked[: keep - 1] if ahead else ranked[:keep]
            proposed = untried[: keep - len(going)]
            for name in ranked[len(going) :]:
                faster = f"{_times(ratios[name].value)} as fast as the defaults, and others were faster still"
                out[name] = Out("slower", number, f"rung {number + 1}: {faster}")
            active = [*going, *proposed]
            tried |= set(proposed)
        else:
            active = ranked
        judged.append(
            Judged(
                {name: ratios[name] for name in ranked},
                {name: tuple(each) for name, each in runs.items()},
                tuple(proposed),
            )
        )
    return State(None, tuple(judged), out, tuple(active), broken)


def choose(plan: Plan, state: State) -> Choice:
    """Return what a search that is over chooses.

    The fastest finalist whose interval, in the last rung, lies above the defaults; the defaults where
    there is none. Where the defaults do not keep the limits, the fastest finalist, for all finalists keep
    them.
    """
    final = state.rungs[-1].ratios if state.rungs else {}
    left = [name for name in final if name in state.finalists]
    if state.defaults_break:
        why = f"the defaults do not keep the limits ({state.defaults_break})"
        if not left:
            return Choice(None, f"nothing is chosen: {why}, and no candidate that was tried does")
        best = final[left[0]]
        return Choice(left[0], f"{why}; of what does, this is the fastest: {told(best)}", best)
    faster = [name for name in left if (final[name].low or 0.0) > 1.0]
    if faster:
        return Choice(
            faster[0], f"it is faster than the defaults: {told(final[faster[0]])}", final[faster[0]]
        )
    if not left:
        return Choice(plan.defaults.name, "the defaults stay: no candidate came through the search")
    return Choice(
        plan.defaults.name,
        f"the defaults stay: the best candidate is not clearly faster ({left[0]}: {told(final[left[0]])})",
    )


def told(found: Ratio) -> str:
    """Return a ratio in words."""
    if found.low is None or found.high is None:
        return f"{_times(found.value)}, {found.n} pairs"
    return f"{_times(found.value)} [{found.low:.3f}, {found.high:.3f}], {found.n} pairs"


def _times(value: float) -> str:
    return f"{value:.3f} times"


def _complete(blocks: Mapping[str, Mapping[str, Seen]], expected: Sequence[str]) -> Mapping[str, Seen] | None:
    """Return the round of the first block that has all of it; None when none has."""
    return next((blocks[name] for name in sorted(blocks) if set(expected) <= blocks[name].keys()), None)


def _shuffled(names: Sequence[str], seed: str) -> tuple[str, ...]:
    order = list(names)
    random.Random(seed).shuffle(order)
    return tuple(order)


def _beyond(run: Seen, limits: Mapping[str, float]) -> str:
    """Return which limit a run exceeds; empty when none that is known to."""
    for limit, most in limits.items():
        value = run.limited(limit).value
        if value is not None and value > most:
            return f"{limit} was {value:.4g}, {most:g} is allowed"
    return ""


def _unchecked(plan: Plan, rounds: int, runs: Mapping[str, Sequence[Seen]]) -> dict[str, str]:
    """Return who kept a limit in too few runs to believe it, with the reason: half of a rung must show it."""
    found: dict[str, str] = {}
    for limit in plan.limits:
        for name, mine in runs.items():
            unknown = [value.reason for run in mine if (value := run.limited(limit)).value is None]
            if len(mine) - len(unknown) < (min(rounds, len(mine)) + 1) // 2:
                of = f"{len(unknown)} of {len(mine)} runs"
                found.setdefault(name, f"{limit} cannot be checked in {of}: {unknown[0]}")
    return found


def _require_sensors(run: Seen, limits: Mapping[str, float]) -> None:
    """Raise at once where no further run of the defaults will show what a limit is for."""
    for limit in limits:
        value = run.limited(limit)
        if value.value is None and not value.samples:
            raise _uncheckable(f"{limit} cannot be checked: {value.reason}")


def _uncheckable(why: str) -> WorkloadError:
    return WorkloadError(
        f"of the defaults {why}",
        where="tune.limits of the experiment",
        do="Remove the limit, or tune on a device that shows it, with runs long enough to be sampled",
    )


def _ratios(
    plan: Plan, rounds: int, runs: Mapping[str, Sequence[Seen]], active: Sequence[str], last: bool
) -> tuple[dict[str, Ratio], dict[str, str]]:
    """Return the ratio of each candidate of a rung to the defaults, and why others have none."""
    own = {run.round: run.cost for run in runs.get(plan.defaults.name, ())}
    needed = (rounds + 1) // 2
    lost = [value.reason for value in own.values() if value.value is None]
    if active and len(own) - len(lost) < needed:
        raise WorkloadError(
            f"{len(lost)} of {len(own)} runs of the defaults are withheld: {lost[0]}",
            where="tune of the experiment",
            do="See to that first: without them nothing can be compared",
        )
    confidence = together(plan.confidence, len(active)) if last else plan.confidence
    found: dict[str, Ratio] = {}
    withheld: dict[str, str] = {}
    for name in active:
        pairs = [
            (first, second)
            for run in runs[name]
            if (first := own[run.round].value) is not None and (second := run.cost.value) is not None
        ]
        if len(pairs) < needed:
            reasons = [run.cost.reason for run in runs[name] if run.cost.value is None]
            withheld[name] = f"{len(pairs)} of {rounds} pairs count: {(reasons or lost)[0]}"
            continue
        found[name] = ratio(*zip(*pairs, strict=True), confidence=confidence)
    return found, withheld

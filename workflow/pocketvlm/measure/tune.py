"""A search for settings on one device: rounds of interleaved runs, each stored as soon as it is done.

What runs next follows from the runs that there are (`analyse.tune.search`). So a search that was killed goes
on with the round that it was in, and one that is over measures nothing. A run that failed is in no store:
which candidate it was, and why, is in the `meta.json` of every later run.
"""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pocketvlm.analyse.tune.plan import Plan, plan_of
from pocketvlm.analyse.tune.runs import read_tune_run
from pocketvlm.analyse.tune.search import Failure, Seen, State, choose, progress
from pocketvlm.config.space import DEFAULTS, Space
from pocketvlm.config.tuning import Tuning
from pocketvlm.errors import DeviceError, WorkloadError
from pocketvlm.frameworks.settings import AFFINITY
from pocketvlm.measure.block import Protocol, check_identity, hold, runner_for
from pocketvlm.measure.heat import HeatGate, heat_gate
from pocketvlm.measure.jobs import CellFiles, Job, cell_job
from pocketvlm.measure.memory import unfit
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.state import Held, in_state
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import read_json, sha256_file, write_json
from pocketvlm.weights.formats import checked

log = logging.getLogger(__name__)

ROLE, WARMUP = "tune", "warmup"


@dataclass
class _Campaign:
    """One search with all that its runs are made of."""

    experiment: str
    planned: Plan
    store: RawStore
    files: Callable[[str], CellFiles]
    job: Callable[[str], Job]
    read: Callable[[StoredRun], Seen]

    def seen(self, names: Sequence[str]) -> list[Seen]:
        """Return the counted runs of some candidates, their files checked."""
        found = []
        for name in names:
            for run in self.store.complete(self.job(name).key):
                if run.meta["role"] == ROLE:
                    self.store.check(run)
                    found.append(self.read(run))
        return found

    def failures(self, names: Sequence[str]) -> dict[str, Failure]:
        """Return the failures that the runs of some candidates tell of."""
        found: dict[str, Failure] = {}
        for name in names:
            for run in self.store.complete(self.job(name).key):
                for candidate, told in run.meta["tune"]["failed"].items():
                    found.setdefault(candidate, Failure(**told))
        return found

    def replay(self) -> tuple[State, list[Seen], dict[str, Failure]]:
        """Return where the search is by the raw store, which is asked for proposed candidates, too."""
        names = [self.planned.defaults.name, *self.planned.start]
        seen, failed = self.seen(names), self.failures(names)
        while True:
            state = progress(self.planned, seen, failed)
            more = [name for one in state.rungs for name in one.proposed if name not in names]
            if not more:
                return state, seen, failed
            seen += self.seen(more)
            failed |= self.failures(more)
            names += more


def measure_tune(
    block: Mapping[str, Any],
    tuning: Tuning,
    space: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, str]],
    gates: Mapping[str, float],
    *,
    results: Path,
    index: Path,
    again: bool = False,
) -> None:
    """Search on a device as far as the raw store lacks runs, and list those that count.

    Args:
        block: the device's block in plain values, as `measure.block.measure` takes it, with the one cell.
        tuning: the search.
        space: the content of `tune/space.json`.
        weights: paths by role, by quantisation.
        gates: `analysis.gates` of the configuration.
        results: folder of results; runs go to `raw` below it, failed ones to `failed`.
        index: the file to write, `tune/<device>.json`.
        again: search anew whatever the store has; the earlier runs stay there and no longer count.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
        WorkloadError: the defaults cannot be run, or their runs are withheld.
        IntegrityError: a run in the store is not what its record says.
    """
    name = block["device"]["id"]
    if block["absent"] is not None and (again or not block["cells"]):
        raise DeviceError(f"nothing can be measured on {name}: {block['absent']}", do="Connect it")
    identity = read_json(results / "devices" / name / "identity.json")
    protocol = Protocol(**block["protocol"])
    campaign = _campaign(block, tuning, space, weights, gates, identity, protocol, results)
    if again:
        for each in (DEFAULTS, *campaign.planned.candidates):
            if campaign.store.complete(campaign.job(each).key):
                campaign.store.set_aside(campaign.job(each).key)
    state, seen, failed = campaign.replay()
    if state.next is None:
        log.info("all %d runs of the search are in the raw store already: nothing to measure", len(seen))
    elif block["absent"] is not None:
        raise DeviceError(
            f"the search on {name} is not over, and nothing can be measured there: {block['absent']}",
            do="Connect it, then start again: finished runs are kept",
        )
    else:
        with ExitStack() as stack:
            device = stack.enter_context(hold(block["device"], results))
            check_identity(device, block["device"], identity)
            runner = runner_for(device, identity, Path(block["probe"]), protocol, results)
            names = [DEFAULTS, *campaign.planned.start]
            runner.deploy([campaign.job(each) for each in _of_each_kind(campaign.planned)])
            kept = in_state(device, protocol.state, config=block["device"], results=results)
            held = stack.enter_context(kept)
            jobs = [campaign.job(each) for each in names]
            gate = heat_gate(device, runner.identity, protocol.heat, runner.store, jobs)
            # Counted once more: whoever held the device until now may have added runs.
            state, seen, failed = campaign.replay()
            session = _Session(campaign, runner, held, gate, seen, failed)
            while state.next is not None:
                session.measure_round(*state.next)
                state = progress(campaign.planned, session.seen, session.failed)
                _tell(state)
            seen, failed = session.seen, session.failed
    log.info("%s", choose(campaign.planned, state).reason)
    write_json(index, _index(campaign, name, state, failed))


def _campaign(
    block: Mapping[str, Any],
    tuning: Tuning,
    space: Mapping[str, Any],
    weights: Mapping[str, Mapping[str, str]],
    gates: Mapping[str, float],
    identity: Mapping[str, Any],
    protocol: Protocol,
    results: Path,
) -> _Campaign:
    planned = plan_of(tuning, Space.of(space))
    base = CellFiles.of(block["cells"][0])
    hashed = cache(checked)

    def files(name: str) -> CellFiles:
        chosen = planned.of(name)
        paths = {role: Path(path) for role, path in weights[chosen.quantisation].items()}
        return replace(base, cell=name, settings=chosen.settings, weights=paths)

    @cache
    def job(name: str) -> Job:
        made = cell_job(files(name), identity, Path(block["probe"]), protocol.conditions, hashed=hashed)
        return replace(made, key_inputs={**made.key_inputs, "tune": {"experiment": block["experiment"]}})

    known: dict[str, Seen] = {}

    def read(run: StoredRun) -> Seen:
        if run.name not in known:
            known[run.name] = read_tune_run(
                run.folder, None, base.adapter, identity, gates, planned.objective
            )
        return known[run.name]

    return _Campaign(block["experiment"], planned, RawStore(results / "raw"), files, job, read)


def _of_each_kind(planned: Plan) -> list[str]:
    """Return names of candidates that together need all that a device must have: files, and pinning."""
    listed = (planned.defaults, *planned.candidates.values())
    return list({(each.quantisation, AFFINITY in each.settings): each.name for each in listed}.values())


class _Session:
    """The runs that one process makes of a search: one block.

    Attributes:
        seen: every counted run so far, of earlier sessions as well.
        failed: the candidates of which a run failed.
    """

    def __init__(
        self,
        campaign: _Campaign,
        runner: Runner,
        held: Held,
        gate: HeatGate | None,
        seen: list[Seen],
        failed: dict[str, Failure],
    ) -> None:
        self.seen, self.failed = seen, failed
        self._campaign, self._runner, self._held, self._gate = campaign, runner, held, gate
        self._block = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
        self._position = 0
        self._warm: set[tuple[int, str]] = set()
        self._asked: set[str] = set()

    def measure_round(self, rung: int, count: int, names: Sequence[str]) -> None:
        """Run every candidate of a round once; one that fails is out, the defaults must not."""
        rounds = self._campaign.planned.rungs[rung].rounds
        for name in self._starved(rung, count, names):
            names = [each for each in names if each != name]
        self._warm_up(rung, count, names)
        for name in names:
            stored = self._run(name, ROLE, rung, count, f"rung {rung + 1}, round {count} of {rounds}")
            if stored is None:
                continue
            run = self._campaign.read(stored)
            self.seen.append(run)
            took = "withheld" if run.cost.value is None else f"{run.cost.value:.4g} s"
            log.info("%s: %s%s", name, took, f" ({run.cost.reason})" if run.cost.value is None else "")

    def _starved(self, rung: int, count: int, names: Sequence[str]) -> list[str]:
        """Note candidates that do not fit into the device's memory, each once; the defaults must fit."""
        device, files = self._runner.device, self._campaign.files
        asked = {name: files(name) for name in names if name not in self._asked}
        self._asked |= set(asked)
        if DEFAULTS in asked:
            unfit(device, {DEFAULTS: asked.pop(DEFAULTS)}, rows=False)
        starved = unfit(device, asked, rows=True) if asked else {}
        self.failed |= {name: Failure(rung, count, why) for name, why in starved.items()}
        return list(starved)

    def _warm_up(self, rung: int, count: int, names: Sequence[str]) -> None:
        """Bring the files of each quantisation into memory, and the device to its pace, before a rung.

        A process starts anew for each run: nothing of a candidate itself could grow warm.
        """
        planned = self._campaign.planned
        for name in names:
            place = (rung, planned.of(name).quantisation)
            if place in self._warm or name in self.failed:
                continue
            made = [
                self._run(name, WARMUP, rung, count, f"rung {rung + 1}, warm-up")
                for _ in range(planned.warmups)
            ]
            # One that failed warmed nothing: the next of its quantisation does it.
            if None not in made:
                self._warm.add(place)

    def _run(self, name: str, role: str, rung: int, count: int, what: str) -> StoredRun | None:
        """Run a candidate; None when it failed and is no default."""
        if name in self.failed:
            return None
        told = f"{what}: {name}"
        heat = {"heat": self._gate.wait(told)} if self._gate else {}
        log.info("%s", told)
        meta: dict[str, Any] = {
            "role": role,
            "block": self._block,
            "idle": None,
            "round": count if role == ROLE else 0,
            "position": self._position,
            "argv": list(self._campaign.job(name).argv),
            "started": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "tune": {
                "candidate": name,
                "rung": rung,
                "failed": {each: dict(failure.__dict__) for each, failure in self.failed.items()},
            },
            **heat,
        }
        self._held.before_run()
        try:
            stored = self._runner.run(self._campaign.job(name), meta, told, after=self._held.after_run)
        except WorkloadError as error:
            if name == DEFAULTS:
                raise
            log.warning("%s is out: %s", name, error.what)
            self.failed[name] = Failure(rung, count, error.what)
            return None
        self._position += 1
        if self._gate:
            self._gate.ran(stored.folder)
        return stored


def _tell(state: State) -> None:
    """Say who goes on after a rung."""
    if state.next is None or state.next[1] != 1:
        return
    going = [name for name in state.next[2] if name != DEFAULTS]
    log.info("%d candidates go on to rung %d: %s", len(going), state.next[0] + 1, ", ".join(sorted(going)))


def _index(campaign: _Campaign, device: str, state: State, failed: Mapping[str, Failure]) -> dict[str, Any]:
    """List the runs that the search's decisions stand on, in the order in which they were made."""
    counted = [run for one in state.rungs for listed in one.runs.values() for run in listed]
    stored = [(run, campaign.store.run(run.run)) for run in counted]
    stored.sort(key=lambda pair: (pair[0].rung, pair[0].round, pair[1].meta["position"]))
    return {
        "format": 1,
        "experiment": campaign.experiment,
        "device": device,
        "failed": {name: dict(failure.__dict__) for name, failure in sorted(failed.items())},
        "runs": [
            {
                "run": kept.name,
                "candidate": run.candidate,
                "rung": run.rung,
                "round": run.round,
                "block": run.block,
                "meta_sha256": sha256_file(kept.folder / "meta.json"),
            }
            for run, kept in stored
        ],
    }

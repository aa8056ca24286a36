"""A soak: one cell run again and again for a given time, to see what a device keeps up once it is warm.

A soak is continuous or it is none: what a killed one has in the raw store stays there and does not count, and
the next one begins anew. Whether a soak came to its end is read off its runs, so that no other record of it
can disagree with them.
"""

from __future__ import annotations

import datetime
import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.analyse.soak.runs import SoakRun, read_soak_run
from pocketvlm.analyse.soak.summary import first_window
from pocketvlm.errors import DeviceError
from pocketvlm.measure.block import Protocol, check_identity, hold, runner_for
from pocketvlm.measure.heat import heat_gate
from pocketvlm.measure.jobs import CellFiles, Job, cell_job
from pocketvlm.measure.memory import unfit
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.state import Held, in_state
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import read_json, sha256_file, write_json

log = logging.getLogger(__name__)

ROLE = "soak"


@dataclass(frozen=True)
class Duty:
    """How long a soak lasts and how busy it keeps the device: what shapes its runs, and so their key.

    Attributes:
        duration_s: seconds from the start of the first run; a run that began before is finished.
        busy_percent: share of the time that runs take, the rest is paused.
    """

    duration_s: int
    busy_percent: float

    def pause_s(self, run_s: float) -> float:
        """Return the pause after a run of that length: run / (run + pause) is `busy_percent`."""
        return run_s * (100.0 / self.busy_percent - 1.0)

    def over(self, elapsed_s: float, run_s: float) -> bool:
        """Say whether no further run begins, `elapsed_s` after the first one did, after one of `run_s`."""
        return elapsed_s + self.pause_s(run_s) >= self.duration_s


@dataclass(frozen=True)
class Soak:
    """The runs of one soak in the raw store, in their order."""

    id: str
    runs: tuple[StoredRun, ...]

    def spans(self) -> list[tuple[float, float]]:
        """Return start and end of each run in seconds since the first began, by the device's clock."""
        probes = [read_json(run.folder / "probe.json") for run in self.runs]
        begin = probes[0]["start_us"]
        return [((one["start_us"] - begin) / 1e6, (one["end_us"] - begin) / 1e6) for one in probes]

    def complete(self, duty: Duty) -> bool:
        """Say whether it came to its end in one go, with every run still there."""
        if [run.meta["position"] for run in self.runs] != list(range(len(self.runs))):
            return False
        spans = self.spans()
        if any(after[0] < before[1] for before, after in pairwise(spans)):
            return False
        start, end = spans[-1]
        return duty.over(end, end - start)


def soak_job(job: Job, duty: Duty) -> Job:
    """Return the job of a cell as a soak runs it: the same command under a key of its own."""
    asked = {"duration_s": duty.duration_s, "busy_percent": duty.busy_percent}
    return replace(job, key_inputs={**job.key_inputs, "soak": asked})


def soaks_of(store: RawStore, job: Job) -> list[Soak]:
    """Return the soaks under a soak job's key that count, whole or cut short, the earliest first."""
    found: dict[str, list[StoredRun]] = {}
    for run in store.complete(job.key):
        found.setdefault(run.meta["block"], []).append(run)
    return [Soak(name, tuple(runs)) for name, runs in found.items()]


def measure_soak(
    block: Mapping[str, Any], soak: Mapping[str, Any], *, results: Path, index: Path, again: bool = False
) -> None:
    """Soak a device with each cell in turn, except where the raw store has a whole soak, and list the runs.

    Args:
        block: the device's block in plain values, as `measure.block.measure` takes it.
        soak: duration_s, busy_percent, and first_s for what is shown meanwhile.
        results: folder of results; runs go to `raw` below it, failed ones to `failed`.
        index: the file to write, `soak/<device>.json`.
        again: soak anew whatever the store has; the earlier ones stay there and no longer count.

    Raises:
        DeviceError, TransientDeviceError: the device refuses, does not answer, or was restarted meanwhile.
        WorkloadError: a run crashed, hung or printed nothing that can be used; what it left is in
            `results/failed`, or in the store.
        IntegrityError: a weights file is not what its record says.
    """
    name = block["device"]["id"]
    duty = Duty(soak["duration_s"], soak["busy_percent"])
    first_s = first_window(soak["duration_s"], soak["first_s"])
    store = RawStore(results / "raw")
    protocol = Protocol(**block["protocol"])
    reasons: dict[str, str] = dict(block["unmeasured"])
    cells = {cell["cell"]: CellFiles.of(cell) for cell in block["cells"]}
    jobs: dict[str, Job] = {}
    if cells:
        identity = read_json(results / "devices" / name / "identity.json")
        probe = Path(block["probe"])
        jobs = {
            cell: soak_job(cell_job(files, identity, probe, protocol.conditions), duty)
            for cell, files in cells.items()
        }
    lacking = [cell for cell, job in jobs.items() if again or not _whole(store, job, duty)]
    if lacking and block["absent"] is not None:
        log.warning("%s is not soaked: %s", name, block["absent"])
        reasons |= dict.fromkeys(lacking, str(block["absent"]))
    elif lacking:
        with ExitStack() as stack:
            device = stack.enter_context(hold(block["device"], results))
            check_identity(device, block["device"], identity)
            starved = unfit(device, {cell: cells[cell] for cell in lacking}, rows=block["rows"])
            reasons |= starved
            runner = runner_for(device, identity, probe, protocol, results)
            fitting = [cell for cell in lacking if cell not in starved]
            if fitting:
                runner.deploy([jobs[cell] for cell in fitting])
            kept = in_state(device, protocol.state, config=block["device"], results=results)
            held = stack.enter_context(kept)
            for cell in fitting:
                if again:
                    store.set_aside(jobs[cell].key)
                _tell_cut_short(cell, soaks_of(store, jobs[cell]))
                _soak(runner, jobs[cell], cells[cell], duty, first_s, protocol, held)
    else:
        log.info("%d whole soaks are in the raw store already: nothing to measure", len(jobs))
    write_json(index, _index(block["experiment"], name, jobs, duty, store, reasons))


def _whole(store: RawStore, job: Job, duty: Duty) -> Soak | None:
    """Return the first soak of a job that came to its end, its files checked; None when there is none."""
    for soak in soaks_of(store, job):
        if soak.complete(duty):
            for run in soak.runs:
                store.check(run)
            return soak
    return None


def _tell_cut_short(cell: str, soaks: Sequence[Soak]) -> None:
    for soak in soaks:
        log.warning(
            "an earlier soak with %s was cut short after %d runs in %.0f s: its runs are kept and do not "
            "count, for a soak is made in one go; this one begins anew",
            cell,
            len(soak.runs),
            soak.spans()[-1][1],
        )


def _soak(
    runner: Runner, job: Job, cell: CellFiles, duty: Duty, first_s: float, protocol: Protocol, held: Held
) -> None:
    """Run a job until the time is over; each run is in the store as soon as it is done.

    What the experiment says of heat is waited for before the first run only: a soak is to grow warm.
    """
    gate = heat_gate(runner.device, runner.identity, protocol.heat, runner.store, [job])
    heat = {"heat": gate.wait(f"soak: {cell.cell}")} if gate else {}
    name = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
    done: list[SoakRun] = []
    log.info("soak of %d s at %g %% duty: %s", duty.duration_s, duty.busy_percent, cell.cell)
    while True:
        began = time.monotonic()
        meta: dict[str, Any] = {
            "role": ROLE,
            "block": name,
            "idle": None,
            "round": 1,
            "position": len(done),
            "argv": list(job.argv),
            "started": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
            **heat,
        }
        held.before_run()
        stored = runner.run(job, meta, cell.cell, after=held.after_run)
        run = read_soak_run(stored.folder, None, cell.adapter, runner.identity, {}).run
        _check_clock(runner, done, run)
        done.append(run)
        elapsed = (run.end_us - done[0].start_us) / 1e6
        log.info("%s", told(done, duty.duration_s, first_s))
        if duty.over(elapsed, run.seconds):
            return
        # Starting a run and bringing its record home takes time too, in which the device is not busy.
        spent = time.monotonic() - began - run.seconds
        time.sleep(max(0.0, duty.pause_s(run.seconds) - spent))


def _check_clock(runner: Runner, done: Sequence[SoakRun], run: SoakRun) -> None:
    if done and run.start_us < done[-1].end_us:
        raise DeviceError(
            f"the clock of {runner.device.id} went back during the soak: it was restarted",
            do="See why (heat, an empty battery), then start again: a soak is made in one go",
        )


def told(done: Sequence[SoakRun], duration_s: int, first_s: float) -> str:
    """Return in one line how far a soak is: time, speed against the first minute's, hottest zone.

    Args:
        done: its runs so far, at least one.
        duration_s: how long it is to last.
        first_s: length of the first minute.
    """
    run, begin = done[-1], done[0].start_us
    words = [f"soak: {(run.end_us - begin) / 1e6:.0f} of {duration_s} s, run {len(done)}"]
    speed = run.speed.value
    if speed is None:
        words.append("speed not known")
    else:
        early = [
            one.speed.value
            for one in done
            if one.start_us - begin < first_s * 1e6 and one.speed.value is not None
        ]
        against = (
            f" ({100 * speed / float(np.median(early)):.0f} % of the first {first_s:.3g} s)" if early else ""
        )
        words.append(f"{speed:.3g} tokens/s{against}")
    if run.temperature_end:
        zone, celsius = max(run.temperature_end.items(), key=lambda item: item[1])
        words.append(f"hottest {zone} {celsius:.1f} °C")
    else:
        words.append("no temperature to be had")
    return ", ".join(words)


def _index(
    experiment: str,
    device: str,
    jobs: Mapping[str, Job],
    duty: Duty,
    store: RawStore,
    unmeasured: Mapping[str, str],
) -> dict[str, Any]:
    """List each cell's whole soak, and those that were cut short."""
    listed = []
    for cell, job in sorted(jobs.items()):
        whole = _whole(store, job, duty)
        if whole is None:
            continue
        listed.append(
            {
                "cell": cell,
                "soak": whole.id,
                "runs": [
                    {"run": run.name, "meta_sha256": sha256_file(run.folder / "meta.json")}
                    for run in whole.runs
                ],
                "cut_short": [
                    {"soak": soak.id, "runs": len(soak.runs), "seconds": round(soak.spans()[-1][1], 3)}
                    for soak in soaks_of(store, job)
                    if not soak.complete(duty)
                ],
            }
        )
    return {
        "format": 1,
        "experiment": experiment,
        "device": device,
        "duration_s": duty.duration_s,
        "busy_percent": duty.busy_percent,
        "soaks": listed,
        "unmeasured": {
            cell: why
            for cell, why in sorted(unmeasured.items())
            if cell not in {one["cell"] for one in listed}
        },
    }

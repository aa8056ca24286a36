"""A block: an ordered plan of runs on one device, under one lock; what the raw store has is not run again."""

from __future__ import annotations

import datetime
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm.devices import lock_name, open_device
from pocketvlm.devices.base import Device
from pocketvlm.devices.folder import claim
from pocketvlm.devices.identify import identify, stable
from pocketvlm.devices.locks import device_lock, host_lock
from pocketvlm.errors import DeviceError, IntegrityError
from pocketvlm.measure.absence import NOTHING_TO_MEASURE
from pocketvlm.measure.cost import Cost
from pocketvlm.measure.heat import heat_gate, shaping
from pocketvlm.measure.jobs import CellFiles, Job, cell_job, idle_job
from pocketvlm.measure.memory import unfit
from pocketvlm.measure.plan import PlannedRun, plan
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.state import Held, in_state, recover
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.measure.warmups import Warming, warm_ups
from pocketvlm.provenance import read_json, sha256_file, write_json

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Protocol:
    """How a block is measured.

    Attributes:
        repeats: measured runs a cell.
        warmups: warm-up runs a cell, a number or what `warm_ups` takes.
        idle_s: seconds of idle before them.
        deadline_s: seconds after which a run is ended and failed.
        order_seed: seed of the order within a round.
        state: the state that the device is to be in, as `in_state` has it.
        responsiveness: what is watched besides, as `Observer` has it.
        heat: the temperatures at which runs may begin, as `HeatGate` has it; empty for any.
    """

    repeats: int
    warmups: int | Mapping[str, Any]
    idle_s: int
    deadline_s: int
    order_seed: int
    state: Mapping[str, Any]
    responsiveness: Mapping[str, Any] = field(default_factory=dict)
    heat: Mapping[str, Any] = field(default_factory=dict)

    @property
    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """What is asked for beyond the workload and shapes a run: part of its key, by name."""
        asked = {"state": self.state, "responsiveness": self.responsiveness, "heat": shaping(self.heat)}
        return {name: value for name, value in asked.items() if value}


def measure(block: Mapping[str, Any], *, results: Path, index: Path, again: bool = False) -> None:
    """Measure a block given in plain values, as a rule's parameters have it.

    Args:
        block: experiment, device (its config), probe (a folder), protocol, cells (fields of CellFiles),
            unmeasured (why other cells are not among them), absent and rows (as `measure_block`).
        results, index, again: as `measure_block`.

    Raises:
        DeviceError: everything is to be measured anew, and the device is not there.
    """
    device = block["device"]["id"]
    if again and block["absent"] not in (None, NOTHING_TO_MEASURE):
        raise DeviceError(
            f"nothing can be measured on {device}: {block['absent']}",
            do="Connect it, or remeasure an experiment without it",
        )
    if not block["cells"]:
        log.info("nothing can be measured on %s: %s", device, block["absent"])
        write_json(
            index, _index(block["experiment"], device, {}, 0, RawStore(results / "raw"), block["unmeasured"])
        )
        return
    cells = [CellFiles.of(cell) for cell in block["cells"]]
    measure_block(
        experiment=block["experiment"],
        device_config=block["device"],
        identity=read_json(results / "devices" / block["device"]["id"] / "identity.json"),
        cells=cells,
        probe=Path(block["probe"]),
        protocol=Protocol(**block["protocol"]),
        results=results,
        index=index,
        again=again,
        absent=block["absent"],
        rows=block["rows"],
        unmeasured=block["unmeasured"],
    )


@contextmanager
def hold(config: Mapping[str, Any], results: Path) -> Iterator[Device]:
    """Open a device with nobody else on it: the locks first, then the device; what a killed block left set on
    it is given back, and its folder is marked as ours.

    Args:
        config: the device's file of `config/devices`.
        results: folder of results.

    Raises:
        DeviceError: as `open_device`, or its `remote_dir` is not a folder of our own.
    """
    with ExitStack() as stack:
        if config["host_cores"]:
            stack.enter_context(host_lock(report=log.info))
        stack.enter_context(device_lock(lock_name(config), report=log.info))
        device = stack.enter_context(open_device(config, results=results))
        recover(device, config)
        claim(device)
        yield device


def measure_block(
    *,
    experiment: str,
    device_config: Mapping[str, Any],
    identity: Mapping[str, Any],
    cells: Sequence[CellFiles],
    probe: Path,
    protocol: Protocol,
    results: Path,
    index: Path,
    again: bool = False,
    absent: str | None = None,
    rows: bool = False,
    unmeasured: Mapping[str, str] | None = None,
) -> None:
    """Measure what the raw store lacks and write the block's index.

    Args:
        experiment: name of the experiment, for the index.
        device_config: the device's file of `config/devices`.
        identity: what the device is, as `identify_device` found it.
        cells: the cells of this device.
        probe: folder of the probe's bundle for the device's target.
        protocol: repeats, warm-ups, deadlines and order.
        results: folder of results; runs go to `raw` below it, failed ones to `failed`.
        index: the file to write.
        again: measure every run anew; the earlier ones stay in the store and no longer count.
        absent: why the device cannot be reached, for an index of the runs that are in the store already.
        rows: let a cell that does not fit into the device's memory be a row with the reason, and no error.
        unmeasured: why other cells of the device cannot be measured, by cell id.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
        WorkloadError: a workload crashed, hung or printed nothing; what it left is in `results/failed`.
        IntegrityError: a run in the store is not what its record says.
    """
    store = RawStore(results / "raw")
    jobs = {cell.cell: cell_job(cell, identity, probe, protocol.conditions) for cell in cells}
    _refuse_twins(jobs)
    reasons = dict(unmeasured or {})
    if absent is None and (again or _lacking(jobs, protocol, store)):
        with hold(device_config, results) as device:
            check_identity(device, device_config, identity)
            if again:
                for job in jobs.values():
                    store.set_aside(job.key)
            # Counted once more: whoever held the device until now may have added runs.
            lacking = {run.cell for run in _lacking(jobs, protocol, store)}
            starved = unfit(device, {each.cell: each for each in cells if each.cell in lacking}, rows=rows)
            reasons |= {cell: why for cell, why in starved.items() if not _counted(store, jobs[cell])}
            fitting = {cell: job for cell, job in jobs.items() if cell not in starved}
            if planned := _lacking(fitting, protocol, store):
                runner = runner_for(device, identity, probe, protocol, results)
                idle = idle_job(identity, probe, protocol.idle_s, protocol.conditions)
                runner.deploy([jobs[run.cell] if run.cell else idle for run in planned])
                with in_state(device, protocol.state, config=device_config, results=results) as held:
                    _measure(planned, jobs, idle, runner, protocol, held)
    elif _lacking(jobs, protocol, store):
        log.warning("%s is not measured any further: %s", device_config["id"], absent)
        reasons |= {cell: str(absent) for cell, job in jobs.items() if not _counted(store, job)}
    else:
        log.info("all %d runs are in the raw store already: nothing to measure", protocol.repeats * len(jobs))
    write_json(index, _index(experiment, device_config["id"], jobs, protocol.repeats, store, reasons))


def runner_for(
    device: Device, identity: Mapping[str, Any], probe: Path, protocol: Protocol, results: Path
) -> Runner:
    """Return what runs jobs on an open device as a protocol has it; arguments as `measure_block`."""
    store, failed = RawStore(results / "raw"), results / "failed"
    return Runner(device, identity, probe, protocol.deadline_s, store, failed, protocol.responsiveness)


def _refuse_twins(jobs: Mapping[str, Job]) -> None:
    """Raise when two cells would share their runs: only their names differ, so a file is wrong."""
    by_key: dict[str, str] = {}
    for cell, job in jobs.items():
        if twin := by_key.get(job.key):
            raise IntegrityError(
                f"the cells {twin} and {cell} are made of the same bytes",
                where=job.argv[0],
                do="Compare their weights and settings; remove the file that is not what its name says",
            )
        by_key[job.key] = cell


def _counted(store: RawStore, job: Job) -> list[StoredRun]:
    runs = [run for run in store.complete(job.key) if run.meta["role"] == "measured"]
    for run in runs:
        store.check(run)
    return runs


def _lacking(jobs: Mapping[str, Job], protocol: Protocol, store: RawStore) -> list[PlannedRun]:
    """Plan the runs that the store lacks; empty when it has all."""
    missing = {cell: max(0, protocol.repeats - len(_counted(store, job))) for cell, job in jobs.items()}
    return plan(missing, warmups=warm_ups(protocol.warmups).most, seed=protocol.order_seed)


def _measure(
    planned: Sequence[PlannedRun],
    jobs: Mapping[str, Job],
    idle: Job,
    runner: Runner,
    protocol: Protocol,
    held: Held,
) -> None:
    """Make the planned runs one after the other; each is in the store as soon as it is done.

    Warm-ups that a cell needs no more are left out, and what follows moves up.
    """
    warming = Warming(warm_ups(protocol.warmups))
    block = f"{_now():%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
    gate = heat_gate(runner.device, runner.identity, protocol.heat, runner.store, jobs.values())
    baseline: str | None = None
    cost = Cost(runner.device)
    number, total = 0, len(planned)
    for run in planned:
        job = jobs[run.cell] if run.cell else idle
        what = run.cell or "idle"
        if run.role == "warmup" and warming.enough(what):
            total -= 1
            continue
        number += 1
        heat = {"heat": gate.wait(f"run {number} of {total}, {run.role}: {what}")} if gate else {}
        log.info("run %d of %d, %s: %s", number, total, run.role, what)
        meta: dict[str, Any] = {
            "role": run.role,
            "block": block,
            "idle": baseline,
            "round": run.round,
            "position": number - 1,
            "argv": list(job.argv),
            "started": f"{_now():%Y-%m-%dT%H:%M:%SZ}",
            **heat,
            **(warming.record(what) if run.role == "measured" else {}),
        }
        held.before_run()
        cost.begin()
        stored = runner.run(job, meta, what, after=held.after_run)
        cost.end()
        if run.role == "idle":
            baseline = stored.name
        elif run.role == "warmup":
            warming.add(what, _seconds(stored))
        if gate and run.role != "idle":
            gate.ran(stored.folder)
        log.info("run %d of %d done in %.1f s: %s", number, total, _seconds(stored), stored.name)
    log.info("%s", cost)


def check_identity(device: Device, config: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    """Raise when another device, or the same after an update, answers under this name."""
    found, expected = stable(identify(device, config)), stable(identity)
    changed = sorted(name for name in expected if found[name] != expected[name])
    if changed:
        raise DeviceError(
            f"{config['id']} is not what it was when it was identified: {', '.join(changed)} changed",
            where=f"results/devices/{config['id']}/identity.json",
            do="Run again with --forcerun identify_device to take it as a new device",
        )


def _index(
    experiment: str,
    device: str,
    jobs: Mapping[str, Job],
    repeats: int,
    store: RawStore,
    unmeasured: Mapping[str, str],
) -> dict[str, Any]:
    """List the experiment's runs: of each cell the first `repeats`, and their blocks' idle and warm-ups."""
    rows: list[tuple[str | None, StoredRun]] = []
    idle: set[str] = set()
    for cell, job in sorted(jobs.items()):
        runs = _counted(store, job)[:repeats]
        idle |= {run.meta["idle"] for run in runs}
        rows += [(cell, run) for run in runs]
        rows += [
            (cell, run)
            for run in store.complete(job.key)
            if run.meta["role"] == "warmup" and run.meta["block"] in {each.meta["block"] for each in runs}
        ]
    rows += [(None, store.run(name)) for name in idle]
    rows.sort(key=lambda row: (row[1].meta["block"], row[1].meta["position"]))
    return {
        "format": 1,
        "experiment": experiment,
        "device": device,
        "runs": [
            {
                "run": run.name,
                "cell": cell,
                **{name: run.meta[name] for name in ("role", "block", "round", "position")},
                "meta_sha256": sha256_file(run.folder / "meta.json"),
            }
            for cell, run in rows
        ],
        "unmeasured": dict(sorted(unmeasured.items())),
    }


def _seconds(run: StoredRun) -> float:
    record = read_json(run.folder / "probe.json")
    return float(record["end_us"] - record["start_us"]) / 1e6


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

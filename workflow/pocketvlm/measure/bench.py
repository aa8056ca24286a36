"""A framework's own benchmark beside its cells: both run in turn, so that whatever drifts falls on both.

A round holds, for each cell, the cell itself and two starts of the benchmark, one that decodes as many tokens
at the same depth and one that reads as long a prompt, in random order. A round counts when it is whole: runs
of one that was cut short stay in the raw store and are not compared. How deep to go is read off the cell's
own output.
"""

from __future__ import annotations

import datetime
import logging
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.analyse.parse import understand
from pocketvlm.analyse.raw import read_run
from pocketvlm.errors import DeviceError, WorkloadError
from pocketvlm.frameworks.settings import own
from pocketvlm.measure.block import Protocol, check_identity, hold, runner_for
from pocketvlm.measure.heat import heat_gate
from pocketvlm.measure.jobs import CellFiles, Job, bundle_tree, cell_job
from pocketvlm.measure.memory import unfit
from pocketvlm.measure.runner import Runner
from pocketvlm.measure.state import Held, in_state
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.measure.warmups import warm_ups
from pocketvlm.provenance import read_json, sha256_file, write_json

log = logging.getLogger(__name__)

ROLE = "bench"
CELL, DECODE, PREFILL = "cell", "decode", "prefill"
PARTS = (CELL, DECODE, PREFILL)
"""What a round holds of each cell: itself, and the benchmark decoding and reading a prompt."""


@dataclass(frozen=True)
class Extent:
    """What a cell's run computes, as its own output tells.

    Attributes:
        prompt: tokens in the cache when the first token of the answer is sampled.
        image: of these the image's, evaluated in one go.
        before_image: tokens in the cache before it; 0 where the image comes first, though a few of the chat
            template precede it, which no output counts.
        steps: evaluations from the first to the last token of the answer.
    """

    prompt: int
    image: int
    before_image: int
    steps: int


@dataclass(frozen=True)
class Benched:
    """A cell with its benchmark: what is started for each part.

    Attributes:
        files: what the cell is made of.
        cell: its job, under a key of its own.
        bundle: folder of the benchmark's build.
        quirks: the version's entry of how the benchmark is called.
        repetitions: how often it times one test in one start.
    """

    files: CellFiles
    cell: Job
    bundle: Path
    quirks: Mapping[str, Any]
    repetitions: int

    def test(self, part: str, extent: Extent) -> Any:
        """Return what the benchmark is to time."""
        make = frameworks.bench(self.files.adapter).Test
        if part == DECODE:
            return make(prompt=0, answer=extent.steps, depth=extent.prompt, repetitions=self.repetitions)
        return make(prompt=extent.image, answer=0, depth=extent.before_image, repetitions=self.repetitions)

    def job(self, part: str, extent: Extent) -> Job:
        """Return the job of a part: the cell's device, probe, settings and surroundings, another program."""
        if part == CELL:
            return self.cell
        bench = frameworks.bench(self.files.adapter)
        test = self.test(part, extent)
        argv = bench.command(
            backend=self.files.backend, settings=own(self.files.settings), quirks=self.quirks, test=test
        )
        # The variables are the cell's: what stands in the bundle for one of its files does in this one, too.
        words = (*argv, *self.cell.environment.values())
        bundle = bundle_tree(self.bundle)
        files = {word: path for word in words if (path := self._file_of(word))}
        inputs = self.cell.key_inputs
        key_inputs = {
            **inputs,
            "bundle": bundle.id,
            "weights": {"model": inputs["weights"]["model"]},
            "workload": {"id": f"bench-{part}", **test.__dict__},
            "argv": list(argv),
        }
        return replace(
            self.cell,
            argv=tuple(argv),
            files=files,
            key_inputs=key_inputs,
            unfinished=bench.unfinished,
            trees=(bundle,),
        )

    def _file_of(self, word: str) -> Path | None:
        if word.startswith("@bundle/"):
            return self.bundle / word.removeprefix("@bundle/")
        return self.files.weights["model"] if word == "@weights/model" else None


def bench_job(job: Job) -> Job:
    """Return the job of a cell as it runs beside the benchmark: the same command under a key of its own."""
    return replace(job, key_inputs={**job.key_inputs, ROLE: True})


def extent_of(run: StoredRun, adapter: str, image_position: str) -> Extent:
    """Return what a cell's run computed.

    Raises:
        WorkloadError: its output does not tell.
    """
    report = understand(read_run(run.folder, None), adapter)
    text, image = report.tokens.get("text_prefill"), report.tokens.get("image_prefill")
    if not text or not image or not report.decode_steps:
        raise WorkloadError(
            "the output does not tell how many tokens prompt, image and answer have",
            where=f"run {run.name}",
            do="Choose a workload with an image and two tokens of answer, and a framework that counts",
        )
    before = 0 if image_position == "first" else text
    return Extent(text + image, image, before, report.decode_steps)


Round = Mapping[str, StoredRun]


def rounds_of(store: RawStore, jobs: Mapping[str, Job]) -> list[Round]:
    """Return the whole rounds of a cell that count, the earliest first: a run of each part.

    Args:
        store: the raw store.
        jobs: the job of each part.
    """
    found: dict[tuple[str, int], dict[str, StoredRun]] = {}
    for part, job in jobs.items():
        for run in store.complete(job.key):
            if run.meta["role"] == ROLE:
                found.setdefault((run.meta["block"], run.meta["round"]), {})[part] = run
    return [parts for _, parts in sorted(found.items()) if set(parts) == set(PARTS)]


def measure_bench(
    block: Mapping[str, Any],
    bench: Mapping[str, Any],
    *,
    results: Path,
    index: Path,
    again: bool = False,
) -> None:
    """Measure the rounds that the raw store lacks and list them.

    Args:
        block: the device's block in plain values, as `measure.block.measure` takes it.
        bench: rounds, repetitions, and `bundles` and `quirks` of the benchmark by cell.
        results: folder of results; runs go to `raw` below it, failed ones to `failed`.
        index: the file to write, `bench/<device>.json`.
        again: measure every round anew; the earlier ones stay in the store and no longer count.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
        WorkloadError: a run crashed, hung or printed nothing that can be used.
        ConfigError: a cell's framework has no benchmark.
        IntegrityError: a weights file or a stored run is not what its record says.
    """
    name = block["device"]["id"]
    store = RawStore(results / "raw")
    protocol = Protocol(**block["protocol"])
    reasons: dict[str, str] = dict(block["unmeasured"])
    benched: dict[str, Benched] = {}
    if block["cells"]:
        identity = read_json(results / "devices" / name / "identity.json")
        probe = Path(block["probe"])
        for plain in block["cells"]:
            files = CellFiles.of(plain)
            frameworks.bench(files.adapter)
            benched[files.cell] = Benched(
                files,
                bench_job(cell_job(files, identity, probe, protocol.conditions)),
                Path(bench["bundles"][files.cell]),
                bench["quirks"][files.cell],
                bench["repetitions"],
            )
    campaign = _Campaign(store, benched, bench["rounds"])
    lacking = list(benched) if again else campaign.lacking()
    if lacking and block["absent"] is not None:
        log.warning("%s is not benchmarked: %s", name, block["absent"])
        reasons |= dict.fromkeys(lacking, str(block["absent"]))
    elif lacking:
        with ExitStack() as stack:
            device = stack.enter_context(hold(block["device"], results))
            check_identity(device, block["device"], identity)
            if again:
                campaign.set_aside()
            starved = unfit(device, {cell: benched[cell].files for cell in lacking}, rows=block["rows"])
            reasons |= starved
            fitting = [cell for cell in lacking if cell not in starved]
            if fitting:
                runner = runner_for(device, identity, probe, protocol, results)
                nothing = Extent(1, 1, 0, 1)
                runner.deploy([benched[cell].job(part, nothing) for cell in fitting for part in PARTS])
                kept = in_state(device, protocol.state, config=block["device"], results=results)
                campaign.run(fitting, runner, protocol, stack.enter_context(kept))
    else:
        log.info("all rounds are in the raw store already: nothing to measure")
    write_json(index, campaign.index(block["experiment"], name, reasons))


class _Campaign:
    """The rounds of one device: which there are, and making those that lack."""

    def __init__(self, store: RawStore, benched: Mapping[str, Benched], rounds: int) -> None:
        self.store, self.benched, self.rounds = store, benched, rounds

    def extent(self, cell: str) -> Extent | None:
        """Return what a cell computes by its first run that counts; None when it never ran."""
        one = self.benched[cell]
        runs = self.store.complete(one.cell.key)
        if not runs:
            return None
        return extent_of(runs[0], one.files.adapter, one.files.workload["image_position"])

    def jobs(self, cell: str) -> dict[str, Job] | None:
        """Return the job of each part of a cell; None while it is not known how deep to go."""
        extent = self.extent(cell)
        return None if extent is None else {part: self.benched[cell].job(part, extent) for part in PARTS}

    def whole(self, cell: str) -> list[Round]:
        """Return the cell's rounds that count, their files checked, no more than are wanted."""
        jobs = self.jobs(cell)
        rounds = rounds_of(self.store, jobs)[: self.rounds] if jobs else []
        for parts in rounds:
            for run in parts.values():
                self.store.check(run)
        return rounds

    def lacking(self) -> list[str]:
        return [cell for cell in self.benched if len(self.whole(cell)) < self.rounds]

    def set_aside(self) -> None:
        for cell, one in self.benched.items():
            for job in (self.jobs(cell) or {}).values():
                self.store.set_aside(job.key)
            self.store.set_aside(one.cell.key)

    def run(self, cells: Sequence[str], runner: Runner, protocol: Protocol, held: Held) -> None:
        """Warm each cell up, then make rounds until each has enough; each run is stored when it is done."""
        block = f"{datetime.datetime.now(datetime.UTC):%Y%m%dT%H%M%S}-{os.urandom(3).hex()}"
        gate = heat_gate(
            runner.device,
            runner.identity,
            protocol.heat,
            self.store,
            [self.benched[cell].cell for cell in cells],
        )
        position = 0

        def make(cell: str, part: str, job: Job, role: str, number: int) -> StoredRun:
            nonlocal position
            heat = {"heat": gate.wait(f"bench, {part}: {cell}")} if gate else {}
            meta: dict[str, Any] = {
                "role": role,
                "part": part,
                "block": block,
                "idle": None,
                "round": number,
                "position": position,
                "argv": list(job.argv),
                "started": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
                **heat,
            }
            held.before_run()
            stored = runner.run(job, meta, f"{cell}, {part}", after=held.after_run)
            position += 1
            return stored

        for _ in range(max(1, warm_ups(protocol.warmups).least)):
            for cell in cells:
                log.info("bench, warm-up: %s", cell)
                make(cell, CELL, self.benched[cell].cell, "warmup", 0)
        # Counted once more: whoever held the device until now may have added rounds.
        missing = {cell: self.rounds - len(self.whole(cell)) for cell in cells}
        generator = random.Random(protocol.order_seed)
        for number in range(1, max(missing.values()) + 1):
            order = [(cell, part) for cell in cells if missing[cell] >= number for part in PARTS]
            generator.shuffle(order)
            for cell, part in order:
                jobs = self.jobs(cell)
                if jobs is None:
                    raise DeviceError(
                        f"the warm-up of {cell} is not in the raw store any more",
                        do="Start again, and let nobody else change results/raw meanwhile",
                    )
                log.info("bench, round %d of %d, %s: %s", number, max(missing.values()), part, cell)
                make(cell, part, jobs[part], ROLE, number)

    def index(self, experiment: str, device: str, reasons: Mapping[str, str]) -> dict[str, Any]:
        """List each cell's rounds, what was timed in them, and why other cells have none."""
        listed = []
        for cell, one in sorted(self.benched.items()):
            extent, rounds = self.extent(cell), self.whole(cell)
            if extent is None or not rounds:
                continue
            listed.append(
                {
                    "cell": cell,
                    "settings": own(one.files.settings),
                    "tests": {part: one.test(part, extent).__dict__ for part in (DECODE, PREFILL)},
                    "rounds": [
                        {
                            "block": parts[CELL].meta["block"],
                            "round": parts[CELL].meta["round"],
                            **{
                                part: {
                                    "run": run.name,
                                    "meta_sha256": sha256_file(run.folder / "meta.json"),
                                }
                                for part, run in sorted(parts.items())
                            },
                        }
                        for parts in rounds
                    ],
                }
            )
        have = {one["cell"] for one in listed}
        return {
            "format": 1,
            "experiment": experiment,
            "device": device,
            "rounds": self.rounds,
            "cells": listed,
            "unmeasured": {cell: why for cell, why in sorted(reasons.items()) if cell not in have},
        }

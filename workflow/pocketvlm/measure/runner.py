"""Running one job on an open device under the probe, and bringing its record home."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.apps.driven import App
from pocketvlm.devices import leftovers
from pocketvlm.devices.base import Device, Process, run, substitute
from pocketvlm.devices.deploy import changed, deploy
from pocketvlm.devices.root import privileged
from pocketvlm.errors import DeviceError, IntegrityError, TransientDeviceError, WorkloadError
from pocketvlm.frameworks.transcript import tail
from pocketvlm.measure import placement, sensorlist
from pocketvlm.measure.app import Drive
from pocketvlm.measure.install import install
from pocketvlm.measure.jobs import PYTHON, Job
from pocketvlm.measure.kills import KillLog
from pocketvlm.measure.memory import low_memory_kill
from pocketvlm.measure.observe import Observer
from pocketvlm.measure.store import RawStore, StoredRun
from pocketvlm.provenance import read_json, sha256_file

log = logging.getLogger(__name__)

# The probe ends a workload at its deadline; what runs on after this many seconds more is the probe itself.
_GRACE_S = 30
_ROOM = "Close other programs on the device, or choose a smaller context, KV type, quantisation or model. "


class Runner:
    """Runs jobs on one open device."""

    def __init__(
        self,
        device: Device,
        identity: Mapping[str, Any],
        probe: Path,
        deadline_s: int,
        store: RawStore,
        failed: Path,
        responsiveness: Mapping[str, Any] | None = None,
    ) -> None:
        self.device = device
        self.probe = probe / "bin" / "probe"
        self.deadline_s = deadline_s
        self.store = store
        self.failed = failed
        self.responsiveness = responsiveness or {}
        self.runs = f"{device.remote_dir}/runs"
        here = [
            {**sensor, "path": substitute(sensor["path"], device.places)} for sensor in identity["sensors"]
        ]
        self.identity = {**identity, "sensors": here}
        self.remote: dict[Path, str] = {}
        self.kills = KillLog(device)

    def deploy(self, jobs: Sequence[Job]) -> None:
        """Put every file that the jobs need on the device, and remove what a killed block left."""
        leftovers.clear(self.device)
        run(self.device, ["mkdir", "-p", self.runs], timeout=60)
        if any(job.affinity for job in jobs):
            placement.check(self.device)
        with self.store.draft() as folder:
            sensors = folder / "sensors.tsv"
            sensorlist.write(self.identity, sensors)
            trees = {tree.root: tree for job in jobs for tree in job.trees}
            placed: dict[Path, str] = {}
            for tree in trees.values():
                placed |= tree.places(self.device.remote_dir)
            named = {path for job in jobs for path in job.files.values() if path not in placed}
            hashes = {path: sha256_file(path) for path in sorted({sensors, self.probe, *named})}
            where = deploy(
                self.device,
                list(hashes.items()),
                self.device.remote_dir,
                programs={self.probe},
                trees=trees.values(),
                report=log.info,
            )
            self.remote = {**placed, **{path: where[digest] for path, digest in hashes.items()}}
            self.sensors = self.remote[sensors]
        for app, files in {job.app: job.files for job in jobs if job.app}.items():
            apk = files.get("@bundle/app.apk")
            install(self.device, app, self.remote[apk] if apk else None)

    def run(
        self,
        job: Job,
        meta: Mapping[str, Any],
        what: str,
        after: Callable[[], Mapping[str, Any]] = dict,
    ) -> StoredRun:
        """Run a job under the probe and add it to the store, or keep what a failed one left and say why.

        `after` is asked when the run has ended, for what belongs to its `meta.json` besides `meta`.
        """
        out = f"{self.runs}/{os.urandom(6).hex()}"
        if job.app is not None:
            return self._run_app(job, job.app, meta, what, after, out)
        child = [self._there(job, word) for word in job.argv]
        variables = [f"{name}={self._there(job, value)}" for name, value in sorted(job.environment.items())]
        ours = bool(job.files)
        prefix = self.device.exec_prefix
        argv = [
            *prefix,
            self.remote[self.probe],
            *("run", "--sensors", self.sensors, "--out", out, "--deadline", str(self.deadline_s)),
            *placement.watch(job.affinity),
            *("--", *(("env", *variables) if variables else ()), *placement.pin(job.affinity)),
            *(*(prefix if ours else ()), *child),
        ]
        observer = Observer(self.device, self.identity.get("snapshots", {}), self.responsiveness)
        with self.store.draft() as draft:
            gathered = draft / "run"
            with observer:
                self._record(privileged(self.device, argv), out, gathered)
            meta = {**meta, **observer.write(gathered)}
            self._check_files(job, gathered, what)
            problem = _problem(gathered, job)
            if problem:
                starved = self._starved(gathered) if ours else None
                kept = self.store.keep_failed(gathered, job.key_inputs, self.failed)
                raise WorkloadError(
                    f"the workload {problem}{f' because memory ran out: {starved}' if starved else ''}",
                    where=what,
                    do=f"{_ROOM if starved else ''}Read stdout and stderr in {kept}",
                )
            more = {**after(), **self.kills.record(gathered)}
            return self.store.add(gathered, job.key_inputs, {**meta, **more})

    def _run_app(
        self,
        job: Job,
        app: App,
        meta: Mapping[str, Any],
        what: str,
        after: Callable[[], Mapping[str, Any]],
        out: str,
    ) -> StoredRun:
        """Run a job that is an app: the probe's command waits while the app is driven; else as `run`."""
        drive = Drive(self.device, app, self.remote[job.files["@workload/image"]], out, what, self.deadline_s)
        observer = Observer(self.device, self.identity.get("snapshots", {}), self.responsiveness)
        with self.store.draft() as draft:
            gathered = draft / "run"
            try:
                with observer:
                    drive.prepare()
                    argv = [
                        *self.device.exec_prefix,
                        self.remote[self.probe],
                        *("run", "--sensors", self._sensors_of(drive, draft), "--out", out),
                        *("--deadline", str(self.deadline_s + _GRACE_S)),
                        *("--", *(drive.ready if word == "@ready" else word for word in job.argv)),
                    ]
                    self._record(privileged(self.device, argv), out, gathered, drive.record)
            except WorkloadError as error:
                gathered.mkdir(exist_ok=True)
                drive.recorder.write(gathered)
                (gathered / "last-screen.xml").write_text(drive.recorder.last_screen, errors="replace")
                kept = self.store.keep_failed(gathered, job.key_inputs, self.failed)
                raise WorkloadError(
                    error.what,
                    where=error.where,
                    do=f"{error.do}. The last screen and what was done are in {kept}",
                ) from None
            finally:
                drive.finish()
            drive.recorder.write(gathered)
            meta = {**meta, **observer.write(gathered), "app_pid": drive.phone.pid}
            self._check_files(job, gathered, what)
            if problem := _problem(gathered, job):
                kept = self.store.keep_failed(gathered, job.key_inputs, self.failed)
                raise WorkloadError(
                    f"the recording of the app {problem}", where=what, do=f"Read what is in {kept}"
                )
            return self.store.add(
                gathered, job.key_inputs, {**meta, **after(), **self.kills.record(gathered)}
            )

    def _sensors_of(self, drive: Drive, draft: Path) -> str:
        """Push a list of sensors in which those of the workload are the app's process; return where it is."""
        local, there = draft / "sensors.tsv", drive.sensor_list
        sensorlist.write(drive.sensors(self.identity), local)
        self.device.push(local, there)
        return there

    def _there(self, job: Job, word: str) -> str:
        """Return a word of a job with the device's path in the place of one that stands for a file."""
        if word == PYTHON:
            return self.device.places["python"]
        return self.remote[job.files[word]] if word in job.files else word

    def _check_files(self, job: Job, gathered: Path, what: str) -> None:
        """Refuse a run whose files were changed on the device after they had been found right."""
        whole = [self.remote[tree.root / name] for tree in job.trees for name in tree.files]
        within = {tree.root for tree in job.trees}
        named = [path for path in job.files.values() if not within & {path, *path.parents}]
        used = [self.remote[self.probe], self.sensors, *whole, *(self.remote[path] for path in named)]
        if names := changed(self.device, used):
            kept = self.store.keep_failed(gathered, job.key_inputs, self.failed)
            raise IntegrityError(
                f"{', '.join(names)} changed on {self.device.id} while it was in use: the run does not count",
                where=what,
                do=f"Find out what writes there, and start again: it is pushed anew. The run is in {kept}",
            )

    def _starved(self, gathered: Path) -> str | None:
        """Return what shows that memory ran out, for a workload that was killed from outside."""
        record = read_json(gathered / "probe.json")
        if record["exited"] or record["signal"] != signal.SIGKILL or record["deadline_hit"]:
            return None
        return low_memory_kill(self.device, gathered, self.identity)

    def _record(
        self,
        argv: Sequence[str],
        out: str,
        gathered: Path,
        during: Callable[[Process], None] | None = None,
    ) -> None:
        process = self.device.spawn(argv)
        try:
            if during is not None:
                during(process)
            # The probe ends the workload at the deadline; this one only catches a probe that hangs itself.
            result = process.wait(self.deadline_s + _GRACE_S)
        except TimeoutError:
            process.kill()
            raise TransientDeviceError(
                f"the probe on {self.device.id} did not end {_GRACE_S} s after its deadline",
                do="Look at the device, then start again: finished runs are kept",
            ) from None
        except BaseException:
            _quietly(process.kill)
            raise
        if result.status != 0:
            raise DeviceError(
                f"the probe on {self.device.id} ended with status {result.status}: "
                f"{result.stderr.strip()[-300:]}",
                do="Read the message of the probe; a full disk or a missing folder is the usual cause",
            )
        if self.device.root:
            # Root wrote it, and adbd reads it as somebody else.
            self.device.root_shell(["chmod", "-R", "a+rX", out], timeout=60)
        self.device.pull(out, gathered)
        self.device.shell(privileged(self.device, ["rm", "-rf", out]), timeout=60)
        if not (gathered / "probe.json").is_file():
            raise TransientDeviceError(
                f"the record of a run on {self.device.id} is not complete",
                do="Start again: finished runs are kept",
            )


def _problem(folder: Path, job: Job) -> str | None:
    """Return why a recorded run is no measurement, or None."""
    record = read_json(folder / "probe.json")
    if record["deadline_hit"]:
        return "did not end before its deadline and was ended"
    if record["truncated"]:
        return "printed more than the limit and was ended"
    if not record["exited"]:
        return f"was killed by signal {record['signal']}"
    if record["status"] != 0:
        return f"ended with status {record['status']}: {_last_line(folder)}"
    if job.files and not job.app and record["stdout_bytes"] == 0:
        return "printed nothing"
    # What cannot be a whole run is none: stored, it would count as measured and never be repeated.
    why = job.unfinished and job.unfinished(*((folder / name).read_bytes() for name in ("stdout", "stderr")))
    return f"{why}: {_last_line(folder)}" if why else None


def _last_line(folder: Path) -> str:
    """What a workload said last, fit for a message: on stderr, or where that is empty on stdout."""
    for name in ("stderr", "stdout"):
        if said := (folder / name).read_bytes()[-4000:].strip().split(b"\n")[-1]:
            return tail(said)
    return "it said nothing"


def _quietly(action: Callable[[], None]) -> None:
    """Do what is left to do while another error is on its way; its own failure must not hide that one."""
    try:
        action()
    except Exception:
        log.debug("while ending a run", exc_info=True)

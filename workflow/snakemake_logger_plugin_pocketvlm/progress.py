"""From Snakemake's log records to progress: which jobs run, what they say, how the workflow ended."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from typing import Any

from snakemake_interface_logger_plugins.common import LogEvent

from pocketvlm import stage
from snakemake_logger_plugin_pocketvlm.display import Display, Job, Tone, duration

# Lines of Snakemake that tell a person nothing; .snakemake/log/ has them.
_NOISE = re.compile(
    r"Assuming unrestricted shared filesystem usage\."
    r"|Using shell: .*"
    r"|Select jobs to execute\.\.\."
    r"|Execute \d+ jobs\.\.\."
    r"|(Moving|Symlinking|Copying) output file .* cache\."
    r"|Shutting down, this might take some time\."
    r"|Complete log\(s\): .*"
    r"|Elapsed time: .*",
    re.DOTALL,
)

# What Snakemake says of a job that failed, beside its JOB_ERROR: the job itself said why.
_ECHO = re.compile(
    r".*CalledProcessError.*returned non-zero exit status \d+"
    r"|.*At least one job did not complete successfully"
    r"|Exiting because a job execution failed\.",
    re.DOTALL,
)

# How `pocketvlm.stage` ends a job after SIGHUP, Ctrl-C and SIGTERM.
_INTERRUPTED = re.compile(r"returned non-zero exit status (129|130|143)\b")

# With less than this, in bytes, no job can write its log.
_NO_ROOM = 1 << 16
_IN_RULE = re.compile(r'\w+ in rule (?P<rule>\w+)(?: in file "[^"]*", line \d+)?(?P<rest>.*)', re.DOTALL)

_SILENT = {
    LogEvent.WORKFLOW_STARTED,
    LogEvent.RESOURCES_INFO,
    LogEvent.JOB_STARTED,
    LogEvent.RULEGRAPH,
    LogEvent.SHELLCMD,
}


class Progress:
    """Follows one workflow and keeps a display up to date."""

    def __init__(self, display: Display) -> None:
        self.display = display
        self.lock = threading.RLock()
        self.running: dict[int, Job] = {}
        self.failed: dict[int, Job] = {}
        self.finished: list[Job] = []
        self.done = 0
        self.total = 0
        self.began = time.monotonic()
        self.complete_log = ""
        self.interrupted = False
        self.closed = False
        # Jobs inherit the environment: whether somebody reads their stderr.
        os.environ[stage.PROGRESS_VARIABLE] = "1" if display.reads_jobs else "0"

    def record(self, record: LogRecord, words: Callable[[LogRecord], str]) -> None:
        """Take one of Snakemake's records; `words` gives Snakemake's own text for it."""
        with self.lock:
            event = getattr(record, "event", None)
            if self.display.snakemake_words:
                text = words(record)
                if text:
                    if event == LogEvent.JOB_INFO:
                        text = f"\n{text}"
                    self.display.line(text)
                return
            handler = (
                {
                    LogEvent.RUN_INFO: self._run_info,
                    LogEvent.JOB_INFO: self._job_info,
                    LogEvent.JOB_FINISHED: self._job_finished,
                    LogEvent.JOB_ERROR: self._job_error,
                    LogEvent.PROGRESS: self._progress,
                }.get(event)
                if event
                else None
            )
            if handler:
                handler(record.__dict__)
            elif event not in _SILENT:
                self._other(record, words(record))

    def from_job(self, line: str) -> None:
        """Take a line that a job wrote to stderr."""
        message = stage.decode_progress(line)
        with self.lock:
            if message is None:
                if line.strip():
                    self.display.line(stage.clean(line, stage.LONG, lines=True), Tone.WARNING)
                return
            log, level, text = message
            job = next((j for j in self.running.values() if j.log == log), None)
            if level == "info":
                if job is not None:
                    job.status = text
                    self._update()
            elif level == "warning":
                self.display.line(f"{job.title if job else log}: {text}", Tone.WARNING)
            # Errors and failure sentences come again at the end, where they are not missed.

    def close(self) -> None:
        """Say how it ended and give the terminal back; later calls do nothing."""
        with self.lock:
            if self.closed:
                return
            self.closed = True
            self._flush_finished()
        # Without the lock: the display may wait for its reader of job lines, which takes it.
        self.display.close()
        if self.display.snakemake_words or not self.total:
            return
        took = duration(time.monotonic() - self.began)
        if self.done == self.total:
            self.display.line(f"All {self.total} jobs done in {took}.", Tone.GOOD)
            return
        failed = f", {len(self.failed)} failed" if self.failed else ""
        self.display.line(f"{self.done} of {self.total} jobs done{failed}, after {took}.", Tone.BAD)
        if self.complete_log:
            self.display.line(self.complete_log)
        if self.interrupted:
            self.display.line(
                "Interrupted. Run the same command again to go on; finished runs are kept.", Tone.BAD
            )
            return
        explained = stage.recorded_logs()
        for job in self.failed.values():
            if job.log not in explained:
                self.display.line(self._unexplained(job), Tone.BAD)

    def _unexplained(self, job: Job) -> str:
        """Return the closing sentence of a job that left no failure record."""
        cause, do = stage.clean(job.cause).rstrip(". "), "Mend that and run again"
        if not cause and _disk_full():
            # Such a job cannot even write down why it ended, and Snakemake not its script.
            cause, do = "this machine's disk is full", "Free space and start again: finished runs are kept"
        cause = cause or "it ended without saying why, see what was printed above"
        log = f" Log: {job.log}" if job.log else ""
        return f"{job.title} failed: {cause}. {do}.{log}"

    def _blame(self, text: str) -> None:
        """Note on its job an error that Snakemake found after the script: a missing output, a wrong hash."""
        found = _IN_RULE.match(text)
        if found is None:
            return
        mine = {number: job for number, job in self.running.items() if job.rule == found["rule"]}
        named = [number for number, job in mine.items() if any(path in text for path in job.outputs)]
        for number in (named or list(mine))[:1]:
            job = self.running.pop(number)
            job.cause = found["rest"].strip(": \n")
            self.failed[number] = job

    def _run_info(self, info: Mapping[str, Any]) -> None:
        stats = dict(info.get("stats") or {})
        total = int(stats.pop("total", 0) or sum(stats.values()))
        if self.total or not total:  # printed again at the end
            return
        self.total = total
        listed = ", ".join(f"{count} {rule}" for rule, count in stats.items())
        self.display.line(f"{total} jobs: {listed}")
        self.display.begin(total, self.from_job)
        self._update()

    def _job_info(self, info: Mapping[str, Any]) -> None:
        wildcards = [str(value) for value in dict(info.get("wildcards") or {}).values()]
        title = stage.clean(" ".join([str(info["rule_name"]), *wildcards]))
        logs = [str(path) for path in info.get("log") or []]
        outputs = [str(path) for path in info.get("output") or []]
        job = Job(str(info["rule_name"]), title, logs[0] if logs else None, outputs)
        self.failed.pop(info["jobid"], None)  # a retry
        self.running[info["jobid"]] = job
        if job.works and not self.display.reads_jobs:
            self.display.line(f"start {job.title}")
        self._update()

    def _job_finished(self, info: Mapping[str, Any]) -> None:
        job = self.running.pop(info["job_id"], None)
        if job is not None and job.works:
            self.finished.append(job)
        self._update()

    def _progress(self, info: Mapping[str, Any]) -> None:
        self.done, self.total = int(info["done"]), int(info["total"])
        self._flush_finished()
        self._update()

    def _flush_finished(self) -> None:
        """Write the finished jobs: Snakemake gives the count just after each."""
        for job in self.finished:
            self.display.line(f"done  {job.title}, {job.elapsed()} ({self.done} of {self.total})", Tone.GOOD)
        self.finished.clear()

    def _job_error(self, info: Mapping[str, Any]) -> None:
        job = self.running.pop(info["jobid"], None)
        if job is None:
            if info["jobid"] in self.failed:
                return
            rule = str(info["rule_name"])
            job = Job(rule, rule, next(iter(info.get("log") or []), None))
        self.failed[info["jobid"]] = job
        where = f", see {job.log}" if job.log else ""
        self.display.line(f"FAILED {job.title} after {job.elapsed()}{where}", Tone.BAD)
        self._update()

    def _other(self, record: LogRecord, text: str) -> None:
        text = text.strip()
        if not text:
            return
        if text.startswith("Complete log(s): "):
            self.complete_log = text
        if record.levelno < WARNING and _NOISE.fullmatch(text):
            return
        if record.levelno >= ERROR:
            if _ECHO.match(text):
                self.interrupted = self.interrupted or _INTERRUPTED.search(text) is not None
                return
            self._blame(text)
        tone = (
            Tone.BAD if record.levelno >= ERROR else Tone.WARNING if record.levelno >= WARNING else Tone.PLAIN
        )
        self.display.line(text, tone)

    def _update(self) -> None:
        self.display.update(self.done, self.total, list(self.running.values()))


def _disk_full() -> bool:
    """Whether the working directory, or the results in it, lie where nothing more can be written."""
    places = [place for place in (Path(), Path(stage.RESULTS)) if place.is_dir()]
    return any(shutil.disk_usage(place).free < _NO_ROOM for place in places)

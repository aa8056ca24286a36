"""What surrounds the work of one job: its log, its failure sentence, its end when the workflow ends.

Every script of the workflow is `with stage(snakemake) as log: ...`. Inside, lines go to the job's log and,
short, to the person: through the workflow's progress display where there is one, else to stderr. A failure
leaves the whole story in the log, a record in `results/logs/failures/` and one sentence on stderr; the job
then exits with status 1 and no traceback.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import logging
import os
import re
import signal
import sys
import threading
import time
import traceback
import unicodedata
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import psutil  # type: ignore[import-untyped]

from pocketvlm.errors import ConfigError, PocketvlmError, of_the_disk
from pocketvlm.provenance import read_json, write_json

RESULTS = "results"
"""Folder of all results, relative to the working directory."""

PROGRESS_VARIABLE = "POCKETVLM_PROGRESS"
"""Environment variable: 1 where the workflow's progress display reads the jobs' stderr."""

SHORT = 400
"""Characters of a line that a person reads in passing."""

LONG = 20_000
"""Characters of one entry of a log."""

_MARK = "\x1epocketvlm "  # begins a line for the display; clean() lets no text from outside contain it

_PIPE_BUF = 4096  # writes up to this size to a pipe are never interleaved (pipe(7))


def clean(text: object, limit: int = SHORT, *, lines: bool = False) -> str:
    """Return untrusted text fit for a terminal: no control or formatting characters, `limit` at most.

    Args:
        text: what to show; it may come from a device, a model or a tool.
        limit: characters kept; a cut is marked by an ellipsis.
        lines: keep line breaks and tabs, for a log; otherwise any run of white space becomes one space.
    """
    whole = str(text)
    cut = len(whole) > limit
    kept = whole[:limit]
    if not lines:
        kept = " ".join(kept.split())
    shown = "".join(
        c if (lines and c in "\n\t") or unicodedata.category(c)[0] != "C" else "\N{REPLACEMENT CHARACTER}"
        for c in kept
    )
    return shown + ("…" if cut else "")


def encode_progress(log: str, level: str, text: str) -> str:
    """Return one line that tells the progress display what the job with that log says."""
    while True:
        line = f"{_MARK}{json.dumps({'log': log, 'level': level, 'text': text})}\n"
        if len(line) <= _PIPE_BUF or not text:
            return line
        text = text[: len(text) // 2]


def decode_progress(line: str) -> tuple[str, str, str] | None:
    """Return log, level and text of a line of `encode_progress`; None for any other line."""
    if not line.startswith(_MARK):
        return None
    try:
        message = json.loads(line[len(_MARK) :])
        return str(message["log"]), str(message["level"]), str(message["text"])
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def stage(snakemake: Any, results: str | os.PathLike[str] = RESULTS) -> Iterator[logging.Logger]:
    """Run one job's work with a log, and end with one sentence if it fails.

    Args:
        snakemake: the object that Snakemake gives to a script (`rule`, `wildcards`, `log`).
        results: where `logs/failures/` is.

    Yields:
        The library's logger. Debug and above go to `snakemake.log[0]`; info and above also to the person.

    Raises:
        SystemExit: 1 after any error, 130 after Ctrl-C, 143 after SIGTERM or when the workflow was killed.
    """
    job = _Job(snakemake, Path(results))
    logger = logging.getLogger("pocketvlm")
    with _handlers(logger, job), _signals(), _watch_workflow():
        started = time.monotonic()
        logger.debug("%s begins, process %d", job.title, os.getpid())
        try:
            yield logger
        except PocketvlmError as error:
            logger.debug("%s", _story(error))
            _fail(job, error, what=error.what, where=error.where, do=error.do)
        except KeyboardInterrupt:
            logger.debug("interrupted")
            raise SystemExit(130) from None
        except (SystemExit, GeneratorExit) as error:
            logger.debug("ended early: %r", error)
            raise
        except Exception as error:
            logger.debug("%s", _story(error))
            if disk := of_the_disk(error):
                _fail(job, error, what=disk.what, where=disk.where, do=disk.do)
            _fail(
                job,
                error,
                what=f"unexpected {type(error).__name__}: {error}",
                where=None,
                do="This is a bug in pocketvlm or in what it stands on: please report it with the log",
            )
        logger.debug("%s done after %.1f s", job.title, time.monotonic() - started)
        job.record.unlink(missing_ok=True)


def failures(results: str | os.PathLike[str] = RESULTS) -> list[str]:
    """Return one sentence for each failure on record, oldest first."""
    found: list[tuple[str, str]] = []
    for path in sorted(_folder(Path(results)).glob("*.json")):
        try:
            record = read_json(path)
            found.append((str(record["time"]), sentence(record)))
        except (OSError, ValueError, KeyError, TypeError) as error:
            found.append(("", f"The failure record {path} cannot be read: {clean(error)}."))
    return [text for _, text in sorted(found)]


def clear_failures(results: str | os.PathLike[str] = RESULTS) -> None:
    """Forget the failures of earlier runs; call it when a workflow starts."""
    for path in _folder(Path(results)).glob("*.json"):
        path.unlink(missing_ok=True)


def recorded_logs(results: str | os.PathLike[str] = RESULTS) -> set[str]:
    """Return the logs of the jobs whose failure is on record."""
    found: set[str] = set()
    for path in _folder(Path(results)).glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            found.add(str(read_json(path)["log"]))
    return found


def sentence(record: Mapping[str, Any]) -> str:
    """Return a failure record as one line: rule, device, cause, next step, log."""
    device = f" on {clean(record['device'])}" if record.get("device") else ""
    where = f" ({clean(record['where'])})" if record.get("where") else ""
    log = f" Log: {record['log']}" if record.get("log") else ""
    do = clean(record["do"])
    stop = "" if do.endswith((".", "?", "!")) else "."
    return f"{record['rule']}{device} failed: {clean(record['what'])}{where}. {do}{stop}{log}"


def report_failures(results: str | os.PathLike[str] = RESULTS) -> None:
    """Print the failures on record when this process ends; call it in `onerror:`.

    Snakemake still prints lines of its own after `onerror:`; what the person should read comes last.
    """

    def last() -> None:
        for text in failures(results):
            print(text, file=sys.stderr)

    atexit.register(last)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Let an error outside a job end the workflow with what happened and what to do, and nothing else.

    Snakemake's own WorkflowError would add the frames of the Snakefile, which say nothing to the person.

    Raises:
        SystemExit: 1, after the message was printed to stderr.
    """
    try:
        yield
    except PocketvlmError as error:
        kind = "Configuration error: " if isinstance(error, ConfigError) else ""
        print(f"{kind}{clean(error, LONG, lines=True)}", file=sys.stderr)
        raise SystemExit(1) from None


class _Job:
    """What names a job: its rule, wildcards, device and log."""

    def __init__(self, snakemake: Any, results: Path) -> None:
        self.rule = str(snakemake.rule)
        self.wildcards = {str(k): str(v) for k, v in dict(snakemake.wildcards.items()).items()}
        params = getattr(snakemake, "params", None)
        device = self.wildcards.get("device") or (params.get("device") if params is not None else None)
        self.device = device if isinstance(device, str) else None
        self.log = str(snakemake.log[0])
        stem = ".".join([self.rule, *self.wildcards.values()])
        self.title = " ".join([self.rule, *self.wildcards.values()])
        self.record = _folder(results) / f"{_file_name(stem)}.json"


def _folder(results: Path) -> Path:
    return results / "logs" / "failures"


def _file_name(stem: str) -> str:
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", stem)
    if safe == stem and len(safe) <= 150:
        return safe
    return f"{safe[:150]}-{hashlib.sha256(stem.encode()).hexdigest()[:8]}"


def _story(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def _fail(job: _Job, error: Exception, *, what: str, where: str | None, do: str) -> None:
    record = {
        "format": 1,
        "rule": job.rule,
        "wildcards": job.wildcards,
        "device": job.device,
        "error": type(error).__name__,
        "what": clean(what),
        "where": clean(where) if where else None,
        "do": clean(do),
        "log": job.log,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    try:
        write_json(job.record, record)
    except OSError as problem:  # a full disk must not hide what went wrong
        logging.getLogger("pocketvlm").warning("no failure record at %s: %s", job.record, problem)
    logging.getLogger("pocketvlm").error("%s", sentence(record), extra={"failure": True})
    raise SystemExit(1) from None


class _ToPerson(logging.Handler):
    """Short lines on stderr: plain for a person, or as JSON for the progress display that reads them."""

    def __init__(self, job: _Job) -> None:
        super().__init__(logging.INFO)
        self.job = job
        self.displayed = os.environ.get(PROGRESS_VARIABLE) == "1"

    def emit(self, record: logging.LogRecord) -> None:
        failure = hasattr(record, "failure")
        text = clean(record.getMessage(), 4 * SHORT if failure else SHORT)
        if self.displayed:
            line = encode_progress(self.job.log, "failure" if failure else record.levelname.lower(), text)
        else:
            head = "" if failure else f"{self.job.title}: "
            warning = "warning: " if record.levelno >= logging.WARNING and not failure else ""
            line = f"{time.strftime('%H:%M:%S')} {head}{warning}{text}\n"
        # When the workflow was killed nobody reads; the log has the line.
        with contextlib.suppress(OSError):
            sys.stderr.write(line)
            sys.stderr.flush()


class _ToLog(logging.FileHandler):
    """Time-stamped lines in the job's log, control characters made visible."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(path, mode="w", encoding="utf-8")
        formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        self.setFormatter(formatter)

    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record), LONG, lines=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Let a line be lost where the disk takes none: a trace of it would hide the job's own sentence."""
        if of_the_disk(sys.exception() or ValueError()) is None:
            super().handleError(record)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _handlers(logger: logging.Logger, job: _Job) -> Iterator[None]:
    handlers: list[logging.Handler] = [_ToLog(Path(job.log)), _ToPerson(job)]
    warned = logging.getLogger("py.warnings")
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    for handler in handlers:
        logger.addHandler(handler)
    # Warnings of libraries are for the log, not for the terminal.
    logging.captureWarnings(True)
    warned.addHandler(handlers[0])
    warned_propagate, warned.propagate = warned.propagate, False
    try:
        yield
    finally:
        logging.captureWarnings(False)
        warned.removeHandler(handlers[0])
        warned.propagate = warned_propagate
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(level)
        logger.propagate = propagate


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the job, so that leases, locks and device settings are given back."""

    def leave(number: int, _frame: FrameType | None) -> None:
        # A second signal must not cut the unwinding short.
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _workflow_process() -> psutil.Process | None:
    """Return the nearest ancestor that is Snakemake, or None when the script was started by hand."""
    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()[:3]
            if any(Path(word).name == "snakemake" for word in words):
                return process
    return None


@contextlib.contextmanager
def _watch_workflow(period_s: float = 0.5) -> Iterator[None]:
    """End this job when the workflow was killed: nobody waits for it, and a device must not stay locked."""
    workflow = _workflow_process()
    if workflow is None:
        yield
        return
    done = threading.Event()

    def watch() -> None:
        while not done.wait(period_s):
            try:
                alive = workflow.is_running() and workflow.status() != psutil.STATUS_ZOMBIE
            except psutil.NoSuchProcess:
                alive = False
            if not alive:
                log = logging.getLogger("pocketvlm")
                log.debug("the workflow, process %d, is gone: ending this job", workflow.pid)
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, name="watch-workflow", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()

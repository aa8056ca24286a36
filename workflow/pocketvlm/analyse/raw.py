"""Read one recorded run, `results/raw/<key>/<nn>/`, into typed arrays.

What is in a run was written by a device and by a model, so nothing in it is trusted: names, sizes,
encodings, order and numbers are checked, and whatever does not hold raises IntegrityError with the file
and the place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.csv as pacsv  # type: ignore[import-untyped]
from numpy.typing import NDArray

from pocketvlm.analyse import app
from pocketvlm.apps.record import NAME as APP_RECORD
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks import Output, Stream

TABLES = ("framestats.txt", "surfaceflinger.txt", "gpu_work-before.txt", "gpu_work-after.txt")
"""Files of a run that hold what a program of the device printed."""
MAX_BYTES = {".csv": 1 << 30, ".jsonl": 256 << 20, ".json": 16 << 20, ".txt": 4 << 20, "": 64 << 20}
MAX_EVENTS = 4_000_000
MAX_LINE = 1 << 20
MAX_COLUMNS = 4096
_NAME = re.compile(r"[a-z0-9_.-]{1,200}")
_RUN = re.compile(r"[0-9a-f]{8,64}/[0-9]{2,6}")
REMEASURE = (
    "Restore the file, or remove the run's folder and run `snakemake --cores 4 all --forcerun measure_block`"
)
REINDEX = "Run `snakemake --cores 4 all --forcerun measure_block`, which writes the index anew"

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Samples of one sensor group.

    Args:
        t_us: time of each tick, microseconds from the start of the run, shape (ticks,).
        columns: raw values by sensor, NaN where unreadable, shape (ticks,) each.
    """

    t_us: Ints
    columns: dict[str, Floats]


@dataclass(frozen=True)
class ThreadSeen:
    """A thread of the workload when it was first seen, or when the CPUs that it may use had changed.

    Args:
        t_us: microseconds from the start of the run.
        tid, name: which thread; the name is any text.
        allowed: its `Cpus_allowed_list` as the kernel prints it; empty where it was too long.
    """

    t_us: int
    tid: int
    name: str
    allowed: str


@dataclass(frozen=True)
class Run:
    """One recorded run; all times are microseconds from its start.

    Args:
        name: `<key>/<nn>`.
        meta: `meta.json`, probe: `probe.json`.
        groups: samples by group.
        wake_t_us, wake_late_us: the responsiveness thread, shape (wakes,).
        output: stdout, stderr and how the workload ended.
        texts: (t_us, sensor, value) of the text sensors.
        wall_us: length of the run.
        pid: the workload's process on the device.
        threads: where its threads might run, as the probe saw it.
        shell_t_us, shell_us: pings of the device's shell and how long each took, NaN where lost, (pings,).
        tables: what the device's own programs printed (TABLES), by name, as far as they were asked.
    """

    name: str
    meta: dict[str, Any]
    probe: dict[str, Any]
    groups: dict[str, Group]
    wake_t_us: Ints
    wake_late_us: Ints
    output: Output
    texts: tuple[tuple[int, str, str], ...]
    wall_us: int
    pid: int | None = None
    threads: tuple[ThreadSeen, ...] = ()
    shell_t_us: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    shell_us: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    tables: Mapping[str, bytes] = field(default_factory=dict)


def _broken(what: str, path: Path | str, do: str = REMEASURE) -> IntegrityError:
    return IntegrityError(what, where=str(path), do=do)


def run_folder(raw_root: Path, run: str) -> Path:
    """Return the folder of run `<key>/<nn>`; IntegrityError when the name is not of that form."""
    if not _RUN.fullmatch(run):
        raise _broken(f"{run[:80]!r} is no run of the raw store", raw_root, REINDEX)
    return raw_root / run


def read_bytes(path: Path) -> bytes:
    """Return a regular file's bytes; IntegrityError when it is absent, of another kind or too large."""
    if path.is_symlink() or not path.is_file():
        raise _broken(f"{path.name} is missing or is no regular file", path)
    limit = MAX_BYTES.get(path.suffix, MAX_BYTES[""])
    if path.stat().st_size > limit:
        raise _broken(
            f"{path.name} has {path.stat().st_size} bytes, more than the {limit} that are read", path
        )
    return path.read_bytes()


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object of a file; IntegrityError when it is none."""
    return _object(read_bytes(path), path)


def _object(data: bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _broken(f"{path.name} is no JSON: {str(error)[:120]}", path) from None
    if not isinstance(value, dict):
        raise _broken(f"{path.name} holds a {type(value).__name__}, not an object", path)
    return value


def _integer(record: dict[str, Any], key: str, path: Path, place: str = "") -> int:
    value = record.get(key)
    if type(value) is not int or not -(1 << 53) < value < (1 << 53):
        raise _broken(f"{path.name}{place}: {key} is {str(value)[:40]!r}, not an integer", path)
    return value


def read_csv(path: Path) -> tuple[Ints, dict[str, Floats]]:
    """Read a sensor group's CSV.

    Returns:
        absolute times in microseconds, shape (ticks,), and raw values by sensor, NaN where empty.

    Raises:
        IntegrityError: not this format, a value that is no finite number, or times that go back.
    """
    data = read_bytes(path)
    header, _, _ = data.partition(b"\n")
    try:
        names = header.decode("ascii").rstrip("\r").split(",")
    except UnicodeDecodeError:
        raise _broken(f"{path.name}: the header is no plain text", path) from None
    if names[0] != "t_us" or len(names) > MAX_COLUMNS or len(set(names)) != len(names):
        raise _broken(f"{path.name}: the header must be t_us and then sensors, each once", path)
    for name in names:
        if not _NAME.fullmatch(name):
            raise _broken(f"{path.name}: {name[:80]!r} is no sensor name", path)
    types: dict[str, pa.DataType] = dict.fromkeys(names, pa.float64())
    types["t_us"] = pa.int64()
    block = max(1 << 18, 4 * len(header))  # one that fits the cache is read up to four times as fast
    try:
        table = pacsv.read_csv(
            pa.py_buffer(data),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=block),
            parse_options=pacsv.ParseOptions(quote_char=False, ignore_empty_lines=False),
            convert_options=pacsv.ConvertOptions(
                column_types=types, null_values=[""], strings_can_be_null=True
            ),
        )
    except pa.ArrowInvalid as error:
        if "Empty CSV file" in str(error):
            table = pa.table({name: pa.array([], kind) for name, kind in types.items()})
        else:
            raise _broken(f"{path.name} is malformed: {str(error)[:160]}", path) from None
    times = table.column("t_us")
    if times.null_count:
        raise _broken(f"{path.name}: a line has no time", path)
    t_us = times.to_numpy().astype(np.int64)
    if np.any(np.diff(t_us) < 0):
        line = int(np.argmax(np.diff(t_us) < 0)) + 3
        raise _broken(f"{path.name}: times go back at line {line}", path)
    columns = {}
    for name in names[1:]:
        column = table.column(name)
        values = np.asarray(column.to_numpy(), dtype=np.float64)
        if np.count_nonzero(~np.isfinite(values)) != column.null_count:
            raise _broken(f"{path.name}: {name} holds a value that is no finite number", path)
        columns[name] = values
    return t_us, columns


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events, ordered by time; IntegrityError for a line that is none or out of order."""
    lines = read_bytes(path).split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    if len(lines) > MAX_EVENTS:
        raise _broken(f"{path.name} has {len(lines)} lines, more than the {MAX_EVENTS} that are read", path)
    events = []
    before = -(1 << 53)
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_LINE:
            raise _broken(f"{path.name}: line {number} is longer than {MAX_LINE} bytes", path)
        try:
            event = json.loads(line.decode("utf-8", errors="replace"))
        except (ValueError, RecursionError):
            raise _broken(f"{path.name}: line {number} is no JSON", path) from None
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            raise _broken(f"{path.name}: line {number} is no event", path)
        t_us = _integer(event, "t_us", path, f" line {number}")
        if t_us < before:
            raise _broken(f"{path.name}: times go back at line {number}", path)
        before = t_us
        events.append(event)
    return events


def _stream(name: str, data: bytes, events: list[dict[str, Any]], start_us: int, path: Path) -> Stream:
    ends, times = [], []
    offset = 0
    for event in events:
        if event["event"] != "chunk" or event.get("stream") != name:
            continue
        length = _integer(event, "length", path)
        if _integer(event, "offset", path) != offset or length <= 0:
            raise _broken(f"{path.name}: chunks of {name} do not follow each other at offset {offset}", path)
        offset += length
        ends.append(offset)
        times.append(event["t_us"] - start_us)
    if offset != len(data):
        raise _broken(f"{name} has {len(data)} bytes, its chunks have {offset}", path)
    return Stream(data, np.array(ends, dtype=np.int64), np.array(times, dtype=np.int64))


def check_run(folder: Path, meta_sha256: str | None = None) -> dict[str, Any]:
    """Return `meta.json` of a complete run after comparing every file with the hash it names.

    Raises:
        IntegrityError: no complete run, or a file that is not what was recorded.
    """
    path = folder / "meta.json"
    data = read_bytes(path)
    if meta_sha256 is not None and hashlib.sha256(data).hexdigest() != meta_sha256:
        raise _broken(
            f"meta.json has sha256 {hashlib.sha256(data).hexdigest()}, the index names {meta_sha256}",
            path,
        )
    meta = _object(data, path)
    files = meta.get("files")
    if not isinstance(files, dict):
        raise _broken("meta.json names no files", path)
    for name, record in files.items():
        if not re.fullmatch(r"[a-z0-9_][a-z0-9_.-]{0,99}", name) or not isinstance(record, dict):
            raise _broken(f"meta.json names a file {name[:80]!r}", path)
        actual = hashlib.sha256(read_bytes(folder / name)).hexdigest()
        if actual != record.get("sha256"):
            raise _broken(
                f"{name} has sha256 {actual}, recorded was {str(record.get('sha256'))[:64]}",
                folder / name,
            )
    return meta


def read_run(folder: Path, meta_sha256: str | None = None) -> Run:
    """Read a complete run; IntegrityError when a part is not as recorded or not as `docs/formats.md` says."""
    meta = check_run(folder, meta_sha256)
    recorded = meta["files"]
    missing = [name for name in ("probe.json", "events.jsonl", "stdout", "stderr") if name not in recorded]
    if missing:
        raise _broken(f"meta.json does not name {', '.join(missing)}", folder / "meta.json")
    probe_path, events_path = folder / "probe.json", folder / "events.jsonl"
    probe = read_object(probe_path)
    start_us, end_us = _integer(probe, "start_us", probe_path), _integer(probe, "end_us", probe_path)
    if end_us <= start_us:
        raise _broken("probe.json: the run ends before it starts", probe_path)
    groups = {}
    if not isinstance(probe.get("groups"), dict):
        raise _broken("probe.json names no sensor groups", probe_path)
    for group in probe["groups"]:
        if not _NAME.fullmatch(group) or f"{group}.csv" not in recorded:
            raise _broken(f"group {group[:80]!r} has no recorded file", probe_path)
        t_us, columns = read_csv(folder / f"{group}.csv")
        groups[group] = Group(t_us - start_us, columns)
    wake_t, wake_late = np.empty(0, np.int64), np.empty(0, np.int64)
    if "wake.csv" in recorded:
        wake_t, wake = read_csv(folder / "wake.csv")
        if set(wake) != {"late_us"} or np.isnan(wake["late_us"]).any():
            raise _broken("wake.csv must hold t_us and late_us, without gaps", folder / "wake.csv")
        wake_t, wake_late = wake_t - start_us, wake["late_us"].astype(np.int64)
    events = read_events(events_path)
    texts = tuple(
        (event["t_us"] - start_us, str(event.get("sensor"))[:200], str(event.get("value"))[:200])
        for event in events
        if event["event"] == "text"
    )
    shell_t, shell = np.empty(0, np.int64), np.empty(0, np.float64)
    if "shell.csv" in recorded:
        shell_t, trips = read_csv(folder / "shell.csv")
        if set(trips) != {"round_trip_us"} or np.any(trips["round_trip_us"] < 0):
            raise _broken("shell.csv must hold t_us and round_trip_us from 0", folder / "shell.csv")
        shell_t, shell = shell_t - start_us, trips["round_trip_us"]
    starts = [event.get("pid") for event in events if event["event"] == "start"]
    status, signal = probe.get("status"), probe.get("signal")
    output = Output(
        stdout=_stream("stdout", read_bytes(folder / "stdout"), events, start_us, events_path),
        stderr=_stream("stderr", read_bytes(folder / "stderr"), events, start_us, events_path),
        wall_us=end_us - start_us,
        exited=probe.get("exited") is True,
        status=status if type(status) is int else None,
        signal=signal if type(signal) is int else None,
        deadline_hit=probe.get("deadline_hit") is True,
        app=app.understand(read_events(folder / APP_RECORD), start_us, end_us, folder / APP_RECORD)
        if APP_RECORD in recorded
        else None,
    )
    return Run(
        name=f"{folder.parent.name}/{folder.name}",
        meta=meta,
        probe=probe,
        groups=groups,
        wake_t_us=wake_t,
        wake_late_us=wake_late,
        output=output,
        texts=texts,
        wall_us=end_us - start_us,
        pid=starts[0] if starts and type(starts[0]) is int else None,
        threads=tuple(
            ThreadSeen(
                event["t_us"] - start_us,
                _integer(event, "tid", events_path),
                str(event.get("name"))[:200],
                str(event.get("allowed"))[:600],
            )
            for event in events
            if event["event"] == "thread"
        ),
        shell_t_us=shell_t,
        shell_us=shell,
        tables={name: read_bytes(folder / name) for name in TABLES if name in recorded},
    )

"""What the record of an app's run says: its own time and the texts that it showed.

The record was written here, of what a device said: whatever is not of its form raises IntegrityError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.apps import logs
from pocketvlm.apps.record import Record, Wait
from pocketvlm.errors import IntegrityError

_TIMES = ("since_begun_us", "since_us", "not_before_us", "seen_us")


def understand(events: Sequence[Mapping[str, Any]], start_us: int, end_us: int, path: Path) -> Record:
    """Return a run's record.

    Args:
        events: of `app.jsonl`, absolute times.
        start_us, end_us: of the run; times of the result are from its start, and none lies outside.
        path: the file, for messages.

    Raises:
        IntegrityError: an event is not of its form.
    """
    waits, reads, clocks = [], {}, []
    steps = looks = 0
    for number, event in enumerate(events, 1):
        t_us, kind = int(event["t_us"]), event["event"]
        place = f"line {number}"
        if kind == "clock":
            clocks.append(_clock(event, path, place))
        if t_us < start_us:
            continue
        if kind == "screen":
            looks += 1
        elif kind == "read":
            reads[_text(event, "name", path, place)] = _text(event, "text", path, place)
        elif kind == "step":
            steps += 1
            if event.get("phases"):
                waits.append(_wait(event, start_us, end_us, path, place))
    drift = None
    if len(clocks) > 1:
        drift = abs(clocks[0].boot_us(clocks[-1].stamp) - clocks[-1].t_us)
    return Record(tuple(waits), reads, steps, looks, drift)


def _wait(event: Mapping[str, Any], start_us: int, end_us: int, path: Path, place: str) -> Wait:
    phases = event["phases"]
    if not isinstance(phases, list) or not all(isinstance(phase, str) for phase in phases):
        raise _broken("phases is no list of names", path, place)
    times = {}
    for name in _TIMES:
        value = event.get(name)
        if type(value) is not int:
            raise _broken(f"{name} is {str(value)[:40]!r}, not an integer", path, place)
        times[name] = min(max(value, start_us), end_us) - start_us
    begun, since, not_before, seen = (times[name] for name in _TIMES)
    if not begun <= since <= seen:
        raise _broken("a wait ends before it begins", path, place)
    unsure = since - begun + max(0, seen - max(not_before, since))
    return Wait(tuple(phases), since, seen, unsure, _text(event, "what", path, place)[:120])


def _clock(event: Mapping[str, Any], path: Path, place: str) -> logs.Clocks:
    stamp = _text(event, "stamp", path, place)
    try:
        logs.microseconds(stamp)
    except ValueError as error:
        raise _broken(str(error), path, place) from None
    return logs.Clocks(int(event["t_us"]), stamp)


def _text(event: Mapping[str, Any], name: str, path: Path, place: str) -> str:
    value = event.get(name)
    if not isinstance(value, str):
        raise _broken(f"{name} is {str(value)[:40]!r}, not a text", path, place)
    return value


def _broken(what: str, path: Path, place: str) -> IntegrityError:
    return IntegrityError(
        f"{path.name}, {place}: {what}", where=str(path),
        do="Restore the file, or remove the run's folder and run `snakemake --cores 4 all --forcerun "
        "measure_block`",
    )  # fmt: skip

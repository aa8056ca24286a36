"""`app.jsonl` of a run: what was done to the app, what it showed and wrote to its log, each with its time.

One JSON object a line, in the order of `t_us`. Times are the device's CLOCK_BOOTTIME in microseconds, read on
the device before and after each command (/proc/uptime, hundredths of a second).

    {"event": "clock",  "t_us", "stamp"}                     both of the phone's clocks at one moment
    {"event": "step",   "t_us", "end_us", "step": "run.3", "what", "kind"}
                        a wait has besides: "phases", "since_us" (the step before it was done),
                        "since_begun_us" (and had begun), "not_before_us" (the last look that did not find
                        it began), "seen_us"
    {"event": "screen", "t_us", "end_us", "step", "xml"}     a dump; "same": true where it is as before
    {"event": "log",    "t_us", "step", "lines": [[t_us, text], …]}   new lines of the app's process
    {"event": "read",   "t_us", "step", "name", "text"}
    {"event": "failed", "t_us", "step", "what"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm.apps.statistics import Found

NAME = "app.jsonl"


class Recorder:
    """Gathers the events of one run."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self._xml = ""

    def add(self, event: str, t_us: int, **more: Any) -> None:
        """Add an event."""
        self.events.append({"event": event, "t_us": t_us, **more})

    def screen(self, t_us: int, end_us: int, step: str, xml: str) -> None:
        """Add a dump; one that is the same as the one before is told by that."""
        same = xml == self._xml
        self._xml = xml
        self.add("screen", t_us, end_us=end_us, step=step, **({"same": True} if same else {"xml": xml}))

    @property
    def last_screen(self) -> str:
        """The newest dump, empty without any."""
        return self._xml

    def write(self, folder: Path) -> None:
        """Write the file into a run's folder."""
        ordered = sorted(self.events, key=lambda event: int(event["t_us"]))
        lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in ordered]
        (folder / NAME).write_text("".join(lines), encoding="utf-8", errors="replace")


@dataclass(frozen=True)
class Wait:
    """A wait of the recording that is a phase; times in microseconds.

    Attributes:
        phases: the phase, or several that are one span.
        start_us: the step before it was done.
        end_us: what was waited for was seen; it was there at this moment at the latest.
        unsure_us: by how much the span may be shorter or longer than the app's own time.
        what: the step, for reasons.
    """

    phases: tuple[str, ...]
    start_us: int
    end_us: int
    unsure_us: int
    what: str


@dataclass(frozen=True)
class Record:
    """A run's `app.jsonl`, read.

    Attributes:
        waits: the app's own time, in order.
        reads: texts by name.
        steps, looks: how many steps were done in the recording, and how often the screen was dumped.
        drift_us: by how much the phone's clocks moved against each other meanwhile; None where unknown.
        found: what became of the app's statistics, by quantity.
    """

    waits: tuple[Wait, ...]
    reads: Mapping[str, str]
    steps: int
    looks: int
    drift_us: int | None
    found: Mapping[str, Found] = field(default_factory=dict)

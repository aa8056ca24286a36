"""How progress is shown: what every display offers, and the two that only write lines."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TextIO


class Tone(Enum):
    """What a line means; a terminal colours by it."""

    PLAIN = ""
    GOOD = "green"
    WARNING = "yellow"
    BAD = "red"


@dataclass
class Job:
    """A running job: its rule and wildcards, its files, since when, what it said last, why it failed."""

    rule: str
    title: str
    log: str | None
    outputs: list[str] = field(default_factory=list)
    cause: str = ""
    started: float = field(default_factory=time.monotonic)
    status: str = ""

    @property
    def works(self) -> bool:
        """Whether it does anything: a rule such as `all` only gathers."""
        return bool(self.log or self.outputs)

    def elapsed(self) -> str:
        return duration(time.monotonic() - self.started)


def duration(seconds: float) -> str:
    """Return a duration as a person says it: `4 s`, `2 min 05 s`, `1 h 02 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


class Display(ABC):
    """Shows lines that stay, and what is going on now."""

    snakemake_words = False
    """Show each record as Snakemake formats it."""

    reads_jobs = False
    """Reads what jobs write to stderr."""

    @abstractmethod
    def line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Write a line that stays."""

    def begin(self, total: int, from_jobs: Callable[[str], None]) -> None:  # noqa: B027
        """Jobs will run; lines that they write to stderr go to `from_jobs` where the display reads them."""

    def update(self, done: int, total: int, running: list[Job]) -> None:  # noqa: B027
        """Something changed."""

    def close(self) -> None:  # noqa: B027
        """Give the terminal back."""


class Plain(Display):
    """One line an event, with the time of day: for logs, pipes and CI."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.running = False

    def begin(self, total: int, from_jobs: Callable[[str], None]) -> None:
        self.running = True

    def line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        # What is said before any job (lints, mistakes in the configuration) needs no time.
        clock = time.strftime("%H:%M:%S ") if self.running else ""
        for each in text.splitlines() or [""]:
            self._write(f"{clock}{each}\n")

    def _write(self, text: str) -> None:
        # A reader that went away (`snakemake | head`) must not end a measurement.
        with contextlib.suppress(BrokenPipeError):
            self.stream.write(text)
            self.stream.flush()


class Passthrough(Plain):
    """Snakemake's own text."""

    snakemake_words = True

    def line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        self._write(f"{text}\n")

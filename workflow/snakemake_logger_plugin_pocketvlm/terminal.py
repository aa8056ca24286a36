"""A live display on a terminal: finished jobs scroll by, below them the running ones and how far all is."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from snakemake_logger_plugin_pocketvlm.display import Display, Job, Tone, duration


class Terminal(Display):
    """The live display.

    Jobs share the terminal, and what they write would tear the display apart. While it is up, this process
    and its jobs therefore have a pipe as their stderr, which a thread reads line by line.
    """

    reads_jobs = True

    def __init__(self, stream: TextIO, *, color: bool = True) -> None:
        self.capture = Capture(stream.fileno())
        self.console = Console(file=stream, no_color=not color, highlight=False)
        self.live: Live | None = None
        self.done, self.total = 0, 0
        self.running: list[Job] = []
        self.began = time.monotonic()
        self.spinner = Spinner("dots")

    def line(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        self.console.print(Text(text, style=tone.value), soft_wrap=True)

    def begin(self, total: int, from_jobs: Callable[[str], None]) -> None:
        if self.live is not None:
            return
        self.total = total
        self.console.file = self.capture.start(from_jobs)
        self.live = Live(
            get_renderable=self._picture,
            console=self.console,
            refresh_per_second=5,
            transient=True,
            redirect_stderr=False,
            # What the Snakefile prints must not tear it apart either; a file as stdout stays as it is.
            redirect_stdout=sys.stdout.isatty(),
        )
        self.live.start()
        # A killed workflow could not switch the cursor on again.
        self.console.show_cursor(True)

    def update(self, done: int, total: int, running: list[Job]) -> None:
        self.done, self.total, self.running = done, total, running

    def close(self) -> None:
        if self.live is None:
            return
        self.capture.drain()
        self.live.stop()
        self.live = None
        self.console.file = self.capture.stop()

    def _picture(self) -> Group:
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total=max(self.total, 1), completed=self.done, width=30, complete_style="green"),
            Text(f"{self.done} of {self.total} jobs"),
            Text(duration(time.monotonic() - self.began), style="dim"),
        )
        rows = Table.grid(padding=(0, 1))
        room = max(self.console.size.height - 4, 1)
        for job in self.running[:room]:
            said = Text(job.status, style="dim", overflow="ellipsis", no_wrap=True)
            rows.add_row(self.spinner, Text(job.title, no_wrap=True), Text(job.elapsed(), no_wrap=True), said)
        hidden = len(self.running) - room
        if hidden > 0:
            rows.add_row("", Text(f"and {hidden} more", style="dim"), "", "")
        return Group(head, rows) if self.running else Group(head)


class Capture:
    """Puts a pipe in the place of a file descriptor, here and in every process started meanwhile.

    Args:
        descriptor: the one to replace, usually 2.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.original = -1
        self.read_end = self.write_end = -1
        self.thread: threading.Thread | None = None
        self.stream: TextIO | None = None

    def start(self, take: Callable[[str], None]) -> TextIO:
        """Give every line written from now on to `take`, in a thread; return a stream to the original."""
        self.original = os.dup(self.descriptor)
        self.read_end, self.write_end = os.pipe()
        os.dup2(self.write_end, self.descriptor)
        self.thread = threading.Thread(target=self._read, args=(take,), name="job-lines", daemon=True)
        self.thread.start()
        self.stream = os.fdopen(self.original, "w", encoding="utf-8", errors="replace")
        return self.stream

    def drain(self) -> None:
        """Put the original back and wait until all that was written has been taken."""
        if self.thread is None or self.stream is None:
            return
        self.stream.flush()
        os.dup2(self.original, self.descriptor)
        # Not the pipe's end: a job that outlives this process still holds it open.
        with contextlib.suppress(OSError):
            os.write(self.write_end, b"\n" + _END + b"\n")
        self.thread.join(timeout=5)
        os.close(self.write_end)
        self.thread = None

    def stop(self) -> TextIO:
        """Close what `start` opened, and return the stream of this process's own stderr."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None
        return sys.stderr

    def _read(self, take: Callable[[str], None]) -> None:
        with os.fdopen(self.read_end, "rb") as stream:
            for raw in stream:
                line = raw.rstrip(b"\r\n")
                if line == _END:
                    return
                # A display that fails must not fill the pipe and stop the jobs.
                with contextlib.suppress(Exception):
                    take(line.decode("utf-8", errors="replace"))


_END = b"\x1epocketvlm end"

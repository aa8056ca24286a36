"""Snakemake logger plugin `pocketvlm`: progress on a terminal, one line an event otherwise.

Chosen with `--logger pocketvlm` (the default profile does). With `-n`, `--verbose` and `--debug-dag` a person
asks for Snakemake's own words, and gets them. The complete log is in `.snakemake/log/` in any case.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase

from snakemake_logger_plugin_pocketvlm.display import Display, Passthrough, Plain
from snakemake_logger_plugin_pocketvlm.progress import Progress

if TYPE_CHECKING:
    from snakemake_interface_logger_plugins.settings import OutputSettingsLoggerInterface

__all__ = ["LogHandler"]


def choose_display(settings: OutputSettingsLoggerInterface, stream: TextIO) -> Display:
    """Return how to show events on a stream: Snakemake's words, a live display, or plain lines."""
    if settings.dryrun or settings.verbose or settings.debug_dag:
        return Passthrough(stream)
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        # Only here: rich takes a tenth of a second to import.
        from snakemake_logger_plugin_pocketvlm.terminal import Terminal

        return Terminal(stream, color=not settings.nocolor)
    return Plain(stream)


class LogHandler(LogHandlerBase):
    """Turns Snakemake's log records into progress."""

    def __post_init__(self) -> None:
        settings = self.common_settings
        display = choose_display(settings, sys.stdout if settings.stdout else sys.stderr)
        self.progress = Progress(display)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.progress.record(record, self.format)
        except Exception:
            # An exception here would end Snakemake's listener thread, and with it all messages.
            self.handleError(record)

    def close(self) -> None:
        with contextlib.suppress(ValueError):  # the stream was closed before
            self.progress.close()
        super().close()

    @property
    def writes_to_stream(self) -> bool:
        return True

    @property
    def writes_to_file(self) -> bool:
        return False

    @property
    def has_filter(self) -> bool:
        return False

    @property
    def has_formatter(self) -> bool:
        return False

    @property
    def needs_rulegraph(self) -> bool:
        return False

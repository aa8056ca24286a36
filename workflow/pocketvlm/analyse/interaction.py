"""Runs of apps: the time in which they were used by us, and what they show of themselves besides times."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pocketvlm.analyse.metrics import Metric
from pocketvlm.analyse.phases import Interval
from pocketvlm.analyse.raw import Run
from pocketvlm.apps import statistics
from pocketvlm.frameworks import INTERACTION

# Which phase a rate of the app's is filed under; its prompt is text and image together.
_RATES = {"decode": "decode", "prompt_eval": "run"}


def described(run: Run, entry: Mapping[str, Any]) -> Run:
    """Return a run with the app's statistics looked for in what was read; as it is where the cell has none.

    Args:
        run: the run.
        entry: its cell in `cells.json`.
    """
    record, given = run.output.app, entry.get("statistics")
    if record is None or not given:
        return run
    wanted = statistics.parse(given, list(record.reads), where="cells.json: statistics", strict=False)
    record = replace(record, found=statistics.find(wanted, record.reads))
    return replace(run, output=replace(run.output, app=record))


def metrics(run: Run, intervals: Sequence[Interval]) -> Iterator[Metric]:
    """Give what an app's run has besides: the time that is not counted, and the rates that the app shows."""
    record = run.output.app
    if record is None:
        return
    used = sum(i.duration_us for i in intervals if i.phase == INTERACTION)
    yield Metric("run", "interaction_time", used * 1e-3, "ms", "derived")
    yield Metric("run", "interaction_steps", float(record.steps), "1", "host")
    yield Metric("run", "screen_looks", float(record.looks), "1", "host")
    if found := record.found.get("tokens.prompt"):
        # Text and image together: of neither phase alone.
        yield Metric("run", "reported_tokens.prompt", found.value, "1", "framework", None, found.reason)
    for name, phase in _RATES.items():
        found = record.found.get(f"rate.{name}")
        if found is not None:
            metric = f"reported_rate.{name}"
            yield Metric(phase, metric, found.value, "1/s", "framework", None, found.reason)

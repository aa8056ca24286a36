"""The series of the interactive timelines: what the page embeds of the samples, and how it thins them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketvlm.analyse.figures import labels, palette, reasons, series, timeline
from pocketvlm.analyse.figures.timeline import Line, Panel
from pocketvlm.analyse.raw import read_csv
from pocketvlm.provenance import check_sha256, read_json

LIVE_BYTES = 1_200_000
"""All series of the page, as JSON; a cell has an equal share of them."""

PLANS = ((12, 600), (3, 600), (1, 600), (1, 300), (1, 120))
"""(runs, points of a line) from the fullest: a cell takes the first that fits its share."""

GAP = 3.5
"""A line breaks where no sample came for so many times the usual interval."""

MIB = float(1 << 20)


def _memory(samples: pd.DataFrame) -> list[Line]:
    """Return the workload's resident memory, without the samples of before its program and after its end."""
    return [
        Line("workload", palette.INK, values.iloc[1:-1] / MIB)
        for values in series.gauge(samples, "workload_rss").values()
        if len(values) > 2
    ]


def _clock(samples: pd.DataFrame) -> list[Line]:
    colours = (palette.INK, palette.PURPLE, palette.GREEN, palette.COMPONENT_COLOURS["npu"])
    found = series.gauge(samples, "cpu_frequency")
    return [
        Line(name, colours[place % len(colours)], values / 1e6)
        for place, (name, values) in enumerate(found.items())
    ]


PANELS = (
    *timeline.PANELS,
    Panel("CPU clock, MHz", _clock, ("cpu_frequency",), True),
    Panel("Memory, MiB", _memory, ("workload_rss",), True),
)
WAKE = "Wake-up late, ms"


def thinned(values: pd.Series, limit: int) -> pd.Series:
    """Return at most `limit` points of a series over microseconds: of each interval the least and greatest.

    So no peak and no dip is lost, whatever is left out. A series that is short enough is returned whole.
    """
    values = values.dropna()
    if len(values) <= limit:
        return values
    times = values.index.to_numpy(dtype=float)
    share = (times - times[0]) / max(times[-1] - times[0], 1.0)
    bucket = np.minimum((share * (limit // 2)).astype(int), limit // 2 - 1)
    places = pd.Series(np.arange(len(values)))
    kept = [
        sorted({int(group[numbers[group].argmin()]), int(group[numbers[group].argmax()])})
        for numbers in [values.to_numpy(dtype=float)]
        for group in (one.to_numpy() for _, one in places.groupby(bucket))
    ]
    return values.iloc[[place for group in kept for place in group]]


def _points(line: Line, limit: int) -> tuple[list[int], list[float | None]]:
    """Return times in ms and values of a line, with None where it breaks because samples are missing."""
    whole = line.values.dropna()
    few = thinned(whole, limit)
    times = [round(float(t) / 1e3) for t in few.index]
    numbers: list[float | None] = [float(f"{value:.5g}") for value in few]
    if len(whole) < 3 or len(few) < len(whole):
        return times, numbers
    usual = float(np.median(np.diff(whole.index.to_numpy(dtype=float)))) / 1e3
    for place in range(len(times) - 1, 0, -1):
        if times[place] - times[place - 1] > GAP * usual:
            times.insert(place, (times[place] + times[place - 1]) // 2)
            numbers.insert(place, None)
    return times, numbers


def _wake(folder: Path) -> list[Line]:
    """Return how late the waking thread of a run was, in ms; nothing where the run did not record it."""
    path = folder / "wake.csv"
    meta = read_json(folder / "meta.json")
    if path.name not in meta["files"]:
        return []
    check_sha256(path, meta["files"][path.name]["sha256"], do="Restore the run's folder from a copy")
    start = int(read_json(folder / "probe.json")["start_us"])
    times, columns = read_csv(path)
    return [Line("late", palette.INK, pd.Series(columns["late_us"] / 1e3, index=times - start))]


@dataclass(frozen=True)
class Live:
    """What the page embeds of one cell, and in words what it leaves out."""

    name: str
    json: str
    note: str


def _colour(colour: str) -> str:
    return "currentColor" if colour == palette.INK else colour


def _run(
    name: str, short: str, samples: pd.DataFrame, phases: pd.DataFrame, folder: Path, limit: int
) -> tuple[dict[str, Any], int]:
    """Return a run's phases and lines, and the most samples that one of its lines has."""
    most = 0
    panels: dict[str, list[dict[str, Any]]] = {}
    groups: Iterator[tuple[str, list[Line]]] = (
        (panel.title, panel.lines(samples)) for panel in PANELS if not samples.empty
    )
    for title, lines in (*groups, (WAKE, _wake(folder))):
        found = []
        for line in lines:
            times, numbers = _points(line, limit)
            most = max(most, int(line.values.notna().sum()))
            if times:
                found.append(
                    {
                        "name": line.name,
                        "colour": _colour(line.colour),
                        "dash": line.dashed,
                        "t": times,
                        "v": numbers,
                    }
                )
        if found:
            panels[title] = found
    shown = phases.sort_values("start_us")
    spans = [
        [str(row.phase), round(float(str(row.start_us)) / 1e3), round(float(str(row.end_us)) / 1e3)]
        for row in shown.itertuples()
    ]
    return {"run": name, "label": short, "phases": spans, "panels": panels}, most


def _spread(runs: Sequence[str], durations: Mapping[str, float], count: int) -> list[str]:
    """Return the median run, then others evenly over the range of durations in the order of the block."""
    chosen = timeline.median_run({run: durations[run] for run in runs})
    others = sorted((run for run in runs if run != chosen), key=lambda run: (durations[run], run))
    if len(others) > count - 1:
        places = np.linspace(0, len(others) - 1, max(0, count - 1)).round().astype(int)
        others = [others[int(place)] for place in places]
    return [chosen, *[run for run in runs if run in others]]


def live(
    cell: Mapping[str, Any],
    runs: Sequence[str],
    durations: Mapping[str, float],
    short: Mapping[str, str],
    samples: pd.DataFrame,
    phases: pd.DataFrame,
    identity: Mapping[str, Any],
    raw_store: Path,
    *,
    allowance: int,
) -> Live | None:
    """Return the series of a cell's runs within `allowance` bytes, or None where not even the least fits.

    Args:
        cell: its entry of `cells.json`.
        runs: its measured runs in the order of the block.
        durations: run → whole duration in ms; runs without one are not drawn.
        short: run → its name on the page.
        samples: `samples.parquet` of its device.
        phases: `phases.parquet` of its device.
        identity: of its device: why a panel is empty.
        raw_store: `results/raw`, for the waking thread.
        allowance: bytes of JSON.

    Raises:
        IntegrityError: a run's `wake.csv` is not what its `meta.json` says.
    """
    known = [run for run in runs if run in durations]
    if not known:
        return None
    by_run = {str(run): group for run, group in samples[samples["run"].isin(known)].groupby("run")}
    spans = {str(run): group for run, group in phases[phases["run"].isin(known)].groupby("run")}
    for count, limit in PLANS:
        chosen = _spread(known, durations, count)
        drawn, most = [], 0
        for run in chosen:
            one, longest = _run(
                run, short[run], by_run.get(run, samples.iloc[:0]), spans[run], raw_store / run, limit
            )
            drawn.append(one)
            most = max(most, longest)
        present = {title for one in drawn for title in one["panels"]}
        empty = [
            [panel.title.partition(",")[0], reasons.missing_text(identity, *panel.quantities) or "no sample"]
            for panel in PANELS
            if panel.title not in present
        ]
        titles = [panel.title for panel in PANELS if panel.title in present]
        name = f"{cell['device']}: {cell['model']} {cell['quantisation']}"
        what = {
            "name": name,
            "tags": labels.tags([cell]),
            "labels": {phase: palette.PHASE_LABELS[phase] for phase in palette.PHASES + _besides(phases)},
            "panels": [
                {"title": panel.title, "zero": panel.from_zero} for panel in PANELS if panel.title in titles
            ]
            + ([{"title": WAKE, "zero": True}] if WAKE in present else []),
            "empty": empty,
            "runs": drawn,
        }
        text = json.dumps(what, separators=(",", ":"), allow_nan=False)
        if len(text) <= allowance:
            return Live(name, _for_script(text), _note(len(chosen), len(known), most, limit))
    return None


def _besides(phases: pd.DataFrame) -> tuple[str, ...]:
    """Return what some run has time in besides its phases."""
    return tuple(
        name for name in palette.DRAWN if name not in palette.PHASES and (phases["phase"] == name).any()
    )


def _for_script(text: str) -> str:
    """Return JSON that no parser of HTML takes for the end of its element, whatever names it holds."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _note(shown: int, runs: int, most: int, limit: int) -> str:
    which = (
        ("the only run" if runs == 1 else f"all {runs} runs")
        if shown == runs
        else f"{shown} of {runs} runs, the one of median duration first"
    )
    points = (
        f"of lines with more than {limit} samples (the longest has {most}) the least and the greatest of "
        f"each of {limit // 2} intervals"
        if most > limit
        else "every sample"
    )
    return f"Embedded: {which}; {points}. All samples are in the records."

"""One cell over time: utilisation, temperature and power, with the phases shaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import labels, palette, reasons, series, style
from pocketvlm.errors import PocketvlmError

FAINT_RUNS = 12
"""At most so many other runs are drawn behind the median one: more become a smear and a large file."""

PANEL_HEIGHT = 0.95
"""Height of a panel with lines in inches."""


@dataclass(frozen=True)
class Line:
    """A quantity over time (microseconds from the start of the run)."""

    name: str
    colour: str
    values: pd.Series
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One small panel: what it shows, how its lines come from a run's samples, and why it may be empty."""

    title: str
    lines: Callable[[pd.DataFrame], list[Line]]
    quantities: tuple[str, ...]
    from_zero: bool


def _cpu(samples: pd.DataFrame) -> list[Line]:
    found = [
        Line("workload", palette.INK, series.workload_cpu(samples)),
        Line("whole system", palette.OTHER_COMPONENT, series.system_cpu(samples), dashed=True),
    ]
    return [line for line in found if not line.values.empty]


def _gpu(samples: pd.DataFrame) -> list[Line]:
    gpu = [Line("GPU", palette.GREEN, values) for values in series.gauge(samples, "gpu_busy").values()]
    npu_colour = palette.COMPONENT_COLOURS["npu"]
    return gpu + [Line("NPU", npu_colour, v) for v in series.gauge(samples, "npu_busy").values()]


def _temperature(samples: pd.DataFrame) -> list[Line]:
    found = series.temperatures(samples)
    return [
        Line(name, palette.COMPONENT_COLOURS.get(name, palette.OTHER_COMPONENT), found[name])
        for name in palette.shown_classes(found)[0]
    ]


def _power(samples: pd.DataFrame) -> list[Line]:
    values = series.power(samples)
    return [] if values.empty else [Line("power", palette.PURPLE, values)]


PANELS = (
    Panel("CPU, % of one core", _cpu, ("cpu_time", "workload_cpu_time"), True),
    Panel("GPU busy, %", _gpu, ("gpu_busy",), True),
    Panel("Temperature, °C", _temperature, ("temperature",), False),
    Panel("Power, W", _power, ("power", "current", "energy"), True),
)


def median_run(durations: Mapping[str, float]) -> str:
    """Return the run whose duration is the median, the lower of two; ties by name."""
    if not durations:
        raise PocketvlmError("The cell has no measured run to draw", do="measure it, or leave the cell out")
    ordered = sorted(durations, key=lambda run: (durations[run], run))
    return ordered[(len(ordered) - 1) // 2]


def _faint(runs: Sequence[str], durations: Mapping[str, float]) -> list[str]:
    """Return at most FAINT_RUNS runs, evenly over the range of durations."""
    ordered = sorted(runs, key=lambda run: (durations[run], run))
    if len(ordered) <= FAINT_RUNS:
        return ordered
    return [ordered[i] for i in np.linspace(0, len(ordered) - 1, FAINT_RUNS).round().astype(int)]


def shade(axes: Axes, phases: pd.DataFrame, *, strip: bool) -> None:
    """Shade the phases of one run (rows of `phases.parquet`); with a strip of their full colours above."""
    for row in phases.itertuples():
        start, end = float(str(row.start_us)) / 1e6, float(str(row.end_us)) / 1e6
        colour = palette.PHASE_COLOURS[str(row.phase)]
        axes.axvspan(start, end, color=colour, alpha=0.17, linewidth=0, zorder=0)
        if strip:
            axes.axvspan(start, end, ymin=1.02, ymax=1.09, color=colour, linewidth=0, clip_on=False)


def _draw_panel(
    axes: Axes, panel: Panel, strong: list[Line], faint: list[list[Line]], *, strip: bool
) -> None:
    for lines in faint:
        for line in lines:
            axes.plot(line.values.index / 1e6, line.values, color=line.colour, alpha=0.22, linewidth=0.6)
    for line in strong:
        axes.plot(
            line.values.index / 1e6,
            line.values,
            color=line.colour,
            linestyle=(0, (3, 1.5)) if line.dashed else "solid",
            label=line.name,
        )
    if len(strong) > 1:
        above = (1.0, 1.0 + 0.09 * strip)
        axes.legend(
            loc="lower right", bbox_to_anchor=above, ncols=5, borderpad=0, handlelength=1.4, columnspacing=1.0
        )
    if panel.from_zero:
        # A steady line must not lie on the upper edge.
        axes.set_ylim(0, max(axes.get_ylim()[1], 1.12 * axes.dataLim.y1))
    else:
        low, high = axes.get_ylim()
        if high - low < 2:
            axes.set_ylim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.set_title(panel.title, pad=12 if strip else 5)
    style.tidy(axes)


def draw_timeline(
    samples: pd.DataFrame,
    phases: pd.DataFrame,
    metrics: pd.DataFrame,
    cell: Mapping[str, Any],
    identity: Mapping[str, Any],
    destinations: Sequence[Path],
) -> None:
    """Draw one cell: small panels on one time axis, the run of median duration strong and the others faint.

    Args:
        samples: `samples.parquet`; rows of other runs are passed over.
        phases: `phases.parquet`, the same.
        metrics: rows of `runs.parquet`; those of this cell tell which runs are its measured ones.
        cell: the cell's entry of `cells.json`.
        identity: `identity.json` of its device: why a panel is empty.
        destinations: `.svg` and `.png` files.

    Raises:
        PocketvlmError: the cell has no measured run.
    """
    mine = metrics[metrics["cell"] == cell["cell"]]
    whole = mine[(mine["metric"] == "duration") & (mine["phase"] == "run")].dropna(subset="value")
    durations = {str(run): float(value) for run, value in zip(whole["run"], whole["value"], strict=True)}
    chosen = median_run(durations)
    others = _faint([run for run in durations if run != chosen], durations)
    by_run = {str(run): group for run, group in samples[samples["run"].isin(durations)].groupby("run")}
    shown = phases[phases["run"] == chosen].sort_values("start_us")
    nothing = samples.iloc[:0]
    strong = [panel.lines(by_run.get(chosen, nothing)) for panel in PANELS]
    faint = [[panel.lines(by_run.get(run, nothing)) for run in others] for panel in PANELS]
    # Not the durations: interaction is drawn and is part of none.
    end = float(phases[phases["run"].isin([chosen, *others])]["end_us"].max()) / 1e6
    hidden_classes = palette.shown_classes(series.temperatures(by_run.get(chosen, nothing)))[1]
    with style.canvas() as figure:
        grid = figure.subplots(len(PANELS), 1, squeeze=False)[:, 0]
        drawn = [axes for axes, lines in zip(grid, strong, strict=True) if lines]
        heights = []
        for panel, axes, lines, behind in zip(PANELS, grid, strong, faint, strict=True):
            if not lines:
                reason = reasons.missing_text(identity, *panel.quantities) or "no sample in this run"
                heights.append(style.explain(axes, f"Not exposed by this device: {reason}."))
                axes.set_title(panel.title, pad=4)
                continue
            heights.append(PANEL_HEIGHT)
            _draw_panel(axes, panel, lines, behind, strip=axes is drawn[0])
            shade(axes, shown, strip=axes is drawn[0])
            axes.set_xlim(0, end)
            axes.tick_params(labelbottom=axes is drawn[-1])
            if axes is drawn[-1]:
                axes.set_xlabel("time since the start of the run, s")
        lengths = (shown["end_us"] - shown["start_us"]).groupby(shown["phase"]).sum() / 1e6
        present = [phase for phase in palette.DRAWN if phase in lengths.index]
        values = [f"{lengths[phase]:.2f} s" for phase in present]
        figure.legend(
            handles=style.phase_handles(present, values=values),
            loc="outside lower left",
            ncols=3,
            handlelength=1.0,
            columnspacing=1.2,
        )
        name = f"{cell['device']}: {cell['model']} {cell['quantisation']}"
        count = f"{len(durations)} runs" if len(durations) > 1 else "1 run"
        hidden = len(durations) - 1 - len(others)
        behind_text = f", {len(others)} others faint" if others else ""
        subtitle = (
            f"{count}; the one of median duration{behind_text}{f', {hidden} not drawn' if hidden else ''}"
        )
        if hidden_classes:
            subtitle += f". Temperatures in the tables only: {', '.join(hidden_classes)}"
        rows = list(zip(grid, heights, strict=True))
        style.finish(figure, name, labels.tags([cell]), rows, subtitle=subtitle)
        style.save(
            figure,
            destinations,
            title=f"Timeline of {name}",
            description=_describe(shown, lengths, strong),
        )


def draw_unmeasured(cell: Mapping[str, Any], reason: str, destinations: Sequence[Path]) -> None:
    """Draw in the place of a cell's timeline why there is none.

    Args:
        cell: the cell's entry of `cells.json`.
        reason: why it has no run.
        destinations: `.svg` and `.png` files.
    """
    name = f"{cell['device']}: {cell['model']} {cell['quantisation']}"
    with style.canvas() as figure:
        axes = figure.subplots(1, 1)
        height = style.explain(axes, f"Not measured: {reason}.")
        style.finish(figure, name, labels.tags([cell]), [(axes, height)])
        style.save(figure, destinations, title=f"Timeline of {name}", description=f"Not measured: {reason}.")


def _describe(shown: pd.DataFrame, lengths: pd.Series, strong: list[list[Line]]) -> str:
    order = ", ".join(
        f"{palette.PHASE_LABELS[str(row.phase)]} until {float(str(row.end_us)) / 1e6:.2f} s"
        for row in shown.itertuples()
    )
    ranges = [
        f"{panel.title}: "
        + (
            ", ".join(f"{li.name} {li.values.min():.1f} to {li.values.max():.1f}" for li in lines)
            or "not exposed"
        )
        for panel, lines in zip(PANELS, strong, strict=True)
    ]
    return f"Phases in order: {order}. " + ". ".join(ranges) + "."

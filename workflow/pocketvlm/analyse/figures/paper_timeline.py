"""The paper's figures 1 to 3: CPU and GPU over time, phases shaded, with the published plateau beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pocketvlm.analyse.figures import labels, palette, reasons, style
from pocketvlm.analyse.figures.timeline import PANEL_HEIGHT, PANELS, Line, Panel, median_run, shade
from pocketvlm.analyse.paper import ours
from pocketvlm.analyse.paper.ours import Cell, Results
from pocketvlm.config.paper import Paper, Published, Stack
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import read_json

THEIRS = palette.PURPLE
"""The published values: nothing of ours in these figures has this colour."""

SHOWN = ((PANELS[0], "cpu_pct"), (PANELS[1], "gpu_pct"))
"""Panels from the top, with the paper's name for the same quantity."""

MOST_TEXT = 260
"""Characters of a reason in a panel; the tables have all of it."""

LABEL = 0.17
"""Height that the name of a published value takes in a panel, inches."""


@dataclass(frozen=True)
class Seen:
    """The run that stands for a stack, or why there is none.

    Attributes:
        run: its number in the raw store; empty when there is none.
        runs: how many runs the cell has in the tables.
        others: cells of the stack that are not drawn.
        reason: why nothing is drawn; empty otherwise.
    """

    stack: Stack
    cell: Cell | None
    run: str = ""
    runs: int = 0
    others: int = 0
    reason: str = ""


def stacks_of(paper: Paper, number: int) -> list[Stack]:
    """Return the stacks of a figure: those of the paper's first, second or third model.

    Raises:
        PocketvlmError: the paper has not so many models.
    """
    models = list(dict.fromkeys(stack.model for stack in paper.stacks))
    if not 1 <= number <= len(models):
        raise PocketvlmError(
            f"{paper.citation} has {len(models)} models, and no figure {number} of one",
            where=str(paper.path),
            do="Draw a figure of a model that is there",
        )
    return [stack for stack in paper.stacks if stack.model == models[number - 1]]


def choose(stack: Stack, cells: Sequence[Cell], results: Results) -> Seen:
    """Return the run to draw: the first cell that has one, and of its runs the one of median duration.

    Runs that a gate withholds are passed over.
    """
    if not cells:
        return Seen(stack, None, reason=ours.NO_CELL)
    for cell in cells:
        whole = results.runs[
            (results.runs["cell"] == cell["cell"])
            & (results.runs["metric"] == "duration")
            & (results.runs["phase"] == "run")
            & (results.runs["gate"].fillna("") == "")
        ].dropna(subset="value")
        if len(whole):
            durations = {str(r): float(v) for r, v in zip(whole["run"], whole["value"], strict=True)}
            return Seen(stack, cell, median_run(durations), len(durations), len(cells) - 1)
    why = reasons.condensed(dict.fromkeys(results.why_not(cell) for cell in cells))
    return Seen(stack, cells[0], others=len(cells) - 1, reason="; ".join(why))


def short(text: str, most: int = MOST_TEXT) -> str:
    """Return a text cut at a word, with an ellipsis where it was cut."""
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


def _draw_published(
    axes: Axes,
    value: Published | None,
    top: float,
    lines: Sequence[Line],
    span: tuple[float, float],
    wide: bool,
) -> tuple[float, float]:
    """Draw a published value as a line or a band, named; return the free span of the axes (fractions).

    Args:
        axes: their y-axis reaches from 0 to `top`.
        value: in the unit of the axes.
        lines: what is drawn besides, which the name keeps clear of.
        span: of the time axis, s.
        wide: whether the axes are as wide as the figure.
    """
    if value is None:
        return 0.0, 1.0
    if value.single:
        axes.axhline(value.low, color=THEIRS, linestyle=(0, (4, 2)), linewidth=1.4, zorder=3, clip_on=False)
    else:
        axes.axhspan(value.low, value.high, facecolor=THEIRS, alpha=0.28, linewidth=0, zorder=1)
        for end in (value.low, value.high):
            axes.axhline(end, color=THEIRS, linewidth=0.8, zorder=3)
    axes.annotate(
        f"paper: {value} %",
        (_clear(value.high, top, lines, span, 0.23 if wide else 0.48), value.high),
        (-2, 2.5),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        ha="right",
        size=7.5,
        zorder=5,
    )
    below, above = (0.0, value.low / top), (value.high / top, 1.0)
    return below if below[1] - below[0] > above[1] - above[0] else above


def _clear(value: float, top: float, lines: Sequence[Line], span: tuple[float, float], width: float) -> float:
    """Return where a name above a value ends (fraction of the width): farthest right, clear of the lines."""
    reach = value + LABEL / PANEL_HEIGHT * top
    seconds = span[1] - span[0]
    for end in (1.0, 0.9, 0.8, 0.7, 0.6, width):
        first, last = (span[0] + seconds * side for side in (end - width, end))
        near = [
            line.values[(line.values.index >= first * 1e6) & (line.values.index <= last * 1e6)]
            for line in lines
        ]
        if not any(((one >= value) & (one <= reach)).any() for one in near):
            return end
    return 1.0


def _write(axes: Axes, text: str, free: tuple[float, float], width: int) -> float:
    """Write text into the free span of axes; return the height in inches that the axes then need."""
    lines = style.wrap(text, width)
    axes.annotate(
        lines,
        (0, free[1]),
        (3, -3),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        size=7.5,
        style="italic",
        in_layout=False,
    )
    over = LABEL if free[1] == 1.0 and free[0] > 0 else 0.0
    return (style.height_of(lines) + over + 0.12) / (free[1] - free[0])


def _draw_lines(axes: Axes, lines: Sequence[Line]) -> None:
    for line in lines:
        axes.plot(
            line.values.index / 1e6,
            line.values,
            color=line.colour,
            linestyle=(0, (3, 1.5)) if line.dashed else "solid",
            zorder=4,
        )


def _head(seen: Seen, identities: Mapping[str, Path]) -> str:
    if seen.cell is None or not seen.run:
        return "ours: no run"
    cores = read_json(identities[str(seen.cell["device"])])["cpus"]
    count = f"the one of median duration of {seen.runs} runs" if seen.runs > 1 else "1 run"
    more = f"; {seen.others} more of this stack in the tables" if seen.others else ""
    return f"ours: {ours.cell_text(seen.cell)}, {cores} cores; {count}{more}"


def _handles(drawn: Sequence[Sequence[Line]], phases: Sequence[str], published: bool) -> list[Artist]:
    lines = {line.name: line for of_panel in drawn for line in of_panel}
    found: list[Artist] = [
        Line2D(
            [], [], color=line.colour, linestyle=(0, (3, 1.5)) if line.dashed else "solid", label=line.name
        )
        for line in lines.values()
    ]
    if published:
        found.append(Patch(facecolor=THEIRS, alpha=0.5, label="the paper's plateau"))
    return [*found, *style.phase_handles(phases)]


def draw_utilisation(
    paper: Paper,
    number: int,
    cells: Sequence[Cell],
    results: Results,
    records: Mapping[str, Path],
    identities: Mapping[str, Path],
    destinations: Sequence[Path],
) -> None:
    """Draw figure 1, 2 or 3 of the paper: a column a stack of one model, CPU above GPU.

    Args:
        paper: the published values.
        number: of the figure.
        cells: the entries of `cells.json`.
        results: the experiment's tables.
        records: by device, the folder of `samples.parquet` and `phases.parquet`.
        identities: by device, its `identity.json`.
        destinations: `.svg` and `.png` files.
    """
    stacks = stacks_of(paper, number)
    all_of = {stack.id: mine for stack, mine in ours.by_stack(paper, cells)}
    columns = [choose(stack, all_of[stack.id], results) for stack in stacks]
    width = 74 if len(columns) == 1 else 35
    said: list[str] = []
    drawn: list[list[Line]] = []
    present: set[str] = set()
    with style.canvas() as figure:
        grid = figure.subplots(1 + len(SHOWN), len(columns), squeeze=False)
        loaded = [_load(seen, records) for seen in columns]
        heights = [0.0, *[PANEL_HEIGHT + 0.15] * len(SHOWN)]
        for axes, seen in zip(grid[0], columns, strict=True):
            heights[0] = max(heights[0], _title(axes, seen, _head(seen, identities), width))
        for row, (panel, quantity) in enumerate(SHOWN, start=1):
            lines = [panel.lines(samples) for samples, _ in loaded]
            values = [paper.utilisation(seen.stack.id, quantity) for seen in columns]
            top = _top(lines, values)
            for axes, seen, mine, value, (_, phases) in zip(
                grid[row], columns, lines, values, loaded, strict=True
            ):
                axes.set_ylim(0, top)
                end = float(phases["end_us"].max()) / 1e6 if mine else 1.0
                free = _draw_published(axes, value, top, mine, (0.0, end), len(columns) == 1)
                _draw_lines(axes, mine)
                drawn.append(mine)
                if mine:
                    present.update(phases["phase"].astype(str))
                    shade(axes, phases, strip=row == 1)
                    axes.set_xlim(0, end)
                else:
                    text = _why_empty(seen, panel, row, identities)
                    heights[row] = max(heights[row], _write(axes, text, free, width))
                    axes.tick_params(labelbottom=False)
                    axes.set_xticks([])
                style.tidy(axes)
                said.append(_say(seen, panel, mine, value))
            strip = row == 1 and any(seen.run for seen in columns)
            for axes in grid[row]:
                # The strip of phases ends 0.09 of the panel's height above it.
                axes.set_title(panel.title, pad=4 + 0.09 * 72 * heights[row] * strip)
        for column, seen in enumerate(columns):
            if seen.run:
                _label_time(list(grid[1:, column]))
        order = [phase for phase in palette.PHASES if phase in present]
        figure.legend(
            handles=_handles(drawn, order, any("paper" in text for text in said)),
            loc="outside lower left",
            ncols=3,
            handlelength=1.3,
            columnspacing=1.2,
        )
        title = f"Figure {number}: CPU and GPU over time, {stacks[0].model}"
        shown = [seen.cell for seen in columns if seen.cell is not None and seen.run]
        style.finish(
            figure,
            title,
            labels.tags(shown),
            list(zip(grid[:, 0], heights, strict=True)),
            subtitle=f"In the layout of {paper.citation}; purple: its plateau, other lines: ours",
        )
        style.save(figure, destinations, title=title, description=". ".join(said) + ".")


def _load(seen: Seen, records: Mapping[str, Path]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return samples and phases of the run to draw; empty tables when there is none."""
    if seen.cell is None or not seen.run:
        names = ["run", "t_us", "phase", "sensor", "quantity", "component", "value", "unit"]
        return pd.DataFrame(columns=names), pd.DataFrame(columns=["phase", "start_us", "end_us"])
    folder = records[str(seen.cell["device"])]
    only: Any = [("run", "==", seen.run)]
    samples = pd.read_parquet(folder / "samples.parquet", filters=only)
    phases = pd.read_parquet(folder / "phases.parquet", filters=only)
    return samples, phases.sort_values("start_us")


def _title(axes: Axes, seen: Seen, detail: str, width: int) -> float:
    """Turn axes into the heading of a column; return the height that it needs."""
    axes.set_axis_off()
    lines = style.wrap(detail, width)
    axes.text(0, 1, seen.stack.framework, transform=axes.transAxes, weight="bold", va="top", in_layout=False)
    axes.annotate(
        lines,
        (0, 1),
        (0, -style.LINE - 1),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        size=7.5,
        in_layout=False,
    )
    return style.height_of(lines) + (style.LINE + 1) / 72


def _top(lines: Sequence[Sequence[Line]], values: Sequence[Published | None]) -> float:
    """Return the upper end of the axes, the same for the columns of a row: room for a name above the top."""
    highest = [float(line.values.max()) for of_column in lines for line in of_column]
    highest += [value.high for value in values if value is not None]
    # A use of nothing still has 0 to 100 %.
    return 1.22 * max([100.0, *highest])


def _why_empty(seen: Seen, panel: Panel, row: int, identities: Mapping[str, Path]) -> str:
    if not seen.run:
        return f"No run: {short(seen.reason)}" if row == 1 else "No run."
    assert seen.cell is not None
    identity = read_json(identities[str(seen.cell["device"])])
    why = reasons.missing_text(identity, *panel.quantities) or "no sample in this run"
    return f"Not exposed by this device: {short(why)}"


def _label_time(column: Sequence[Axes]) -> None:
    """Name the time axis below the lowest panel of a column that has lines."""
    lowest = [axes for axes in column if axes.get_xticks().size]
    for axes in lowest:
        axes.tick_params(labelbottom=axes is lowest[-1])
        axes.locator_params(axis="x", nbins=5)
    if lowest:
        lowest[-1].set_xlabel("time since the start, s")


def _say(seen: Seen, panel: Panel, lines: Sequence[Line], value: Published | None) -> str:
    told = ", ".join(f"{line.name} {line.values.min():.0f} to {line.values.max():.0f}" for line in lines)
    printed = f"the paper {value}" if value is not None else "nothing printed in the paper"
    return f"{seen.stack.framework}, {panel.title}: {told or 'ours not available'}; {printed}"

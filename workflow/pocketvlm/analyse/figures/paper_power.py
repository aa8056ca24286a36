"""The paper's figure 4: peak power as bars (left axis), die temperature as points (right axis), by stack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from pocketvlm.analyse.figures import labels, palette, series, style
from pocketvlm.analyse.figures.paper_timeline import choose, short
from pocketvlm.analyse.paper import ours
from pocketvlm.analyse.paper.ours import Cell, Results
from pocketvlm.config.paper import Paper, Published, Stack

THEIRS, OURS = palette.OTHER_COMPONENT, palette.PURPLE
WIDTH = 0.36
COLDEST = 20.0
"""Lower end of the axis of temperature in degC: room temperature, for 0 means nothing to it."""


@dataclass(frozen=True)
class Span:
    """A value to draw: the least and greatest that was seen, and what stands for them."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class Ours:
    """What a stack gave here, and why a value is missing."""

    cell: Cell | None
    power: Span | None
    temperature: Span | None
    missing: tuple[tuple[str, str], ...]
    others: int = 0
    """Further cells of the stack, not drawn."""

    @property
    def name(self) -> str:
        """What was drawn, and what was not."""
        assert self.cell is not None
        more = f"; {self.others} more of this stack in the tables" if self.others else ""
        return f"{self.cell['stack']}: {ours.cell_text(self.cell)}{more}"


def peaks(samples: pd.DataFrame, runs: Sequence[str]) -> list[float]:
    """Return the highest power of each run in W, in the order of the runs; one without power is left out.

    Args:
        samples: `samples.parquet`.
        runs: whose power passed the gates.
    """
    found = []
    for run in runs:
        power = series.power(samples[samples["run"] == run]).dropna()
        if len(power):
            found.append(float(power.max()))
    return found


def _span(values: Sequence[float]) -> Span:
    return Span(min(values), float(np.median(values)), max(values))


def _passed(results: Results, cell: Cell, metric: str) -> pd.DataFrame:
    """Return the rows of runs whose metric of the whole run passed the gates."""
    runs = results.runs
    found: pd.DataFrame = runs[
        (runs["cell"] == cell["cell"])
        & (runs["phase"] == "run")
        & (runs["metric"] == metric)
        & (runs["gate"].fillna("") == "")
        & runs["value"].notna()
    ]
    return found


def measured(stack: Stack, cells: Sequence[Cell], results: Results, records: Mapping[str, Path]) -> Ours:
    """Return peak power and highest die temperature of a stack's first cell that has runs.

    Peak power is the highest sample of a run; die temperature is `temperature_max.cpu` of a run. Each is the
    median over runs, from the least to the greatest.
    """
    seen = choose(stack, cells, results)
    if seen.cell is None or not seen.run:
        return Ours(seen.cell, None, None, (("power and temperature", seen.reason),), seen.others)
    missing = []
    with_power = sorted(str(run) for run in _passed(results, seen.cell, "power")["run"])
    values: list[float] = []
    if with_power:
        only: Any = [("run", "in", with_power)]
        path = records[str(seen.cell["device"])] / "samples.parquet"
        values = peaks(pd.read_parquet(path, filters=only), with_power)
    power = _span(values) if values else None
    if power is None:
        missing.append(("power", results.of(seen.cell, "run", "power").note or "no sample of power"))
    heat = [float(value) for value in _passed(results, seen.cell, "temperature_max.cpu")["value"]]
    temperature = _span(heat) if heat else None
    if temperature is None:
        told = [value.note for _, _, value in results.metrics(seen.cell, "temperature_max") if value.note]
        missing.append(("temperature", told[0] if told else "not recorded"))
    return Ours(seen.cell, power, temperature, tuple(missing), seen.others)


def _published(value: Published | None) -> Span | None:
    return None if value is None else Span(value.low, value.middle, value.high)


def _whisker(axes: Axes, x: float, span: Span) -> None:
    if span.high > span.low:
        axes.errorbar(
            [x],
            [span.middle],
            [[span.middle - span.low], [span.high - span.middle]],
            color=palette.INK,
            linewidth=1.0,
            capsize=2.5,
            fmt="none",
            zorder=4,
        )


def _bar(axes: Axes, x: float, span: Span | None, colour: str) -> None:
    if span is None:
        return
    axes.bar([x], [span.middle], WIDTH, color=colour, alpha=0.6, linewidth=0, zorder=2)
    _whisker(axes, x - WIDTH / 4, span)


def _point(axes: Axes, x: float, span: Span | None, *, filled: bool) -> None:
    if span is None:
        return
    x += WIDTH / 4
    _whisker(axes, x, span)
    axes.plot(
        [x],
        [span.middle],
        marker="D",
        markersize=5,
        color=palette.INK,
        markerfacecolor=palette.INK if filled else "white",
        linestyle="none",
        zorder=5,
    )


def _gaps(found: Sequence[tuple[Stack, Ours]]) -> list[str]:
    """Return what is missing and why, stacks that lack the same for the same reason together."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for stack, mine in found:
        for what, why in mine.missing:
            grouped.setdefault((what, why), []).append(stack.id)
    return [f"No {what} of {', '.join(names)}: {short(why)}" for (what, why), names in grouped.items()]


def draw_power(
    paper: Paper,
    cells: Sequence[Cell],
    results: Results,
    records: Mapping[str, Path],
    destinations: Sequence[Path],
) -> None:
    """Draw figure 4 of the paper: for each stack power and temperature, theirs and ours.

    Args:
        paper: the published values; those of section 4.4, which figure 4 shows.
        cells: the entries of `cells.json`.
        results: the experiment's tables.
        records: by device, the folder of `samples.parquet`.
        destinations: `.svg` and `.png` files.
    """
    found = [(stack, measured(stack, mine, results, records)) for stack, mine in ours.by_stack(paper, cells)]
    shown = [mine for _, mine in found if mine.cell is not None and (mine.power or mine.temperature)]
    notes = [f"Ours, {mine.name}" for mine in shown] + _gaps(found)
    said = []
    with style.canvas() as figure:
        grid = figure.subplots(2 if notes else 1, 1, squeeze=False)[:, 0]
        left: Axes = grid[0]
        right: Axes = left.twinx()
        spans: list[tuple[Span | None, Span | None]] = []
        for x, (stack, mine) in enumerate(found):
            theirs = tuple(_published(paper.energy(stack.id, name)) for name in ("power_w", "temp_c"))
            spans += [(theirs[0], theirs[1]), (mine.power, mine.temperature)]
            for offset, (power, heat), colour, filled in (
                (-WIDTH / 2 - 0.02, (theirs[0], theirs[1]), THEIRS, False),
                (WIDTH / 2 + 0.02, (mine.power, mine.temperature), OURS, True),
            ):
                _bar(left, x + offset, power, colour)
                _point(right, x + offset, heat, filled=filled)
                if power is None:
                    text = "no power" if heat is not None else "NA"
                    left.annotate(
                        text,
                        (x + offset, 0),
                        (0, 3),
                        textcoords="offset points",
                        ha="center",
                        va="bottom",
                        rotation=90,
                        size=7,
                        style="italic",
                    )
            said.append(f"{stack.id}: paper {_say(theirs[0], theirs[1])}; ours {_say(*spans[-1])}")
        _scale(left, right, spans)
        names = [f"{stack.model}\n{stack.framework}" for stack, _ in found]
        left.set_xticks(range(len(found)), names, size=7.5)
        left.set_xlim(-0.55, len(found) - 0.45)
        left.set_ylabel("peak power, W")
        right.set_ylabel("die temperature, °C")
        heights = [2.3]
        if notes:
            heights.append(_list(grid[1], notes))
        figure.legend(handles=_handles(bool(shown)), loc="outside lower left", ncols=2, handlelength=1.2)
        title = "Figure 4: peak power and die temperature"
        style.finish(
            figure,
            title,
            labels.tags([mine.cell for mine in shown if mine.cell is not None]),
            list(zip(grid, heights, strict=True)),
            subtitle=f"In the layout of {paper.citation}. Ours: the highest sample of a run, median over "
            "runs. Whiskers: the range, of runs or as published",
        )
        style.save(figure, destinations, title=title, description="; ".join(said) + ".")


def _scale(left: Axes, right: Axes, spans: Sequence[tuple[Span | None, Span | None]]) -> None:
    left.set_ylim(0, 1.15 * max([1.0, *(power.high for power, _ in spans if power)]))
    right.set_ylim(COLDEST, 1.08 * max([40.0, *(heat.high for _, heat in spans if heat)]))
    right.grid(visible=False)
    left.grid(axis="x", visible=False)
    style.tidy(left)
    sns.despine(ax=right, right=False, left=True)
    right.tick_params(length=0)
    right.set_facecolor("none")


def _list(axes: Axes, notes: Sequence[str]) -> float:
    """Turn axes into the list of what is missing; return the height that it needs."""
    axes.set_axis_off()
    lines = "\n".join(style.wrap(note, 66) for note in notes)
    axes.text(0, 1, lines, transform=axes.transAxes, va="top", size=7.5, style="italic", in_layout=False)
    return style.height_of(lines)


def _handles(ours_too: bool) -> list[Any]:
    def point(label: str, face: str) -> Line2D:
        return Line2D(
            [],
            [],
            marker="D",
            linestyle="none",
            markersize=5,
            color=palette.INK,
            markerfacecolor=face,
            label=label,
        )

    theirs = [Patch(facecolor=THEIRS, alpha=0.6, label="power, the paper's")]
    mine = [Patch(facecolor=OURS, alpha=0.6, label="power, ours")] if ours_too else []
    points = [point("temperature, the paper's", "white")]
    return [*theirs, *mine, *points, *([point("temperature, ours", palette.INK)] if ours_too else [])]


def _say(power: Span | None, heat: Span | None) -> str:
    watts = "no power" if power is None else f"{power.middle:.3g} W ({power.low:.3g} to {power.high:.3g})"
    degrees = "no temperature" if heat is None else f"{heat.middle:.3g} degC"
    return f"{watts}, {degrees}"

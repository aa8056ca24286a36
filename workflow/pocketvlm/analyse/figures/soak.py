"""A soak over time: speed, clocks, temperature and power on one axis, and when the device throttled."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import labels, palette, reasons, style
from pocketvlm.analyse.numbers import number
from pocketvlm.analyse.soak.summary import Wanted, Windows, rolling, windows

SPEED_HEIGHT, PANEL_HEIGHT = 1.25, 0.85
"""Heights of panels in inches."""

_BETWEEN = 0.2

MINUTES_FROM_S = 600.0
"""A soak at least so long is drawn over minutes."""

_SPEED = palette.PHASE_COLOURS["decode"]
_CLOCKS = (palette.INK, "#7a86ff", palette.PURPLE, "#8a6d00")
# Two runs with less than this share of the axis between them are drawn as one bar.
_SEEN_GAP = 1 / 700


@dataclass(frozen=True)
class Soaked:
    """One cell's soak as it is drawn.

    Attributes:
        cell: its entry of `cells.json`.
        runs: its rows of `soak.csv`.
        series: its rows of `soak_series.csv`.
        summary: its rows of `soak_summary.csv` by quantity.
        windows: the first minute's runs and the last third's.
        spoken: the rows of `runs` that have a speed.
    """

    cell: Mapping[str, Any]
    runs: pd.DataFrame
    series: pd.DataFrame
    summary: Mapping[str, Mapping[str, Any]]
    windows: Windows
    spoken: pd.DataFrame

    def value(self, quantity: str) -> float | None:
        """Return a quantity of the summary; None where it is NA."""
        value = self.summary.get(quantity, {}).get("value")
        return None if value is None or pd.isna(value) else float(value)

    def note(self, quantity: str) -> str:
        """Return what the summary notes about a quantity."""
        note = self.summary.get(quantity, {}).get("note")
        return note if isinstance(note, str) else ""


def draw_soak(
    runs: Path,
    summary: Path,
    series: Path,
    cells: Sequence[Mapping[str, Any]],
    soak: Mapping[str, Any],
    destinations: Sequence[Path],
) -> None:
    """Draw every cell's soak: which runs, their speed, clocks, temperature and power over one time axis.

    Args:
        runs: `soak.csv`.
        summary: `soak_summary.csv`.
        series: `soak_series.csv`.
        cells: those of `cells.json`; one that was not soaked is drawn as the reason.
        soak: duration_s, busy_percent, first_s, throttle_percent.
        destinations: `.svg` and `.png` files.
    """
    wanted = Wanted(**soak)
    tables = [pd.read_csv(path, dtype={"reason": str, "note": str}) for path in (runs, summary, series)]
    names = labels.short_labels(cells)
    soaked = [_of_cell(cell, tables, wanted) for cell in cells]
    with style.canvas() as figure:
        count = sum(1 if one.runs.empty else 5 for one in soaked)
        free = iter(figure.subplots(count, 1, squeeze=False)[:, 0])
        rows: list[tuple[Axes, float]] = []
        said = []
        for one in soaked:
            head, name = next(free), f"{one.cell['device']}: {one.cell['model']} {names[one.cell['cell']]}"
            if one.runs.empty:
                told = f"NA: {one.note('sustained_ratio') or 'not soaked'}."
                panels = []
            else:
                told = _told(one, wanted)
                panels = _draw_cell(one, wanted, [next(free) for _ in range(4)])
            # With several cells the tags at the top are not true of each.
            kind = ", ".join(labels.tags([one.cell])) if len(cells) > 1 else ""
            above = _BETWEEN if rows else 0.0
            rows += [(head, _heading(head, f"{name} ({kind})" if kind else name, told, above)), *panels]
            said.append(f"{name}: {told}")
        title = f"Soak: {wanted.duration_s:g} s of run after run at {wanted.busy_percent:g} % duty"
        style.finish(figure, title, labels.tags(cells), rows)
        style.save(figure, destinations, title=title, description=". ".join(said))


def _of_cell(cell: Mapping[str, Any], tables: Sequence[pd.DataFrame], wanted: Wanted) -> Soaked:
    runs, summary, series = (table[table["cell"] == cell["cell"]] for table in tables)
    runs = runs.sort_values("start_s")
    spoken = runs.dropna(subset="tokens_per_second")
    return Soaked(
        cell,
        runs,
        series,
        {str(row["quantity"]): {str(k): v for k, v in row.items()} for row in summary.to_dict("records")},
        windows([float(start) for start in spoken["start_s"]], wanted),
        spoken,
    )


def _heading(axes: Axes, name: str, told: str, above: float) -> float:
    """Turn axes into the name of a cell and its main result; return the height in inches that they need.

    Args:
        axes: the axes.
        name, told: bold, and below it plain.
        above: inches that are left free.
    """
    axes.set_axis_off()
    bold, plain = style.wrap(name, 62), style.wrap(told, 74)
    below = style.LINE * (bold.count("\n") + 1.4)
    for text, offset, font in ((bold, 0.0, {"weight": "bold"}), (plain, below, {"size": 8})):
        axes.annotate(
            text,
            (0, 1),
            (0, -72 * above - offset),
            xycoords="axes fraction",
            textcoords="offset points",
            va="top",
            in_layout=False,
            **font,
        )
    return above + style.height_of(f"{bold}\n{plain}") + 0.06


def _told(one: Soaked, wanted: Wanted) -> str:
    """Return the main result in words."""
    words = [f"{len(one.runs)} runs, busy {one.value('busy') or 0:.0f} % of the time"]
    first, last, ratio = (one.value(name) for name in ("first_speed", "sustained_speed", "sustained_ratio"))
    if first is None or last is None or ratio is None:
        words.append(f"no sustained speed: {one.note('sustained_ratio')}")
        return "; ".join(words) + "."
    low, high = (100 * float(one.summary["sustained_ratio"][end]) for end in ("ci_low", "ci_high"))
    words.append(
        f"{number(first)} tokens/s at first, {number(last)} in the last third: "
        f"{100 * ratio:.0f} % ({low:.0f} to {high:.0f})"
    )
    at = one.value("time_to_throttle")
    share = 100 - wanted.throttle_percent
    if at is None:
        words.append(one.note("time_to_throttle"))
    else:
        throttled = one.value("throttled")
        often = "" if throttled is None else f" (so are {throttled:.0f} % of the rolling medians)"
        words.append(f"below {share:g} % of the first after {at:.0f} s{often}")
    hidden = palette.shown_classes(_lines(one, "temperature"))[1]
    if hidden:
        words.append(f"temperatures in the tables only: {', '.join(hidden)}")
    return "; ".join(words) + "."


def _draw_cell(one: Soaked, wanted: Wanted, grid: Sequence[Axes]) -> list[tuple[Axes, float]]:
    """Draw the panels of one cell; return each with its height."""
    end = float(one.runs["end_s"].max())
    scale, unit = (60.0, "min") if end >= MINUTES_FROM_S else (1.0, "s")
    heights = [
        _speed(grid[0], one, wanted, scale),
        _clocks(grid[1], one, scale),
        _temperatures(grid[2], one, scale),
        _power(grid[3], one, scale),
    ]
    drawn = [axes for axes in grid if axes.axison]
    at = one.value("time_to_throttle")
    for axes in drawn:
        axes.set_xlim(0, end / scale)
        if one.windows.first:
            _windows(axes, one, scale, named=axes is grid[0])
        if at is not None:
            axes.axvline(at / scale, color=palette.WARN, linewidth=1.0)
        style.tidy(axes)
        axes.tick_params(labelbottom=axes is drawn[-1])
    if at is not None:
        left = at < 0.75 * end
        grid[0].annotate(
            f"throttled at {number(at / scale)} {unit}",
            (at / scale, 0.04),
            (3 if left else -3, 0),
            xycoords=grid[0].get_xaxis_transform(),
            textcoords="offset points",
            ha="left" if left else "right",
            size=7.5,
            color=palette.WARN,
        )
    _busy(grid[0], one, end, scale)
    if drawn:
        drawn[-1].set_xlabel(f"time since the soak began, {unit}")
    return list(zip(grid, heights, strict=True))


def _windows(axes: Axes, one: Soaked, scale: float, *, named: bool) -> None:
    """Shade the runs that the first speed and the sustained one stand on."""
    for places, name in ((one.windows.first, "first"), (one.windows.last, "sustained")):
        mine = one.spoken.iloc[list(places)]
        start, end = float(mine["start_s"].min()) / scale, float(mine["end_s"].max()) / scale
        axes.axvspan(start, end, color=_SPEED, alpha=0.08, linewidth=0, zorder=0)
        if named:
            axes.annotate(
                name,
                (start, 1),
                (3, -3),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                va="top",
                size=7.5,
                alpha=0.85,
            )


def _busy(axes: Axes, one: Soaked, end: float, scale: float) -> None:
    """Draw above a panel a bar for each run: what lies between is pause, or what a run needs around it."""
    bars: list[list[float]] = []
    for start, stop in zip(one.runs["start_s"], one.runs["end_s"], strict=True):
        if bars and start - bars[-1][1] < _SEEN_GAP * end:
            bars[-1][1] = stop
        else:
            bars.append([start, stop])
    axes.broken_barh(
        [(start / scale, (stop - start) / scale) for start, stop in bars],
        (1.02, 0.05),
        transform=axes.get_xaxis_transform(),
        clip_on=False,
        color=palette.INK,
        alpha=0.55,
        linewidth=0,
    )


def _legend(axes: Axes, *, above: float = 0.0) -> None:
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0 + above),
        ncols=5,
        borderpad=0,
        handlelength=1.3,
        columnspacing=0.9,
        handletextpad=0.5,
    )


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0, 1.18 * max(axes.dataLim.y1, 1e-9))
    axes.locator_params(axis="y", nbins=4)


def _unavailable(axes: Axes, title: str, why: str) -> float:
    height = style.explain(axes, f"NA: {why}.")
    axes.set_title(title, pad=4)
    return height


def _why(one: Soaked, quantity: str) -> str:
    """Return why no run has a value, from the runs' own reasons."""
    told = [
        part.removeprefix(f"{quantity}: ")
        for text in one.runs["reason"].dropna()
        for part in re.split(r"; (?=\w+: )", str(text))
        if part.startswith(f"{quantity}: ")
    ]
    return "; ".join(reasons.condensed(told)) or "nothing was recorded"


def _speed(axes: Axes, one: Soaked, wanted: Wanted, scale: float) -> float:
    title = "Decoding, tokens/s"
    if one.spoken.empty:
        return _unavailable(axes, title, _why(one, "tokens_per_second"))
    middle = (one.spoken["start_s"] + one.spoken["end_s"]) / 2 / scale
    speeds = one.spoken["tokens_per_second"].to_numpy(dtype=float)
    many = len(speeds) > 60
    axes.plot(
        middle,
        speeds,
        linestyle="none",
        marker="o",
        markersize=2.0 if many else 3.4,
        markeredgewidth=0,
        alpha=0.5 if many else 0.85,
        color=_SPEED,
        label="run",
    )
    axes.plot(middle, rolling(speeds), color=palette.INK, linewidth=1.1, label="median of 3")
    first = one.value("first_speed")
    if first is not None:
        share = 100 - wanted.throttle_percent
        axes.axhline(
            first * share / 100,
            color=palette.WARN,
            linestyle=(0, (3, 1.5)),
            linewidth=0.9,
            label=f"{share:g} % of first",
        )
    _from_zero(axes)
    axes.set_title(title, pad=12)
    _legend(axes, above=0.07)
    return SPEED_HEIGHT


def _steps(axes: Axes, one: Soaked, column: str, scale: float, colour: str, label: str) -> None:
    """Draw a value of each run as a line from its start to its end, with a break where a run has none."""
    rows = one.runs[["start_s", "end_s", column]].to_numpy(dtype=float)
    times = np.column_stack([rows[:, 0], rows[:, 1], rows[:, 1]]).ravel() / scale
    values = np.column_stack([rows[:, 2], rows[:, 2], np.full(len(rows), np.nan)]).ravel()
    # A run in half an hour is a pixel wide: neighbours that are joined read better then.
    if len(rows) > 60:
        times, values = (rows[:, 0] + rows[:, 1]) / 2 / scale, rows[:, 2]
    axes.plot(times, values, color=colour, label=label, solid_capstyle="butt")


def _clocks(axes: Axes, one: Soaked, scale: float) -> float:
    prefix = "clock_mhz."
    named = [name for name in map(str, one.runs.columns) if name.startswith(prefix)]
    found = [name for name in named if one.runs[name].notna().any()]
    cores = [name for name in found if name != f"{prefix}gpu"]
    if not cores:
        return _unavailable(axes, "Clocks, MHz", _why(one, "clock_mhz"))
    for place, name in enumerate(cores):
        _steps(axes, one, name, scale, _CLOCKS[place % len(_CLOCKS)], name.removeprefix(prefix))
    if f"{prefix}gpu" in found:
        _steps(axes, one, f"{prefix}gpu", scale, palette.GREEN, "GPU")
    _from_zero(axes)
    axes.set_title("Clocks, MHz")
    _legend(axes)
    return PANEL_HEIGHT


def _lines(one: Soaked, quantity: str) -> dict[str, pd.Series]:
    """Return each component's values of a quantity by second; missing seconds, such as a pause's, are NaN."""
    mine = one.series[one.series["quantity"] == quantity]
    found = {}
    for name, rows in mine.groupby("component", sort=True):
        values = rows.set_index("t_s")["value"].sort_index()
        found[str(name)] = values.reindex(range(int(values.index.min()), int(values.index.max()) + 1))
    return found


def _temperatures(axes: Axes, one: Soaked, scale: float) -> float:
    found = _lines(one, "temperature")
    if not found:
        return _unavailable(axes, "Temperature, °C", _why(one, "temperature"))
    for name in palette.shown_classes(found)[0]:
        values = found[name]
        colour = palette.COMPONENT_COLOURS.get(name, palette.OTHER_COMPONENT)
        axes.plot(values.index / scale, values, color=colour, label=name, linewidth=1.1)
    low, high = axes.get_ylim()
    if high - low < 2:
        axes.set_ylim((low + high) / 2 - 1, (low + high) / 2 + 1)
    axes.set_title("Temperature, °C")
    _legend(axes)
    return PANEL_HEIGHT


def _power(axes: Axes, one: Soaked, scale: float) -> float:
    if one.runs["power_w"].notna().sum() == 0:
        return _unavailable(axes, "Power, W", _why(one, "power_w"))
    for values in _lines(one, "power").values():
        axes.plot(
            values.index / scale, values, color=palette.PURPLE, linewidth=0.7, alpha=0.45, label="second"
        )
    _steps(axes, one, "power_w", scale, palette.PURPLE, "run")
    _from_zero(axes)
    axes.set_title("Power, W")
    _legend(axes)
    return PANEL_HEIGHT

"""Every run as a point, with the median and its interval: throughput, and energy beside temperature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import labels, palette, reasons, style


@dataclass(frozen=True)
class Quantity:
    """One kind of point: a metric of a phase, its name in a legend, its colour."""

    phase: str
    metric: str
    name: str
    colour: str


DECODE = (Quantity("decode", "tokens_per_second", "decode", palette.PHASE_COLOURS["decode"]),)
PREFILL = (
    Quantity("image_prefill", "tokens_per_second", "image", palette.PHASE_COLOURS["image_prefill"]),
    Quantity("text_prefill", "tokens_per_second", "text", palette.PHASE_COLOURS["text_prefill"]),
)
PER_RUN = (
    Quantity("run", "energy", "gross", palette.GROSS),
    Quantity("run", "energy_net", "net", palette.NET),
)
PER_TOKEN = (
    Quantity("decode", "energy_per_token", "gross", palette.GROSS),
    Quantity("decode", "energy_net_per_token", "net", palette.NET),
)


def _classes(runs: pd.DataFrame, metric: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the temperature classes with a value in a whole run: those to draw, and those left out."""
    wanted = runs[
        (runs["phase"] == "run") & runs["metric"].str.startswith(f"{metric}.") & runs["value"].notna()
    ]
    return palette.shown_classes(str(name).split(".", 1)[1] for name in wanted["metric"])


def _temperatures(runs: pd.DataFrame, metric: str) -> tuple[Quantity, ...]:
    return tuple(
        Quantity("run", f"{metric}.{one}", one, palette.COMPONENT_COLOURS.get(one, palette.OTHER_COMPONENT))
        for one in _classes(runs, metric)[0]
    )


def _why(runs: pd.DataFrame, quantities: Sequence[Quantity], metric: str) -> str:
    """Return the reasons and gates that left nothing of some quantities."""
    wanted = {(quantity.phase, quantity.metric) for quantity in quantities}
    mine = runs[[pair in wanted for pair in zip(runs["phase"], runs["metric"], strict=True)]]
    if mine.empty:
        mine = runs[(runs["phase"] == "run") & runs["metric"].str.startswith(metric)]
    told = [str(text) for text in (*mine["reason"].fillna(""), *mine["gate"].fillna("")) if str(text)]
    return "; ".join(reasons.condensed(sorted(set(told)))) or "nothing was recorded"


def _spread(count: int, height: float) -> np.ndarray:
    """Return vertical offsets that keep runs apart: evenly, in the order of the runs, no chance in it."""
    return np.linspace(-height, height, count) if count > 1 else np.zeros(count)


def draw_points(
    axes: Axes,
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    cells: Sequence[Mapping[str, Any]],
    quantities: Sequence[Quantity],
) -> list[str]:
    """Draw quantities of one device's cells as points, median and interval; return what was drawn, in words.

    Runs that a gate withholds are not drawn. The list is empty, and the axes untouched, when nothing is left.
    """
    names = labels.short_labels(cells)
    said: list[str] = []
    empty: list[tuple[float, Quantity]] = []
    lane = LANES / len(quantities)
    for i, cell in enumerate(cells):
        for j, quantity in enumerate(quantities):
            chosen = (
                (runs["cell"] == cell["cell"])
                & (runs["phase"] == quantity.phase)
                & (runs["metric"] == quantity.metric)
                & (runs["gate"].fillna("") == "")
            )
            values = runs[chosen].sort_values("run")["value"].dropna().to_numpy(dtype=float)
            y = i + (j - (len(quantities) - 1) / 2) * lane
            if not len(values):
                empty.append((y, quantity))
                continue
            axes.plot(
                values,
                y + _spread(len(values), 0.3 * lane),
                linestyle="none",
                marker="o",
                markersize=3.4 if len(values) <= 30 else 2.2,
                markeredgewidth=0,
                alpha=0.85 if len(values) <= 30 else 0.45,
                color=quantity.colour,
            )
            of_summary = summary[
                (summary["cell"] == cell["cell"])
                & (summary["phase"] == quantity.phase)
                & (summary["metric"] == quantity.metric)
            ].dropna(subset="median")
            if of_summary.empty:
                continue
            low, middle, high = (float(of_summary.iloc[0][name]) for name in ("ci_low", "median", "ci_high"))
            axes.plot([low, high], [y, y], color=palette.INK, linewidth=1.4, solid_capstyle="butt")
            axes.plot([middle, middle], [y - 0.42 * lane, y + 0.42 * lane], color=palette.INK, linewidth=1.6)
            said.append(f"{names[str(cell['cell'])]} {quantity.name} {middle:.3g} ({low:.3g} to {high:.3g})")
    if not said:
        return said
    axes.set_ylim(len(cells) - 0.5, -0.5)
    low, high = axes.get_xlim()
    # Scatter of a percent must not fill the panel: the axis spans at least a fifth of its values.
    span = max(high - low, 0.2 * abs(high), 1e-9)
    middle = (low + high) / 2
    low, high = middle - 0.55 * span, middle + 0.55 * span
    axes.set_xlim(0 if 0 <= low < 0.5 * high else low, high)
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", visible=False)
    style.tidy(axes)
    for y, quantity in empty:
        known = (
            (runs["phase"] == quantity.phase) & (runs["metric"] == quantity.metric) & runs["value"].notna()
        )
        word = "withheld" if known.any() else "not available"
        axes.text(0.02, y, word, transform=axes.get_yaxis_transform(), **_LANE)
    if len(quantities) > 1:
        _name_lanes(axes, len(cells), quantities, lane)
    return said


LANES = 0.8
"""Share of a cell's height that its lanes take: the rest keeps cells apart."""

_LANE: Any = {"va": "center", "size": 7, "style": "italic", "alpha": 0.85}


def _name_lanes(axes: Axes, cells: int, quantities: Sequence[Quantity], lane: float) -> None:
    """Write each quantity's name beside its lane: nothing has to be matched by colour."""
    for i in range(cells):
        for j, quantity in enumerate(quantities):
            axes.annotate(
                quantity.name,
                (1, i + (j - (len(quantities) - 1) / 2) * lane),
                (3, 0),
                xycoords=axes.get_yaxis_transform(),
                textcoords="offset points",
                va="center",
                size=7,
                alpha=0.9,
            )


def _draw_grid(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    cells: Sequence[Mapping[str, Any]],
    rows: Sequence[Sequence[tuple[str, str]]],
    title: str,
    destinations: Sequence[Path],
) -> None:
    """Draw for each device the panels of `rows`: (title, key of `_quantities`), two side by side."""
    grouped = labels.by_device(cells)
    names = labels.short_labels(cells)
    present = {
        device: [row for row in rows if any(_has(runs, mine, _quantities(key, runs)) for _, key in row)]
        for device, mine in grouped.items()
    }
    said: list[str] = []
    heights: list[float] = []
    with style.canvas() as figure:
        count = sum(1 + (len(mine) or 1) for mine in present.values())
        grid = iter(figure.subplots(count, 2, squeeze=False))
        tops: list[Axes] = []

        def next_row() -> Sequence[Axes]:
            pair: Sequence[Axes] = next(grid)
            tops.append(pair[0])
            return pair

        for device, mine in grouped.items():
            of_device = runs[runs["device"] == device]
            detail = labels.shared_text(mine)
            left_out = sorted(
                {one for row in rows for _, key in row if key in HEAT for one in _classes(of_device, key)[1]}
            )
            if left_out:
                detail += f"\nTemperatures in the tables only: {', '.join(left_out)}"
            heights.append(_band(next_row(), device, detail))
            if not present[device]:
                why = {key: _why(of_device, _quantities(key, runs), key) for row in rows for _, key in row}
                pair = next_row()
                pair[1].set_axis_off()
                text = "; ".join(dict.fromkeys(why.values()))
                heights.append(style.explain(pair[0], f"Not exposed by this device: {text}."))
            for row in present[device]:
                pair = next_row()
                needed = 0.0
                for axes, (panel, key) in zip(pair, row, strict=True):
                    quantities = _quantities(key, of_device)
                    drawn = draw_points(axes, of_device, summary, mine, quantities) if quantities else []
                    axes.set_title(panel, pad=4)
                    said += [f"{device}, {panel}: {text}" for text in drawn]
                    if not drawn:
                        why_not = f"Not available: {_why(of_device, quantities, key)}"
                        needed = max(needed, style.explain(axes, why_not, width=34))
                        continue
                    needed = max(needed, len(mine) * (0.12 + max(0.3, 0.135 * len(quantities))))
                    ticks = [names[str(cell["cell"])] for cell in mine]
                    axes.set_yticks(range(len(mine)), ticks if axes is pair[0] else [""] * len(mine))
                heights.append(needed)
        subtitle = "Point: a run; bar: median; line: its interval; axes may not start at 0"
        style.finish(
            figure, title, labels.tags(cells), list(zip(tops, heights, strict=True)), subtitle=subtitle
        )
        style.save(
            figure, destinations, title=title, description=". ".join(said) + "." if said else "No values."
        )


HEAT = ("temperature_max", "temperature_rise")


def _quantities(key: str, runs: pd.DataFrame) -> tuple[Quantity, ...]:
    fixed = {"decode": DECODE, "prefill": PREFILL, "energy": PER_RUN, "energy_per_token": PER_TOKEN}
    return fixed[key] if key in fixed else _temperatures(runs, key)


def _has(runs: pd.DataFrame, cells: Sequence[Mapping[str, Any]], quantities: Sequence[Quantity]) -> bool:
    ids = [cell["cell"] for cell in cells]
    kept = runs[runs["cell"].isin(ids) & runs["value"].notna() & (runs["gate"].fillna("") == "")]
    pairs = set(zip(kept["phase"], kept["metric"], strict=True))
    return any((quantity.phase, quantity.metric) in pairs for quantity in quantities)


def _band(pair: Sequence[Axes], device: str, detail: str) -> float:
    """Turn a row of the grid into a heading over its whole width; return the height that it needs."""
    for axes in pair:
        axes.set_axis_off()
    lines = "\n".join(style.wrap(line, 84) for line in detail.split("\n"))
    pair[0].text(0, 1, device, transform=pair[0].transAxes, weight="bold", va="top", in_layout=False)
    pair[0].annotate(
        lines,
        (0, 1),
        (0, -style.LINE - 1),
        xycoords="axes fraction",
        textcoords="offset points",
        va="top",
        size=7.5,
        alpha=0.85,
        in_layout=False,
    )
    return style.height_of(lines) + style.LINE / 72


def draw_throughput(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    cells: Sequence[Mapping[str, Any]],
    destinations: Sequence[Path],
) -> None:
    """Draw tokens per second of decode and prefill, every run a point, a row of panels a device.

    Args:
        runs: `runs.parquet`.
        summary: `cells.csv`.
        cells: the entries of `cells.json`.
        destinations: `.svg` and `.png` files.
    """
    rows = [[("Decode, tokens/s", "decode"), ("Prefill, tokens/s", "prefill")]]
    _draw_grid(runs, summary, cells, rows, "Tokens per second, run by run", destinations)


def draw_energy(
    runs: pd.DataFrame,
    summary: pd.DataFrame,
    cells: Sequence[Mapping[str, Any]],
    destinations: Sequence[Path],
) -> None:
    """Draw energy (gross and net, per run and per token) beside temperature (highest, and its rise).

    A device without a sensor gets the reason instead of an empty panel. Arguments as `draw_throughput`.
    """
    rows = [
        [("Energy per run, J", "energy"), ("Highest temperature, °C", "temperature_max")],
        [("Energy per token, J", "energy_per_token"), ("Temperature rise, K", "temperature_rise")],
    ]
    _draw_grid(runs, summary, cells, rows, "Energy and temperature, run by run", destinations)

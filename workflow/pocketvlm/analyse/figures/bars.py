"""Median duration by phase: stacked bars, each device in a panel of its own scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import labels, palette, style


def phase_medians(summary: pd.DataFrame, cell: str) -> dict[str, float]:
    """Return the median duration of each phase of a cell in seconds, without what is withheld or missing."""
    mine = summary[(summary["cell"] == cell) & (summary["metric"] == "duration")]
    medians = dict(zip(mine["phase"].astype(str), mine["median"].astype(float) / 1e3, strict=True))
    return {phase: medians[phase] for phase in palette.PHASES if medians.get(phase, nan) >= 0}


def _draw_bar(axes: Axes, y: int, medians: Mapping[str, float], scale: float) -> None:
    left = 0.0
    for phase, seconds in medians.items():
        colour = palette.PHASE_COLOURS[phase]
        axes.barh(
            y,
            seconds,
            left=left,
            height=0.62,
            color=colour,
            edgecolor=palette.INK if phase == "other" else "none",
            linewidth=0.4,
        )
        if seconds / scale > 0.085:
            axes.text(
                left + seconds / 2,
                y,
                f"{seconds:.2f}",
                ha="center",
                va="center",
                size=7.5,
                color=palette.text_on(colour),
            )
        left += seconds


def draw_phases(
    summary: pd.DataFrame,
    cells: Sequence[Mapping[str, Any]],
    destinations: Sequence[Path],
) -> None:
    """Draw the median duration of each phase of each cell, a panel a device.

    Devices differ twentyfold, so each panel has its own axis and says so.

    Args:
        summary: `cells.csv`.
        cells: the entries of `cells.json`.
        destinations: `.svg` and `.png` files.
    """
    grouped = labels.by_device(cells)
    names = labels.short_labels(cells)
    heights = [0.12 + 0.37 * len(mine) for mine in grouped.values()]
    said: list[str] = []
    with style.canvas() as figure:
        grid = figure.subplots(len(grouped), 1, squeeze=False)[:, 0]
        seen: set[str] = set()
        for axes, (device, mine) in zip(grid, grouped.items(), strict=True):
            medians = {str(cell["cell"]): phase_medians(summary, str(cell["cell"])) for cell in mine}
            scale = max((sum(one.values()) for one in medians.values()), default=0.0)
            style.name_device(axes, device, labels.shared_text(mine))
            if not scale:
                style.explain(axes, "No duration passed the gates.")
                continue
            for y, one in enumerate(medians.values()):
                if one:
                    _draw_bar(axes, y, one, scale * 1.02)
                else:
                    axes.text(0, y, " withheld", va="center", style="italic")
            axes.set_yticks(range(len(mine)), [names[cell] for cell in medians])
            axes.set_ylim(len(mine) - 0.5, -0.5)
            axes.set_xlim(0, scale * 1.02)
            axes.grid(axis="y", visible=False)
            style.tidy(axes)
            seen.update(phase for one in medians.values() for phase in one)
            said += [
                f"{device} {names[cell]}: "
                + ", ".join(
                    f"{palette.PHASE_LABELS[phase]} {seconds:.2f} s" for phase, seconds in one.items()
                )
                for cell, one in medians.items()
            ]
        grid[-1].set_xlabel("median duration, s (each device has its own scale)")
        figure.legend(
            handles=style.phase_handles([phase for phase in palette.PHASES if phase in seen]),
            loc="outside lower left",
            ncols=3,
            handlelength=1.0,
        )
        style.finish(
            figure, "Median duration by phase", labels.tags(cells), list(zip(grid, heights, strict=True))
        )
        style.save(
            figure,
            destinations,
            title="Median duration by phase",
            description="; ".join(said) + "." if said else "No duration passed the gates.",
        )

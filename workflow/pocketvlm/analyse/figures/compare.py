"""Two sides of an experiment: each metric's difference, its interval, and how little would have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import palette, style

ROW = 0.17
"""Inches that one metric takes."""

_COLOURS = {"worse": palette.WARN, "better": palette.GREEN}
_NOT_JUDGED = "not judged"
_READ = (
    "To the right b is worse; bold: it decides; grey: within the margin; purple: the "
    "smallest slowdown that would have been found."
)


def draw_comparison(
    table: Path, findings: Mapping[str, Any], title: str, destinations: Sequence[Path]
) -> None:
    """Draw a row a metric: estimate and interval in percent, worse to the right; those that decide are bold.

    Args:
        table: `comparison.csv`.
        findings: the content of `findings.json`.
        title: what is compared.
        destinations: `.svg` and `.png` files.
    """
    # Only an empty field is missing: a phase, a version or a quantisation may be called NA.
    rows = pd.read_csv(table, keep_default_na=False)
    told = rows[rows["worse_percent"] != ""]
    pairs = findings["pairs"]
    margin = float(findings["rules"]["margin_percent"])
    with style.canvas() as figure:
        grid = figure.subplots(len(pairs), 1, squeeze=False)[:, 0]
        heights = []
        for axes, pair in zip(grid, pairs, strict=True):
            mine = told[(told["a"] == pair["a"]) & (told["b"] == pair["b"])]
            if mine.empty:
                heights.append(_nothing(axes, pair, findings))
                continue
            heights.append(_panel(axes, mine, pair, margin))
        for axes in [axes for axes in grid if axes.axison][-1:]:
            axes.set_xlabel("cost of b above that of a, %")
        rows_of_axes = list(zip(grid, heights, strict=True))
        style.finish(figure, title, findings["tags"], rows_of_axes, subtitle=_READ)
        said = ". ".join(one["sentence"] for one in findings["findings"])
        style.save(figure, destinations, title=title, description=said)


def _panel(axes: Axes, rows: pd.DataFrame, pair: Mapping[str, Any], margin: float) -> float:
    """Draw one pair of cells; return the height in inches that it needs."""
    kind = "pairs, in turns" if pair["interleaved"] else "runs a side, not in turns"
    axes.set_title(f"{pair['of'] or 'all'}: {pair['pairs']} {kind}")
    axes.axvspan(-margin, margin, color=palette.INK, alpha=0.08, linewidth=0)
    axes.axvline(0, color=palette.INK, linewidth=0.8)
    names = []
    for place, row in enumerate(rows.to_dict("records")):
        shift, low, high = (float(row[name]) for name in ("worse_percent", "worse_low", "worse_high"))
        colour = _COLOURS.get(str(row["verdict"]), palette.INK)
        decides = row["decides"] == "yes"
        axes.plot([low, high], [place, place], color=colour, linewidth=2.2 if decides else 1.0)
        axes.plot(
            [shift],
            [place],
            marker="o",
            markersize=5 if decides else 3.2,
            color=colour,
            markeredgewidth=0,
        )
        if decides and row["visible_percent"]:
            axes.plot(
                [float(row["visible_percent"])], [place], marker="|", markersize=8, color=palette.PURPLE
            )
        phase = palette.PHASE_LABELS.get(str(row["phase"]), str(row["phase"]))
        names.append(f"{phase} {str(row['metric']).replace('_', ' ')}".strip())
    axes.set_yticks(range(len(names)), names)
    for label, row in zip(axes.get_yticklabels(), rows.to_dict("records"), strict=True):
        label.set_fontweight("bold" if row["decides"] == "yes" else "normal")
    axes.set_ylim(len(names) - 0.4, -0.6)
    style.tidy(axes)
    return ROW * len(names) + 0.1


def _nothing(axes: Axes, pair: Mapping[str, Any], findings: Mapping[str, Any]) -> float:
    number = findings["pairs"].index(pair)
    why = [
        one["sentence"]
        for one in findings["findings"]
        if one["pair"] == number and one["kind"] == _NOT_JUDGED
    ]
    axes.set_title(pair["of"] or "all", pad=4)
    return style.explain(axes, f"NA: {'; '.join(why) or 'nothing could be compared'}.")

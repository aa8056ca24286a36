"""A search for settings: the speed of each candidate against the defaults, and the front against its cost."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from matplotlib.axes import Axes

from pocketvlm.analyse.figures import labels, palette, style

ROW = 0.2
"""Height of a candidate in inches."""

LINE = 0.11
"""Height of each further line of its name."""

FRONT_HEIGHT = 1.6
MOST = 24
"""More candidates than this are left to the table."""

_COLOURS = {
    "chosen": palette.GREEN,
    "defaults": palette.INK,
    "finalist": palette.PHASE_COLOURS["decode"],
    "slower": palette.OTHER_COMPONENT,
    "limit": palette.WARN,
    "failed": palette.WARN,
    "withheld": palette.WARN,
}
_WORDS = {"limit": "beyond a limit"}
_COSTS = (("energy_ratio", "Energy against the defaults'"), ("memory_mib", "Memory, MiB"))


def draw_tune(
    candidates: Path,
    rungs: Path,
    chosen: Path,
    cells: Sequence[Mapping[str, Any]],
    objective: str,
    destinations: Sequence[Path],
) -> None:
    """Draw a search: each candidate's speed in its last rung, and speed against energy and memory.

    Args:
        candidates: `candidates.csv`.
        rungs: `rungs.csv`.
        chosen: `chosen.yaml`.
        cells: the one entry of `cells.json`.
        objective: a name of OBJECTIVES.
        destinations: `.svg` and `.png` files.
    """
    table = pd.read_csv(candidates, dtype={"reason": str, "settings": str, "candidate": str})
    count = int(pd.read_csv(rungs)["rung"].max()) if _has_rows(rungs) else 0
    choice = yaml.safe_load(chosen.read_text())
    cell = cells[0]
    shown = table.head(MOST)
    costs = [(name, title) for name, title in _COSTS if table[name].notna().any()]
    told = f"{cell['device']}: {cell['framework']} {cell['version']} {cell['backend']}, {cell['model']}"
    told = f"{told}. {_sentence(str(choice['reason']))}"
    if left := len(table) - len(shown):
        told = f"{told} {left} more candidates are in candidates.csv."
    with style.canvas() as figure:
        grid = figure.subplots(1 + max(1, len(costs)), 1, squeeze=False)[:, 0]
        heights = [_speeds(grid[0], shown)]
        heights += [_cost(axes, table, *cost) for axes, cost in zip(grid[1:], costs, strict=False)]
        if not costs:
            heights.append(style.explain(grid[1], "NA: neither energy nor memory was seen.", width=44))
        title = f"Tuning for {_title(objective)}: {len(table) - 1} candidates in {count} rungs"
        rows = list(zip(grid, heights, strict=True))
        style.finish(figure, title, labels.tags(cells), rows, subtitle=told)
        style.save(figure, destinations, title=title, description=f"{title}. {told}")


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _has_rows(path: Path) -> bool:
    return len(path.read_text().splitlines()) > 1


def _title(objective: str) -> str:
    names = {
        "answer": "the time of an answer",
        "run": "the time of a run",
        "first_token": "the time to the first token",
        "decode": "decoding",
    }
    return names[objective]


def _name(row: Mapping[Hashable, Any], last: float) -> str:
    """Return a candidate's name; of one that fell out early the rung, whose few runs tell less."""
    if row["status"] == "chosen":
        return f"{row['candidate']} (chosen)"
    early = pd.notna(row["speedup"]) and row["rung"] < last
    return f"rung {row['rung']:.0f}: {row['candidate']}" if early else str(row["candidate"])


def _speeds(axes: Axes, table: pd.DataFrame) -> float:
    """Draw a line a candidate: its speed against the defaults with the interval, or why there is none."""
    for place, (_, row) in enumerate(table.iterrows()):
        colour = _COLOURS[str(row["status"])]
        if pd.isna(row["speedup"]):
            axes.annotate(
                f"NA: {_WORDS.get(str(row['status']), row['status'])}",
                (0.01, place),
                xycoords=axes.get_yaxis_transform(),
                va="center",
                size=7,
                style="italic",
                color=colour,
            )
            continue
        if pd.notna(row["ci_low"]):
            axes.plot([row["ci_low"], row["ci_high"]], [place, place], color=colour, linewidth=1.4)
        on = row["front"] == "yes"
        axes.plot(
            [row["speedup"]],
            [place],
            marker="D" if on else "o",
            markersize=4.4 if on else 3.6,
            color=colour,
            linestyle="none",
        )
    axes.axvline(1.0, color=palette.INK, linewidth=0.8, linestyle=(0, (3, 1.5)))
    names = [_name(row, table["rung"].max()) for row in table.to_dict("records")]
    axes.set_yticks(range(len(table)), [style.wrap(name, 36) for name in names])
    for label, (_, row) in zip(axes.get_yticklabels(), table.iterrows(), strict=True):
        label.set_fontsize(6.5)
        label.set_color(_COLOURS[str(row["status"])])
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_title("Speed against the defaults")
    style.tidy(axes)
    lines = max(style.wrap(name, 36).count("\n") + 1 for name in names)
    return len(table) * (ROW + LINE * (lines - 1))


def _cost(axes: Axes, table: pd.DataFrame, column: str, title: str) -> float:
    """Draw speed against what it costs; those on the front are framed."""
    known = table[table["speedup"].notna() & table[column].notna()]
    for status, mine in known.groupby("status", sort=True):
        axes.plot(
            mine["speedup"],
            mine[column],
            linestyle="none",
            marker="o",
            markersize=4.2,
            color=_COLOURS[str(status)],
        )
    on = known[known["front"] == "yes"]
    axes.plot(
        on["speedup"],
        on[column],
        color=palette.PURPLE,
        linestyle="none",
        marker="D",
        markersize=7,
        markerfacecolor="none",
        zorder=0,
        label="front",
    )
    axes.set_title(title)
    axes.set_xlabel("times as fast as the defaults")
    axes.margins(0.08)
    low, high = axes.get_ylim()
    if high - low < 0.02 * max(abs(high), 1e-9):
        middle = (low + high) / 2
        axes.set_ylim(middle * 0.98, middle * 1.02)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), borderpad=0, handlelength=1.0)
    style.tidy(axes)
    return FRONT_HEIGHT

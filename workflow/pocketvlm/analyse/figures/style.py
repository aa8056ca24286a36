"""How every figure looks and is written: one size of text, one ink, the same bytes for the same data.

An SVG is transparent and its ink is `currentColor`, so that it follows the page it stands in; alone, it
follows the reader's light or dark setting. Text stays text: small, selectable, read by a screen reader.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import seaborn as sns  # type: ignore[import-untyped]
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pocketvlm.analyse.figures import palette
from pocketvlm.errors import PocketvlmError
from pocketvlm.provenance import atomic_file

WIDTH = 4.8
"""Width of every figure in inches: narrow, so that text is legible when a phone scales it to its screen."""

PNG_DPI = 200
FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
SALT = "pocketvlm"

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.titlesize": 8.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.linewidth": 0.7,
    "xtick.major.width": 0.7,
    "ytick.major.width": 0.7,
    "axes.grid": True,
    "grid.color": palette.INK,
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "text.color": palette.INK,
    "axes.labelcolor": palette.INK,
    "axes.edgecolor": palette.INK,
    "xtick.color": palette.INK,
    "ytick.color": palette.INK,
    "hatch.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "path.simplify": True,
    "path.simplify_threshold": 0.3,
    # Names come from devices and configuration: a dollar sign in one is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": SALT,
}


@contextmanager
def canvas(height: float = 4.0) -> Iterator[Figure]:
    """Yield an empty figure in the project's style, without pyplot; `finish` sets its height in the end."""
    with sns.axes_style("ticks"), mpl.rc_context(_RC):
        figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor="none")
        figure.get_layout_engine().set(h_pad=0.06, hspace=0)  # type: ignore[union-attr,call-arg]
        yield figure


def tidy(axes: Axes) -> None:
    """Remove the frame's upper and right side and the tick marks."""
    sns.despine(ax=axes)
    axes.tick_params(length=0)
    axes.set_facecolor("none")


def finish(
    figure: Figure,
    title: str,
    tags: Sequence[str],
    rows: Sequence[tuple[Axes, float]],
    *,
    subtitle: str = "",
) -> None:
    """Give each row of axes its height, and the figure the height that all of it then needs, with a heading.

    Args:
        figure: everything in it is drawn.
        title: bold, first.
        tags: what the figure must carry (emulated, synthetic), in frames below the title.
        rows: one of the axes of each row from the top, and its height in inches without titles and ticks.
        subtitle: between title and tags.
    """
    headings = textwrap.wrap(title, 58)
    lines = headings + (textwrap.wrap(subtitle, 76) if subtitle else [])
    used = 0.19 * len(lines) + (0.25 if tags else 0) + 0.06
    wanted = sum(height for _, height in rows)
    # What titles, ticks and legends take is known once they are laid out; it does not depend on the height.
    grid = rows[0][0].get_gridspec()
    assert grid is not None, "the axes of a figure come from subplots"
    grid.set_height_ratios([height for _, height in rows])
    figure.set_size_inches(WIDTH, 2 * wanted + 3)
    figure.draw_without_rendering()
    taken = sum(axes.get_position().height for axes, _ in rows)
    inches = round(used + wanted + (1 - taken) * float(figure.get_figheight()), 2)
    figure.set_size_inches(WIDTH, inches)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - used / inches))  # type: ignore[union-attr,call-arg]
    figure.draw_without_rendering()
    # The solver's last digits differ from run to run, and with them the bytes.
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position([round(side, 6) for side in axes.get_position().bounds])  # type: ignore[arg-type]
    for row, line in enumerate(lines):
        bold = row < len(headings)
        figure.text(
            0.012,
            1 - (0.15 + 0.19 * row) / inches,
            line,
            size=9.5 if bold else 8,
            weight="bold" if bold else "normal",
            va="center",
        )
    x = 0.024
    for tag in tags:
        figure.text(
            x,
            1 - (0.19 * len(lines) + 0.14) / inches,
            tag.upper(),
            size=6.5,
            weight="bold",
            va="center",
            color=palette.WARN,
            bbox={
                "boxstyle": "round,pad=0.5",
                "facecolor": "none",
                "edgecolor": palette.WARN,
                "linewidth": 0.9,
            },
        )
        x += 0.0146 * len(tag) + 0.04


def wrap(text: str, width: int) -> str:
    """Return a text broken into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width))


LINE = 11.0
"""Height of a line of small text in points."""


def height_of(lines: str) -> float:
    """Return the height of lines of small text in inches."""
    return (lines.count("\n") + 1) * LINE / 72


def name_device(axes: Axes, device: str, detail: str) -> None:
    """Write above axes the device in bold, and below it, smaller, what its cells have in common."""
    lines = wrap(detail, 84)
    axes.set_title(device, pad=5 + LINE * (lines.count("\n") + 1))
    axes.annotate(
        lines, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", size=7.5, alpha=0.85
    )


def explain(axes: Axes, text: str, *, width: int = 68) -> float:
    """Turn axes into text: why there is nothing to draw. Return the height in inches that its lines need."""
    axes.set_axis_off()
    lines = wrap(text, width)
    axes.text(
        0.0,
        1.0,
        lines,
        transform=axes.transAxes,
        va="top",
        size=8,
        style="italic",
        alpha=0.85,
        # Constrained layout would shrink the panel to make room for a text wider than it.
        in_layout=False,
    )
    return height_of(lines)


def phase_handles(phases: Sequence[str], *, values: Sequence[str] = ()) -> list[Artist]:
    """Return legend entries of phases, each with a value after its name where values are given."""
    endings = list(values) or [""] * len(phases)
    return [
        Patch(
            facecolor=palette.PHASE_COLOURS[phase],
            edgecolor=palette.INK if phase in ("other", "interaction") else "none",
            linewidth=0.4,
            label=f"{palette.PHASE_LABELS[phase]}{f' {ending}' if ending else ''}",
        )
        for phase, ending in zip(phases, endings, strict=True)
    ]


def save(figure: Figure, destinations: Sequence[Path], *, title: str, description: str) -> None:
    """Write a figure to each destination by its suffix, the same bytes for the same figure.

    Args:
        figure: drawn within `canvas`, which must still be open.
        destinations: `.svg` (transparent, ink follows the page) and `.png` (dark ink on white).
        title: the accessible name of an SVG.
        description: what the figure shows, in words, for who cannot see it.

    Raises:
        PocketvlmError: a suffix is neither.
    """
    for destination in destinations:
        if destination.suffix == ".svg":
            buffer = io.StringIO()
            figure.savefig(
                buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": "pocketvlm"}
            )
            with atomic_file(destination, "wb") as stream:
                stream.write(finish_svg(buffer.getvalue(), title, description).encode())
        elif destination.suffix == ".png":
            picture = io.BytesIO()
            figure.savefig(picture, format="png", dpi=PNG_DPI, facecolor="white", metadata={"Software": None})
            with atomic_file(destination, "wb") as stream:
                stream.write(picture.getvalue())
        else:
            raise PocketvlmError(
                f"A figure cannot be written as {destination.suffix or 'a file without a suffix'}",
                where=str(destination),
                do="name a .svg or a .png file",
            )


_STANDALONE = (
    "<style>.pocketvlm-figure{color:"
    + palette.INK
    + ";stroke-linejoin:round;text-rendering:geometricPrecision}"
    "@media(prefers-color-scheme:dark){.pocketvlm-figure{color:#e6e8eb;--warn:#ffb4a9}}</style>"
)


def finish_svg(text: str, title: str, description: str) -> str:
    """Return matplotlib's SVG with title, description, system fonts and the ink as `currentColor`."""
    start = text.index("<svg")
    body = text[start:]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)
    body = body.replace(palette.INK, "currentColor").replace(palette.WARN, f"var(--warn, {palette.WARN})")
    body = body.replace("'DejaVu Sans'", FONTS)
    body = re.sub(r"(\d+\.\d{2})\d+", r"\1", body)
    opening, rest = body.split(">", 1)
    opening = opening.replace("<svg", '<svg class="pocketvlm-figure" role="img"', 1)
    return f"{opening}><title>{escape(title)}</title><desc>{escape(description)}</desc>{_STANDALONE}{rest}"

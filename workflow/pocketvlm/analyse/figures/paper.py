"""The paper's figures by their number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvlm.analyse.figures.paper_power import draw_power
from pocketvlm.analyse.figures.paper_timeline import draw_utilisation
from pocketvlm.analyse.paper.ours import Cell, Results
from pocketvlm.config.paper import Paper

POWER = 4
"""The figure of power and temperature; those before it are of one model each."""


def draw_paper_figure(
    number: int,
    paper: Paper,
    cells: Sequence[Cell],
    results: Results,
    records: Mapping[str, Path],
    identities: Mapping[str, Path],
    destinations: Sequence[Path],
) -> None:
    """Draw a figure of the paper in its own layout.

    Args:
        number: 1 to 4, as in the paper.
        paper: the published values.
        cells: the entries of `cells.json`.
        results: the experiment's tables.
        records: the folder of the records, by device that has runs.
        identities: `identity.json` of the same devices.
        destinations: `.svg` and `.png` files.

    Raises:
        PocketvlmError: the paper has no such figure.
    """
    if number == POWER:
        draw_power(paper, cells, results, records, destinations)
    else:
        draw_utilisation(paper, number, cells, results, records, identities, destinations)

"""Writes the paper's tables 1 to 3, each as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pocketvlm.analyse import manuscript
from pocketvlm.analyse.paper import answers, columns, latency, metrics
from pocketvlm.analyse.paper.ours import Results
from pocketvlm.config.paper import load_paper
from pocketvlm.provenance import atomic_file, read_json

NAMES = ("paper_table1", "paper_table2", "paper_table3")
ENDINGS = ("csv", "md", "tex")


def render_tables(
    *,
    paper: Path,
    cells: Path,
    summary: Path,
    runs: Path,
    bootstrap: Mapping[str, Any],
    destination: Path,
) -> None:
    """Write `paper_table{1,2,3}.{csv,md,tex}` into a folder.

    Args:
        paper: `config/paper/<name>.yaml`.
        cells: `cells.json`.
        summary: `cells.csv`.
        runs: `runs.parquet`.
        bootstrap: `analysis.bootstrap` of the configuration, for sums of phases.
        destination: the folder to write to.
    """
    published = load_paper(paper)
    study = read_json(cells)
    results = Results(pd.read_csv(summary), pd.read_parquet(runs), bootstrap)
    builders = (
        (metrics.build, metrics.COLUMNS),
        (latency.build, columns.COLUMNS),
        (answers.build, columns.COLUMNS),
    )
    for name, (build, header) in zip(NAMES, builders, strict=True):
        table, rows = build(study["experiment"], published, study["cells"], results)
        _write_csv(destination / f"{name}.csv", header, rows)
        for ending, render in (("md", manuscript.markdown), ("tex", manuscript.latex)):
            with atomic_file(destination / f"{name}.{ending}") as stream:
                stream.write(render(table))


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with atomic_file(path) as stream:
        writer = csv.DictWriter(stream, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

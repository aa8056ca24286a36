"""Figures and report of an invented study, as the workflow's rules make them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from pocketvlm.analyse import figures
from pocketvlm.analyse.report import Extras, Origin, render
from pocketvlm.provenance import read_json
from tests.synthetic_records import Study

TEMPLATES = Path(__file__).parents[1] / "workflow" / "report"
RULEGRAPH = """digraph snakemake_dag {
\t0[label = "all", color = "0.00 0.6 0.85", style="rounded"];
\t1[label = "measure_block", color = "0.50 0.6 0.85", style="rounded"];
\t2[label = "build_bundle", color = "0.17 0.6 0.85", style="rounded"];
\t1 -> 0
\t2 -> 1
}
"""
ORIGIN = Origin(
    commit="0123456789abcdef0123456789abcdef01234567",
    changed=("README.md",),
    reason="",
    python="3.11.7",
    machine="Linux x86_64",
    packages={"pocketvlm": "0.1.0", "snakemake": "9.27.1"},
    drawn="2026-01-01T00:00:00Z",
)


def both(folder: Path, name: str) -> list[Path]:
    """Return the two files of a figure."""
    return [folder / f"{name}.svg", folder / f"{name}.png"]


def draw_all(study: Study, *, png: bool = False) -> Path:
    """Draw every figure of a study; return their folder."""
    folder = study.cells_json.parent / "figures"
    cells = read_json(study.cells_json)["cells"]
    runs, summary = pd.read_parquet(study.runs), pd.read_csv(study.cells_csv)

    def files(name: str) -> list[Path]:
        return both(folder, name) if png else both(folder, name)[:1]

    figures.draw_phases(summary, cells, files("phases"))
    figures.draw_throughput(runs, summary, cells, files("throughput"))
    figures.draw_energy(runs, summary, cells, files("energy"))
    for cell in cells:
        records = study.records[cell["device"]]
        figures.draw_timeline(
            pd.read_parquet(records / "samples.parquet"),
            pd.read_parquet(records / "phases.parquet"),
            runs,
            cell,
            read_json(study.identities[cell["device"]]),
            files(f"timeline-{cell['cell']}"),
        )
    return folder


def render_report(
    study: Study, *, rulegraph: str = RULEGRAPH, origin: Origin = ORIGIN, extras: Extras | None = None
) -> Path:
    """Render the report of a study whose figures are drawn; return the page."""
    page = study.cells_json.parent / "report" / "index.html"
    render(
        templates=TEMPLATES,
        cells=study.cells_json,
        summary=study.cells_csv,
        runs=study.runs,
        blocks=list(study.blocks.values()),
        answers=[records / "answers.parquet" for records in study.records.values()],
        identities=list(study.identities.values()),
        manifests=study.manifests,
        figures=study.cells_json.parent / "figures",
        raw_store=study.raw,
        rulegraph=rulegraph,
        origin=origin,
        destination=page,
        on_device=["measure_block"],
        records=study.records,
        images=study.images,
        extras=extras,
    )
    return page

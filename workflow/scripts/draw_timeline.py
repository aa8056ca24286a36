"""Draw one cell over time."""

from pathlib import Path

import pandas as pd

from pocketvlm.analyse.figures.timeline import draw_timeline, draw_unmeasured
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    name = snakemake.wildcards.cell
    cell = next(cell for cell in read_json(snakemake.input.cells)["cells"] if cell["cell"] == name)
    destinations = [Path(path) for path in snakemake.output]
    runs = pd.read_parquet(snakemake.input.runs)
    if (runs["cell"] == name).any():
        draw_timeline(
            pd.read_parquet(snakemake.input.samples),
            pd.read_parquet(snakemake.input.phases),
            runs,
            cell,
            read_json(snakemake.input.identity),
            destinations,
        )
    else:
        summary = pd.read_csv(snakemake.input.summary)
        draw_unmeasured(cell, summary.loc[summary["cell"] == name, "gate"].iloc[0], destinations)

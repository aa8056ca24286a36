"""Draw one cell over time."""

from pathlib import Path

import pandas as pd

from pocketvlm.analyse.figures.timeline import draw_timeline
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    name = snakemake.wildcards.cell
    draw_timeline(
        pd.read_parquet(snakemake.input.samples),
        pd.read_parquet(snakemake.input.phases),
        pd.read_parquet(snakemake.input.runs),
        next(cell for cell in read_json(snakemake.input.cells)["cells"] if cell["cell"] == name),
        read_json(snakemake.input.identity),
        [Path(path) for path in snakemake.output],
    )

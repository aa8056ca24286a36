"""Draw one figure that sets the cells side by side."""

from pathlib import Path

import pandas as pd

from pocketvlm.analyse.figures.bars import draw_phases
from pocketvlm.analyse.figures.dots import draw_energy, draw_throughput
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    runs = pd.read_parquet(snakemake.input.runs)
    summary = pd.read_csv(snakemake.input.summary, keep_default_na=True)
    cells = read_json(snakemake.input.cells)["cells"]
    destinations = [Path(path) for path in snakemake.output]
    figure = snakemake.wildcards.figure
    if figure == "phases":
        draw_phases(summary, cells, destinations)
    elif figure == "throughput":
        draw_throughput(runs, summary, cells, destinations)
    else:
        draw_energy(runs, summary, cells, destinations)

"""Write the paper's tables with this experiment's numbers beside the published ones."""

from pathlib import Path

from pocketvlm.analyse.paper import render_tables
from pocketvlm.config.paper import of_experiment
from pocketvlm.stage import stage

with stage(snakemake):
    given = snakemake.input
    render_tables(
        paper=of_experiment(given.paper, snakemake.params.experiment),
        cells=Path(given.cells),
        summary=Path(given.summary),
        runs=Path(given.runs),
        bootstrap=snakemake.params.bootstrap,
        destination=Path(snakemake.output[0]).parent,
    )

"""Write the tables of an experiment."""

from pathlib import Path

from pocketvlm.analyse.tables import aggregate
from pocketvlm.stage import stage

with stage(snakemake):
    aggregate(
        snakemake.input.judged,
        snakemake.input.indexes,
        snakemake.input.cells,
        Path(snakemake.output.runs).parent,
        **snakemake.params.bootstrap,
    )

"""Write the tables of the benchmark beside the cells."""

from pathlib import Path

from pocketvlm.analyse.bench import tabulate
from pocketvlm.stage import stage

with stage(snakemake):
    tabulate(
        snakemake.input.indexes,
        snakemake.input.identities,
        snakemake.input.cells,
        snakemake.params.raw,
        bench=snakemake.params.bench,
        gates=snakemake.params.gates,
        bootstrap=snakemake.params.bootstrap,
        table=Path(snakemake.output.table),
        runs=Path(snakemake.output.runs),
    )

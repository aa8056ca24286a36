"""Write the tables of a soak."""

from pathlib import Path

from pocketvlm.analyse.soak.tables import tabulate
from pocketvlm.stage import stage

with stage(snakemake):
    tabulate(
        snakemake.input.indexes,
        snakemake.input.identities,
        snakemake.input.cells,
        snakemake.params.raw,
        soak=snakemake.params.soak,
        gates=snakemake.params.gates,
        bootstrap=snakemake.params.bootstrap,
        runs=Path(snakemake.output.runs),
        summary=Path(snakemake.output.summary),
        series=Path(snakemake.output.series),
    )

"""Write the ledger of an experiment."""

from pocketvlm.analyse.ledger import write_ledger
from pocketvlm.stage import stage

with stage(snakemake):
    write_ledger(
        cells=snakemake.input.cells,
        summary=snakemake.input.summary,
        runs=snakemake.input.runs,
        bounds=snakemake.input.bounds,
        peaks=snakemake.input.peaks,
        paper=snakemake.input.get("paper") or None,
        shapes=snakemake.params.shapes,
        bootstrap=snakemake.params.bootstrap,
        tolerance_percent=snakemake.params.tolerance_percent,
        destination=snakemake.output.ledger,
    )

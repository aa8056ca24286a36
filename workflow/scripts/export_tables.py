"""Write the headline numbers as tables for a manuscript."""

from pathlib import Path

from pocketvlm.analyse.headline import export_tables
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    received = snakemake.input.origin
    export_tables(
        Path(snakemake.input.summary),
        Path(snakemake.input.cells),
        snakemake.params.confidence,
        [Path(path) for path in snakemake.output],
        read_json(received[0]) if received else None,
    )

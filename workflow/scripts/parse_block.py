"""Parse the runs of a block."""

from pathlib import Path

from pocketvlm.analyse.parse import parse_block
from pocketvlm.stage import stage

with stage(snakemake):
    parse_block(
        snakemake.input.index,
        snakemake.params.raw,
        snakemake.input.identity,
        snakemake.input.cells,
        Path(snakemake.output.phases).parent,
    )

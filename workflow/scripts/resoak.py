"""Soak every device anew."""

from pathlib import Path

from pocketvlm.measure.soak import measure_soak
from pocketvlm.stage import stage

with stage(snakemake):
    for index, block in snakemake.params.blocks.items():
        measure_soak(block, snakemake.params.soak, results=Path("results"), index=Path(index), again=True)

"""Measure every run of every device anew."""

from pathlib import Path

from pocketvlm.measure.block import measure
from pocketvlm.stage import stage

with stage(snakemake):
    for index, block in snakemake.params.blocks.items():
        measure(block, results=Path("results"), index=Path(index), again=True)

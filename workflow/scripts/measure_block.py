"""Measure on one device what the raw store lacks."""

from pathlib import Path

from pocketvlm.measure.block import measure
from pocketvlm.stage import stage

with stage(snakemake):
    measure(snakemake.params.block, results=Path("results"), index=Path(snakemake.output.index))

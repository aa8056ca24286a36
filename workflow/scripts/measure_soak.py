"""Soak one device with its cells, except where the raw store has it."""

from pathlib import Path

from pocketvlm.measure.soak import measure_soak
from pocketvlm.stage import stage

with stage(snakemake):
    measure_soak(
        snakemake.params.block,
        snakemake.params.soak,
        results=Path("results"),
        index=Path(snakemake.output.index),
    )

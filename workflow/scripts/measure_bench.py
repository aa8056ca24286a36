"""Run one device's cells and the benchmark in turn, except where the raw store has enough rounds."""

from pathlib import Path

from pocketvlm.measure.bench import measure_bench
from pocketvlm.stage import stage

with stage(snakemake):
    measure_bench(
        snakemake.params.block,
        snakemake.params.bench,
        results=Path("results"),
        index=Path(snakemake.output.index),
    )

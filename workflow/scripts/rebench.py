"""Run every device's cells and the benchmark in turn anew."""

from pathlib import Path

from pocketvlm.measure.bench import measure_bench
from pocketvlm.stage import stage

with stage(snakemake):
    for index, one in snakemake.params.blocks.items():
        measure_bench(one["block"], one["bench"], results=Path("results"), index=Path(index), again=True)

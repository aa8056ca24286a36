"""Write how long a battery lasts with what was measured."""

from pocketvlm.analyse import battery_life
from pocketvlm.stage import stage

with stage(snakemake):
    rows = battery_life.measured(
        snakemake.input.cells, snakemake.input.summary, **snakemake.params.battery_life
    )
    battery_life.write(snakemake.output.hours, rows)

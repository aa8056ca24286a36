"""Write how long a battery lasts with what a paper published."""

from pocketvlm.analyse import battery_life
from pocketvlm.config.paper import load_paper
from pocketvlm.stage import stage

with stage(snakemake) as log:
    rows = battery_life.published(load_paper(snakemake.input.paper), snakemake.params.voltage_v)
    battery_life.write(snakemake.output.hours, rows)
    for row in rows:
        log.info("%s: %s%s", row.stack, row.verdict, f", {row.reason}" if row.reason else "")

"""Say whether observed decode rates are the benchmark's; beyond the tolerance it is an error."""

from pocketvlm.analyse.bench import check
from pocketvlm.stage import stage

with stage(snakemake) as log:
    for sentence in check(snakemake.input.table):
        log.info("%s", sentence)

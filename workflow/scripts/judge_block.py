"""Judge the metrics of a block."""

from pocketvlm.analyse.gates import judge_file
from pocketvlm.stage import stage

with stage(snakemake):
    judge_file(
        snakemake.input.metrics,
        snakemake.params.gates,
        snakemake.output.judged,
        bounds=snakemake.input.bounds,
        block=snakemake.input.index,
    )

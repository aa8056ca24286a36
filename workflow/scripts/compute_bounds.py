"""Compute the physical bounds of a device's cells."""

from pocketvlm.analyse.bounds import compute_bounds
from pocketvlm.stage import stage

with stage(snakemake):
    compute_bounds(
        cells=snakemake.input.cells,
        device=snakemake.wildcards.device,
        metrics=snakemake.input.metrics,
        block=snakemake.input.index,
        peaks=snakemake.input.peaks,
        made_of=snakemake.params.made_of,
        margin_percent=snakemake.params.margin_percent,
        destination=snakemake.output.bounds,
    )

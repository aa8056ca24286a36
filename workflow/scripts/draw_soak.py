"""Draw a soak over time."""

from pathlib import Path

from pocketvlm.analyse.figures.soak import draw_soak
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    draw_soak(
        Path(snakemake.input.runs),
        Path(snakemake.input.summary),
        Path(snakemake.input.series),
        read_json(snakemake.input.cells)["cells"],
        snakemake.params.soak,
        [Path(path) for path in snakemake.output],
    )

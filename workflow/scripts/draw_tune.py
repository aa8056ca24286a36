"""Draw a search for settings."""

from pathlib import Path

from pocketvlm.analyse.figures.tune import draw_tune
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    draw_tune(
        Path(snakemake.input.candidates),
        Path(snakemake.input.rungs),
        Path(snakemake.input.chosen),
        read_json(snakemake.input.cells)["cells"],
        snakemake.params.objective,
        [Path(path) for path in snakemake.output],
    )

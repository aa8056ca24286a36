"""Search anew on one device."""

from pathlib import Path

from pocketvlm.config.tuning import of_plain
from pocketvlm.measure.tune import measure_tune
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    measure_tune(
        snakemake.params.block,
        of_plain(snakemake.params.tuning),
        read_json(snakemake.input.space),
        snakemake.params.weights,
        snakemake.params.gates,
        results=Path("results"),
        index=Path(snakemake.params.index),
        again=True,
    )

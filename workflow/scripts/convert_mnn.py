"""Convert a model to MNN's format at one quantisation."""

from pathlib import Path

from pocketvlm.stage import stage
from pocketvlm.weights.description import checked_sha256
from pocketvlm.weights.mnn.convert import convert

with stage(snakemake):
    model, tower = (Path(snakemake.input.weights[number]) for number in (0, 1))
    for source in (model, tower):
        checked_sha256(source)
    convert(
        model,
        tower,
        Path(snakemake.input.bundle) / "lib",
        Path(snakemake.output.weights),
        snakemake.wildcards.quantisation,
        Path(snakemake.output.record),
    )

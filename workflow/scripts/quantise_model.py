"""Quantise a model."""

from pathlib import Path

from pocketvlm.provision import cache
from pocketvlm.stage import stage
from pocketvlm.weights.quantise import quantise

with stage(snakemake):
    destination = Path(snakemake.output[0])
    quantise(
        Path(snakemake.input.bundle) / snakemake.params.quantiser["program"],
        Path(snakemake.input.weights),
        destination,
        snakemake.wildcards.quantisation,
        snakemake.threads,
    )
    cache.register(destination)

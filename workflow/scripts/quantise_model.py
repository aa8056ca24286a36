"""Quantise a model."""

from pathlib import Path

from pocketvlm.provision import cache
from pocketvlm.stage import stage
from pocketvlm.weights.description import checked_sha256, write_record
from pocketvlm.weights.quantise import quantise

with stage(snakemake):
    source, destination = Path(snakemake.input.weights[0]), Path(snakemake.output[0])
    checked_sha256(source)
    quantise(
        Path(snakemake.input.bundle) / snakemake.params.quantiser["program"],
        source,
        destination,
        snakemake.wildcards.quantisation,
        snakemake.threads,
    )
    write_record(destination)
    for path in snakemake.output:
        cache.register(Path(path))

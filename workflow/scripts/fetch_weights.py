"""Download a file of a model of the hub."""

from pathlib import Path

from pocketvlm.provision import cache
from pocketvlm.stage import stage
from pocketvlm.weights.download import fetch

with stage(snakemake):
    fetch(snakemake.params.pin, Path(snakemake.output[0]))
    for path in snakemake.output:
        cache.register(Path(path))

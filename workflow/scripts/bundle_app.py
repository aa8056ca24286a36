"""Gather the bundle of an app."""

from pathlib import Path

from pocketvlm.build.app import bundle_app
from pocketvlm.stage import stage

with stage(snakemake):
    destination = Path(snakemake.output[0])
    bundle_app(
        snakemake.params.app,
        name=destination.name,
        version=snakemake.wildcards.version,
        target=snakemake.wildcards.target,
        destination=destination,
    )

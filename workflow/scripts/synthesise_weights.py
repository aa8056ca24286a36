"""Write one file of synthetic weights."""

from pathlib import Path

from pocketvlm.provision import outputs
from pocketvlm.stage import stage
from pocketvlm.weights.synthetic import preset_from_config, write

with stage(snakemake) as log:
    destination = Path(snakemake.output[0])
    write(
        preset_from_config(snakemake.wildcards.model, snakemake.params.preset),
        snakemake.wildcards.role,
        destination,
    )
    log.info("%.0f MB", destination.stat().st_size / 1e6)
    outputs.register(destination)

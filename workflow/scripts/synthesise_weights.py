"""Write one file of synthetic weights."""

from pathlib import Path

from pocketvlm.provenance import check_sha256
from pocketvlm.provision import cache
from pocketvlm.stage import stage
from pocketvlm.weights.description import write_record
from pocketvlm.weights.synthetic import preset_from_config, write

with stage(snakemake) as log:
    destination = Path(snakemake.output[0])
    write(
        preset_from_config(snakemake.wildcards.model, snakemake.params.preset),
        snakemake.wildcards.role,
        destination,
    )
    check_sha256(
        destination,
        snakemake.params.sha256,
        do="If the preset was changed on purpose, pin the new hash in config/models.yaml",
    )
    log.info("%.0f MB", destination.stat().st_size / 1e6)
    write_record(destination)
    for path in snakemake.output:
        cache.register(Path(path))

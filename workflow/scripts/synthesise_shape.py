"""Write one file of a shape's weights."""

import time
from pathlib import Path

from pocketvlm.errors import IntegrityError
from pocketvlm.provision import cache
from pocketvlm.stage import stage
from pocketvlm.weights import shapes
from pocketvlm.weights.description import write_record

# Between two lines of progress.
_PATIENCE_S = 5.0

with stage(snakemake) as log:
    destination = Path(snakemake.output[0])
    shape = shapes.shape_from_config(snakemake.wildcards.model, snakemake.params.shape)
    said = started = time.monotonic()

    def progress(done: int, total: int) -> None:
        """Say now and then how much is written."""
        global said
        if time.monotonic() - said > _PATIENCE_S:
            said = time.monotonic()
            log.info("%.1f of %.1f GB written", done / 1e9, total / 1e9)

    shapes.write(shape, snakemake.params.part, destination, progress)
    log.info("%.2f GB in %.0f s", destination.stat().st_size / 1e9, time.monotonic() - started)
    record = write_record(destination)
    if record["sha256"] != snakemake.params.sha256:
        raise IntegrityError(
            f"{destination.name} has sha256 {record['sha256']}, expected {snakemake.params.sha256}",
            where=str(destination),
            do="If the shape was changed on purpose, pin the new hash in config/models.yaml",
        )
    for path in snakemake.output:
        cache.register(Path(path))

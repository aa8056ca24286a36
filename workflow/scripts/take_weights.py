"""Take weights that a user has in another framework's format."""

from pathlib import Path

from pocketvlm.stage import stage
from pocketvlm.weights.formats import take_weights

with stage(snakemake) as log:
    given = snakemake.params.given
    take_weights(
        Path(given["path"]),
        given["sha256"],
        weights_format=snakemake.wildcards.weights_format,
        destination=Path(snakemake.output.weights),
        record=Path(snakemake.output.record),
    )
    log.info("%s, sha256 %s", given["path"], given["sha256"])

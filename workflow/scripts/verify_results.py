"""Recompute hashes and tables from the raw runs, and say what differs."""

from pathlib import Path

from pocketvlm.analyse.soak.verify import verify_soak
from pocketvlm.analyse.verify import verify
from pocketvlm.errors import IntegrityError
from pocketvlm.stage import stage

with stage(snakemake) as log:
    differences = verify(
        snakemake.params.experiment,
        Path(snakemake.input.cells).parents[1],
        snakemake.input.cells,
        thresholds=snakemake.params.gates,
        bootstrap=snakemake.params.bootstrap,
        bounds=snakemake.params.bounds,
        ledger={**snakemake.params.ledger, "paper": snakemake.input.get("paper") or None},
        devices=snakemake.params.devices,
    )
    if snakemake.input.soak:
        differences += verify_soak(
            snakemake.params.experiment,
            Path(snakemake.input.cells).parents[1],
            snakemake.input.cells,
            snakemake.input.identities,
            devices=snakemake.params.devices,
            soak=snakemake.params.soak,
            thresholds=snakemake.params.gates,
            bootstrap=snakemake.params.bootstrap,
        )
    for difference in differences:
        log.warning("%s: %s", difference.path, difference.what)
    if differences:
        raise IntegrityError(
            f"{len(differences)} files of {snakemake.params.experiment} are not what the raw runs give",
            where=differences[0].path,
            do="Restore the raw runs, or remove the derived files so that they are made again",
        )
    log.info("every hash, record and table of %s is what its raw runs give", snakemake.params.experiment)

"""Say what is there of each framework, what is missing and what to do."""

from pathlib import Path

from pocketvlm.provision.check import check_frameworks
from pocketvlm.stage import LONG, RESULTS, clean, stage

with stage(snakemake):
    params = snakemake.params
    for line in check_frameworks(
        params.frameworks,
        params.models,
        params.toolchains,
        targets=params.targets,
        driver_targets=params.driver_targets,
        models_folder=Path(params.models_folder),
        results=Path(RESULTS),
    ):
        print(clean(line, LONG, lines=True), flush=True)

"""Fetch a framework's wheel and unpack it beside the program that calls it."""

from pathlib import Path

from pocketvlm.build.wheel import build_wheel
from pocketvlm.provision import cache
from pocketvlm.stage import stage

with stage(snakemake) as log:
    destination = Path(snakemake.output[0])
    build_wheel(
        snakemake.params.wheel,
        programs=[Path(path) for path in snakemake.input.programs],
        target=snakemake.wildcards.target,
        destination=destination,
        required=snakemake.params.required,
    )
    cache.register(destination)
    log.info("%s, sha256 %s", snakemake.params.wheel["file"], snakemake.params.wheel["sha256"])

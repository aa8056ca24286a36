"""Compile the probe for a target."""

from pathlib import Path

from pocketvlm.build.program import build_program
from pocketvlm.build.toolchains import resolve
from pocketvlm.provision import cache
from pocketvlm.stage import stage

with stage(snakemake):
    destination = Path(snakemake.output[0])
    build_program(
        "probe",
        sources=[Path(path) for path in snakemake.input.sources],
        toolchain=resolve(snakemake.params.toolchains, snakemake.wildcards.target),
        destination=destination,
        build_log=Path(snakemake.log[0]).with_suffix(".compiler.log"),
    )
    cache.register(destination)

"""Compile a framework for a target."""

from pathlib import Path

from pocketvlm.build.framework import build_framework
from pocketvlm.build.toolchains import resolve
from pocketvlm.provision import outputs
from pocketvlm.stage import stage

with stage(snakemake):
    names = snakemake.wildcards
    framework = snakemake.params.framework
    destination = Path(snakemake.output[0])
    build_framework(
        archive=Path(snakemake.input.source),
        source=framework["versions"][names.version]["source"],
        recipe=framework["build"],
        backend=framework["backends"][names.backend],
        toolchain=resolve(snakemake.params.toolchains, names.target),
        destination=destination,
        jobs=snakemake.threads,
        build_log=Path(snakemake.log[0]).with_suffix(".compiler.log"),
    )
    outputs.register(destination)

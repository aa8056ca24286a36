"""Compile a framework's own benchmark for a target."""

from functools import partial
from pathlib import Path

from pocketvlm.build.framework import build_framework
from pocketvlm.build.toolchains import resolve
from pocketvlm.provision import cache
from pocketvlm.stage import stage

with stage(snakemake):
    host = snakemake.params.backend.get("host")
    destination = Path(snakemake.output[0])
    build_framework(
        archive=Path(snakemake.input.source),
        source=snakemake.params.source,
        recipe=snakemake.params.recipe,
        backend=snakemake.params.backend,
        toolchain=resolve(snakemake.params.toolchains, snakemake.wildcards.target),
        destination=destination,
        jobs=snakemake.threads,
        build_log=Path(snakemake.log[0]).with_suffix(".compiler.log"),
        backend_name=snakemake.wildcards.backend,
        host=partial(resolve, host["toolchains"], host["target"]) if host else None,
    )
    cache.register(destination)

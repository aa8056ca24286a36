"""Compile a framework, or its own benchmark, for a target, or make a bundle of binaries that a user gives."""

from functools import partial
from pathlib import Path

from pocketvlm.build.framework import build_framework
from pocketvlm.build.toolchains import resolve
from pocketvlm.provision import cache
from pocketvlm.provision.prebuilt import take_prebuilt
from pocketvlm.provision.sources import PREBUILT
from pocketvlm.stage import stage

with stage(snakemake):
    params, target = snakemake.params, snakemake.wildcards.target
    host = params.backend.get("host")
    destination = Path(snakemake.output[0])
    if params.source.get("kind") == PREBUILT:
        take_prebuilt(
            origin=Path(params.here["path"]),
            source=params.source,
            target=target,
            destination=destination,
            required=params.required,
            collect=params.recipe.get("collect"),
            libraries=params.backend.get("requires", {}).get("libraries", ()),
        )
    else:
        build_framework(
            origin=Path(params.here["path"] or snakemake.input.source),
            source=params.source,
            recipe=params.recipe,
            backend=params.backend,
            toolchain=resolve(params.toolchains, target),
            destination=destination,
            jobs=snakemake.threads,
            build_log=Path(snakemake.log[0]).with_suffix(".compiler.log"),
            required=params.required,
            backend_name=snakemake.wildcards.backend,
            host=partial(resolve, host["toolchains"], host["target"]) if host else None,
        )
    cache.register(destination)

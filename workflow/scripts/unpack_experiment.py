"""Unpack an experiment that somebody else packed."""

from pocketvlm.errors import ConfigError
from pocketvlm.share.unpack import look_into, unpack
from pocketvlm.stage import stage

with stage(snakemake):
    if "archive" not in snakemake.config:
        raise ConfigError(
            "no archive is named",
            where="--config",
            do="Say which: snakemake --cores 4 unpack --config archive=PATH",
        )
    unpack(look_into(str(snakemake.config["archive"]), snakemake.config))

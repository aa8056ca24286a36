"""Take everything of pocketvlm off the devices."""

from pathlib import Path

from pocketvlm.measure.clean import clean
from pocketvlm.stage import stage

with stage(snakemake):
    clean(snakemake.params.devices, Path("results"))

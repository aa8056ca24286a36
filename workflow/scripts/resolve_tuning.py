"""List what a search for settings may try on a device."""

from pathlib import Path

from pocketvlm.analyse.tune.plan import resolve
from pocketvlm.config.tuning import of_plain
from pocketvlm.devices.topology import read_topology
from pocketvlm.measure.block import hold
from pocketvlm.provenance import read_json, write_json
from pocketvlm.stage import stage

with stage(snakemake):
    identity = read_json(snakemake.input.identity)
    with hold(snakemake.params.device, Path("results")) as device:
        topology = read_topology(device, identity["cpus"])
    write_json(snakemake.output.space, resolve(of_plain(snakemake.params.tuning), topology))

"""Ask a device what it is."""

from pathlib import Path

from pocketvlm.devices.identify import identify
from pocketvlm.measure.block import hold
from pocketvlm.provenance import write_json
from pocketvlm.stage import stage

with stage(snakemake) as log:
    config = snakemake.params.device
    with hold(config, Path("results")) as device:
        identity = identify(device, config)
    write_json(snakemake.output.identity, identity)
    log.info("%d sensors, %d missing", len(identity["sensors"]), len(identity["missing"]))

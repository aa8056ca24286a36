"""Ask a device what it is, and find out by experiment what its battery's current means."""

from pathlib import Path

from pocketvlm.devices.identify import calibration_of, identify
from pocketvlm.measure.block import hold
from pocketvlm.provenance import write_json
from pocketvlm.stage import stage

with stage(snakemake) as log:
    config = snakemake.params.device
    with hold(config, Path("results")) as device:
        calibration = calibration_of(device, config)
        identity = identify(device, config, calibration)
    write_json(snakemake.output.calibration, calibration)
    write_json(snakemake.output.identity, identity)
    if calibration["findings"] and calibration["current_scale"] is None:
        log.warning("the battery's current is uncalibrated, so power is NA: %s", calibration["reason"])
    log.info("%d sensors, %d missing", len(identity["sensors"]), len(identity["missing"]))

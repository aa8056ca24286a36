"""Look at a device closely: what it is, and what each sensor really tells, and how often."""

from pathlib import Path

from pocketvlm.inspection.page import render
from pocketvlm.inspection.profile import inspect
from pocketvlm.measure.block import hold
from pocketvlm.provenance import read_json, write_json
from pocketvlm.stage import stage

with stage(snakemake) as log:
    given = snakemake.input
    with hold(snakemake.params.device, Path("results")) as device:
        profile = inspect(
            device,
            snakemake.params.device,
            identity=read_json(given.identity),
            calibration=read_json(given.calibration),
            probe=Path(given.probe),
        )
    write_json(snakemake.output.profile, profile)
    render(profile, templates=Path("workflow/report"), destination=Path(snakemake.output.page))
    log.info("inspected in %.1f s: %s", profile["inspection"]["seconds"], snakemake.output.page)

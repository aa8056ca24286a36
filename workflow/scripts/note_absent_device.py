"""Note that a device could not be asked what it is, and why."""

from pocketvlm.measure.absence import absent_record
from pocketvlm.provenance import write_json
from pocketvlm.stage import stage

with stage(snakemake) as log:
    record = absent_record(snakemake.params.device, snakemake.params.reason)
    write_json(snakemake.output.record, record)
    log.info("%s: %s", record["id"], record["absent"])

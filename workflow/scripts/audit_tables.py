"""Hold an experiment's own tables to the formulas of the audit; a contradiction is an error."""

from pocketvlm.analyse.audit import own, row
from pocketvlm.stage import stage

with stage(snakemake) as log:
    given, devices = snakemake.input, snakemake.params.devices
    rows = own.audit_tables(
        given.cells,
        given.runs,
        given.summary,
        given.battery_life,
        records={
            device: {"phases": phases, "samples": samples, "answers": answers}
            for device, phases, samples, answers in zip(
                devices, given.phases, given.samples, given.answers, strict=True
            )
        },
        identities_of=dict(zip(devices, given.identities, strict=True)),
    )
    log.info("%d checks: %s", len(rows), own.verdicts(rows))
    own.refuse(rows, given.runs)
    row.write(snakemake.output.audit, rows)

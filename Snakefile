# The workflow's entry: what is needed, which experiment, which targets. Stages are in workflow/rules, one a file.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/files.smk"


# What fetches, builds and measures; an archive that somebody sent needs nothing of it.
if RECEIVED is None:

    include: "workflow/rules/catalogue.smk"
    include: "workflow/rules/fetch.smk"
    include: "workflow/rules/build.smk"
    include: "workflow/rules/apps.smk"
    include: "workflow/rules/quantise.smk"
    include: "workflow/rules/convert.smk"
    include: "workflow/rules/device.smk"
    include: "workflow/rules/measure.smk"
    include: "workflow/rules/peaks.smk"
    include: "workflow/rules/share.smk"

else:

    include: "workflow/rules/received.smk"


include: "workflow/rules/parse.smk"
include: "workflow/rules/judge.smk"


# Its tables follow from parsing and judging, its runs from a device: an archive has none of them.
if RECEIVED is None:

    include: "workflow/rules/soak.smk"
    include: "workflow/rules/bench.smk"
    include: "workflow/rules/tune.smk"


include: "workflow/rules/aggregate.smk"
include: "workflow/rules/ledger.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/paper.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/report.smk"


rule all:
    """Everything of the experiment: tables, figures and the report."""
    default_target: True
    input:
        tables("runs.parquet", "cells.csv"),
        ledger_files(),
        figures(),
        paper_files(),
        audit_files(),
        export_files(),
        soak_files(),
        report_page(),


onstart:
    begin()


onerror:
    finish()

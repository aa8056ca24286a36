"""Compare the table made here with the sender's."""

from pathlib import Path

from pocketvlm.analyse.report.origin import read_origin
from pocketvlm.provenance import read_json, write_json
from pocketvlm.share.compare import compare
from pocketvlm.stage import stage

with stage(snakemake):
    comparison = compare(
        Path(snakemake.input.sent),
        Path(snakemake.input.table),
        sender=read_json(snakemake.input.origin),
        here=read_origin(Path.cwd()),
    )
    write_json(snakemake.output.comparison, comparison)

"""Write the resolved experiment as plain values."""

from pocketvlm.provenance import write_json
from pocketvlm.stage import stage

with stage(snakemake):
    write_json(snakemake.output.cells, dict(snakemake.params.records))

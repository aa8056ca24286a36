"""Write the measured runs of a block as traces."""

from pathlib import Path

from pocketvlm.analyse.trace import write_traces
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    received = snakemake.input.origin
    write_traces(
        Path(snakemake.input.index),
        Path(snakemake.params.raw),
        Path(snakemake.input.phases),
        Path(snakemake.input.samples),
        Path(snakemake.input.cells),
        Path(snakemake.output.traces),
        origin=read_json(received[0]) if received else None,
    )

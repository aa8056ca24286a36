"""Write the tables of a search and what it chose."""

from pathlib import Path

from pocketvlm.analyse.tune.plan import plan_of
from pocketvlm.analyse.tune.tables import tabulate
from pocketvlm.config.space import Space
from pocketvlm.config.tuning import of_plain
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    tuning = of_plain(snakemake.params.tuning)
    tabulate(
        Path(snakemake.input.index),
        plan_of(tuning, Space.of(read_json(snakemake.input.space))),
        adapter=tuning.adapter,
        identity=Path(snakemake.input.identity),
        cells=Path(snakemake.input.cells),
        raw_root=Path(snakemake.params.raw),
        gates=snakemake.params.gates,
        destinations={name: Path(path) for name, path in snakemake.output.items()},
    )

"""Draw one of the paper's figures with this experiment's runs beside the published values."""

from pathlib import Path

import pandas as pd

from pocketvlm.analyse.figures.paper import draw_paper_figure
from pocketvlm.analyse.paper.ours import Results
from pocketvlm.config.paper import load_paper, of_experiment
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    given, params = snakemake.input, snakemake.params
    draw_paper_figure(
        int(snakemake.wildcards.number),
        load_paper(of_experiment(given.paper, params.experiment)),
        read_json(given.cells)["cells"],
        Results(pd.read_csv(given.summary), pd.read_parquet(given.runs), params.bootstrap),
        {device: Path(path).parent for device, path in zip(params.devices, given.samples, strict=True)},
        {device: Path(path) for device, path in zip(params.devices, given.identities, strict=True)},
        [Path(path) for path in snakemake.output],
    )

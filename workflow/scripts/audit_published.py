"""Compute a paper's values against each other."""

from pocketvlm.analyse.audit import own, published
from pocketvlm.config.paper import load_paper
from pocketvlm.frameworks import grammar
from pocketvlm.stage import stage

with stage(snakemake) as log:
    rows = published.write_audit(
        load_paper(snakemake.input.paper),
        {name: grammar(adapter).ACCOUNTING for name, adapter in snakemake.params.adapters.items()},
        snakemake.output.audit,
    )
    log.info("%d checks of %s: %s", len(rows), snakemake.input.paper, own.verdicts(rows))

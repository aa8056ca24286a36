"""Write what the hub says of its models into the lock."""

from pathlib import Path

from pocketvlm.stage import stage
from pocketvlm.weights.hub_access import Patience, ask
from pocketvlm.weights.lock import update_lock

with stage(snakemake):
    patience = Patience()
    update_lock(
        Path(snakemake.params.lock),
        snakemake.params.models,
        snakemake.params.names,
        lambda name, entry: ask(name, entry, patience),
    )

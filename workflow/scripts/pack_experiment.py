"""Pack an experiment."""

from pathlib import Path

from pocketvlm.analyse.report.origin import read_origin
from pocketvlm.share.pack import pack
from pocketvlm.stage import stage

with stage(snakemake):
    pack(
        root=Path(snakemake.input.cells).parents[1],
        experiment=snakemake.params.experiment,
        config=dict(snakemake.params.config),
        images={name: Path(path) for name, path in snakemake.params.images.items()},
        identities=[Path(path) for path in snakemake.input.identities],
        bundles=[Path(path) for path in snakemake.input.bundles],
        weights=[Path(path) for path in snakemake.input.weights],
        table=Path(snakemake.input.table),
        origin=read_origin(Path.cwd()),
        destination=Path(snakemake.output.archive),
    )

"""Render the report of an experiment."""

from pathlib import Path

from pocketvlm.analyse.report.extras import Extras
from pocketvlm.analyse.report.origin import read_origin
from pocketvlm.analyse.report.page import render
from pocketvlm.stage import stage

with stage(snakemake):
    given = snakemake.input
    render(
        templates=Path("workflow/report"),
        cells=Path(given.cells),
        summary=Path(given.summary),
        runs=Path(given.runs),
        blocks=[Path(path) for path in given.indexes],
        answers=[Path(path) for path in given.answers],
        identities=[Path(path) for path in given.identities],
        manifests=sorted({Path(path) / "manifest.json" for path in given.bundles}),
        figures=Path(given.figures[0]).parent,
        raw_store=Path(snakemake.params.raw),
        rulegraph=Path(given.graph).read_text(),
        origin=read_origin(Path.cwd()),
        destination=Path(snakemake.output.page),
        on_device=snakemake.params.on_device,
        # A record's folder is named by its device.
        records={Path(path).parent.name: Path(path).parent for path in given.samples},
        images=[Path(path) for path in given.images],
        extras=Extras.of({name: given.get(name, []) for name in Extras.names()}),
    )

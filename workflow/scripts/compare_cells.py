"""Compare two sides of an experiment and write what was found."""

from pathlib import Path

from pocketvlm.analyse.compare.tables import compare, heading
from pocketvlm.analyse.figures.compare import draw_comparison
from pocketvlm.provenance import read_json
from pocketvlm.stage import stage

with stage(snakemake):
    given, comparison = snakemake.input, snakemake.params.comparison
    compare(
        comparison,
        runs=given.runs,
        blocks=given.indexes,
        answers=given.answers,
        cells=given.cells,
        confidence=snakemake.params.confidence,
        folder=Path(snakemake.output.comparison).parent,
    )
    findings = read_json(snakemake.output.findings)
    draw_comparison(
        Path(snakemake.output.comparison),
        findings,
        heading(comparison, ()),
        [Path(path) for path in snakemake.output.figure],
    )

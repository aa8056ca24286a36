"""Render the report: one HTML file that loads nothing and runs only its own few lines of script."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import pandas as pd
from markupsafe import Markup

from pocketvlm.analyse import dag
from pocketvlm.analyse.figures import labels, palette, reasons
from pocketvlm.analyse.report import data, gaps, numbers, raw
from pocketvlm.analyse.report.inline import inline_svg
from pocketvlm.analyse.report.origin import Origin
from pocketvlm.errors import IntegrityError, PocketvlmError
from pocketvlm.provenance import atomic_file, read_json

INLINE_BYTES = 2_500_000
"""Figures stand in the page up to so many bytes in all; those beyond are linked: a page stays below 5 MB."""


class _Figures:
    """Figures of the folder as the template asks for them, within the page's budget."""

    def __init__(self, folder: Path, page: Path, captions: Path) -> None:
        self.folder, self.page, self.captions = folder, page, captions
        self.left = INLINE_BYTES
        self.count = 0

    def caption(self, kind: str) -> str:
        return " ".join((self.captions / f"{kind}.rst").read_text(encoding="utf-8").split())

    def link(self, name: str, suffix: str) -> str:
        return quote(
            os.path.relpath((self.folder / f"{name}.{suffix}").resolve(), self.page.resolve().parent)
        )

    def svg(self, name: str) -> Markup | None:
        """Return the figure's SVG, or None when the budget is spent and only a link is left."""
        path = self.folder / f"{name}.svg"
        if not path.is_file():
            raise IntegrityError(
                f"The figure {path.name} is not there", where=str(path), do="Draw the figures first"
            )
        self.count += 1
        drawn = inline_svg(path, f"f{self.count}")
        if len(drawn) > self.left:
            return None
        self.left -= len(drawn)
        return drawn


def _describe_device(identity: Mapping[str, Any]) -> dict[str, Any]:
    periods = {name: group["period_ms"] for name, group in identity["groups"].items()}
    sensors = [{**sensor, "period_ms": periods.get(sensor["group"])} for sensor in identity["sensors"]]
    return {**identity, "sensors": sensors, "missing": reasons.missing(identity)}


def _workloads(runs: Mapping[str, raw.Run]) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for run in runs.values():
        if run.workload:
            found.setdefault(str(run.workload.get("id", "")), run.workload)
    return [found[name] for name in sorted(found)]


def script_hash(script: str) -> str:
    """Return the hash-source of a Content-Security-Policy (CSP level 3) that allows this script only."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def _environment(templates: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = numbers.size
    environment.filters["slug"] = numbers.slug
    return environment


def render(
    *,
    templates: Path,
    cells: Path,
    summary: Path,
    runs: Path,
    blocks: Sequence[Path],
    answers: Sequence[Path],
    identities: Sequence[Path],
    manifests: Sequence[Path],
    figures: Path,
    raw_store: Path,
    rulegraph: str,
    origin: Origin,
    destination: Path,
    on_device: Collection[str] = (),
) -> None:
    """Write the report of an experiment.

    Args:
        templates: the folder `workflow/report`: `index.html.j2`, `report.css`, `report.js`, `captions/`.
        cells: `cells.json`.
        summary: `tables/cells.csv`.
        runs: `tables/runs.parquet`.
        blocks: `blocks/<device>.json` of each device.
        answers: `records/<device>/answers.parquet` of each device.
        identities: `identity.json` of each device.
        manifests: `manifest.json` of each bundle that was run, the probe's included.
        figures: the folder with `phases.svg`, `throughput.svg`, `energy.svg` and `timeline-<cell>.svg`.
        raw_store: `results/raw`, which the page links to.
        rulegraph: what `snakemake --rulegraph dot` (or `mermaid-js`) printed.
        origin: commit and versions, from `read_origin`.
        destination: the page; links are relative to its folder.
        on_device: rules to mark in the rule graph because they touch a device.

    Raises:
        IntegrityError: a run or a figure is missing or not what its index says.
        PocketvlmError: the experiment has no cells, or the rule graph cannot be read.
    """
    study = read_json(cells)
    if not study["cells"]:
        raise PocketvlmError(
            "The experiment has no cells", where=str(cells), do="Add a cell to the experiment"
        )
    frame = pd.read_parquet(runs)
    table = pd.read_csv(summary, dtype={"quantisation": str, "version": str, "settings": str, "gate": str})
    listed = raw.read_runs(blocks, raw_store, destination)
    cell_list = data.cell_data(study["cells"], table, frame)
    unknown = {run for one in cell_list for run in one.runs} - set(listed)
    if unknown:
        raise IntegrityError(
            f"{len(unknown)} runs of the tables are in no block, {min(unknown)} first",
            where=str(runs),
            do="Aggregate the tables again from the blocks",
        )
    environment = _environment(templates)
    script = (templates / "report.js").read_text(encoding="utf-8")
    style = (
        (templates / "report.css")
        .read_text(encoding="utf-8")
        .replace("/* phases */", palette.css_variables().replace("\n", " "))
    )
    drawn = _Figures(figures, destination, templates / "captions")
    started = sorted(run.started for name, run in listed.items())
    text = environment.get_template("index.html.j2").render(
        experiment=study["experiment"],
        title=study.get("title", study["experiment"]),
        cells=cell_list,
        groups=[
            [one for one in cell_list if one.cell["device"] == d] for d in labels.by_device(study["cells"])
        ],
        shared=labels.shared_text,
        columns=data.COLUMNS,
        tags=labels.tags(study["cells"]),
        meaning=labels.MEANING,
        phase_labels=palette.PHASE_LABELS,
        runs=listed,
        run_id=raw.run_id,
        answers={one.index: raw.read_answers(answers, one.runs) for one in cell_list},
        withheld=gaps.withheld(cell_list, frame),
        withheld_count=gaps.withheld_count(frame),
        absent=gaps.absent(frame),
        devices={one["id"]: one for one in (_describe_device(read_json(path)) for path in identities)},
        manifests=[read_json(path) for path in manifests],
        workloads=_workloads(listed),
        figures=drawn,
        graph=Markup(dag.draw_svg(dag.reduce_edges(dag.parse_rulegraph(rulegraph)), on_device=on_device)),
        on_device=sorted(on_device),
        origin=origin,
        first=started[0] if started else "",
        last=started[-1] if started else "",
        tables={
            "runs.parquet": quote(os.path.relpath(runs.resolve(), destination.resolve().parent)),
            "cells.csv": quote(os.path.relpath(summary.resolve(), destination.resolve().parent)),
        },
        style=Markup(style),
        script=Markup(script),
        script_hash=Markup(script_hash(script)),
    )
    with atomic_file(destination, "wb") as stream:
        stream.write(text.encode("utf-8", "replace"))

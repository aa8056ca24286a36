"""Render the report: one HTML file that loads nothing and runs only its own few lines of script."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from markupsafe import Markup

from pocketvlm.analyse import dag, numbers, pages
from pocketvlm.analyse.figures import labels, palette, reasons
from pocketvlm.analyse.report import data, gaps, live, method, picture, raw, responsiveness
from pocketvlm.analyse.report.compared import Audit, read_audit, read_battery, read_ledger
from pocketvlm.analyse.report.extras import Extras, link
from pocketvlm.analyse.report.inline import inline_svg
from pocketvlm.analyse.report.origin import Origin
from pocketvlm.analyse.report.sheets import read_sheet
from pocketvlm.analyse.report.soak import read_soak
from pocketvlm.analyse.report.states import wishes
from pocketvlm.errors import IntegrityError, PocketvlmError
from pocketvlm.provenance import atomic_file, read_json

INLINE_BYTES = 2_000_000
"""Figures stand in the page up to so many bytes in all; those beyond are linked: a page stays below 5 MB."""

LONG_ANSWER = 700
"""Characters of an answer beyond which it scrolls in a box of its own."""


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
        return self.inline(self.folder / f"{name}.svg")

    def inline(self, path: Path) -> Markup | None:
        """Return the SVG of a file, or None when the budget is spent and only a link is left."""
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


def _joined(folder: Path, suffix: str) -> str:
    """Return the files of a folder one after the other, by name."""
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob(f"*{suffix}")))


def _lives(
    cells: Sequence[data.CellData],
    runs: pd.DataFrame,
    listed: Mapping[str, raw.Run],
    records: Mapping[str, Path],
    identities: Mapping[str, Mapping[str, Any]],
    raw_store: Path,
) -> dict[str, live.Live]:
    """Return the interactive timelines of the cells that were measured, by the cell's index."""
    whole = runs[(runs["phase"] == "run") & (runs["metric"] == "duration")].dropna(subset="value")
    durations = {str(run): float(value) for run, value in zip(whole["run"], whole["value"], strict=True)}
    short = {name: run.short for name, run in listed.items()}
    measured = [one for one in cells if one.runs]
    found = {}
    for device, folder in records.items():
        mine = [one for one in measured if one.cell["device"] == device]
        if not mine:
            continue
        samples = pd.read_parquet(folder / "samples.parquet")
        phases = pd.read_parquet(folder / "phases.parquet")
        for one in mine:
            drawn = live.live(
                one.cell,
                one.runs,
                durations,
                short,
                samples,
                phases,
                identities[device],
                raw_store,
                allowance=live.LIVE_BYTES // len(measured),
            )
            if drawn is not None:
                found[one.index] = drawn
    return found


def _audit(path: Path | None) -> Audit | None:
    return read_audit(path) if path else None


def _shown(value: Any) -> Any:
    """What the page prints of a value: no text, whoever wrote it, hides a character or turns the line around.

    Titles and prompts too: those of a received archive are another person's.
    """
    if isinstance(value, str) and not isinstance(value, Markup):
        return numbers.visible(value, len(value))[0]
    return value


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
    records: Mapping[str, Path] | None = None,
    images: Sequence[Path] = (),
    extras: Extras | None = None,
) -> None:
    """Write the report of an experiment.

    Args:
        templates: the folder `workflow/report`: `index.html.j2`, `sections/`, `css/`, `js/`, `captions/`.
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
        records: device → folder with `samples.parquet` and `phases.parquet`, for the interactive timelines.
        images: pictures of the workloads.
        extras: tables and figures of other stages; without one of them its section is left out.

    Raises:
        IntegrityError: a run, a figure or a table is missing or not what its index says.
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
    environment = pages.environment(templates, _shown)
    script = _joined(templates / "js", ".js")
    style = _joined(templates / "css", ".css").replace(
        "/* phases */", palette.css_variables().replace("\n", " ")
    )
    known = {str(one["id"]): one for one in map(read_json, identities)}
    more = extras or Extras()
    names = {str(one.cell["cell"]): f"{one.cell['device']}, {one.label}" for one in cell_list}
    cell_tags = {str(one.cell["cell"]): one.tags for one in cell_list}
    workloads = _workloads(listed)
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
        numbers_count=len(frame[["cell", "phase", "metric"]].drop_duplicates()),
        absent=gaps.absent(frame),
        devices={name: _describe_device(one) for name, one in known.items()},
        wishes=wishes((run.device, run.state or {}) for run in listed.values()),
        manifests=[read_json(path) for path in manifests],
        workloads=workloads,
        pictures={str(one.get("id", "")): picture.picture(one, images) for one in workloads},
        long_answer=LONG_ANSWER,
        lives=_lives(cell_list, frame, listed, records or {}, known, raw_store),
        lateness=responsiveness.shown(cell_list, table),
        definitions=method.used(str(metric) for metric in table["metric"].unique()),
        definition=method.definition,
        extras=more,
        link=lambda path: link(path, destination),
        ledger=read_ledger(more.ledger, names, cell_tags) if more.ledger else None,
        self_audit=_audit(more.self_audit),
        audit=_audit(more.audit),
        battery={
            name: read_battery(path, names, cell_tags)
            for name, path in (("ours", more.battery_life), ("paper", more.paper_battery_life))
            if path
        },
        soak=read_soak(more.soak, names, cell_tags) if more.soak else (),
        paper_tables=[read_sheet(path, destination) for path in more.paper_tables],
        figures=drawn,
        graph=Markup(dag.draw_svg(dag.reduce_edges(dag.parse_rulegraph(rulegraph)), on_device=on_device)),
        on_device=sorted(on_device),
        origin=origin,
        received=read_json(more.received) if more.received else None,
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

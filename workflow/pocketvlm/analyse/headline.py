"""The numbers that a reader wants first, of every cell, as tables for a manuscript."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.analyse.figures.labels import AXES, EMULATED, MEANING, SYNTHETIC, tags
from pocketvlm.analyse.manuscript import NA, Entry, Table, estimate, latex, markdown
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file, read_json

ABREAST = 4
"""Cells side by side in one table; more make further tables."""

MS = 0.001
QUANTITIES: tuple[tuple[str, str, str, float] | None, ...] = (
    ("load", "duration", "Load (s)", MS),
    ("text_prefill", "duration", "Text prefill (s)", MS),
    ("image_encode", "duration", "Image encode (s)", MS),
    ("image_prefill", "duration", "Image prefill (s)", MS),
    ("decode", "duration", "Decode (s)", MS),
    ("run", "duration", "Whole run (s)", MS),
    ("run", "time_to_first_token", "Time to first token (s)", MS),
    None,
    ("text_prefill", "tokens_per_second", "Text prefill (tokens/s)", 1.0),
    ("image_prefill", "tokens_per_second", "Image prefill (tokens/s)", 1.0),
    ("decode", "tokens_per_second", "Decode (tokens/s)", 1.0),
    None,
    ("run", "energy", "Energy of a run (J)", 1.0),
    ("decode", "energy_per_token", "Energy of a token, decode (J)", 1.0),
    ("run", "rss_peak", "Peak memory (MiB)", 1.0),
)
"""Phase, metric, what it is called, and what `cells.csv` is multiplied by; None is a rule."""

_NAMES = {
    "device": "Device",
    "framework": "Framework",
    "version": "Version",
    "backend": "Backend",
    "model": "Model",
    "quantisation": "Quantisation",
    "workload": "Workload",
    "settings": "Settings",
}
_ALWAYS = ("device", "model")

Row = Mapping[str, str]


def export_tables(
    summary: Path,
    cells: Path,
    confidence: float,
    destinations: Sequence[Path],
    origin: Mapping[str, Any] | None = None,
) -> None:
    """Write the headline tables, each file in the format of its ending, `.md` or `.tex`.

    Args:
        summary: `cells.csv`.
        cells: `cells.json`.
        confidence: of the intervals, between 0 and 1.
        destinations: the files to write.
        origin: `origin.json` of what was received, None for one's own.
    """
    with summary.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    found = headline(rows, read_json(cells), confidence, origin)
    for path in destinations:
        write = {".md": markdown, ".tex": latex}[path.suffix]
        with atomic_file(path) as stream:
            stream.write("\n".join(write(table) for table in found))


def headline(
    rows: Sequence[Row],
    study: Mapping[str, Any],
    confidence: float,
    origin: Mapping[str, Any] | None = None,
) -> list[Table]:
    """Return the headline tables of an experiment, ABREAST cells in each, a cell a column.

    Args:
        rows: of `cells.csv`.
        study: `cells.json`.
        confidence: of the intervals, between 0 and 1.
        origin: who measured it, None for oneself.

    Raises:
        IntegrityError: a cell has no row of a quantity that every cell must have, be it empty.
    """
    cells: list[Mapping[str, Any]] = study["cells"]
    by_place = {(row["cell"], row["phase"], row["metric"]): row for row in rows}
    lacking = [cell["cell"] for cell in cells if (cell["cell"], "run", "duration") not in by_place]
    if lacking:
        raise IntegrityError(
            f"cells.csv has no row of {lacking[0]}", do="Make the tables again: --forcerun aggregate_tables"
        )
    varying = [
        axis for axis in ("device", *AXES) if axis in _ALWAYS or len({str(cell[axis]) for cell in cells}) > 1
    ]
    groups = [cells[start : start + ABREAST] for start in range(0, len(cells), ABREAST)]
    return [
        Table(
            caption=_caption(study, cells, varying, confidence, number, len(groups)),
            label=f"{study['experiment']}-cells" + (f"-{number}" if len(groups) > 1 else ""),
            columns=["", *(f"({1 + (number - 1) * ABREAST + place})" for place in range(len(group)))],
            rows=[
                *_head(group, varying),
                None,
                *_body(group, by_place),
            ],
            remarks=_remarks(group, origin),
            wide=len(group) > 1,
        )
        for number, group in enumerate(groups, 1)
    ]


def _caption(
    study: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    varying: Sequence[str],
    confidence: float,
    number: int,
    count: int,
) -> str:
    constant = [axis for axis in AXES if axis not in varying and cells[0][axis]]
    same = [f"{_NAMES[axis].lower()} {cells[0][axis]}" for axis in constant]
    shared = f" All cells: {', '.join(same)}." if same else ""
    part = f" Part {number} of {count}." if count > 1 else ""
    repeats = study["repeats"]
    runs = "one run a cell" if repeats == 1 else f"{repeats} runs a cell"
    interval = f"median [{100 * confidence:g} % bootstrap interval of the median]"
    return f"{study['title'].rstrip('.')}: {interval}, {runs}.{shared}{part}"


def _identity(cell: Mapping[str, Any], axis: str) -> Entry:
    """Return what a cell is on an axis; what is no phone's or no real model's says so where it is named."""
    text = str(cell[axis])
    marks = tags([cell])
    if axis == "device" and EMULATED in marks:
        return Entry(f"{text} (emulated)", (MEANING[EMULATED],))
    if axis == "model" and SYNTHETIC in marks:
        return Entry(f"{text} (synthetic)", (MEANING[SYNTHETIC],))
    return Entry(text)


def _head(cells: Sequence[Mapping[str, Any]], varying: Sequence[str]) -> list[Sequence[str | Entry]]:
    return [[_NAMES[axis], *(_identity(cell, axis) for cell in cells)] for axis in varying]


def _body(
    cells: Sequence[Mapping[str, Any]], by_place: Mapping[tuple[str, str, str], Row]
) -> list[Sequence[str | Entry] | None]:
    """Return the rows of quantities; one that no cell of the table has a row for is left out."""
    body: list[Sequence[str | Entry] | None] = []
    ruled = False
    for quantity in QUANTITIES:
        if quantity is None:
            ruled = True
            continue
        phase, metric, name, scale = quantity
        found = [by_place.get((cell["cell"], phase, metric)) for cell in cells]
        if any(row is not None for row in found):
            # A rule stands between two groups that have rows, and nowhere else.
            body += [None] if ruled and body else []
            ruled = False
            body.append([name, *(_value(row, scale) for row in found)])
    return body


def _value(row: Row | None, scale: float) -> Entry:
    if row is None:
        return Entry(NA, ("there is no such quantity of this cell",))
    notes = (row["gate"],) if row["gate"] else ()
    if row["median"] == "":
        return Entry(NA, notes or ("no run gave a value",))
    low, high = (float(row[name]) * scale if row[name] else None for name in ("ci_low", "ci_high"))
    return Entry(estimate(float(row["median"]) * scale, low, high), notes)


def _remarks(cells: Sequence[Mapping[str, Any]], origin: Mapping[str, Any] | None) -> list[str]:
    remarks = ["NA: there is no number, or it is withheld; the note says why. An interval needs three runs."]
    if any(cell["device_kind"] == "emulated" or cell["weights_kind"] == "synthetic" for cell in cells):
        remarks.append("Nothing here reproduces a number published for a phone.")
    if origin is not None:
        commit = origin["commit"] or "unknown"
        remarks.append(f"Measured by others and received as an archive, packed at commit {commit}.")
    return remarks

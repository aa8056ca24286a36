"""What is compared: the ledger of published values and bounds, the audits, hours on a battery."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.analyse.figures.reasons import listing
from pocketvlm.analyse.ledger.table import COLUMNS, VERDICTS
from pocketvlm.analyse.numbers import number, slug
from pocketvlm.analyse.report.extras import check_columns, is_number, quantity_text, read_table

CONTRADICTION = "contradiction"

_PEAK = re.compile(r"; (?=(?:measured|quoted)\b)")


def unit_text(unit: str) -> str:
    """Return a unit as it stands beside a number: nothing for a count."""
    return {"1": "", "degC": "°C"}.get(unit, unit)


def _kind(verdict: str) -> str:
    """Return a verdict as a class of the page's style."""
    return slug(verdict.replace(" ", "-")).replace("_", "-")


def _shared(rows: Sequence[Mapping[str, str]]) -> str:
    """Return the reason that all of several rows give; empty where they differ."""
    told = {row["reason"] for row in rows}
    return told.pop() if len(rows) > 1 and len(told) == 1 else ""


@dataclass(frozen=True)
class LedgerGroup:
    """The ledger's rows of one stack and cell.

    `reason` is that of all rows where they share one; `sources` says where the peaks behind bounds are from.
    """

    stack: str
    cell: str
    label: str
    tags: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    reason: str
    sources: tuple[str, ...]


@dataclass(frozen=True)
class Ledger:
    """The ledger for the page: verdicts counted, rows by stack and cell."""

    counts: tuple[tuple[str, int], ...]
    total: int
    published: bool
    bounded: int
    highest: str
    groups: tuple[LedgerGroup, ...]


_SHOWN = ("paper", "ours", "ratio", "others", "bound")
_PUBLISHED = ("paper", "others")


def read_ledger(path: Path, names: Mapping[str, str], tags: Mapping[str, tuple[str, ...]]) -> Ledger:
    """Return the ledger.

    Args:
        path: `ledger.csv`.
        names: cell → what it is called on the page.
        tags: cell → what must be said with its numbers.

    Raises:
        IntegrityError: the file is not there or lacks a column of docs/formats.md.
    """
    frame = read_table(path)
    check_columns(frame, path, *COLUMNS)
    found = Counter(frame["verdict"].astype(str))
    order = [*VERDICTS, *sorted(set(found) - set(VERDICTS))]
    fractions = [float(text) for text in frame["fraction_of_bound"] if is_number(text)]
    groups = []
    for key, rows in frame.groupby(["stack", "cell"], sort=False):
        stack, cell = str(key[0]), str(key[1])
        shown = []
        sources: dict[str, None] = {}
        for record in rows.to_dict("records"):
            row = {str(name): str(value) for name, value in record.items()}
            fraction = float(row["fraction_of_bound"]) if is_number(row["fraction_of_bound"]) else None
            row["percent"] = "" if fraction is None else number(100 * fraction, 3)
            row["share"] = "" if fraction is None else f"{max(0.0, min(1.0, fraction)):.3f}"
            for name in _SHOWN:
                row[f"{name}_text"] = quantity_text(row[name], exact=name in _PUBLISHED)
            row["kind"] = _kind(row["verdict"])
            row["unit"] = unit_text(row["unit"])
            # What is computed comes first, the device's peak, the same in all rows, after it.
            row["bound_of"], _, peak = _PEAK.sub("\n", row["bound_source"], count=1).partition("\n")
            if peak:
                sources[peak] = None
            shown.append(row)
        groups.append(
            LedgerGroup(
                stack,
                cell,
                names.get(cell, cell),
                tags.get(cell, ()),
                tuple(shown),
                _shared(shown),
                tuple(sources),
            )
        )
    return Ledger(
        counts=tuple((verdict, found[verdict]) for verdict in order if verdict in found),
        total=len(frame),
        published=bool((frame["paper"] != "").any()),
        bounded=len(fractions),
        highest=number(100 * max(fractions), 3) if fractions else "",
        groups=tuple(groups),
    )


@dataclass(frozen=True)
class Audit:
    """An audit for the page: how many of each verdict, contradictions first."""

    counts: Mapping[str, int]
    rows: tuple[Mapping[str, str], ...]

    @property
    def parts(self) -> tuple[tuple[Mapping[str, str], ...], tuple[Mapping[str, str], ...]]:
        """The contradictions, and the other checks."""
        wrong = tuple(row for row in self.rows if row["verdict"] == CONTRADICTION)
        return wrong, tuple(row for row in self.rows if row["verdict"] != CONTRADICTION)

    @property
    def contradictions(self) -> int:
        """How many checks contradict each other."""
        return self.counts.get(CONTRADICTION, 0)


def read_audit(path: Path) -> Audit:
    """Return an audit's rows, contradictions first.

    Raises:
        IntegrityError: the file is not there or lacks a column of docs/formats.md.
    """
    frame = read_table(path)
    check_columns(
        frame,
        path,
        "id",
        "subject",
        "formula",
        "a",
        "a_where",
        "b",
        "b_where",
        "difference",
        "unit",
        "verdict",
        "consequence",
    )
    rows = []
    for record in frame.to_dict("records"):
        row = {str(name): str(value) for name, value in record.items()}
        for name in ("a", "b", "difference"):
            row[f"{name}_text"] = quantity_text(row[name])
        row["kind"] = _kind(row["verdict"])
        row["unit"] = unit_text(row["unit"])
        rows.append(row)
    rank = {CONTRADICTION: 0, "cannot be computed": 1}
    rows.sort(key=lambda row: rank.get(row["verdict"], 2))
    return Audit(Counter(frame["verdict"].astype(str)), tuple(rows))


@dataclass(frozen=True)
class Battery:
    """Battery life for the page: what all rows share, and the rows."""

    capacity: str
    voltage: str
    energy: str
    rows: tuple[Mapping[str, str], ...]
    possible: int


_LIFE = (
    "queries_per_minute",
    "query_s",
    "slot_s",
    "duty_percent",
    "power_w",
    "idle_w",
    "mean_power_w",
    "hours",
    "claimed_hours",
)


def read_battery(path: Path, names: Mapping[str, str], tags: Mapping[str, tuple[str, ...]]) -> Battery:
    """Return hours on a battery.

    Args:
        path: `battery_life.csv`.
        names: cell → what it is called on the page.
        tags: cell → what must be said with its numbers.

    Raises:
        IntegrityError: the file is not there or lacks a column of docs/formats.md.
    """
    frame = read_table(path)
    shared = ("capacity_mah", "voltage_v", "battery_wh")
    check_columns(frame, path, "stack", "cell", "weights_kind", "verdict", "reason", *shared, *_LIFE)
    rows = []
    for record in frame.to_dict("records"):
        row = {str(name): str(value) for name, value in record.items()}
        row["who"] = names.get(row["cell"], "") or row["stack"] or row["cell"]
        row["tags"] = "|".join(tags.get(row["cell"], ()))
        row["kind"] = _kind(row["verdict"])
        row |= {f"{name}_text": quantity_text(row[name], 3) for name in _LIFE}
        rows.append(row)
    capacity, voltage, energy = (
        listing(dict.fromkeys(quantity_text(text, 3) for text in frame[name])) for name in shared
    )
    possible = sum(row["verdict"] == "possible" for row in rows)
    return Battery(capacity, voltage, energy, tuple(rows), possible)

"""What an experiment may have beside its tables: ledger, audits, battery life, paper's tables, exports."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pocketvlm.analyse.figures.reasons import listing
from pocketvlm.analyse.report.numbers import number, slug
from pocketvlm.errors import IntegrityError

VERDICTS = ("reproduced", "faster", "slower", "not comparable", "not measured", "no published value")
"""What the ledger says of a value, in the order in which they are counted on the page."""

CONTRADICTION = "contradiction"


@dataclass(frozen=True)
class Extras:
    """Files of other stages; a section whose file an experiment does not have is left out.

    Attributes:
        ledger: `tables/ledger.csv`.
        self_audit: `tables/self_audit.csv`.
        audit: `results/paper/tables/audit.csv`.
        battery_life: `tables/battery_life.csv`, of our own energies.
        paper_battery_life: `results/paper/tables/battery_life.csv`, the paper's case.
        paper_tables: `tables/paper_table<N>.csv`.
        paper_figures: `figures/paper_figure<N>.svg`.
        exports: files to link: tables for a manuscript, traces.
    """

    ledger: Path | None = None
    self_audit: Path | None = None
    audit: Path | None = None
    battery_life: Path | None = None
    paper_battery_life: Path | None = None
    paper_tables: Sequence[Path] = ()
    paper_figures: Sequence[Path] = ()
    exports: Sequence[Path] = ()

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of all files that an experiment may have."""
        return [one.name for one in fields(cls)]

    @classmethod
    def of(cls, given: Mapping[str, str | Sequence[str]]) -> Extras:
        """Return what a rule names: a path, several, or an empty list for what the experiment lacks."""
        found: dict[str, Any] = {}
        for one in fields(cls):
            told = given.get(one.name, [])
            paths = [Path(told)] if isinstance(told, str) else [Path(path) for path in told]
            found[one.name] = paths if one.default == () else next(iter(paths), None)
        return cls(**found)


def read_table(path: Path) -> pd.DataFrame:
    """Return a table with every cell as text, empty where it is.

    Raises:
        IntegrityError: the file is not there, or is no table.
    """
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"The table {path.name} cannot be read: {error}", where=str(path), do="Make it again"
        ) from None


def _columns(frame: pd.DataFrame, path: Path, *wanted: str) -> None:
    lacking = [name for name in wanted if name not in frame.columns]
    if lacking:
        raise IntegrityError(
            f"{path.name} has no column {listing(lacking)}", where=str(path), do="Make it again"
        )


def quantity_text(text: str) -> str:
    """Return a table's cell for the page: a number with four digits, anything else as it is."""
    try:
        value = float(text)
    except ValueError:
        return text
    return (
        number(value, 4) if "_" not in text and text.strip().lower() not in ("nan", "inf", "-inf") else text
    )


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return text.strip().lower() not in ("nan", "inf", "-inf", "infinity", "-infinity")


@dataclass(frozen=True)
class LedgerGroup:
    """The ledger's rows of one stack and cell."""

    stack: str
    cell: str
    label: str
    tags: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]


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
    _columns(
        frame,
        path,
        "stack",
        "cell",
        "quantity",
        "phase",
        "unit",
        "published_in",
        "paper",
        "ours",
        "n",
        "ratio",
        "others",
        "others_source",
        "bound",
        "bound_source",
        "fraction_of_bound",
        "verdict",
        "reason",
    )
    found = Counter(frame["verdict"].astype(str))
    order = [*VERDICTS, *sorted(set(found) - set(VERDICTS))]
    fractions = [float(text) for text in frame["fraction_of_bound"] if is_number(text)]
    groups = []
    for key, rows in frame.groupby(["stack", "cell"], sort=False):
        stack, cell = str(key[0]), str(key[1])
        shown = []
        for record in rows.to_dict("records"):
            row = {str(name): str(value) for name, value in record.items()}
            fraction = float(row["fraction_of_bound"]) if is_number(row["fraction_of_bound"]) else None
            row["percent"] = "" if fraction is None else number(100 * fraction, 3)
            row["share"] = "" if fraction is None else f"{max(0.0, min(1.0, fraction)):.3f}"
            for name in _SHOWN:
                row[f"{name}_text"] = quantity_text(row[name])
            row["kind"] = slug(row["verdict"].replace(" ", "-"))
            shown.append(row)
        groups.append(LedgerGroup(stack, cell, names.get(cell, cell), tags.get(cell, ()), tuple(shown)))
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
    def contradictions(self) -> int:
        """How many checks contradict each other."""
        return self.counts.get(CONTRADICTION, 0)


def read_audit(path: Path) -> Audit:
    """Return an audit's rows, contradictions first.

    Raises:
        IntegrityError: the file is not there or lacks a column of docs/formats.md.
    """
    frame = read_table(path)
    _columns(
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
        row["kind"] = slug(row["verdict"].replace(" ", "-"))
        rows.append(row)
    rank = {CONTRADICTION: 0, "cannot be computed": 1}
    rows.sort(key=lambda row: rank.get(row["verdict"], 2))
    return Audit(Counter(frame["verdict"].astype(str)), tuple(rows))


@dataclass(frozen=True)
class Column:
    """A column of a table that is shown as it is: its name in words, and whether it holds numbers."""

    name: str
    numeric: bool


@dataclass(frozen=True)
class Sheet:
    """A table of another stage, shown as it is."""

    name: str
    href: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    others: tuple[tuple[str, str], ...] = field(default=())


def read_sheet(path: Path, page: Path) -> Sheet:
    """Return a table for the page, with links to it and to the same in other formats beside it."""
    frame = read_table(path)
    frame = frame.loc[:, [name for name in frame.columns if name != "experiment"]]
    columns = tuple(
        Column(
            str(name).replace("_", " "),
            bool((frame[name] != "").any()) and all(is_number(text) for text in frame[name] if text),
        )
        for name in frame.columns
    )
    rows = tuple(
        tuple(
            quantity_text(text) if column.numeric else text for text, column in zip(row, columns, strict=True)
        )
        for row in frame.itertuples(index=False, name=None)
    )
    others = tuple(
        (suffix[1:], link(path.with_suffix(suffix), page))
        for suffix in (".csv", ".md", ".tex")
        if path.with_suffix(suffix).is_file()
    )
    return Sheet(path.stem, link(path, page), columns, rows, others)


def link(path: Path, page: Path) -> str:
    """Return the address of a file as the page links to it."""
    return quote(os.path.relpath(path.resolve(), page.resolve().parent))

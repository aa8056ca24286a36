"""What an experiment may have beside its tables: ledger, audits, battery life, paper's tables, exports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

from pocketvlm.analyse.figures.reasons import listing
from pocketvlm.analyse.numbers import decimals, grouped
from pocketvlm.errors import IntegrityError


@dataclass(frozen=True)
class Extras:
    """Files of other stages; a section whose file an experiment does not have is left out.

    Attributes:
        ledger: `tables/ledger.csv`.
        self_audit: `tables/self_audit.csv`.
        audit: `results/paper/tables/audit.csv`.
        battery_life: `tables/battery_life.csv`, of our own energies.
        paper_battery_life: `results/paper/tables/battery_life.csv`, the paper's case.
        paper_tables: `tables/paper_table<N>.md`.
        paper_figures: `figures/paper_figure<N>.svg`.
        exports: files and folders to link: tables for a manuscript, traces.
        received: `tables/received.json`, of what somebody else measured.
        soak: `tables/soak_summary.csv`, where the experiment has a soak.
        soak_figure: `figures/soak.svg`, the same.
    """

    ledger: Path | None = None
    self_audit: Path | None = None
    audit: Path | None = None
    battery_life: Path | None = None
    paper_battery_life: Path | None = None
    paper_tables: Sequence[Path] = ()
    paper_figures: Sequence[Path] = ()
    exports: Sequence[Path] = ()
    received: Path | None = None
    soak: Path | None = None
    soak_figure: Path | None = None

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


def check_columns(frame: pd.DataFrame, path: Path, *wanted: str) -> None:
    """Raise IntegrityError for a table that lacks a column."""
    lacking = [name for name in wanted if name not in frame.columns]
    if lacking:
        raise IntegrityError(
            f"{path.name} has no column {listing(lacking)}", where=str(path), do="Make it again"
        )


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def is_number(text: str) -> bool:
    """Return whether a cell is a number."""
    return _NUMBER.fullmatch(text) is not None


def quantity_text(text: str, significant: int = 4, *, exact: bool = False) -> str:
    """Return a table's cell for the page: a number as it should be read, anything else as it is.

    Args:
        text: the cell.
        significant: digits of a number that has more; one that has fewer gets no zeros for them.
        exact: keep every digit, as of a value that was published.
    """
    if not is_number(text):
        return text
    value = float(text)
    given = len(text.partition(".")[2]) if re.fullmatch(r"[-+]?\d+\.?\d*", text) else None
    suits = decimals(value, significant)
    if given is not None:
        suits = given if exact else min(suits, given)
    return grouped(value, 0 if value.is_integer() and not exact else suits)


def link(path: Path, page: Path) -> str:
    """Return the address of a file as the page links to it."""
    return quote(os.path.relpath(path.resolve(), page.resolve().parent))

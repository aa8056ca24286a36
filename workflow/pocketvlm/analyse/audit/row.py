"""A row of an audit: two sides of an equation or a bound, what they differ by, and the verdict."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from pocketvlm.provenance import atomic_file

CONTRADICTION = "contradiction"
CONSISTENT = "consistent"
UNKNOWN = "cannot be computed"
VERDICTS = (CONTRADICTION, CONSISTENT, UNKNOWN)

Side = float | str | None


@dataclass(frozen=True)
class Row:
    """One check.

    Args:
        id: its name; of several subjects `name.subject`.
        subject: what it is about.
        formula: what must hold between `a` and `b`.
        a, b: the two sides, numbers in `unit` or words; None when they cannot be had.
        a_where, b_where: what each was computed from.
        difference: a - b, between the nearest ends of ranges; None for words.
        unit: of a, b and the difference; `1` for counts and ratios, empty for words.
        verdict: one of VERDICTS.
        consequence: what follows from the verdict, or what is missing.
    """

    id: str
    subject: str
    formula: str
    a: Side
    a_where: str
    b: Side
    b_where: str
    difference: float | None
    unit: str
    verdict: str
    consequence: str


COLUMNS = tuple(field.name for field in fields(Row))


def unknown(id_: str, subject: str, formula: str, unit: str, why: str) -> Row:
    """Return the row of a check that lacks a number."""
    return Row(id_, subject, formula, None, "", None, "", None, unit, UNKNOWN, why)


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Write an audit as CSV, atomically; numbers with seven digits."""
    with atomic_file(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([text(value) for value in astuple(row)] for row in rows)


def text(value: Side) -> str:
    """Return a value as it stands in the table: empty where there is none."""
    if value is None:
        return ""
    # Adding 0 keeps a difference of nothing from being written as -0.
    return value if isinstance(value, str) else f"{value + 0.0:.7g}"


def contradictions(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that contradict themselves."""
    return [row for row in rows if row.verdict == CONTRADICTION]

"""Our own tables by the measure of the audit: every formula over every cell, and table against table."""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.analyse.audit import row
from pocketvlm.analyse.audit.identities import EQUAL, Identity, identities
from pocketvlm.analyse.audit.quantity import AbsentError
from pocketvlm.analyse.audit.row import CONSISTENT, CONTRADICTION, UNKNOWN, Row
from pocketvlm.analyse.audit.runs import Run, read_runs
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks import INTERACTION
from pocketvlm.provenance import read_json

log = logging.getLogger("pocketvlm")

_STATISTICS = {
    "n": lambda values: float(values.size),
    "mean": lambda values: float(values.sum() / values.size),
    "median": lambda values: float(np.quantile(values, 0.5)),
    "p05": lambda values: float(np.quantile(values, 0.05)),
    "p95": lambda values: float(np.quantile(values, 0.95)),
}
_DIGITS = 1e-8  # tables have nine digits
_FEWER_DIGITS = 1e-5  # battery_life.csv has six


def audit_tables(
    cells: str | Path,
    runs: str | Path,
    summary: str | Path,
    battery_life: str | Path,
    *,
    records: Mapping[str, Mapping[str, str | Path]],
    identities_of: Mapping[str, str | Path],
) -> list[Row]:
    """Return every check of an experiment's tables.

    Args:
        cells: `cells.json`.
        runs: `tables/runs.parquet`.
        summary: `tables/cells.csv`.
        battery_life: `tables/battery_life.csv`.
        records: device to its files `phases`, `samples` and `answers` (.parquet).
        identities_of: device to its `identity.json`, of those that have one.

    Raises:
        IntegrityError: the files do not belong together.
    """
    study = read_json(cells)
    known = {device: read_json(path) for device, path in identities_of.items()}
    by_cell = read_runs(study, runs, records, known)
    table, life = _csv(summary), _csv(battery_life)
    rows = [_definitions([run for own in by_cell.values() for run in own])]
    for cell in study["cells"]:
        own = by_cell[cell["cell"]]
        lines = [line for line in table if line["cell"] == cell["cell"]]
        if own:
            rows += [_over(identity, cell["cell"], own) for identity in identities(cell["adapter"])]
        else:
            rows.append(_unmeasured(cell, lines))
        rows += list(_summaries(cell["cell"], own, lines))
        rows += list(_batteries(cell["cell"], [line for line in life if line["cell"] == cell["cell"]]))
    strangers = sorted({line["cell"] for line in table} - set(by_cell))
    if strangers:
        raise IntegrityError(
            f"the cell {strangers[0]!r} is not in the experiment",
            where=str(summary),
            do="Delete it: the workflow makes it again",
        )
    return rows


def refuse(rows: Sequence[Row], where: str | Path) -> None:
    """Raise IntegrityError for the first contradiction, naming cell, formula and numbers; log all of them."""
    found = row.contradictions(rows)
    for each in found:
        log.warning("%s", _sentence(each))
    if found:
        more = f" (and {len(found) - 1} more in the log)" if len(found) > 1 else ""
        raise IntegrityError(
            f"the tables contradict themselves{more}: {_sentence(found[0])}",
            where=str(where),
            do="Run `snakemake --cores 1 verify`: if no file was changed, the number is computed wrongly",
        )


def _sentence(each: Row) -> str:
    sign = each.unit if each.unit != "1" else ""
    return (
        f"{each.subject}: {each.formula} does not hold: {row.text(each.a)} {sign} ({each.a_where}) "
        f"against {row.text(each.b)} {sign} ({each.b_where}): {each.consequence}"
    )


def _over(identity: Identity, cell: str, runs: Sequence[Run]) -> Row:
    """Return a formula's row for a cell: the run and phase that come nearest to breaking it."""
    worst: tuple[float, float, float, Run, str] | None = None
    held = broken = 0
    missing: Counter[str] = Counter()
    for run in runs:
        for key in identity.over(run):
            try:
                a, b = identity.sides(run, key)
                slack = identity.relative * max(abs(a), abs(b)) + identity.absolute(run, key)
            except AbsentError as error:
                missing[str(error)] += 1
                continue
            except ZeroDivisionError:
                missing[f"{identity.a_where} of {key}: it would be divided by 0"] += 1
                continue
            excess = (abs(a - b) if identity.kind == EQUAL else a - b) - slack
            # What is not even a number holds for nothing.
            excess = np.inf if np.isnan(excess) else excess
            broken += excess > 0
            held += excess <= 0
            if worst is None or excess > worst[0]:
                worst = (excess, a, b, run, key)
    if worst is None:
        why = "; ".join(_some(missing)) or "no number to hold it for"
        return row.unknown(identity.id, cell, identity.formula, identity.unit, why)
    excess, a, b, run, key = worst
    at = f"{key.replace(' -', '')}, run {_short(run.name)}"
    verdict = CONTRADICTION if excess > 0 else CONSISTENT
    return Row(
        id=identity.id,
        subject=cell,
        formula=identity.formula,
        a=a,
        a_where=f"{identity.a_where} ({at})",
        b=b,
        b_where=f"{identity.b_where} ({at})",
        difference=a - b,
        unit=identity.unit,
        verdict=verdict,
        consequence=_outcome(identity, run, held, broken, missing),
    )


def _outcome(identity: Identity, run: Run, held: int, broken: int, missing: Counter[str]) -> str:
    if broken:
        return f"{identity.broken}: {broken} of {held + broken} numbers"
    text = f"holds for all {held} numbers" if held != 1 else "holds for the one number"
    if missing:
        text += f"; {sum(missing.values())} cannot be had: {'; '.join(_some(missing))}"
    told = identity.told(run)
    return f"{text}; {told}" if told else text


def _some(missing: Counter[str], most: int = 2) -> list[str]:
    """Return the commonest reasons."""
    named = [reason for reason, _ in missing.most_common(most)]
    return [*named, f"{len(missing) - most} reasons more"] if len(missing) > most else named


def _short(run: str) -> str:
    """Return a run's name with eight digits of its key."""
    key, _, number = run.partition("/")
    return f"{key[:8]}/{number}"


def _definitions(runs: Sequence[Run]) -> Row:
    """Return the check that a total is the same thing for every framework: all of a run, load included.

    Interaction with an app is part of no total, so that it may come before its first phase.
    """
    formula, expected = "what a total is = what it is for all", "from 0 ms, load first, to end"
    found: dict[str, set[str]] = {}
    for run in runs:
        counted = run.intervals[run.intervals["phase"] != INTERACTION]
        first, last = counted.iloc[0], run.intervals.iloc[-1]
        start_us = 0 if run.intervals["phase"].iloc[0] == INTERACTION else first["start_us"]
        # Where loading was not seen, it is in the time that belongs to no phase.
        unseen = first["phase"] == "other" and not run.known("load", "duration")
        begins = "load" if unseen else first["phase"]
        told = f"from {start_us / 1e3:g} ms, {begins} first, to {last['end_boundary']}"
        found.setdefault(told, set()).add(f"{run.cell['framework']} {run.cell['version']}")
    if not found:
        return row.unknown("definitions", "all frameworks", formula, "", "no run was measured")
    wrong = set(found) != {expected}
    return Row(
        id="definitions",
        subject="all frameworks",
        formula=formula,
        a="; ".join(f"{told}: {', '.join(sorted(names))}" for told, names in sorted(found.items())),
        a_where="records/phases",
        b=expected,
        b_where="docs/method.md",
        difference=None,
        unit="",
        verdict=CONTRADICTION if wrong else CONSISTENT,
        consequence="totals of different kind are compared" if wrong else "every total is one quantity",
    )


def _unmeasured(cell: Mapping[str, Any], lines: Sequence[Mapping[str, str]]) -> Row:
    why = cell.get("unavailable") or next((line["gate"] for line in lines if line["gate"]), "")
    return row.unknown(
        "measured",
        cell["cell"],
        "runs in the tables >= 1",
        "1",
        why or "no run is in the tables, and no reason is given",
    )


def _summaries(cell: str, runs: Sequence[Run], lines: Sequence[Mapping[str, str]]) -> Iterator[Row]:
    """Give the checks of `cells.csv` against `runs.parquet`, and of its reasons."""
    names = {key for run in runs for key in run.metrics}
    if runs:
        formula = "rows of the cell = metrics of its runs"
        told = {(line["phase"], line["metric"]) for line in lines}
        odd = sorted(told ^ names)
        yield Row(
            "table_rows", cell, formula, float(len(lines)), "cells.csv", float(len(names)), "runs.parquet",
            float(len(lines) - len(names)), "1",
            CONTRADICTION if odd or len(told) != len(lines) else CONSISTENT,
            f"{' '.join(odd[0])} is in one of them only" if odd else "the same metrics in both tables",
        )  # fmt: skip
        for name, statistic in _STATISTICS.items():
            yield _statistic(cell, name, statistic, runs, lines)
    empty = [line for line in lines if line["n"] == "0"]
    silent = [line for line in empty if not line["gate"] or line["median"]]
    yield Row(
        "reasons", cell, "rows without a run that passed = rows without a number and with a reason",
        float(len(empty)),
        "cells.csv: n is 0", float(len(empty) - len(silent)), "cells.csv: gate, median", float(len(silent)),
        "1",
        CONTRADICTION if silent else CONSISTENT,
        f"{silent[0]['phase']} {silent[0]['metric']}: a number is missing and nothing says why"
        if silent
        else "every missing number has its reason",
    )  # fmt: skip


def _statistic(
    cell: str, name: str, statistic: Any, runs: Sequence[Run], lines: Sequence[Mapping[str, str]]
) -> Row:
    worst: tuple[float, float, float, str] | None = None
    compared = 0
    for line in lines:
        key = (line["phase"], line["metric"])
        values = np.array(
            [run.metrics[key][0] for run in runs if key in run.metrics and run.known(*key)], float
        )
        if name != "n" and values.size == 0:
            continue
        b = statistic(values)
        a = float(line[name]) if line[name] else np.nan
        compared += 1
        scale = max(abs(a), abs(b))
        apart = np.inf if np.isnan(a) else abs(a - b) / scale if scale else 0.0
        if worst is None or apart > worst[0]:
            worst = (apart, a, b, " ".join(key))
    formula = f"{name} in cells.csv = {name} of the runs that passed"
    if worst is None:
        return row.unknown(f"table_{name}", cell, formula, "", "no run passed its gates")
    apart, a, b, where = worst
    wrong = apart > _DIGITS
    return Row(
        f"table_{name}", cell, formula, a, f"cells.csv ({where})", b, f"runs.parquet ({where})", a - b, "",
        CONTRADICTION if wrong else CONSISTENT,
        "the table is not of these runs" if wrong else f"holds for all {compared} rows",
    )  # fmt: skip


def _batteries(cell: str, lines: Sequence[Mapping[str, str]]) -> Iterator[Row]:
    """Give the checks that hours on a battery are hours at all."""
    for line in lines:
        rate = f"{cell} at {line['queries_per_minute']} queries a minute"
        fits, whole = "length of a query with hours <= its slot", "hours x mean power = energy of the battery"
        if not line["hours"]:
            yield row.unknown("battery_slot", rate, fits, "s", line["reason"] or line["verdict"])
            continue
        length, slot = float(line["query_s"]), float(line["slot_s"])
        wrong = length > slot * (1 + _FEWER_DIGITS)
        yield Row(
            "battery_slot", rate, fits, length, "battery_life.csv: query_s", slot, "battery_life.csv: slot_s",
            length - slot, "s", CONTRADICTION if wrong else CONSISTENT,
            "hours are told of a rate that cannot be" if wrong else "a query fits into its slot",
        )  # fmt: skip
        a, b = float(line["hours"]) * float(line["mean_power_w"]), float(line["battery_wh"])
        wrong = abs(a - b) > _FEWER_DIGITS * b
        yield Row(
            "battery_energy", rate, whole, a, "battery_life.csv: hours x mean_power_w", b,
            "battery_life.csv: battery_wh", a - b, "Wh", CONTRADICTION if wrong else CONSISTENT,
            "hours, power and energy do not fit" if wrong else "the hours are those of the battery",
        )  # fmt: skip


def _csv(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def verdicts(rows: Sequence[Row]) -> str:
    """Return how many rows there are of each verdict, in words."""
    counts = Counter(each.verdict for each in rows)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in (CONTRADICTION, CONSISTENT, UNKNOWN))

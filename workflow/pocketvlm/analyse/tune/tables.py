"""The tables of a search, and the overlay that hands its choice back to an experiment."""

from __future__ import annotations

import csv
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from pocketvlm.analyse.raw import read_object, run_folder
from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.tune.front import front
from pocketvlm.analyse.tune.overlay import overlay
from pocketvlm.analyse.tune.pairs import Ratio, ratio
from pocketvlm.analyse.tune.plan import Plan
from pocketvlm.analyse.tune.runs import read_tune_run
from pocketvlm.analyse.tune.search import Choice, Failure, Judged, Seen, State, choose, progress
from pocketvlm.config.space import DEFAULTS
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file

log = logging.getLogger("pocketvlm")

COMMON = ("experiment", "device", "device_kind", "weights_kind")
CANDIDATE = (
    *COMMON,
    "candidate",
    "quantisation",
    "settings",
    "status",
    "rung",
    "pairs",
    "speedup",
    "ci_low",
    "ci_high",
    "ratio_of_medians",
    "objective_s",
    "energy_j",
    "energy_ratio",
    "memory_mib",
    *("cpu_celsius", "skin_celsius", "battery_celsius"),
    "front",
    "reason",
)
RUNG = (*COMMON, "rung", "candidate", "pairs", "speedup", "ci_low", "ci_high", "ratio_of_medians", "fate")
RUN = (
    *COMMON,
    *("run", "candidate", "rung", "round", "block", "objective_s", "energy_j", "memory_mib"),
    *("cpu_celsius", "skin_celsius", "battery_celsius", "reason"),
)

Row = dict[str, Any]
_OUTSIDE = ("limit", "failed", "withheld")


def read_search(
    index: Mapping[str, Any],
    planned: Plan,
    *,
    adapter: str,
    identity: Mapping[str, Any],
    gates: Mapping[str, float],
    raw_root: Path,
    where: str,
) -> tuple[State, list[Seen]]:
    """Return a search that is over, by the runs that its index lists, and these runs in their order.

    Args:
        index: the content of `tune/<device>.json`.
        planned: the search.
        adapter: of the framework.
        identity: of the device.
        gates: thresholds of the configuration.
        raw_root: `results/raw`.
        where: the index's file, for messages.

    Raises:
        IntegrityError: a raw run is not what the index says, or the index is of another search.
    """
    seen = [
        read_tune_run(
            run_folder(raw_root, entry["run"]),
            entry["meta_sha256"],
            adapter,
            identity,
            gates,
            planned.objective,
        )
        for entry in index["runs"]
    ]
    failed = {name: Failure(**told) for name, told in index["failed"].items()}
    state = progress(planned, seen, failed)
    if state.next is not None:
        raise IntegrityError(
            f"the index lists {len(seen)} runs, and the search goes on after them",
            where=where,
            do="Run `snakemake --cores 4 tune --forcerun measure_tune`, which measures what lacks",
        )
    return state, seen


def candidate_rows(planned: Plan, state: State, choice: Choice, common: Row) -> list[Row]:
    """Return a row for each candidate that was tried and the defaults: the furthest first, then by speed.

    Args:
        planned, state: a search that is over.
        choice: what it chose.
        common: values of the columns COMMON.
    """
    last: dict[str, tuple[int, Judged]] = {}
    for number, rung in enumerate(state.rungs):
        last |= dict.fromkeys(rung.runs, (number, rung))
    names = [DEFAULTS, *(name for name in dict.fromkeys((*last, *state.out)) if name != DEFAULTS)]
    rows = [common | _row(planned, state, choice, name, last.get(name)) for name in names]
    within = [
        row
        for row in rows
        if row["speedup"]
        and row["status"] not in _OUTSIDE
        and (row["candidate"] != DEFAULTS or not state.defaults_break)
    ]
    scale = _scales(state.rungs)
    points: list[Mapping[str, float | None]] = [
        {
            "time": 1 / (row["speedup"] * scale.get(row["candidate"], 1.0)),
            "energy": row["energy_ratio"],
            "memory": row["memory_mib"],
        }
        for row in within
    ]
    found = dict(zip((row["candidate"] for row in within), front(points), strict=True))
    for row in rows:
        on = found.get(row["candidate"], False)
        row["front"] = {True: "yes", False: "no", None: ""}[on]
        if on is None:
            row["reason"] = f"{row['reason']}; front: something of it is not known"
    return sorted(rows, key=lambda row: (-(row["rung"] or 0), -(row["speedup"] or 0), row["candidate"]))


def _scales(rungs: Sequence[Judged]) -> dict[str, float]:
    """Return by candidate what takes its speedup in its last rung to the scale of the search's last rung.

    Who goes on was in part lucky, and is less fast in the next rung; who fell out had no such chance, and
    would seem faster than those that were faster than it. So what a rung's speedups lose on average
    (geometric mean) over those that ran in the next, too, is taken from those that fell out there.
    """
    found: dict[str, float] = {}
    scale = 1.0
    for number in range(len(rungs) - 1, -1, -1):
        mine = rungs[number].ratios
        after = rungs[number + 1].ratios if number + 1 < len(rungs) else {}
        logs = [math.log(after[name].value / mine[name].value) for name in mine if name in after]
        scale *= math.exp(math.fsum(logs) / len(logs)) if logs else 1.0
        found = dict.fromkeys(mine, scale) | found
    return found


def _row(planned: Plan, state: State, choice: Choice, name: str, last: tuple[int, Judged] | None) -> Row:
    candidate = planned.of(name)
    row: Row = {
        "candidate": name,
        "quantisation": candidate.quantisation,
        "settings": " ".join(f"{key}={value}" for key, value in sorted(candidate.settings.items())),
        **dict.fromkeys(("rung", "pairs", "speedup", "ci_low", "ci_high", "ratio_of_medians")),
        **dict.fromkeys(("objective_s", "energy_j", "energy_ratio", "memory_mib")),
    }
    out = state.out.get(name)
    reasons: list[str] = []
    if name == choice.name:
        row["status"], said = "chosen", choice.reason
    elif name == DEFAULTS:
        row["status"], said = "defaults", state.defaults_break
    elif out is None:
        row["status"], said = "finalist", "not the one that is chosen"
    else:
        row["status"], said = out.how, out.reason
    reasons += [said] if said else []
    if last is not None:
        number, rung = last
        runs = rung.runs[name]
        row["rung"] = number + 1
        found = Ratio(len(runs), 1.0, None, None, 1.0) if name == DEFAULTS else rung.ratios.get(name)
        row |= _ratio(found)
        for column, values in (
            ("objective_s", [run.cost for run in runs]),
            ("energy_j", [run.energy_j for run in runs]),
            ("memory_mib", [run.memory_mib for run in runs]),
        ):
            row[column], why = _median(values)
            reasons += [f"{column}: {why}"] if why else []
        for column in ("cpu_celsius", "skin_celsius", "battery_celsius"):
            known = [one.value for run in runs if (one := run.limited(column)).value is not None]
            row[column] = max(known, default=None)
            reasons += [] if known else [f"{column}: {runs[0].limited(column).reason}"]
        row["energy_ratio"] = 1.0 if name == DEFAULTS and row["energy_j"] else _energy(rung, name)
    return row | {"reason": "; ".join(reasons)}


def _ratio(found: Ratio | None) -> Row:
    if found is None:
        return {}
    return {
        "pairs": found.n,
        "speedup": found.value,
        "ci_low": found.low,
        "ci_high": found.high,
        "ratio_of_medians": found.of_medians,
    }


def _median(values: Sequence[Value]) -> tuple[float | None, str]:
    known = [value.value for value in values if value.value is not None]
    return (float(np.median(known)), "") if known else (None, values[0].reason)


def _energy(rung: Judged, name: str) -> float | None:
    """Return the energy of a candidate against the defaults' in the same rounds; None where not seen."""
    own = {run.round: run.energy_j.value for run in rung.runs.get(DEFAULTS, ())}
    pairs = [
        (mine, theirs)
        for run in rung.runs[name]
        if (mine := run.energy_j.value or 0) > 0 and (theirs := own.get(run.round) or 0) > 0
    ]
    if name == DEFAULTS or not pairs:
        return None
    return ratio([pair[0] for pair in pairs], [pair[1] for pair in pairs], confidence=0.95).value


def rung_rows(state: State, common: Row) -> list[Row]:
    """Return a row for each candidate that a rung was judged by, and what became of it there."""
    rows: list[Row] = []
    for number, rung in enumerate(state.rungs):
        for name, found in rung.ratios.items():
            out = state.out.get(name)
            fate = out.how if out and out.rung == number else "goes on"
            if number == len(state.rungs) - 1 and not (out and out.rung == number):
                fate = "finalist"
            rows.append(common | {"rung": number + 1, "candidate": name, "fate": fate} | _ratio(found))
    return rows


def run_rows(seen: Sequence[Seen], common: Row) -> list[Row]:
    """Return a row for each counted run, in the order in which they were made."""
    limits = ("cpu_celsius", "skin_celsius", "battery_celsius")
    rows: list[Row] = []
    for run in seen:
        values = {"objective_s": run.cost, "energy_j": run.energy_j, "memory_mib": run.memory_mib}
        values |= {name: run.limited(name) for name in limits}
        rows.append(
            {
                **common,
                "run": run.run,
                "candidate": run.candidate,
                "rung": run.rung + 1,
                "round": run.round,
                "block": run.block,
                **{name: value.value for name, value in values.items()},
                "reason": "; ".join(
                    f"{name}: {value.reason}" for name, value in values.items() if value.value is None
                ),
            }
        )
    return rows


def tabulate(
    index: Path,
    planned: Plan,
    *,
    adapter: str,
    identity: Path,
    cells: Path,
    raw_root: Path,
    gates: Mapping[str, float],
    destinations: Mapping[str, Path],
) -> None:
    """Write the tables of a search and its overlay; equal input gives equal bytes.

    Args:
        index: `tune/<device>.json`.
        planned: the search.
        adapter: of the framework.
        identity: `identity.json` of the device.
        cells: `cells.json`.
        raw_root: `results/raw`.
        gates: thresholds of the configuration.
        destinations: the files `candidates`, `rungs`, `runs`, `front` and `chosen`.

    Raises:
        IntegrityError: as `read_search`.
    """
    listed = read_object(index)
    state, seen = read_search(
        listed,
        planned,
        adapter=adapter,
        identity=read_object(identity),
        gates=gates,
        raw_root=raw_root,
        where=str(index),
    )
    (cell,) = read_object(cells)["cells"]
    common = {"experiment": listed["experiment"], **{name: cell[name] for name in COMMON[1:]}}
    choice = choose(planned, state)
    rows = candidate_rows(planned, state, choice, common)
    _write(destinations["candidates"], CANDIDATE, rows)
    _write(destinations["rungs"], RUNG, rung_rows(state, common))
    _write(destinations["runs"], RUN, run_rows(seen, common))
    _write(destinations["front"], CANDIDATE, [row for row in rows if row["front"] == "yes"])
    with atomic_file(destinations["chosen"]) as stream:
        stream.write(f"# What `snakemake tune` chose in {listed['experiment']}; see docs/tuning.md.\n")
        yaml.safe_dump(
            overlay(planned, choice, cell, listed["experiment"]), stream, sort_keys=False, allow_unicode=True
        )
    log.info("%s", choice.reason)


def _text(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)

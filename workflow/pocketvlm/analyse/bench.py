"""What was observed of a cell beside what the framework's own benchmark says: medians, ratio, verdict.

The two were run in turn (`measure/bench.py`), so each round is a pair: the interval of the ratio is drawn
from whole rounds. `decode` is judged. `prefill` is told and not judged: the benchmark reads tokens of text
where the cell evaluates an image's, of which the last layer is asked for nothing.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm import frameworks
from pocketvlm.analyse import comparable, records
from pocketvlm.analyse.gates import judge
from pocketvlm.analyse.marks import noted
from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.offload import offloaded
from pocketvlm.analyse.parse import metric_row, understand, workload_of
from pocketvlm.analyse.phases import segment, whole
from pocketvlm.analyse.raw import REINDEX, Run, read_object, read_run, run_folder
from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.stats import MIN_FOR_INTERVAL, bootstrap_paired_ratio
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import atomic_file, read_json

log = logging.getLogger("pocketvlm")

QUANTITIES = {"decode": ("decode", "decode"), "prefill": ("image_prefill", "image_prefill")}
"""What is compared, by the part of the benchmark: the phase observed, and the counter that reports it."""
JUDGED = ("decode",)
WITHIN, BEYOND, TOLD, UNKNOWN = "within", "beyond", "not judged", "NA"

CELL = (
    *("experiment", "cell", "device", "device_kind", "weights_kind"),
    *("framework", "version", "backend", "settings"),
)
TABLE = (
    *CELL,
    *("quantity", "unit", "tokens", "depth", "n", "observed", "bench", "ratio", "ci_low", "ci_high"),
    *("reported", "reported_ratio", "tolerance_percent", "verdict", "note"),
)
RUNS = (
    *("experiment", "cell", "block", "round", "quantity", "run", "bench_run"),
    *("observed", "reported", "bench", "reason"),
)

Row = dict[str, Any]
_NO_IDLE = Value(None, None, "no idle baseline: a benchmark has no idle run")


def tabulate(
    indexes: Iterable[str | Path],
    identities: Iterable[str | Path],
    cells: str | Path,
    raw_root: str | Path,
    *,
    bench: Mapping[str, Any],
    gates: Mapping[str, float],
    bootstrap: Mapping[str, Any],
    table: Path,
    runs: Path,
) -> None:
    """Write `agreement.csv` and `runs.csv`; equal input gives equal bytes.

    Args:
        indexes: `bench/<device>.json` of each device.
        identities: `identity.json` of each device, in the same order.
        cells: `cells.json`.
        raw_root: `results/raw`.
        bench: tolerance_percent.
        gates, bootstrap: thresholds and statistics of the configuration.
        table, runs: the files to write.

    Raises:
        IntegrityError: a raw run is not what the index says, or the index names an unknown cell.
        WorkloadError: a run's output cannot be understood.
    """
    known = {cell["cell"]: cell for cell in read_json(cells)["cells"]}
    rows: list[Row] = []
    found: list[Row] = []
    for index_path, identity_path in zip(indexes, identities, strict=True):
        index, identity = read_object(Path(index_path)), read_object(Path(identity_path))
        for name in [*(entry["cell"] for entry in index["cells"]), *index["unmeasured"]]:
            if name not in known:
                raise IntegrityError(
                    f"the index names the cell {name!r}, which is not in the experiment",
                    where=str(index_path),
                    do=REINDEX.replace("measure_block", "measure_bench"),
                )
        for entry in index["cells"]:
            cell = known[entry["cell"]]
            pairs = [
                pair
                for one in entry["rounds"]
                for pair in _pairs(entry, one, cell, Path(raw_root), identity, gates)
            ]
            found += [{"experiment": index["experiment"], **pair} for pair in pairs]
            rows += [
                _agreement(index["experiment"], cell, entry, quantity, pairs, bench, bootstrap)
                for quantity in QUANTITIES
            ]
        for name, why in index["unmeasured"].items():
            common = _common(index["experiment"], known[name])
            rows += [
                {**common, "quantity": quantity, "unit": "1/s", "n": 0, "verdict": UNKNOWN, "note": why}
                for quantity in QUANTITIES
            ]
    _write(table, TABLE, rows)
    _write(runs, RUNS, found)


def check(table: str | Path) -> list[str]:
    """Return a sentence for each judged number of `agreement.csv`, all of them within the tolerance.

    Raises:
        IntegrityError: one is beyond it, or nothing could be judged; the message names cell and numbers.
    """
    with Path(table).open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["quantity"] in JUDGED]
    told = [_sentence(row) for row in rows if row["verdict"] in (WITHIN, BEYOND)]
    wrong = [_sentence(row) for row in rows if row["verdict"] == BEYOND]
    if wrong:
        raise IntegrityError(
            "; ".join(wrong),
            where=str(table),
            do="Look at runs.csv beside it: a busy or hot machine differs from round to round, a wrong clock "
            "or count of tokens does so always",
        )
    if not told:
        reasons = "; ".join(dict.fromkeys(row["note"] for row in rows)) or "the experiment has no cell"
        raise IntegrityError(
            f"no decode rate could be compared: {reasons}",
            where=str(table),
            do="Mend what it names, and run check_bench again",
        )
    return told


def _sentence(row: Mapping[str, str]) -> str:
    ratio = 100.0 * (float(row["ratio"]) - 1.0)
    low, high = (100.0 * (float(row[end]) - 1.0) for end in ("ci_low", "ci_high"))
    return (
        f"{row['cell']}: {row['quantity']} observed {float(row['observed']):.3g}/s, "
        f"benchmark {float(row['bench']):.3g}/s at depth {row['depth']}, "
        f"{ratio:+.2f} % [{low:+.2f}, {high:+.2f}] over {row['n']} rounds, "
        f"{float(row['tolerance_percent']):g} % allowed{f' ({note})' if (note := row['note']) else ''}"
    )


def _pairs(
    entry: Row,
    one: Row,
    cell: Mapping[str, Any],
    raw: Path,
    identity: Mapping[str, Any],
    gates: Mapping[str, float],
) -> list[Row]:
    """Return a row a quantity of one round."""
    observed = _read(raw, one["cell"])
    seen = _observed(observed, cell, identity, gates)
    rows = []
    for quantity, (phase, counter) in QUANTITIES.items():
        timed = _read(raw, one[quantity])
        rate = seen[phase, "tokens_per_second"]
        bench = _benchmark(timed, cell, entry, quantity, identity, gates)
        reasons = [value.reason for value in (rate, bench) if value.value is None]
        rows.append(
            {
                "cell": entry["cell"],
                "block": one["block"],
                "round": one["round"],
                "quantity": quantity,
                "run": observed.name,
                "bench_run": timed.name,
                "observed": rate.value,
                "reported": _reported(seen, phase, counter, entry["tests"][quantity]),
                "bench": bench.value,
                "reason": "; ".join(reasons),
            }
        )
    return rows


def _read(raw: Path, one: Mapping[str, str]) -> Run:
    return read_run(run_folder(raw, one["run"]), one["meta_sha256"])


def _observed(
    run: Run, cell: Mapping[str, Any], identity: Mapping[str, Any], gates: Mapping[str, float]
) -> dict[tuple[str, str], Value]:
    """Return every metric of a cell's run after its gates."""
    report = understand(run, cell["adapter"])
    budget, exact = workload_of(run)
    intervals = segment(report.boundaries, run.wall_us)
    computed = compute(run, intervals, report, identity, idle_power=_NO_IDLE, budget=budget, exact=exact)
    return _judged(run, [*computed, *offloaded(report.offload, cell["backend"])], gates)


def _benchmark(
    run: Run,
    cell: Mapping[str, Any],
    entry: Row,
    quantity: str,
    identity: Mapping[str, Any],
    gates: Mapping[str, float],
) -> Value:
    """Return tokens per second of a start of the benchmark, the median of its repetitions, gated."""
    module = frameworks.bench(cell["adapter"])
    test = module.Test(**entry["tests"][quantity])
    rates = module.rates(
        run.output.stdout.data, backend=cell["backend"], settings=entry["settings"], test=test
    )
    rate = float(np.median(rates))
    computed = compute(run, whole(run.wall_us), None, identity, idle_power=_NO_IDLE)
    computed += [
        Metric(quantity, "duration", 1000.0 * test.tokens / rate, "ms", "framework"),
        Metric(quantity, "tokens_per_second", rate, "1/s", "framework"),
    ]
    return _judged(run, computed, gates)[quantity, "tokens_per_second"]


def _judged(run: Run, computed: Sequence[Metric], gates: Mapping[str, float]) -> dict[tuple[str, str], Value]:
    metrics = [*computed, *noted(run.meta), *comparable.unmet(run.meta)]
    table = records.table("metrics", [metric_row(run.name, metric) for metric in metrics])
    return {
        (row["phase"], row["metric"]): Value(None, None, row["gate"])
        if row["gate"]
        else Value(row["value"], row["samples"], row["reason"])
        for row in judge(table, gates).to_pylist()
    }


def _reported(
    seen: Mapping[tuple[str, str], Value], phase: str, counter: str, test: Mapping[str, int]
) -> float | None:
    """Return the rate that the framework reports of the same work in the cell's run."""
    time = seen.get((phase, f"reported.{counter}"))
    return 1000.0 * (test["prompt"] + test["answer"]) / time.value if time and time.value else None


def _agreement(
    experiment: str,
    cell: Mapping[str, Any],
    entry: Row,
    quantity: str,
    pairs: Sequence[Row],
    bench: Mapping[str, Any],
    bootstrap: Mapping[str, Any],
) -> Row:
    mine = [pair for pair in pairs if pair["quantity"] == quantity]
    whole_ones = [pair for pair in mine if pair["observed"] is not None and pair["bench"] is not None]
    test = entry["tests"][quantity]
    row: Row = {
        **_common(experiment, cell),
        "quantity": quantity,
        "unit": "1/s",
        "tokens": test["prompt"] + test["answer"],
        "depth": test["depth"],
        "n": len(whole_ones),
        "verdict": UNKNOWN,
    }
    notes = list(dict.fromkeys(pair["reason"] for pair in mine if pair["reason"]))
    module = frameworks.bench(cell["adapter"])
    if unlike := module.unlike(entry["settings"], module.Test(**test)):
        notes.append(unlike)
    if len(whole_ones) < MIN_FOR_INTERVAL:
        few = f"{len(whole_ones)} rounds, {MIN_FOR_INTERVAL} are needed"
        return {**row, "note": "; ".join([few, *notes])}
    observed, timed = (np.array([pair[name] for pair in whole_ones]) for name in ("observed", "bench"))
    ratio = float(np.median(observed) / np.median(timed))
    low, high = bootstrap_paired_ratio(observed, timed, **bootstrap, name=f"{entry['cell']} bench {quantity}")
    reported = [pair["reported"] for pair in whole_ones if pair["reported"] is not None]
    median_reported = float(np.median(reported)) if reported else None
    row |= {
        "observed": float(np.median(observed)),
        "bench": float(np.median(timed)),
        "ratio": ratio,
        "ci_low": low,
        "ci_high": high,
        "reported": median_reported,
        "reported_ratio": median_reported and median_reported / float(np.median(timed)),
        "note": "; ".join(notes),
        "verdict": TOLD,
    }
    if quantity in JUDGED:
        tolerance = bench["tolerance_percent"]
        agrees = abs(100.0 * (ratio - 1.0)) <= tolerance
        row |= {"tolerance_percent": tolerance, "verdict": WITHIN if agrees else BEYOND}
    return row


def _common(experiment: str, cell: Mapping[str, Any]) -> Row:
    return {"experiment": experiment, **{name: cell[name] for name in CELL if name != "experiment"}}


def _text(value: Any) -> Any:
    return f"{value:.9g}" if isinstance(value, float) else value


def _write(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    with atomic_file(path) as stream:
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)

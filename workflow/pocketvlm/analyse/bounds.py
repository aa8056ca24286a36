"""Physical bounds: what no run on a device can exceed, from its peaks and from the shape of the weights.

    decode                 tokens/s <= bandwidth / (weights read for a token + mean cache of keys and values)
    image encoding         time >= operations needed / peak
    text and image prefill time >= operations needed / peak

The counts are the least that the computation needs (`weights.cost`), the peaks the most that was ever seen
or is quoted, so that a measured value beyond its bound is an error of measurement and no achievement.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm import frameworks
from pocketvlm.analyse import records
from pocketvlm.errors import IntegrityError
from pocketvlm.frameworks.settings import own
from pocketvlm.provenance import atomic_file, read_json
from pocketvlm.weights.cost import UnknownShapeError, encode_operations, language_cost
from pocketvlm.weights.description import FORMAT as WEIGHTS_FORMAT

COLUMNS = (
    "cell",
    "phase",
    "metric",
    "unit",
    "bound",
    "margin_percent",
    "kind",
    "inputs",
    "source",
    "reason",
)
BANDWIDTH, OPERATIONS = "bandwidth", "operations"
BOUNDED = (
    ("image_encode", "duration", "ms", OPERATIONS),
    ("text_prefill", "duration", "ms", OPERATIONS),
    ("text_prefill", "tokens_per_second", "1/s", OPERATIONS),
    ("image_prefill", "duration", "ms", OPERATIONS),
    ("image_prefill", "tokens_per_second", "1/s", OPERATIONS),
    ("decode", "duration", "ms", BANDWIDTH),
    ("decode", "tokens_per_second", "1/s", BANDWIDTH),
)
"""Phase, metric, unit and kind of every bound, in the order of the table."""

COUNTED = ("text_prefill", "image_prefill", "decode")
Row = dict[str, Any]


class NoBoundError(ValueError):
    """A bound cannot be had; the text says why."""


@dataclass(frozen=True)
class Limit:
    """A bound on one metric of a cell.

    Attributes:
        bound: in the metric's unit: the greatest rate, or the shortest duration.
        margin: by which fraction a value may lie beyond it, for errors of the peak.
        kind: `bandwidth` or `operations`.
        lower: whether the bound is one from below, as it is for durations.
    """

    bound: float
    margin: float
    kind: str
    lower: bool

    def beyond(self, value: float) -> float | None:
        """Return by which fraction a value is beyond the bound, None when it is within bound and margin."""
        ratio = self.bound / value if self.lower else value / self.bound
        return ratio - 1.0 if ratio > 1.0 + self.margin else None

    def fraction(self, value: float) -> float:
        """Return how much of what is possible a value is; 1 is the bound itself."""
        return self.bound / value if self.lower else value / self.bound


@dataclass(frozen=True)
class Counts:
    """Tokens of a cell's runs, the fewest of all its runs; None where no run tells."""

    text_prefill: int | None = None
    image_prefill: int | None = None
    decode: int | None = None


def compute_bounds(
    *,
    cells: str | Path,
    device: str,
    metrics: str | Path,
    block: str | Path,
    peaks: str | Path,
    made_of: Mapping[str, Mapping[str, Any]],
    margin_percent: float,
    destination: str | Path,
) -> None:
    """Write `bounds/<device>.csv`.

    Args:
        cells: `cells.json`.
        device: the device's id.
        metrics: the record `metrics` of the device's block, for the counts of tokens.
        block: `blocks/<device>.json`.
        peaks: `peaks.json` of the device.
        made_of: by cell `weights` (the weights record by role) and `settings`; a cell that is not in it
            cannot be measured.
        margin_percent: by how much a value may exceed a bound, for the error of the peak.
        destination: the file to write.

    Raises:
        IntegrityError: a weights record cannot be read.
    """
    limits = read_json(peaks)
    counts = token_counts(metrics, block)
    rows: list[Row] = []
    for cell in read_json(cells)["cells"]:
        if cell["device"] != device:
            continue
        name, parts = cell["cell"], made_of.get(cell["cell"])
        if parts is None:
            rows += _absent(name, cell.get("unavailable") or "this cell cannot be measured")
            continue
        rows += cell_bounds(
            name,
            peaks=limits,
            backend=cell["backend"],
            records={role: _record(path) for role, path in parts["weights"].items()},
            cache_types=_cache_types(cell["adapter"], parts["settings"]),
            counts=counts.get(name, Counts()),
            margin_percent=margin_percent,
        )
    with atomic_file(destination) as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def token_counts(metrics: str | Path, block: str | Path) -> dict[str, Counts]:
    """Return the tokens of each cell: of each phase the fewest that any of its runs had."""
    cell_of = {entry["run"]: entry["cell"] for entry in read_json(block)["runs"] if entry["cell"]}
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for row in records.read(metrics, "metrics").to_pylist():
        cell = cell_of.get(row["run"])
        if cell and row["metric"] == "tokens" and row["value"] is not None and row["phase"] in COUNTED:
            before = found[cell].get(row["phase"], row["value"])
            found[cell][row["phase"]] = int(min(before, row["value"]))
    return {cell: Counts(**phases) for cell, phases in found.items()}


def cell_bounds(
    cell: str,
    *,
    peaks: Mapping[str, Any],
    backend: str,
    records: Mapping[str, Mapping[str, Any]],
    cache_types: tuple[str, str] | None,
    counts: Counts,
    margin_percent: float,
) -> list[Row]:
    """Return every bound of one cell, those that cannot be had with the reason.

    Args:
        cell: its id.
        peaks: `peaks.json` of its device.
        backend: where it computes; peaks measured on the CPU bound nothing else.
        records: the weights record by role, `model` and `mmproj`.
        cache_types: ggml types of cached keys and values, None if they are not known.
        counts: tokens of its runs.
        margin_percent: by how much a value may exceed a bound.
    """
    wrong_unit = ""
    if str(peaks["source"]).startswith("measured") and backend != "cpu":
        wrong_unit = f"the peaks were measured on the CPU, and this cell computes on {backend}"
    rows = []
    for phase, metric, unit, kind in BOUNDED:
        row: Row = dict.fromkeys(COLUMNS, "")
        row.update(cell=cell, phase=phase, metric=metric, unit=unit, kind=kind)
        name = "bandwidth_bytes_per_s" if kind == BANDWIDTH else "operations_per_s"
        peak = peaks[name]
        try:
            if peak is None:
                raise NoBoundError(peaks["reason"] or f"the device has no peak of {kind}")
            if wrong_unit:
                raise NoBoundError(wrong_unit)
            if phase == "decode":
                found = _decode(metric, peaks, _tensors(records, "model"), cache_types, counts)
            else:
                found = _computed(phase, metric, peak, records, counts)
        except (NoBoundError, UnknownShapeError) as reason:
            row["reason"] = str(reason)
        else:
            bound, inputs, cached = found
            row.update(bound=f"{bound:.9g}", inputs=inputs, source=peaks["sources"][kind])
            row["margin_percent"] = f"{100 * ((1 + margin_percent / 100) * (1 + cached) - 1):.4g}"
        rows.append(row)
    return rows


def _decode(
    metric: str,
    peaks: Mapping[str, Any],
    record: Mapping[str, Any],
    cache_types: tuple[str, str] | None,
    counts: Counts,
) -> tuple[float, str, float]:
    """Return bound, what went into it, and which further share the processor's cache may spare."""
    cost, bandwidth = language_cost(record), peaks["bandwidth_bytes_per_s"]
    text, image, tokens = _known(counts, "text_prefill", "image_prefill", "decode")
    steps = tokens - 1
    if steps < 1:
        raise NoBoundError("a single token is decoded: the first one ends the prefill")
    if cache_types is None:
        raise NoBoundError("the types of cached keys and values are not known")
    # Step k reads what was cached before it: the prompt and k tokens of the answer.
    positions = text + image + (steps - 1) / 2
    cached = positions * cost.cache_bytes(*cache_types)
    needed = cost.weight_bytes + cached
    near = peaks.get("cache_bytes") or 0
    if needed <= near:
        raise NoBoundError(
            f"the {_mega(needed)} MB read for a token fit into the processor's cache of {_mega(near)} MB, "
            "which is faster than memory"
        )
    inputs = (
        f"{_mega(cost.weight_bytes)} MB of weights + {_mega(cached)} MB of keys and values at "
        f"{positions:g} positions / {bandwidth / 1e9:.4g} GB/s"
    )
    spared = needed / (needed - near) - 1
    if spared:
        inputs += f"; a cache of {_mega(near)} MB may spare {100 * spared:.3g} % of it"
    if metric == "tokens_per_second":
        return bandwidth / needed, inputs, spared
    return 1e3 * steps * needed / bandwidth, f"{steps} tokens, each {inputs}", spared


def _computed(
    phase: str, metric: str, peak: float, weights: Mapping[str, Mapping[str, Any]], counts: Counts
) -> tuple[float, str, float]:
    if phase == "image_encode":
        (tokens,) = _known(counts, "image_prefill")
        operations = encode_operations(_tensors(weights, "mmproj"), tokens)
    else:
        (tokens,) = _known(counts, phase)
        # The prompt's last token, a text one, is the only one whose prediction is needed.
        operations = language_cost(_tensors(weights, "model")).prefill_operations(
            tokens, int(phase == "text_prefill")
        )
    seconds = operations / peak
    inputs = f"{operations / 1e9:.4g} giga-operations for {tokens} tokens / {peak / 1e12:.4g} tera/s"
    return (tokens / seconds if metric == "tokens_per_second" else 1e3 * seconds), inputs, 0.0


def _tensors(weights: Mapping[str, Mapping[str, Any]], role: str) -> Mapping[str, Any]:
    """Return the record of weights whose tensors are known: those of GGUF files."""
    if "tensors" not in weights.get(role, {}):
        kind = next(
            (record["weights_format"] for record in weights.values() if "weights_format" in record), ""
        )
        raise NoBoundError(f"the tensors of {kind or 'such'} weights are not known: {role} has no GGUF file")
    return weights[role]


def _known(counts: Counts, *phases: str) -> tuple[int, ...]:
    found = tuple(getattr(counts, phase) for phase in phases)
    for phase, value in zip(phases, found, strict=True):
        if not value:
            raise NoBoundError(f"no run tells how many tokens {phase} has")
    return found


def limits(files: Iterable[str | Path]) -> dict[tuple[str, str, str], Limit]:
    """Return the bounds of `bounds/<device>.csv` files by (cell, phase, metric).

    Raises:
        IntegrityError: a file is none of these.
    """
    return limits_of(read_bounds(files))


def limits_of(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str, str], Limit]:
    """Return the bounds of rows of COLUMNS by (cell, phase, metric); rows without a bound give none."""
    found = {}
    for row in rows:
        if row["bound"]:
            key = (row["cell"], row["phase"], row["metric"])
            margin = float(row["margin_percent"]) / 100
            found[key] = Limit(float(row["bound"]), margin, row["kind"], row["metric"] == "duration")
    return found


def read_bounds(files: Iterable[str | Path]) -> list[dict[str, str]]:
    """Return the rows of `bounds/<device>.csv` files; IntegrityError when one is none."""
    rows: list[dict[str, str]] = []
    for path in files:
        with Path(path).open(newline="") as stream:
            reader = csv.DictReader(stream)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise IntegrityError(
                    f"{Path(path).name} is no table of bounds",
                    where=str(path),
                    do="Remove it: the workflow makes it again",
                )
            rows += list(reader)
    return rows


def _absent(cell: str, reason: str) -> Iterator[Row]:
    for phase, metric, unit, kind in BOUNDED:
        row: Row = dict.fromkeys(COLUMNS, "")
        yield {
            **row,
            "cell": cell,
            "phase": phase,
            "metric": metric,
            "unit": unit,
            "kind": kind,
            "reason": reason,
        }


def _record(path: str | Path) -> Mapping[str, Any]:
    try:
        record = read_json(path)
    except (OSError, ValueError) as error:
        raise IntegrityError(
            f"{Path(path).name} is no record of weights: {error}",
            where=str(path),
            do="Remove it and the weights beside it so that both are made again",
        ) from error
    if not isinstance(record, dict) or record.get("format") != WEIGHTS_FORMAT:
        raise IntegrityError(
            f"{Path(path).name} is no record of weights of format {WEIGHTS_FORMAT}",
            where=str(path),
            do="Remove it and the weights beside it so that both are made again",
        )
    return record


def _cache_types(adapter: str, settings: Mapping[str, Any]) -> tuple[str, str] | None:
    resolved = frameworks.command(adapter).resolve_settings(own(settings))
    names = ("kv_type_k", "kv_type_v")
    if any(name not in resolved for name in names):
        return None
    key, value = (str(resolved[name]) for name in names)
    return key, value


def _mega(count: float) -> str:
    return f"{count / 1e6:.4g}"

"""The rows of `ledger.csv` and the verdict on each."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pocketvlm.analyse.bounds import BOUNDED, Limit, limits_of, read_bounds
from pocketvlm.analyse.ledger.others import Measurement, others_of
from pocketvlm.analyse.ledger.published import Item, items
from pocketvlm.analyse.ledger.quantities import LESS, MORE, Limits, Quantity, Source, prompt_tokens
from pocketvlm.analyse.ledger.reference import published_limits
from pocketvlm.analyse.paper.ours import NO_CELL, Cell, Estimate, Results
from pocketvlm.config.paper import Paper, Published, load_paper
from pocketvlm.provenance import atomic_file, read_json

COLUMNS = (
    "experiment",
    "stack",
    "cell",
    "device_kind",
    "weights_kind",
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
REPRODUCED, FASTER, SLOWER = "reproduced", "faster", "slower"
HIGHER, LOWER = "higher", "lower"
NOT_COMPARABLE, NOT_MEASURED, NOT_PUBLISHED = "not comparable", "not measured", "no published value"
VERDICTS = (REPRODUCED, FASTER, SLOWER, HIGHER, LOWER, NOT_COMPARABLE, NOT_MEASURED, NOT_PUBLISHED)

_NO_PHONE = {
    "emulated": "measured on an emulated phone, whose speed is no phone's",
    "local": "measured on this machine, which is no phone",
}
Row = dict[str, str]


@dataclass(frozen=True)
class Bounds:
    """The bounds of a cell.

    Attributes:
        limits: by phase and metric.
        source: what they stand on; or, without any, why there are none.
        tokens: of the prompt, for bounds on a time per prompt token.
        of_ours: whether they bound our value; else only the published one.
    """

    limits: Limits
    source: str
    tokens: int
    of_ours: bool


def write_ledger(
    *,
    cells: str | Path,
    summary: str | Path,
    runs: str | Path,
    bounds: Sequence[str | Path],
    peaks: Sequence[str | Path],
    paper: str | Path | None,
    shapes: Mapping[str, Mapping[str, Any]],
    bootstrap: Mapping[str, Any],
    tolerance_percent: float,
    destination: str | Path,
) -> None:
    """Write `ledger.csv` of an experiment.

    Args:
        cells: `cells.json`.
        summary: `cells.csv`.
        runs: `runs.parquet`.
        bounds: `bounds/<device>.csv` of the devices that were measured.
        peaks: `peaks.json` of all devices.
        paper: the published values; None for an experiment that stands beside none.
        shapes: `shape` of the models of config/models.yaml by name, for bounds on what was not measured.
        bootstrap: `analysis.bootstrap` of the configuration.
        tolerance_percent: by how much ours may differ from the published value to count as reproduced.
        destination: the file to write.
    """
    study = read_json(cells)
    results = Results(pd.read_csv(summary), pd.read_parquet(runs), bootstrap)
    ledger = _Ledger(
        experiment=study["experiment"],
        cells=study["cells"],
        results=results,
        rows=read_bounds(bounds),
        peaks={record["device"]: record for record in map(read_json, peaks)},
        shapes=shapes,
        tolerance=tolerance_percent / 100,
    )
    with atomic_file(destination) as stream:
        writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        writer.writeheader()
        if paper is not None:
            writer.writerows(ledger.beside(load_paper(paper)))
        writer.writerows(ledger.alone(with_stacks=paper is None))


@dataclass(frozen=True)
class _Ledger:
    experiment: str
    cells: Sequence[Cell]
    results: Results
    rows: Sequence[Mapping[str, str]]
    peaks: Mapping[str, Mapping[str, Any]]
    shapes: Mapping[str, Mapping[str, Any]]
    tolerance: float

    def beside(self, paper: Paper) -> Iterator[Row]:
        """Yield a row for each published value and each cell that stands for its stack."""
        others = {stack.id: others_of(paper, stack) for stack in paper.stacks}
        bounds = {cell["cell"]: self._bounds(paper, cell) for cell in self.cells if cell.get("stack")}
        for item in items(paper):
            mine = [cell for cell in self.cells if item.stack and cell.get("stack") == item.stack]
            for cell in mine:
                known = others[item.stack]
                yield self._row(item, known, Source(self.results, cell, paper), bounds[cell["cell"]])
            if not mine:
                yield self._missing(item, others.get(item.stack, []))

    def alone(self, *, with_stacks: bool) -> Iterator[Row]:
        """Yield our cells against their bounds, for cells of which nothing is published."""
        for cell in self.cells:
            if cell.get("stack") and not with_stacks:
                continue
            for phase, metric, unit, _ in BOUNDED:
                ours = self.results.of(cell, phase, metric)
                found, source = self._bound_of(cell, phase, metric)
                yield {
                    **self._head(metric, phase, unit, cell),
                    **_ours(ours),
                    "bound": _digits(found.bound if found else None),
                    "bound_source": source,
                    "fraction_of_bound": _digits(
                        found.fraction(ours.median) if found and ours.median else None
                    ),
                    "verdict": NOT_MEASURED if ours.median is None else NOT_PUBLISHED,
                    "reason": ours.note,
                }

    def _row(self, item: Item, others: Sequence[Measurement], source: Source, bounds: Bounds) -> Row:
        quantity, cell = item.quantity, source.cell
        ours = quantity.ours(source) if quantity.ours else Estimate(None, note=quantity.other)
        bound = quantity.bound(bounds.limits, bounds.tokens) if quantity.bound else None
        share = None
        if bound and ours.median and bounds.of_ours:
            share = bound / ours.median if quantity.fast == LESS else ours.median / bound
        verdict, reason = self._verdict(item, ours, source)
        return {
            **self._head(quantity.name, quantity.phase, quantity.unit, cell),
            **_ours(ours),
            **_others(quantity, others),
            "published_in": item.place,
            "paper": item.printed,
            "ratio": _digits(_ratio(ours.median, item.value)),
            "bound": _digits(bound),
            "bound_source": bounds.source if quantity.bound else "",
            "fraction_of_bound": _digits(share),
            "verdict": verdict,
            "reason": reason,
        }

    def _missing(self, item: Item, others: Sequence[Measurement]) -> Row:
        reason = NO_CELL if item.stack else item.quantity.other
        return {
            **self._head(item.quantity.name, item.quantity.phase, item.quantity.unit, {"stack": item.stack}),
            **_others(item.quantity, others),
            "n": "0",
            "published_in": item.place,
            "paper": item.printed,
            "verdict": NOT_MEASURED,
            "reason": reason,
        }

    def _verdict(self, item: Item, ours: Estimate, source: Source) -> tuple[str, str]:
        quantity = item.quantity
        if item.value is None:
            return NOT_PUBLISHED, "; ".join(text for text in ("the paper prints no value", ours.note) if text)
        if ours.median is None:
            return NOT_MEASURED, ours.note or quantity.other
        unlike = self._unlike(quantity, source)
        if unlike:
            return NOT_COMPARABLE, "; ".join(unlike)
        said = "; ".join(text for text in (quantity.other, ours.note) if text)
        if item.value.holds(ours.median, tolerance=self.tolerance):
            return REPRODUCED, said
        more = ours.median > item.value.high
        if not quantity.fast:
            return (HIGHER if more else LOWER), said
        return (FASTER if more == (quantity.fast == MORE) else SLOWER), said

    def _unlike(self, quantity: Quantity, source: Source) -> list[str]:
        """Return why ours and the published value are not the same thing; empty when they are."""
        cell, paper = source.cell, source.paper
        found = []
        kind, theirs = cell["device_kind"], str(paper.at("device", "name"))
        if kind in _NO_PHONE:
            found.append(_NO_PHONE[kind])
        elif _plain(cell["device"]) != _plain(theirs):
            found.append(f"measured on {cell['device']}, the paper's phone is a {theirs}")
        if cell["weights_kind"] == "synthetic":
            found.append("synthetic weights: the shape of the model, not the model")
        if "prompt" in quantity.tokens:
            published = self._printed(paper, source, "prompt_tokens")
            found += self._counts("prompts", prompt_tokens(source).median, [published])
        if "answer" in quantity.tokens:
            mine = self.results.of(cell, "decode", "tokens").median
            published = self._printed(paper, source, "generated_tokens")
            found += self._counts("answers", mine, [paper.answer_tokens(cell["stack"]), published])
        return found

    def _counts(self, what: str, mine: float | None, theirs: Sequence[Published | None]) -> list[str]:
        printed = [value for value in theirs if value is not None]
        if (
            mine is None
            or not printed
            or any(value.holds(mine, tolerance=self.tolerance) for value in printed)
        ):
            return []
        told = " or ".join(dict.fromkeys(map(str, printed)))
        return [f"{what} of {mine:g} tokens here and of {told} in the paper"]

    @staticmethod
    def _printed(paper: Paper, source: Source, key: str) -> Published | None:
        stack = source.cell["stack"]
        return paper.told(stack, key) if stack in paper.at("text") else None

    def _bounds(self, paper: Paper, cell: Cell) -> Bounds:
        """Return the bounds of a cell; of one that was not measured those on the published values."""
        mine = [row for row in self.rows if row["cell"] == cell["cell"]]
        found = {(phase, metric): limit for (_, phase, metric), limit in limits_of(mine).items()}
        if found:
            sources = dict.fromkeys(row["source"] for row in mine if row["bound"])
            tokens = prompt_tokens(Source(self.results, cell, paper)).median
            return Bounds(found, "; ".join(sources), int(tokens or 0), of_ours=True)
        reasons = "; ".join(dict.fromkeys(row["reason"] for row in mine if row["reason"]))
        if self.results.measured(cell) or cell["device_kind"] != "phone":
            # Peaks of another device say nothing about the paper's.
            return Bounds({}, reasons, 0, of_ours=True)
        peaks = self.peaks[cell["device"]]
        limits, words, tokens_told = published_limits(
            paper,
            paper.stack(cell["stack"]),
            quantisation=cell["quantisation"],
            backend=cell["backend"],
            peaks=peaks,
            shapes=self.shapes,
        )
        if not limits:
            return Bounds({}, peaks["reason"] or words, 0, of_ours=False)
        return Bounds(limits, f"{words}; {peaks['source']}", tokens_told, of_ours=False)

    def _bound_of(self, cell: Cell, phase: str, metric: str) -> tuple[Limit | None, str]:
        for row in self.rows:
            if (row["cell"], row["phase"], row["metric"]) == (cell["cell"], phase, metric):
                if not row["bound"]:
                    return None, row["reason"]
                return limits_of([row])[cell["cell"], phase, metric], f"{row['inputs']}; {row['source']}"
        return None, str(cell.get("unavailable") or "no bound was computed")

    def _head(self, quantity: str, phase: str, unit: str, cell: Cell) -> Row:
        row = dict.fromkeys(COLUMNS, "")
        told = {name: str(cell.get(name) or "") for name in ("stack", "cell", "device_kind", "weights_kind")}
        return {
            **row,
            "experiment": self.experiment,
            **told,
            "quantity": quantity,
            "phase": phase,
            "unit": unit,
        }


def _ours(value: Estimate) -> Row:
    return {"ours": _digits(value.median), "n": str(value.n)}


def _others(quantity: Quantity, others: Sequence[Measurement]) -> Row:
    """Return what others measured of a quantity; several are parted by `; `, sources in the same order."""
    found = [(other.as_quantity(quantity.name, quantity.unit), other.source) for other in others]
    known = [(value, source) for value, source in found if value is not None]
    return {
        "others": "; ".join(_digits(value) for value, _ in known),
        "others_source": "; ".join(source for _, source in known),
    }


def _ratio(ours: float | None, theirs: Published | None) -> float | None:
    return ours / theirs.middle if ours is not None and theirs is not None and theirs.middle else None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"

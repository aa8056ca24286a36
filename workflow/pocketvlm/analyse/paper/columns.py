"""The columns of `paper_table2.csv` and `paper_table3.csv`: one row a number, theirs and ours alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.analyse.paper.ours import Cell, Estimate, kind_text
from pocketvlm.config.paper import Paper, Published, Stack

COLUMNS = (
    "experiment",
    "stack",
    "model",
    "framework",
    "whose",
    "cell",
    "device",
    "device_kind",
    "weights_kind",
    "label",
    "quantity",
    "metric",
    "unit",
    "value",
    "least",
    "greatest",
    "n",
    "ci_low",
    "ci_high",
    "note",
)

Row = dict[str, Any]


def theirs(
    experiment: str, paper: Paper, stack: Stack, quantity: str, unit: str, value: Published | None, note: str
) -> Row:
    """Return a published number as a row; a range has no `value`, what is not printed has neither."""
    one = value is not None and value.single
    return _row(
        experiment=experiment,
        stack=stack.id,
        model=stack.model,
        framework=stack.framework,
        whose="paper",
        device=paper.at("device", "name"),
        label=paper.citation,
        quantity=quantity,
        unit=unit,
        value=value.low if value is not None and one else "",
        least=value.low if value is not None and not one else "",
        greatest=value.high if value is not None and not one else "",
        n=paper.at("protocol", "repeats") if value is not None else "",
        note=note,
    )


def ours(
    experiment: str, cell: Cell, whose: str, quantity: str, metric: str, unit: str, value: Estimate
) -> Row:
    """Return a number of a cell as a row; one that is missing has n = 0 and its reason as `note`."""
    return _row(
        experiment=experiment,
        stack=cell.get("stack") or "",
        **{name: cell[name] for name in ("model", "framework", "cell", "device", "device_kind")},
        weights_kind=cell["weights_kind"],
        whose=whose,
        label=kind_text([cell]),
        quantity=quantity,
        metric=metric,
        unit=unit,
        value=_digits(value.median),
        n=value.n,
        ci_low=_digits(value.low),
        ci_high=_digits(value.high),
        note=value.note,
    )


def absent(experiment: str, stack: Stack, quantity: str, unit: str, reason: str) -> Row:
    """Return the row of a stack that no cell of the experiment stands for."""
    return _row(
        experiment=experiment,
        stack=stack.id,
        model=stack.model,
        framework=stack.framework,
        whose="ours",
        quantity=quantity,
        unit=unit,
        n=0,
        note=reason,
    )


def _row(**values: Any) -> Row:
    unknown = set(values) - set(COLUMNS)
    assert not unknown, unknown
    row: Mapping[str, Any] = {**dict.fromkeys(COLUMNS, ""), **values}
    return dict(row)


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.9g}"

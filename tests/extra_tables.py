"""Tables that other stages write beside an experiment's own, made by hand: for tests of the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvlm.analyse.report import Extras

LEDGER = [
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
]
AUDIT = [
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
]


def write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, object]]) -> Path:
    """Write a table; a row names only the columns that it fills."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return path


def ledger(path: Path, cell: str) -> Path:
    """Write a ledger of a cell and of a stack that was not measured; its published values are invented."""
    own = {"experiment": "x", "stack": "some-stack", "cell": cell, "published_in": "Table 2", "n": 3}
    rows = [
        {
            **own,
            "quantity": "decode_rate",
            "phase": "decode",
            "unit": "tokens/s",
            "paper": 2.7,
            "ours": 3.80123,
            "ratio": 1.40786,
            "others": 6.1,
            "others_source": "measured by someone, 2025",
            "bound": 8.4,
            "bound_source": "25.6 GB/s over 3.05 GB a token",
            "fraction_of_bound": 0.4525,
            "verdict": "faster",
        },
        {
            **own,
            "quantity": "total",
            "phase": "run",
            "unit": "ms",
            "paper": 82194.9,
            "ours": 50123.0,
            "ratio": 0.6098,
            "verdict": "not comparable",
            "reason": "synthetic weights on another device <script>alert('ledger')</script>",
        },
        {
            "experiment": "x",
            "stack": "other-stack",
            "quantity": "total",
            "phase": "run",
            "unit": "ms",
            "paper": "60 to 70",
            "n": 0,
            "verdict": "not measured",
            "reason": "the framework is not provisioned",
        },
    ]
    return write(path, LEDGER, rows)


def audit(path: Path, contradictions: int = 1) -> Path:
    """Write an audit of some consistent checks and some contradictions."""
    consistent = {
        "id": "sum",
        "subject": "phases sum to the wall time",
        "formula": "Σ phases − wall",
        "a": 5780.01,
        "a_where": "phases",
        "b": 5780.0,
        "b_where": "run",
        "difference": 0.01,
        "unit": "ms",
        "verdict": "consistent",
    }
    wrong = {
        "id": "total",
        "subject": "the stages and the total",
        "formula": "load + encode + decode + evaluation + generation",
        "a": 150809.3,
        "a_where": "sum of the stages",
        "b": 82194.9,
        "b_where": "Table 2, total",
        "difference": 68614.4,
        "unit": "ms",
        "verdict": "contradiction",
        "consequence": "stages overlap <b onclick=alert(5)>here</b>",
    }
    rows = [consistent, *({**wrong, "id": f"total{n}"} for n in range(contradictions))]
    return write(path, AUDIT, rows)


def every(folder: Path, cell: str, figure: Path) -> Extras:
    """Write one of each; `figure` stands for the paper's."""
    sheet = ["stack", "load_ms", "ours_load_ms", "why"]
    battery = ["case", "energy_j", "battery_life_h", "reason"]
    table = write(
        folder / "paper_table2.csv",
        sheet,
        [{"stack": "some-stack", "load_ms": 3209.1, "why": "not measured"}],
    )
    table.with_suffix(".tex").write_text("% table\n")
    life = {"case": "one query a minute", "energy_j": 12.7, "battery_life_h": 35.25}
    drawn = folder / "paper_figure1.svg"
    drawn.write_bytes(figure.read_bytes())
    return Extras(
        ledger=ledger(folder / "ledger.csv", cell),
        self_audit=audit(folder / "self_audit.csv", 0),
        audit=audit(folder / "audit.csv", 2),
        battery_life=write(folder / "battery_life.csv", battery, [life]),
        paper_battery_life=write(
            folder / "paper" / "battery_life.csv", battery, [{"case": "x", "reason": "impossible"}]
        ),
        paper_tables=[table],
        paper_figures=[drawn],
        exports=[table.with_suffix(".tex")],
    )

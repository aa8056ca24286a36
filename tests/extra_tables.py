"""Tables that other stages write beside an experiment's own, made by hand: for tests of the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from pocketvlm.analyse.report import Extras
from pocketvlm.analyse.soak.tables import SUMMARY

LEDGER = [
    *("experiment", "stack", "cell", "device_kind", "weights_kind", "quantity", "phase", "unit"),
    *("published_in", "paper", "ours", "n", "ratio", "others", "others_source", "bound", "bound_source"),
    *("fraction_of_bound", "verdict", "reason"),
]
AUDIT = [
    *("id", "subject", "formula", "a", "a_where", "b", "b_where", "difference", "unit", "verdict"),
    "consequence",
]
BATTERY = [
    *("experiment", "stack", "cell", "device_kind", "weights_kind", "queries_per_minute", "capacity_mah"),
    *("voltage_v", "battery_wh", "power_w", "idle_w", "query_s", "slot_s", "duty_percent", "mean_power_w"),
    *("hours", "continuous_hours", "idle_hours", "claimed_hours", "query_s_for_claim", "verdict", "reason"),
]
MANUSCRIPT = """**Table 2, ms.**

| Stack | Whose | Load |
| :-- | :-- | --: |
| some\\_stack | paper | 3209\\.1 |
|  | ours | NA (a) |

(a) &lt;script&gt;alert(6)&lt;/script&gt;<script>alert(7)</script> [x](javascript:alert(8)) ![y](https://example.invalid/y.png)
"""


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
            "bound_source": "25.6 GB/s over 3.05 GB a token; measured with 2 threads: the best of 64 passes",
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


def battery(path: Path, cell: str) -> Path:
    """Write battery life of a cell: a rate that is possible, and one that is not."""
    same = {"stack": "some-stack", "cell": cell, "capacity_mah": 5000, "voltage_v": 3.87, "battery_wh": 19.35}
    possible = {
        "queries_per_minute": 1,
        "power_w": 3.5,
        "idle_w": 0.774,
        "query_s": 22.7991,
        "slot_s": 60,
        "duty_percent": 37.9985,
        "mean_power_w": 1.80984,
        "hours": 10.6916,
        "verdict": "possible",
    }
    why = "a query of 82.19 s does not fit into its slot of 60 s"
    impossible = {"query_s": 82.19, "slot_s": 60, "verdict": "impossible", "reason": why}
    return write(path, BATTERY, [{**same, **possible}, {**same, **impossible}])


def soak(path: Path, cell: str) -> Path:
    """Write the summary of a cell's soak: a value with an interval, and one that is NA."""
    ratio = {"quantity": "sustained_ratio", "value": 0.7421, "unit": "1", "ci_low": 0.71, "ci_high": 0.78}
    never = {"quantity": "time_to_throttle", "unit": "s", "note": "not throttled <b>within</b> 60 s"}
    return write(path, SUMMARY, [{"cell": cell, **ratio}, {"cell": cell, **never}])


def every(folder: Path, cell: str, figure: Path) -> Extras:
    """Write one of each; `figure` stands for the paper's."""
    table = folder / "paper_table2.md"
    table.parent.mkdir(parents=True, exist_ok=True)
    table.write_text(MANUSCRIPT, encoding="utf-8")
    table.with_suffix(".tex").write_text("% table\n", encoding="utf-8")
    drawn = folder / "paper_figure1.svg"
    drawn.write_bytes(figure.read_bytes())
    return Extras(
        ledger=ledger(folder / "ledger.csv", cell),
        self_audit=audit(folder / "self_audit.csv", 0),
        audit=audit(folder / "audit.csv", 2),
        battery_life=battery(folder / "battery_life.csv", cell),
        paper_battery_life=battery(folder / "paper" / "battery_life.csv", ""),
        paper_tables=[table],
        paper_figures=[drawn],
        exports=[table.with_suffix(".tex")],
        soak=soak(folder / "soak_summary.csv", cell),
        soak_figure=drawn,
    )

"""Which metrics a device yields, and what root adds: from one identity, or from two of the same phone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Metrics of docs/method.md by what they stand on: any of the alternatives, each a list of quantities that it
# needs together, with the beginning of their components.
_NEEDS: tuple[tuple[str, tuple[tuple[tuple[str, str], ...], ...]], ...] = (
    ("system_cpu", ((("cpu_time", ""),),)),
    ("workload_cpu", ((("workload_cpu_time", ""),),)),
    ("rss_peak", ((("workload_rss", ""),),)),
    ("memory_available_min", ((("memory", "available"),),)),
    ("cpu_frequency", ((("cpu_frequency", ""),),)),
    ("clock_mean, clock_drop", ((("time_in_state", ""),),)),
    ("gpu_busy", ((("gpu_busy", ""),),)),
    ("gpu_frequency", ((("gpu_frequency", ""),),)),
    ("gpu_time_workload, gpu_time_screen", ((("gpu_work", ""),),)),
    ("npu_busy", ((("npu_busy", ""),),)),
    *(
        (f"temperature.{name}", ((("temperature", name),),))
        for name in ("cpu", "gpu", "npu", "skin", "battery", "pmic")
    ),
    ("power, energy", ((("current", ""), ("voltage", "")), (("energy", "rapl"),))),
)
_DENIED = ("cannot be read", "by root only")


@dataclass(frozen=True)
class Row:
    """One line of the table: a metric, and why it is NA without root and with it; None where it is there."""

    metric: str
    unrooted: str | None
    rooted: str | None


def yields(identity: Mapping[str, Any]) -> dict[str, str | None]:
    """Return the metrics that stand on a device's sensors: None where it has them, else why it does not."""
    there = [(sensor["quantity"], sensor["component"]) for sensor in identity["sensors"]]
    there += [(name, "") for name in identity.get("snapshots", {})]
    found: dict[str, str | None] = {}
    for metric, alternatives in _NEEDS:
        lacking = [[need for need in needs if not _has(there, *need)] for needs in alternatives]
        reasons = [_why(identity, *need) for needs in lacking[:1] for need in needs]
        found[metric] = None if not all(lacking) else "; ".join(dict.fromkeys(reasons))
    return found


def _has(there: list[tuple[str, str]], quantity: str, prefix: str) -> bool:
    return any(known == quantity and component.startswith(prefix) for known, component in there)


def _why(identity: Mapping[str, Any], quantity: str, prefix: str) -> str:
    for lack in identity["missing"]:
        if lack["quantity"] == quantity and lack["component"].startswith(prefix):
            return str(lack["reason"])
    if quantity == "gpu_work":
        return "the device has no `dumpsys gpu --gpuwork`"
    return f"no sensor of {quantity.replace('_', ' ')}{f' of {prefix}' if prefix else ''}"


def outlook(identity: Mapping[str, Any]) -> list[Row]:
    """Return the table for one device: what it yields, and what root would add as far as can be known.

    With `root: true` in the device's file the other column is not known: nobody has looked without root.
    """
    rows = []
    for metric, reason in yields(identity).items():
        if identity.get("root"):
            rows.append(Row(metric, "not looked at", reason))
        elif reason and any(word in reason for word in _DENIED):
            rows.append(Row(metric, reason, "perhaps: the file is there and denied"))
        else:
            rows.append(Row(metric, reason, reason))
    return rows


def compare(unrooted: Mapping[str, Any], rooted: Mapping[str, Any]) -> list[Row]:
    """Return the table for two identities, of a phone looked at without and with root."""
    with_root = yields(rooted)
    return [Row(metric, reason, with_root[metric]) for metric, reason in yields(unrooted).items()]


def markdown(rows: list[Row]) -> str:
    """Return the table as Markdown."""

    def told(reason: str | None) -> str:
        return "yes" if reason is None else "NA: " + " ".join(reason.replace("|", "/").split())

    lines = ["| metrics | unrooted | rooted |", "|---|---|---|"]
    lines += [f"| {row.metric} | {told(row.unrooted)} | {told(row.rooted)} |" for row in rows]
    return "\n".join(lines) + "\n"

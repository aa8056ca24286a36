"""Which devices are not there: asked before the jobs are known, where such cells are to be rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.config.study import Study
from pocketvlm.devices import absence
from pocketvlm.provenance import read_json

NOTHING_TO_MEASURE = "none of its cells can be measured"


@dataclass(frozen=True)
class Absent:
    """A device that nothing can be measured on as things are.

    Attributes:
        reason: why.
        identified: whether it was looked at when it was there; its runs of then still count.
    """

    reason: str
    identified: bool


def absent_devices(study: Study, results: Path) -> dict[str, Absent]:
    """Return the devices of an experiment that nothing can be measured on, by name.

    A phone is asked for only where it would be needed: not when all runs of its cells are there already.
    Devices of experiments that refuse absent ones are never among them: their jobs say what is wrong.

    Args:
        study: the experiment.
        results: folder of results.
    """
    found: dict[str, Absent] = {}
    if not study.rows_for_absent:
        return found
    for name, config in study.devices.items():
        cells = [cell.id for cell in study.cells_of(name) if cell.unavailable is None]
        index = results / study.name / "blocks" / f"{name}.json"
        if cells and measured(index, cells, study.experiment["repeats"]):
            continue
        reason = absence(config)
        if reason is not None:
            identity = results / "devices" / name / "identity.json"
            found[name] = Absent(reason, identified=bool(cells) and identity.is_file())
        elif not cells:
            found[name] = Absent(NOTHING_TO_MEASURE, identified=False)
    return found


def measured(index: Path, cells: list[str], repeats: int) -> bool:
    """Whether an index of a block lists all runs of these cells; false for what is no index."""
    try:
        runs: list[Mapping[str, Any]] = read_json(index)["runs"]
        counted = Counter(run["cell"] for run in runs if run["role"] == "measured")
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return all(counted[cell] >= repeats for cell in cells)


def absent_record(config: Mapping[str, Any], reason: str) -> dict[str, Any]:
    """Return what stands in the place of the identity of a device that could not be asked what it is.

    Args:
        config: the device's file of `config/devices`.
        reason: why nothing is known of it.
    """
    unknown = dict.fromkeys(
        ("model", "soc", "os", "kernel", "cpus", "memory_bytes", "page_bytes", "ticks_per_second")
    )
    return {
        "format": 1,
        "id": config["id"],
        "kind": config["kind"],
        **unknown,
        "target": config["target"],
        "exec_prefix": list(config["exec_prefix"]),
        "notice": None,
        "groups": {},
        "sensors": [],
        "missing": [],
        "absent": reason,
    }


def rows_for(study: Study, absent: Mapping[str, Absent]) -> Study:
    """Return the experiment with the cells of devices that were never looked at unavailable."""
    reasons = {
        name: device.reason
        for name, device in absent.items()
        if not device.identified and device.reason != NOTHING_TO_MEASURE
    }
    return study.without(reasons)

"""Make the soak's tables again from its raw runs, and say what differs."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.analyse.soak.tables import tabulate
from pocketvlm.analyse.verify import Difference, compare_csv
from pocketvlm.errors import PocketvlmError

_NAMES = {"runs": "soak.csv", "summary": "soak_summary.csv", "series": "soak_series.csv"}


def verify_soak(
    experiment: str,
    results: str | Path,
    cells: str | Path,
    identities: Sequence[str],
    *,
    devices: Sequence[str],
    soak: Mapping[str, Any],
    thresholds: Mapping[str, float],
    bootstrap: Mapping[str, Any],
) -> list[Difference]:
    """Return what differs between the tables of a soak and those that its raw runs give now.

    Args:
        experiment: its name.
        results: the results folder.
        cells: `cells.json` of the experiment.
        identities: `identity.json` of each device.
        devices: those of the experiment, in the same order.
        soak: what the experiment asks for, as `tabulate` takes it.
        thresholds, bootstrap: of the configuration.
    """
    own = Path(results) / experiment
    with tempfile.TemporaryDirectory(dir=own, prefix=".verify-") as name:
        again = Path(name)
        try:
            tabulate(
                [own / "soak" / f"{device}.json" for device in devices],
                identities,
                cells,
                Path(results) / "raw",
                soak=soak,
                gates=thresholds,
                bootstrap=bootstrap,
                **{table: again / file for table, file in _NAMES.items()},
            )
        except (PocketvlmError, OSError) as error:
            return [Difference(str(own / "soak"), f"cannot be made again: {error}")]
        found: list[Difference] = []
        for file in _NAMES.values():
            found += compare_csv(own / "tables" / file, again / file)
    return found

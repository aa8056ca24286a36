"""The overlay that hands the choice of a search back to an experiment (`config.tuned`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.analyse.tune.plan import Plan
from pocketvlm.analyse.tune.search import Choice
from pocketvlm.frameworks.settings import AFFINITY


def overlay(planned: Plan, choice: Choice, cell: Mapping[str, Any], experiment: str) -> dict[str, Any]:
    """Return the content of `chosen.yaml`: what was chosen, for which cells, and why.

    Args:
        planned: the search.
        choice: what it chose.
        cell: the entry of `cells.json` that was tuned.
        experiment: its experiment.
    """
    chosen = planned.of(choice.name) if choice.name is not None else None
    varied = {axis for each in planned.candidates.values() for axis in each.axes}
    settings = dict(chosen.settings) if chosen else None
    if settings is not None and AFFINITY in varied and AFFINITY not in settings:
        settings[AFFINITY] = None
    return {
        "format": 1,
        "experiment": experiment,
        "for": {name: cell[name] for name in ("device", "framework", "version", "backend", "model")},
        "workload": cell["workload"],
        "chosen": choice.name,
        "reason": choice.reason,
        "quantisation": chosen.quantisation if chosen else None,
        "settings": settings,
    }

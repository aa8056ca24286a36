"""The soak that an experiment asks for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.config.sections import require_section
from pocketvlm.stage import plain_errors

_DEFAULTS = {"busy_percent": 100, "first_s": 60, "throttle_percent": 10}


def wanted(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return duration_s, busy_percent, first_s and throttle_percent; nothing without a `soak`.

    Args:
        experiment: the experiment's file.
    """
    return {**_DEFAULTS, **experiment["soak"]} if "soak" in experiment else {}


def measured(soak: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of it shapes the runs, or is shown while they are made: how throttling is told does not."""
    return {name: value for name, value in soak.items() if name != "throttle_percent"}


def files(experiment: str) -> list[str]:
    """Return the soak's tables and figure.

    Args:
        experiment: the experiment's folder of results.
    """
    tables = [f"{experiment}/tables/{name}.csv" for name in ("soak", "soak_summary", "soak_series")]
    return [*tables, *[f"{experiment}/figures/soak.{ending}" for ending in ("svg", "png")]]


def files_for(
    experiment: Mapping[str, Any], name: str, folder: Path, results: str
) -> Callable[[object], list[str]]:
    """Return the input of a rule that is asked for by name: it refuses an experiment that has no soak.

    Args:
        experiment, name, folder: as `require`.
        results: the experiment's folder of results.
    """

    def ask(_: object) -> list[str]:
        with plain_errors():
            require(experiment, name, folder)
        return files(results)

    return ask


def require(experiment: Mapping[str, Any], name: str, folder: Path) -> None:
    """Raise ConfigError when an experiment has no soak.

    Args:
        experiment: the experiment's file.
        name: of the experiment.
        folder: where the experiments are.
    """
    require_section("soak", experiment, name, folder, what="soak", example="soak: {duration_s: 1800}")

"""The framework's own benchmark beside an experiment's cells, where the experiment asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pocketvlm.config.sections import require_section
from pocketvlm.config.study import Study
from pocketvlm.errors import ConfigError
from pocketvlm.stage import plain_errors

_DEFAULTS = {"rounds": 10, "repetitions": 1, "tolerance_percent": 5}


def wanted(experiment: Mapping[str, Any]) -> dict[str, Any]:
    """Return rounds, repetitions and tolerance_percent; nothing without a `bench`.

    Args:
        experiment: the experiment's file.
    """
    return {**_DEFAULTS, **experiment["bench"]} if "bench" in experiment else {}


def measured(bench: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of it is measured: by how much the two may differ is not."""
    return {name: value for name, value in bench.items() if name != "tolerance_percent"}


def checked(study: Study, files: str | list[str]) -> Callable[[object], str | list[str]]:
    """Return the input of the rule that is asked for by name: it refuses an experiment that cannot have it.

    Args:
        study: the experiment and its catalogues.
        files: what the rule needs.
    """

    def ask(_: object) -> str | list[str]:
        with plain_errors():
            require(study)
        return files

    return ask


def require(study: Study) -> None:
    """Raise ConfigError when an experiment asks for no benchmark, or a framework of its cells has none."""
    folder = study.paths["experiments"]
    where = str(folder / f"{study.name}.yaml")
    require_section(
        "bench", study.experiment, study.name, folder, what="benchmark", example="bench: {rounds: 10}"
    )
    cells = [cell for cell in study.cells if cell.unavailable is None]
    if without := sorted(
        {cell.framework for cell in cells if "bench" not in study.frameworks[cell.framework]}
    ):
        raise ConfigError(
            f"{', '.join(without)} has no benchmark of its own",
            where=where,
            do="Take its cells out, or give its entry in config/frameworks.yaml a `bench`",
        )

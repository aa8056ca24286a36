"""Settings that a search chose, handed back to an experiment.

They come by `--config tuned=results/<experiment>/tune/chosen.yaml`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.config.schema import load_yaml
from pocketvlm.errors import ConfigError

TUNED = "tuned"
"""What a cell says in the place of its settings, or of its quantisation, to have those that were chosen."""

_AXES = ("device", "version", "backend", "model", "quantisation", "workload")
_FOR = ("device", "framework", "version", "backend", "model")


def applied(experiment: Mapping[str, Any], overlay: str | None, root: Path, where: str) -> dict[str, Any]:
    """Return an experiment with what a search chose in the place of its cells' own settings.

    Cells that say `settings: tuned` get it, and keep their quantisation unless that says `tuned`, too. Where
    no cell says so, every cell of the overlay's device, framework, version, backend and model gets settings
    and quantisation; settings that the overlay does not name stay.

    Args:
        experiment: its file.
        overlay: the path of a `chosen.yaml`, None for none.
        root: the folder that it is relative to.
        where: the experiment's file, for messages.

    Raises:
        ConfigError: a cell asks for what was chosen and there is no overlay, it is for no cell, or nothing
            was chosen.
    """
    asking = [_asks(entry) for entry in experiment["cells"]]
    if overlay is None:
        if any(asking):
            raise ConfigError(
                "the cell asks for settings that were tuned, and none are given",
                where=f"{where}: cells.{asking.index(True)}",
                do="Add `--config tuned=results/<experiment>/tune/chosen.yaml`, or write settings there",
            )
        return dict(experiment)
    found = load_yaml(root / overlay, "tuned")
    if found["settings"] is None or found["quantisation"] is None:
        raise ConfigError(
            f"the search of {found['experiment']} chose nothing: {found['reason']}",
            where=overlay,
            do="Raise its limits and search again, or leave out `tuned`",
        )
    entries: list[dict[str, Any]] = []
    hits = 0
    for number, entry in enumerate(experiment["cells"]):
        for single in _singles(entry):
            mine = _matches(single, found["for"])
            if asking[number] and not mine:
                raise ConfigError(
                    f"the cell asks for settings that were tuned, and these are for {_told(found['for'])}",
                    where=f"{where}: cells.{number}",
                    do="Give the chosen.yaml of its own search, or write settings there",
                )
            take = mine and (asking[number] or not any(asking))
            hits += take
            changed = _changed(single, found, asked=asking[number]) if take else single
            # Quantisations that became the same one are one cell.
            if changed not in entries or not take:
                entries.append(changed)
    if not hits:
        raise ConfigError(
            f"no cell is one that {overlay} is for: {_told(found['for'])}",
            where=f"{where}: cells",
            do="Choose an experiment with such a cell, or leave out `tuned`",
        )
    return {**experiment, "cells": entries}


def _asks(entry: Mapping[str, Any]) -> bool:
    return bool(entry["settings"] == TUNED or entry["quantisation"] == TUNED)


def _singles(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Give an entry of the experiment once for each combination of its axes; lists of settings stay."""
    axes = [entry[axis] if isinstance(entry[axis], list) else [entry[axis]] for axis in _AXES]
    for values in itertools.product(*axes):
        yield {**entry, **dict(zip(_AXES, values, strict=True))}


def _matches(entry: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(entry[name] == wanted[name] for name in _FOR)


def _changed(entry: Mapping[str, Any], found: Mapping[str, Any], *, asked: bool) -> dict[str, Any]:
    own = {} if entry["settings"] == TUNED else entry["settings"]
    merged = {**own, **found["settings"]} if not asked or entry["settings"] == TUNED else dict(own)
    keeps = asked and entry["quantisation"] != TUNED
    return {
        **entry,
        "settings": {name: value for name, value in merged.items() if value is not None},
        "quantisation": entry["quantisation"] if keeps else found["quantisation"],
    }


def _told(wanted: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {wanted[name]}" for name in _FOR)

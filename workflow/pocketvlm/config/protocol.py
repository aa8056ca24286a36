"""What a schema cannot say of how an experiment is measured: keys that must fit together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.errors import ConfigError


def check_protocol(experiment: Mapping[str, Any], where: str) -> None:
    """Check the warm-ups and the heat of an experiment.

    Args:
        experiment: its file, already valid by its schema.
        where: the file, for messages.

    Raises:
        ConfigError: two keys contradict each other, or nothing is waited for.
    """
    warmups = experiment["warmups"]
    if isinstance(warmups, Mapping):
        if warmups["least"] > warmups["most"]:
            raise ConfigError(
                f"least is {warmups['least']} and most is {warmups['most']}",
                where=f"{where}: warmups",
                do="Raise most, or lower least",
            )
        if warmups["window"] > warmups["most"]:
            raise ConfigError(
                f"the last {warmups['window']} warm-ups are looked at and most is {warmups['most']}",
                where=f"{where}: warmups.window",
                do="Raise most, or lower window",
            )
    heat = experiment.get("heat")
    if heat is not None and not set(heat) - {"deadline_s", "at_deadline"}:
        raise ConfigError(
            "no temperature is named, so nothing would be waited for",
            where=f"{where}: heat",
            do="Give cpu_celsius, skin_celsius, battery_celsius or above_first_k",
        )

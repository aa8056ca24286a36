"""Settings that an adapter offers: what each may be, its default, and how a cell's are checked.

`settings` of this folder has those that the workflow itself sees to; these are the frameworks' own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm.errors import ConfigError

Value = int | bool | str


@dataclass(frozen=True)
class Setting:
    """One setting of a cell.

    Attributes:
        default: the value where a cell does not give one.
        allowed: what the value may be, in words.
        accepts: whether a value is allowed.
        meaning: one line for the documentation and for messages.
    """

    default: Value
    allowed: str
    accepts: Callable[[Any], bool]
    meaning: str


def integer(least: int, most: int) -> tuple[str, Callable[[Any], bool]]:
    """Return words and check of a whole number; true and false are none."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return f"an integer from {least} to {most}", accepts


def truth() -> tuple[str, Callable[[Any], bool]]:
    """Return words and check of a switch."""
    return "true or false", lambda value: isinstance(value, bool)


def one_of(values: Sequence[str]) -> tuple[str, Callable[[Any], bool]]:
    """Return words and check of a name out of several."""
    return f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values


def resolve(
    framework: str, table: Mapping[str, Setting], given: Mapping[str, Any], *, where: str = "settings"
) -> dict[str, Value]:
    """Return all settings of a table, those that a cell does not give at their defaults.

    Args:
        framework: its name, for messages.
        table: the settings that it has.
        given: those of the cell.
        where: what the cell is called in messages.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    for name, value in given.items():
        if name not in table:
            raise ConfigError(
                f"{framework} has no setting {name!r}",
                where=f"{where}.{name}",
                do=f"Use one of: {', '.join(table)}",
            )
        if not table[name].accepts(value):
            raise ConfigError(
                f"{name} is {value!r}",
                where=f"{where}.{name}",
                do=f"Give {table[name].allowed} ({table[name].meaning})",
            )
    return {name: given.get(name, setting.default) for name, setting in table.items()}

"""The published values of a paper: `config/paper/<name>.yaml`, the only place where they are written down."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.config.schema import load_yaml, suggest
from pocketvlm.errors import ConfigError

NOT_PRINTED = "–"
"""How a value that the paper does not print stands in a table: as the paper prints it."""

STAGES = ("load", "image_encode", "image_decode", "prompt_eval", "token_generation", "total")
"""Columns of the paper's latency breakdown, in its order."""

CPU_ONLY = "cpu_only_llava"


@dataclass(frozen=True)
class Published:
    """A published value: one number (`low == high`) or a range."""

    low: float
    high: float

    @property
    def single(self) -> bool:
        """Whether it is one number."""
        return self.low == self.high

    @property
    def middle(self) -> float:
        """The number, or the middle of the range."""
        return (self.low + self.high) / 2

    def holds(self, value: float, *, tolerance: float = 0.0) -> bool:
        """Say whether a value lies in the range, widened at both ends by a fraction of the end."""
        return self.low * (1 - tolerance) <= value <= self.high * (1 + tolerance)

    def __str__(self) -> str:
        """The number as it is written in the paper's file; a range as `low–high`."""
        return _number(self.low) if self.single else f"{_number(self.low)}–{_number(self.high)}"


@dataclass(frozen=True)
class Stack:
    """A row of the study: a model under a framework."""

    id: str
    model: str
    framework: str


@dataclass(frozen=True)
class Paper:
    """The published values of one paper.

    `values` is the whole file; the methods read it. A value that the paper does not print is None; a name
    that is not in the file raises ConfigError.
    """

    name: str
    path: Path
    stacks: tuple[Stack, ...]
    values: Mapping[str, Any]

    @property
    def citation(self) -> str:
        """`arXiv 2507.08505v2`."""
        return f"arXiv {self.values['paper']['arxiv']}v{self.values['paper']['version']}"

    @property
    def date(self) -> str:
        """Its day as `YYYY-MM-DD`."""
        return str(self.values["paper"]["date"])

    def stack(self, name: str) -> Stack:
        """Return a stack by its id."""
        for stack in self.stacks:
            if stack.id == name:
                return stack
        raise self._unknown(name, [stack.id for stack in self.stacks], "stacks")

    def at(self, *keys: str | int) -> Any:
        """Return what stands at a place of the file, as plain values."""
        value: Any = self.values
        for number, key in enumerate(keys):
            try:
                value = value[key]
            except (KeyError, IndexError, TypeError):
                known = [str(name) for name in value] if isinstance(value, Mapping) else []
                raise self._unknown(str(key), known, ".".join(str(k) for k in keys[:number])) from None
        return value

    def published(self, *keys: str | int) -> Published | None:
        """Return the number or range at a place of the file; None where nothing is printed."""
        value = self.at(*keys)
        if value is None:
            return None
        low, high = value if isinstance(value, list) else (value, value)
        if isinstance(low, bool) or not isinstance(low, int | float):
            place = ".".join(str(key) for key in keys)
            raise ConfigError(f"{low!r} is no number", where=f"{self.path}: {place}", do="Ask for its parts")
        return Published(float(low), float(high))

    def duration(self, stack: str, stage: str) -> Published | None:
        """Return a cell of table 2 in ms; `stage` is one of STAGES."""
        return self.published("table2", "rows", self.stack(stack).id, stage)

    def answer_tokens(self, stack: str) -> Published | None:
        """Return a row of table 3 in tokens."""
        return self.published("table3", "rows", self.stack(stack).id)

    def utilisation(self, stack: str, quantity: str) -> Published | None:
        """Return a value of section 4.3 (`cpu_pct`, `gpu_pct`, `temp_plateau_c`, `power_w`, …)."""
        return self._optional(self.at("utilisation", stack), quantity, "utilisation", stack)

    def told(self, stack: str, quantity: str) -> Published | None:
        """Return a value of the running text (`prompt_tokens`, `ms_per_token`, `total_s`, …)."""
        return self._optional(self.at("text", stack), quantity, "text", stack)

    def energy(self, stack: str, quantity: str) -> Published | None:
        """Return `power_w` or `temp_c` of the group of section 4.4 and figure 4 that a stack belongs to."""
        return self.published("energy", energy_group(self.stack(stack)), quantity)

    def _optional(self, entry: Mapping[str, Any], quantity: str, *place: str) -> Published | None:
        return self.published(*place, quantity) if quantity in entry else None

    def _unknown(self, name: str, known: list[str], place: str) -> ConfigError:
        return ConfigError(
            f"{name!r} is not in the published values",
            where=f"{self.path}: {place}",
            do=suggest(name, known),
        )


def energy_group(stack: Stack) -> str:
    """Return the key of `energy` that a stack belongs to: LLaVA's rows are one, others go by their model."""
    model = stack.model.split("-")[0]
    return CPU_ONLY if model == "llava" else model


def of_experiment(path: str | Path | list[str], experiment: str) -> Path:
    """Return the path of an experiment's paper.

    Raises:
        ConfigError: the path is empty, for the experiment names no paper.
    """
    if not path or not isinstance(path, str | Path):
        raise ConfigError(
            f"the experiment {experiment} names no paper, so there is nothing to set its numbers beside",
            where=f"config/experiments/{experiment}.yaml: paper",
            do="Choose an experiment that has one, such as `--config experiment=paper`",
        )
    return Path(path)


def load_paper(path: str | Path) -> Paper:
    """Read the published values of a paper.

    Args:
        path: `config/paper/<name>.yaml`.

    Raises:
        ConfigError: the file is missing, is no YAML, breaks `paper.schema.yaml`, or names what is no stack.
    """
    file = Path(path)
    values = load_yaml(file, "paper")
    date = values["paper"]["date"]
    try:
        day = date if isinstance(date, datetime.date) else datetime.date.fromisoformat(date)
    except (TypeError, ValueError):
        raise ConfigError(
            f"{date!r} is no day", where=f"{file}: paper.date", do="Write it as YYYY-MM-DD"
        ) from None
    values["paper"]["date"] = day.isoformat()
    stacks = tuple(Stack(**entry) for entry in values["stacks"])
    known = [stack.id for stack in stacks]
    _refuse_twins(known, f"{file}: stacks")
    _refuse_twins([entry["id"] for entry in values["inconsistencies"]], f"{file}: inconsistencies")
    for place, names, complete in (
        ("table2.rows", values["table2"]["rows"], True),
        ("table3.rows", values["table3"]["rows"], True),
        ("utilisation", set(values["utilisation"]) - {"idle", "memory_pool_gb"}, True),
        ("text", values["text"], False),
    ):
        _check_stacks(list(names), known, f"{file}: {place}", complete=complete)
    for stack in stacks:
        if energy_group(stack) not in values["energy"]:
            raise ConfigError(
                f"no power and temperature for the stack {stack.id}",
                where=f"{file}: energy",
                do=f"Add the group {energy_group(stack)!r}",
            )
    _check_ranges(values, str(file))
    return Paper(name=file.stem, path=file, stacks=stacks, values=values)


def _refuse_twins(names: list[str], where: str) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name!r} is listed twice", where=where, do="Remove one of the two")


def _check_stacks(names: list[str], known: list[str], where: str, *, complete: bool) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r} is no stack", where=where, do=suggest(name, known))
    for name in known if complete else []:
        if name not in names:
            raise ConfigError(f"the stack {name!r} is missing", where=where, do="Add it")


def _check_ranges(value: Any, where: str, place: str = "") -> None:
    """Refuse a range whose least value is the greater one."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check_ranges(inner, where, f"{place}.{key}" if place else str(key))
        return
    # A list of numbers is a range: the schema knows no other.
    numbers = [end for end in value if isinstance(end, int | float)] if isinstance(value, list) else []
    if numbers != sorted(numbers):
        raise ConfigError(
            f"the range {value} ends before it begins",
            where=f"{where}: {place}",
            do="Write the least value first",
        )


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else repr(value)

"""Printed numbers: what they may have been before they were rounded, and arithmetic on that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

HALF = 0.5
"""How far rounding to the nearest moves a number, in units of its last printed digit."""

WHOLE = 1.0
"""The same for running text, where a number may also have been cut."""

EXACT = 0.0
"""Counts and settings: printed as they are."""


class AbsentError(Exception):
    """A value is not printed, or not in the file."""


@dataclass(frozen=True)
class Quantity:
    """A non-negative number or range as printed, and the least and most that it may have been.

    Interval arithmetic: a result holds every value that some value of each operand gives.
    """

    low: float
    high: float
    least: float
    most: float

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(
            self.low + other.low, self.high + other.high, self.least + other.least, self.most + other.most
        )

    def __mul__(self, other: Quantity | float) -> Quantity:
        by = _exact(other)
        return Quantity(self.low * by.low, self.high * by.high, self.least * by.least, self.most * by.most)

    def __truediv__(self, other: Quantity | float) -> Quantity:
        by = _exact(other)
        if by.least <= 0:
            raise AbsentError("it would be divided by what may be 0")
        return Quantity(self.low / by.high, self.high / by.low, self.least / by.most, self.most / by.least)

    def agrees(self, other: Quantity) -> bool:
        """Whether some value of each is the same."""
        return self.least <= other.most and other.least <= self.most

    def exceeds(self, other: Quantity) -> bool:
        """Whether every value is above every value of the other."""
        return self.least > other.most

    def minus(self, other: Quantity) -> float:
        """Return the difference between the nearest printed ends; 0 where the ranges meet."""
        if self.low > other.high:
            return self.low - other.high
        if self.high < other.low:
            return self.high - other.low
        return 0.0

    @property
    def side(self) -> float | str:
        """The number, or the range in words."""
        return self.low if self.low == self.high else f"{self.low:.7g} to {self.high:.7g}"


def exact(value: float) -> Quantity:
    """Return a number that is known."""
    return Quantity(value, value, value, value)


def _exact(value: Quantity | float) -> Quantity:
    return value if isinstance(value, Quantity) else exact(value)


def printed(value: Any, rounding: float = HALF) -> Quantity:
    """Return a number or range `[low, high]` of a file as what it may have been.

    Args:
        value: as YAML gives it; its last digit is that of its shortest decimal form.
        rounding: HALF, WHOLE or EXACT.

    Raises:
        AbsentError: it is nothing that is printed as a number.
    """
    low, high = value if isinstance(value, list) and len(value) == 2 else (value, value)
    for end in (low, high):
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise AbsentError("no number is printed")
    least, most = low - rounding * _last_digit(low), high + rounding * _last_digit(high)
    return Quantity(float(low), float(high), max(0.0, least), float(most))


def _last_digit(value: float) -> float:
    if isinstance(value, int):
        return 1.0
    digits = repr(value)
    return 10.0 ** -len(digits.partition(".")[2]) if "e" not in digits else abs(value) * 1e-6


def total(parts: Iterable[Quantity]) -> Quantity:
    """Return the sum of quantities."""
    return reduce(Quantity.__add__, parts, exact(0.0))


def hull(parts: Iterable[Quantity]) -> Quantity:
    """Return the smallest range that holds all of some quantities."""
    each = list(parts)
    if not each:
        raise AbsentError("no stack prints one")
    return Quantity(
        min(q.low for q in each),
        max(q.high for q in each),
        min(q.least for q in each),
        max(q.most for q in each),
    )


class Values:
    """The published values of a file, by the place where they stand (`table2.rows.<stack>.total`)."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def at(self, place: str) -> Any:
        """Return what stands at a place; AbsentError names the place when nothing does."""
        value: Any = self.values
        for key in place.split("."):
            if not isinstance(value, Mapping) or key not in value:
                raise AbsentError(f"{place} is not in the published values")
            value = value[key]
        if value is None:
            raise AbsentError(f"{place} is not printed")
        return value

    def number(self, place: str, rounding: float = HALF) -> Quantity:
        """Return the number or range at a place; AbsentError as `at`."""
        try:
            return printed(self.at(place), rounding)
        except AbsentError as error:
            why = str(error)
            raise AbsentError(why if why.startswith(place) else f"{place}: {why}") from None

    def has(self, place: str) -> bool:
        """Whether something is printed at a place."""
        try:
            self.at(place)
        except AbsentError:
            return False
        return True

    def claim(self, entry: str, side: str) -> str:
        """Return side `a` or `b` of an entry of `inconsistencies`: what is published in words only."""
        for each in self.at("inconsistencies"):
            if each["id"] == entry:
                return str(each[side])
        raise AbsentError(f"inconsistencies has no entry {entry}")

"""What several checks over the published values are made of."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pocketvlm.analyse.audit.quantity import EXACT, AbsentError, Quantity, Values, exact, hull, total
from pocketvlm.config.paper import STAGES

PARTS = tuple(stage for stage in STAGES if stage != "total")
MINUTE_S = 60.0
_DAY_H = 24.0
_WORDS = {"one": 1.0, "two": 2.0, "three": 3.0}


def stages(values: Values, stack: str, names: Sequence[str] = PARTS) -> Quantity:
    """Return the sum of a stack's stages that table 2 prints, in ms."""
    place = f"table2.rows.{stack}"
    return total(values.number(f"{place}.{name}") for name in names if values.has(f"{place}.{name}"))


def stack_total(values: Values, stack: str) -> Quantity:
    """Return the total of table 2, in ms."""
    return values.number(f"table2.rows.{stack}.total")


def voltages(values: Values, stacks: Sequence[str]) -> Quantity:
    """Return the battery voltages that power / current of some stacks imply, those that print both."""
    places = [f"utilisation.{stack}" for stack in stacks]
    return hull(
        values.number(f"{place}.power_w") / values.number(f"{place}.current_a")
        for place in places
        if values.has(f"{place}.power_w") and values.has(f"{place}.current_a")
    )


def slot_s(values: Values) -> Quantity:
    """Return the time from one query to the next of the paper's case of a battery, in s."""
    return exact(MINUTE_S) / values.number("energy.battery.queries_per_minute", EXACT)


def told_hours(values: Values, place: str) -> Quantity:
    """Return hours that are told in words: "almost two days" may be all that rounds to two.

    Raises:
        AbsentError: the words are missing, or tell neither days nor hours.
    """
    words = str(values.at(place))
    found = re.search(rf"\b({'|'.join(_WORDS)}|\d+(?:\.\d+)?) (day|hour)s?\b", words)
    if found is None:
        raise AbsentError(f"{place}, {words!r}, tells no hours")
    count = _WORDS.get(found[1]) or float(found[1])
    unit = _DAY_H if found[2] == "day" else 1.0
    return Quantity(count, count, count - 0.5, count + 0.5) * unit

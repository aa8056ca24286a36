"""The app's own numbers, found by patterns in texts that were read from its screen or its log."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pocketvlm.errors import ConfigError

TIMES = ("load", "image_encode", "image_prefill", "prompt_eval", "decode", "time_to_first_token", "total")
COUNTS = ("decode", "text_prefill", "image_prefill", "prompt")
RATES = ("decode", "prompt_eval")
QUANTITIES = (
    *(f"time.{name}" for name in TIMES),
    *(f"tokens.{name}" for name in COUNTS),
    *(f"rate.{name}" for name in RATES),
    "answer",
)
"""What a statistic may be: a duration, a number of tokens, tokens a second, or the text of the answer."""

UNITS = {
    "time": {"ms": 1.0, "s": 1e3},
    "tokens": {"tokens": 1.0},
    "rate": {"tokens/s": 1.0, "ms/token": -1.0},
}
_NUMBER = re.compile(r"\d{1,12}(?:[.,]\d{1,9})?", re.ASCII)
# One thousand two hundred and thirty-four, or one and a bit.
_GROUPED = re.compile(r"[1-9]\d{0,2},\d{3}", re.ASCII)
# Python's re has no limit on time: a text is cut before a pattern of the user's is tried on it.
_MAX_TEXT = 200_000


@dataclass(frozen=True)
class Statistic:
    """One number of the app.

    Attributes:
        quantity: one of QUANTITIES.
        source: the name under which the text was read.
        pattern: its first group is the number (or the answer).
        unit: as `UNITS` of its kind has it; empty for the answer.
    """

    quantity: str
    source: str
    pattern: str
    unit: str


@dataclass(frozen=True)
class Found:
    """What became of a statistic: its value, in ms, tokens or tokens a second, or why there is none."""

    value: float | None
    text: str = ""
    reason: str = ""


def parse(
    given: Mapping[str, Mapping[str, Any]], reads: Sequence[str], *, where: str, strict: bool = True
) -> tuple[Statistic, ...]:
    """Return the statistics of an app's entry.

    Args:
        given: by quantity: `from`, `pattern`, `unit`; valid by the schema `app`.
        reads: the names that the script reads texts as.
        where: for messages.
        strict: refuse a statistic of a text that is never read; else it is NA.

    Raises:
        ConfigError: a text is never read, a pattern is none or has no group, a unit is none of the quantity.
    """
    found = []
    for quantity, entry in given.items():
        place = f"{where}.{quantity}"
        if strict and entry["from"] not in reads:
            raise ConfigError(
                f"no step reads a text as {entry['from']!r}", where=f"{place}.from",
                do=f"Use one of {', '.join(reads) or 'the names of `read` steps'}",
            )  # fmt: skip
        try:
            groups = re.compile(entry["pattern"]).groups
        except re.error as error:
            raise ConfigError(
                f"{entry['pattern']!r} is no regular expression: {error}", where=f"{place}.pattern",
                do="Correct it; Python's rules hold",
            ) from None  # fmt: skip
        if groups < 1:
            raise ConfigError(
                "the pattern has no group",
                where=f"{place}.pattern",
                do="Put what is the number into brackets",
            )
        units = UNITS.get(quantity.partition(".")[0], {})
        unit = entry.get("unit", "")
        if (unit or units) and unit not in units:
            raise ConfigError(
                f"{quantity} has the unit {unit!r}", where=f"{place}.unit",
                do=f"Use {' or '.join(units)}" if units else "Take it out",
            )  # fmt: skip
        found.append(Statistic(quantity, entry["from"], entry["pattern"], unit))
    return tuple(found)


def find(statistics: Sequence[Statistic], texts: Mapping[str, str]) -> dict[str, Found]:
    """Return what was found of each statistic, by quantity.

    Args:
        statistics: those of the app.
        texts: what was read, by name.
    """
    return {statistic.quantity: _found(statistic, texts) for statistic in statistics}


def _found(statistic: Statistic, texts: Mapping[str, str]) -> Found:
    if statistic.source not in texts:
        return Found(None, reason=f"no text was read as {statistic.source!r}")
    text = texts[statistic.source][:_MAX_TEXT]
    match = re.search(statistic.pattern, text)
    shown = " ".join(text.split())[:120]
    if match is None or match[1] is None:
        return Found(None, reason=f"the app shows no {statistic.quantity} in {shown!r}")
    if statistic.quantity == "answer":
        return Found(None, text=match[1])
    told, kind = match[1].strip(), statistic.quantity.partition(".")[0]
    none = Found(None, text=match[1], reason=f"the app shows {match[1][:60]!r} as {statistic.quantity}")
    if not _NUMBER.fullmatch(told):
        return none
    if _GROUPED.fullmatch(told):
        return replace(none, reason=f"{none.reason}, which may be thousands or a fraction")
    number = float(told.replace(",", "."))
    # What took no time, or had no token, was not measured; half a token is a number read wrongly.
    if not number or (kind == "tokens" and not told.isdigit()):
        return none
    factor = UNITS[kind][statistic.unit]
    # A negative one is milliseconds a token, the reciprocal of a rate.
    return Found(1e3 / number if factor < 0 else number * factor, text=match[1])

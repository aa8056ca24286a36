"""What the measuring job noted of a run (`meta.json`) as metrics, so that gates and tables can tell it.

A mark is 1 where something is wrong with the run as a whole, with what it is as its reason; else 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pocketvlm.analyse.metrics import Metric
from pocketvlm.analyse.sanity import wrong_answer

MARKS = ("start_hot", "answer_wrong", "not_offloaded")
"""Marks of a run: metrics whose value 1 withholds its numbers, for their own reason."""

_REASON = 300


def noted(meta: Mapping[str, Any]) -> Iterator[Metric]:
    """Give what a run's `meta.json` says of its beginning; nothing of what it does not say.

    Args:
        meta: the content of `meta.json`; what is not of its form is left out.
    """
    heat, warmups, kills = meta.get("heat"), meta.get("warmups"), meta.get("low_memory_kills")
    if isinstance(heat, Mapping):
        hot = heat.get("hot")
        yield mark("start_hot", hot if isinstance(hot, str) else "")
        yield Metric("run", "start_wait", _number(heat.get("waited_s")), "s", "host")
    if isinstance(warmups, Mapping):
        yield Metric("run", "warmups_made", _number(warmups.get("made")), "1", "host")
        cv = _number(warmups.get("cv_percent"))
        why = "" if cv is not None else "too few warm-ups to tell how much they differ"
        yield Metric("run", "warmups_cv", cv, "%", "host", None, why)
    if isinstance(kills, Sequence) and not isinstance(kills, str):
        yield Metric("run", "low_memory_kills", float(len(kills)), "1", "host", None, _text(kills))


def answered(answer: bytes, expected_words: Sequence[str]) -> Metric:
    """Return the mark of an answer of trained weights; arguments as `wrong_answer`."""
    return mark("answer_wrong", wrong_answer(answer, expected_words))


def mark(name: str, why: str) -> Metric:
    """Return a mark: 1 with the reason, or 0 without one."""
    return Metric("run", name, 1.0 if why else 0.0, "1", "host", None, _plain(why))


def _text(lines: Sequence[Any]) -> str:
    return _plain(str(lines[0])) if lines else ""


def _plain(text: str) -> str:
    """Return a text as one printable clause of a gate, cut."""
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * _REASON])
    return re.sub(r"\s+", " ", printable.replace(";", ",")).strip()[:_REASON]


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None

"""Lists of CPUs as Linux prints and takes them: `0-3,6`, and the mask of them in hex.

Source: cpuset(7), "List format"; taskset(1) and toybox's taskset for the mask.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CPUS_MAX = 4096
"""A list that goes beyond is refused: what a text from a device stands for must not grow without limit."""

_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def parse(text: str) -> frozenset[int] | None:
    """Return the CPUs of a list; None when it is none, empty or beyond CPUS_MAX."""
    cpus: set[int] = set()
    for part in text.strip().split(","):
        match = _PART.fullmatch(part)
        if not match:
            return None
        first = int(match[1])
        last = int(match[2] or match[1])
        if not first <= last < CPUS_MAX:
            return None
        cpus |= set(range(first, last + 1))
    return frozenset(cpus)


def canonical(cpus: Iterable[int]) -> str:
    """Return CPUs as the kernel prints them: ascending, neighbours as a range."""
    spans: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if spans and cpu == spans[-1][1] + 1:
            spans[-1][1] = cpu
        else:
            spans.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def mask(cpus: Iterable[int]) -> str:
    """Return the hex mask of CPUs without a prefix, as both taskset programs take it."""
    return f"{sum(1 << cpu for cpu in set(cpus)):x}"

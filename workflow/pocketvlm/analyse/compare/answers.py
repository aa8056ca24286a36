"""Whether the sides answered the same, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pocketvlm.analyse.compare.gather import Met, Runs

EXCERPT = 60
"""Characters of each answer that are shown from a little before their first difference on."""

_BEFORE = 20


@dataclass(frozen=True)
class Answers:
    """The answers of a pair of cells.

    Attributes:
        pairs: pairs of which both answers are known.
        changed: pairs whose answers differ in a byte.
        own_a, own_b: how many different answers each side gave by itself.
        first: character at which the first pair that differs parts; None where none does, or only in bytes
            that are no text.
        excerpt_a, excerpt_b: what both say there; untrusted text.
        reason: why nothing could be compared; empty when something was.
    """

    pairs: int
    changed: int
    own_a: int
    own_b: int
    first: int | None
    excerpt_a: str
    excerpt_b: str
    reason: str = ""


def compare_answers(runs: Runs, met: Met) -> Answers:
    """Compare the answers of paired runs; of two devices those that stand beside each other."""
    told: Mapping[str, tuple[str, str]] = runs.answers
    pairs = [(told[a], told[b]) for a, b in met.pairs if a in told and b in told]
    if not pairs:
        return Answers(0, 0, 0, 0, None, "", "", met.alone or "no pair has a recorded answer on both sides")
    differing = [(a[0], b[0]) for a, b in pairs if a[1] != b[1]]
    own = [len({answer[1] for answer in side}) for side in zip(*pairs, strict=True)]
    if not differing:
        return Answers(len(pairs), 0, own[0], own[1], None, "", "")
    one, other = differing[0]
    first = _parting(one, other)
    start = max(0, (first or 0) - _BEFORE)
    return Answers(
        len(pairs),
        len(differing),
        own[0],
        own[1],
        first,
        one[start : start + EXCERPT],
        other[start : start + EXCERPT],
    )


def _parting(one: Sequence[str], other: Sequence[str]) -> int | None:
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            return place
    return min(len(one), len(other)) if len(one) != len(other) else None

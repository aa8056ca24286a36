"""Whether two sides differ: by how much, how surely, and how little would have been seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from pocketvlm.analyse import ranks
from pocketvlm.analyse.compare.gather import Sides

WORSE, BETTER, SAME, SMALL, NOT_JUDGED = "worse", "better", "same", "within margin", "not judged"
"""Verdicts on one metric: the sides differ (b against a), no difference was found, it is below the margin, or
nothing can be said."""

_UNSURE, _FEW = 1.15, 6


@dataclass(frozen=True)
class Rules:
    """When two sides differ.

    Attributes:
        judge: the metrics that decide, `phase.metric`.
        margin_percent: a smaller difference is never a finding.
        alpha: probability of any finding at all where nothing differs.
        least_pairs: fewer judge nothing.
        power: the probability with which the smallest visible slowdown would have been found.
        changed_answers: `fail` or `tell`.
        confidence: of the intervals.
        most_unseen_percent: where the smallest visible slowdown is greater, a metric that decides is not
            judged; None for any.
    """

    judge: Sequence[str]
    margin_percent: float
    alpha: float
    least_pairs: int
    power: float
    changed_answers: str
    confidence: float
    most_unseen_percent: float | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], confidence: float) -> Rules:
        """Return the rules that a configuration gives in plain values."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known}, confidence=confidence)

    @property
    def asked(self) -> list[tuple[str, str]]:
        """Phase and metric of those that decide."""
        return [(name.partition(".")[0], name.partition(".")[2]) for name in self.judge]

    @property
    def margin(self) -> float:
        """The margin as the logarithm of a ratio."""
        return math.log1p(self.margin_percent / 100)


@dataclass(frozen=True)
class Judged:
    """One metric of one pair of cells, judged.

    Attributes:
        pair: number of the pair of cells.
        sides: the values.
        decides: whether it is one of those that decide.
        difference: by how much b's cost (the value, or 1 / value where more is better) exceeds a's, as the
            logarithm of the ratio; None without enough values.
        p: corrected for how many were judged with it.
        visible: the smallest logarithm of a ratio that would have been found with the wanted power.
        verdict: WORSE, BETTER, SAME, SMALL or NOT_JUDGED.
        reason: why it could not be judged.
    """

    pair: int
    sides: Sides
    decides: bool
    difference: ranks.Difference | None
    p: float | None
    visible: float | None
    verdict: str
    reason: str = ""


def judge(metrics: Sequence[tuple[int, Sides]], rules: Rules) -> list[Judged]:
    """Judge metrics of pairs of cells.

    Those that decide and the others are two families. Each may be wrong with half of `alpha`, corrected by
    Holm, so both together with `alpha`; however many others there are, those that decide are judged alike.

    Args:
        metrics: number of the pair of cells, and values.
        rules: when two sides differ.
    """
    asked = set(rules.asked)
    found: dict[int, Judged] = {}
    for decides in (True, False):
        mine = {
            index: entry
            for index, entry in enumerate(metrics)
            if ((entry[1].phase, entry[1].metric) in asked) is decides
        }
        found |= _family(mine, rules, decides)
    return [found[index] for index in range(len(metrics))]


def _family(metrics: Mapping[int, tuple[int, Sides]], rules: Rules, decides: bool) -> dict[int, Judged]:
    alpha = rules.alpha / 2
    # What decides counts even where it cannot be judged: that it can must make nothing else surer.
    count = sum(decides or _size(sides) >= rules.least_pairs for _, sides in metrics.values())
    each = alpha / max(1, count)
    least = max(rules.least_pairs, ranks.least_pairs(each))
    differences: dict[int, ranks.Difference] = {}
    found: dict[int, Judged] = {}
    for index, (pair, sides) in metrics.items():
        problem = _problem(sides, least, rules.least_pairs, count)
        if problem:
            found[index] = Judged(pair, sides, decides, None, None, None, NOT_JUDGED, problem)
        else:
            differences[index] = difference(sides, rules.confidence)
    corrected = ranks.holm([one.p for one in differences.values()])
    for (index, one), p in zip(differences.items(), corrected, strict=True):
        pair, sides = metrics[index]
        seen = visible(one.error, one.n, each, rules)
        verdict, reason = _verdict(one, p, alpha, rules), ""
        limit = rules.most_unseen_percent
        if decides and verdict == SAME and limit is not None and percent(seen) > limit:
            verdict = NOT_JUDGED
            reason = (
                f"a slowdown below {percent(seen):.2g} % would not have been seen, and one of {limit:g} % "
                "must be: more repeats, or a quieter machine"
            )
        found[index] = Judged(pair, sides, decides, one, p, seen, verdict, reason)
    return found


def difference(sides: Sides, confidence: float) -> ranks.Difference:
    """Return by how much b costs more than a, as the logarithm of the ratio."""
    sign = 1.0 if sides.lower_is_better else -1.0
    a, b = sign * np.log(sides.a), sign * np.log(sides.b)
    return (
        ranks.paired(b - a, confidence=confidence)
        if sides.interleaved
        else ranks.unpaired(a, b, confidence=confidence)
    )


def visible(error: float, n: int, alpha: float, rules: Rules) -> float:
    """Return the smallest logarithm of a ratio that is found with the wanted power.

    It must be told from nothing at the level of the first step of the correction, and reach the margin in
    spite of the error: k (max(z(1 - alpha / 2) error, margin) + z(power) error). The error is itself an
    estimate, of noise that has bursts: with k = 1.15 + 6 / n it is true in campaigns of recorded noise.

    Args:
        error: standard error of the difference.
        n: pairs.
        alpha: level of the metric's test.
        rules: margin and power.
    """
    plain = max(ranks.quantile(1 - alpha / 2) * error, rules.margin) + ranks.quantile(rules.power) * error
    return (_UNSURE + _FEW / n) * plain


def percent(logarithm: float) -> float:
    """Return the logarithm of a ratio as percent more."""
    return 100 * math.expm1(logarithm)


def _size(sides: Sides) -> int:
    return int(min(sides.a.size, sides.b.size))


def _problem(sides: Sides, least: int, wanted: int, family: int) -> str:
    """Return why there is nothing to judge; empty when there is."""
    if sides.lower_is_better is None:
        return "less of it is neither better nor worse"
    n = _size(sides)
    if n >= least:
        return ""
    kind = ("pair" if n == 1 else "pairs") if sides.interleaved else "runs of each side"
    why = (
        f"{least} are needed"
        if least == wanted
        else f"{least} are needed to be sure of anything among {family} metrics"
    )
    return f"{n} {kind}, {why}{f' ({sides.lost})' if sides.lost else ''}"


def _verdict(one: ranks.Difference, p: float, alpha: float, rules: Rules) -> str:
    if p > alpha:
        return SAME
    if abs(one.shift) < rules.margin:
        return SMALL
    return WORSE if one.shift > 0 else BETTER

"""The findings of a comparison, each as one sentence, and what they mean for the exit status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm.analyse.compare.answers import Answers
from pocketvlm.analyse.compare.judge import BETTER, NOT_JUDGED, SAME, SMALL, WORSE, Judged, Rules, percent
from pocketvlm.analyse.figures.palette import PHASE_LABELS

NO_REGRESSION = "no regression"

_SPEED = {"duration": "", "tokens_per_second": "", "time_to_first_token": "", "inter_token_latency": ""}
_WHAT = {
    "time_to_first_token": "time to first token",
    "time_to_first_token_after_load": "time to first token after load",
    "inter_token_latency_p50": "median time between tokens",
    "inter_token_latency_p99": "99th percentile of the time between tokens",
    "workload_cpu": "CPU use",
    "rss_peak": "peak memory",
    "power": "power",
    "power_net": "power above rest",
    "energy": "energy",
    "energy_net": "energy above rest",
}


@dataclass(frozen=True)
class Finding:
    """One sentence.

    Attributes:
        kind: `worse`, `better`, `within margin`, `same`, `not judged`, `answers` or `note`.
        sentence: without a full stop.
        fails: whether it ends the comparison with an error.
        pair: number of the pair of cells; None for what is true of all.
        metric: `phase.metric`; None for what is of none.
    """

    kind: str
    sentence: str
    fails: bool = False
    pair: int | None = None
    metric: str | None = None


def findings(
    judged: Sequence[Judged],
    answers: Sequence[Answers],
    unequal: Sequence[Sequence[tuple[str, float, float]]],
    comparison: Mapping[str, Any],
    rules: Rules,
) -> list[Finding]:
    """Return every finding, those that fail first.

    Args:
        judged: every metric of every pair of cells.
        answers: of every pair.
        unequal: of every pair the phases with different numbers of tokens.
        comparison: what is compared, as `config.comparing` gives it.
        rules: when two sides differ.
    """
    pairs = comparison["pairs"]
    found = list(_of_metrics(judged, pairs, rules))
    for number, told in enumerate(answers):
        found.append(_of_answers(number, told, pairs, rules))
        found += [
            Finding(
                "note",
                f"{_phase(phase)} has {b:g} tokens on b and {a:g} on a{_of(pairs, number)}: "
                "its duration is of different work",
                pair=number,
            )
            for phase, a, b in unequal[number]
        ]
    if any(not one.sides.interleaved for one in judged):
        found.append(
            Finding(
                "note",
                "the devices cannot take turns: the runs are no pairs, and what changed around either "
                "device is part of the difference",
            )
        )
    found += [
        Finding("note", f"{cell} has none like it on the other side and is left out")
        for cell in comparison["left_out"]
    ]
    order = [WORSE, NOT_JUDGED, "answers", BETTER, SMALL, SAME, "note"]
    return sorted(found, key=lambda one: (not one.fails, order.index(one.kind)))


def verdict(found: Sequence[Finding]) -> str:
    """Return what all findings come to: `worse`, `not judged`, `answers changed` or `no regression`."""
    failing = {one.kind for one in found if one.fails}
    names = ((WORSE, WORSE), (NOT_JUDGED, NOT_JUDGED), ("answers", "answers changed"))
    return next((name for kind, name in names if kind in failing), NO_REGRESSION)


def _of_metrics(
    judged: Sequence[Judged], pairs: Sequence[Mapping[str, str]], rules: Rules
) -> Iterator[Finding]:
    for one in judged:
        metric = f"{one.sides.phase}.{one.sides.metric}"
        where = _of(pairs, one.pair)
        if one.difference is None or one.verdict == NOT_JUDGED:
            if one.decides:
                sentence = f"{what(one)} could not be judged{where}: {one.reason}"
                yield Finding(NOT_JUDGED, sentence, True, one.pair, metric)
            continue
        if one.verdict in (WORSE, BETTER, SMALL) and (one.decides or one.verdict != SMALL):
            fails = one.decides and one.verdict == WORSE
            small = f", less than the margin of {rules.margin_percent:g} %" if one.verdict == SMALL else ""
            aside = "" if one.decides else " (decides nothing)"
            yield Finding(
                one.verdict, f"{told(one)}{small}{where}, {_surely(one)}{aside}", fails, one.pair, metric
            )
        elif one.decides:
            seen = percent(one.visible or 0.0)
            yield Finding(
                SAME,
                f"{what(one)}: no difference found{where}, {told(one, named=False)}, {_surely(one)}; "
                f"{_worse(one)} of {_digits(seen)} % would have been found with probability {rules.power:g}",
                False,
                one.pair,
                metric,
            )
        if one.decides and one.sides.lost:
            # Runs may be lost because of the very change that is looked for.
            sentence = f"{what(one)} is judged by {_number(one)}{where}: {one.sides.lost}"
            yield Finding("note", sentence, False, one.pair, metric)


def told(one: Judged, *, named: bool = True) -> str:
    """Return the size of a difference: `decode 4.1 % slower, [3.2, 5.0]`; the interval is of what is said."""
    assert one.difference is not None, "what was not judged has no size"
    ends = [percent(value) for value in (one.difference.shift, one.difference.low, one.difference.high)]
    more = ends[0] >= 0
    if not more:
        ends = [-ends[0], -ends[2], -ends[1]]
    places = 1 if max(abs(end) for end in ends) >= 0.95 else 2
    shift, low, high = (f"{0.0 if round(end, places) == 0 else end:.{places}f}" for end in ends)
    return f"{f'{what(one)} ' if named else ''}{shift} % {_direction(one, more)}, [{low}, {high}]"


def what(one: Judged) -> str:
    """Return what a metric is called in a sentence."""
    phase, metric = one.sides.phase, one.sides.metric
    if metric == "tokens_per_second":
        return _phase(phase)
    if metric == "duration":
        return _phase(phase) if phase == "run" else f"{_phase(phase)} duration"
    name = _WHAT.get(metric, metric.replace("_", " "))
    return name if phase == "run" else f"{name} of {_phase(phase)}"


def _direction(one: Judged, more: bool) -> str:
    if one.sides.metric.startswith(tuple(_SPEED)):
        return "slower" if more else "faster"
    # Of what is better when there is more of it, a greater cost is less of it.
    return "higher" if more == bool(one.sides.lower_is_better) else "lower"


def _worse(one: Judged) -> str:
    return "a slowdown" if one.sides.metric.startswith(tuple(_SPEED)) else "a change for the worse"


def _surely(one: Judged) -> str:
    assert one.difference is not None and one.p is not None, "what was not judged is not sure"
    p = "p < 0.0001" if one.p < 0.0001 else f"p = {one.p:.2g}"
    return f"{_number(one)}, {p}, effect {one.difference.effect:.2f}"


def _number(one: Judged) -> str:
    """Return by how many pairs a metric is judged, and of how many where some are lost."""
    assert one.difference is not None, "what was not judged is judged by nothing"
    lost = one.difference.n < one.sides.planned
    of = f" of {one.sides.planned}" if lost else ""
    return f"{one.difference.n}{of} {'pairs' if one.sides.interleaved else 'runs a side'}"


def _of_answers(number: int, told: Answers, pairs: Sequence[Mapping[str, str]], rules: Rules) -> Finding:
    where = _of(pairs, number)
    if told.reason:
        fails = rules.changed_answers == "fail"
        sentence = f"answers could not be compared{where}: {told.reason}"
        return Finding(NOT_JUDGED if fails else "answers", sentence, fails, number)
    own = [
        f"{name} itself gave {count} different ones"
        for name, count in (("a", told.own_a), ("b", told.own_b))
        if count > 1
    ]
    if not told.changed:
        return Finding(
            "note", f"answers are the same in {told.pairs} of {told.pairs} pairs{where}", pair=number
        )
    place = "" if told.first is None else f", first at character {told.first + 1}"
    besides = f" ({', '.join(own)})" if own else ""
    sentence = f"answers changed in {told.changed} of {told.pairs} pairs{place}{besides}{where}"
    return Finding("answers", sentence, rules.changed_answers == "fail", number)


def _phase(phase: str) -> str:
    return "run" if phase == "run" else PHASE_LABELS.get(phase, phase)


def _of(pairs: Sequence[Mapping[str, str]], number: int) -> str:
    of = pairs[number]["of"]
    return f" ({of})" if of else ""


def _digits(value: float) -> str:
    return f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"

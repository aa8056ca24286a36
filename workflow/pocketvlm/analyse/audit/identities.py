"""The formulas that the numbers of a run must obey, whoever computed them.

They are those that published numbers are held to: phases are a partition, a rate times its time is a count,
power times time is energy, a part is not more than its whole. A side is computed from the tables and the
records alone, never by the code that made the tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from pocketvlm.analyse.audit.quantity import AbsentError
from pocketvlm.analyse.audit.runs import Run, all_phases
from pocketvlm.frameworks import PHASES, Accounting, grammar

EQUAL = "="
AT_MOST = "<="
BEFORE_DECODE = ("load", "text_prefill", "image_encode", "image_prefill")
COUNTED = ("decode", "text_prefill", "image_prefill")
OBSERVED_ALONE = ("image_encode", "image_prefill", "decode")
"""Counters whose observed equivalent is the one phase of their name."""

COLDEST_C, HOTTEST_C = -40.0, 150.0
"""What a temperature zone can say: beyond is a wrong scale (the range of silicon, JEDEC JESD22)."""

_PRINTED_MS = 1.0  # counters are printed in whole milliseconds at worst
_TICK_MS = 10.0  # of the CPU counters (USER_HZ)
_SAME = 1e-6


def _whole(_: Run) -> tuple[str, ...]:
    return ("run",)


@dataclass(frozen=True)
class Identity:
    """A formula over a run.

    Args:
        id: its name.
        formula: in words, `a` and `b` being its sides.
        unit: of both sides.
        a_where, b_where: what the sides are computed from.
        sides: (run, key) to a and b; AbsentError when a number is missing or withheld.
        broken: what follows when it does not hold.
        kind: EQUAL or AT_MOST.
        over: the keys to hold for (phases, mostly).
        relative: tolerance as a share of the greater side.
        absolute: tolerance in the unit, by run and key.
        told: what to add to a row that holds.
    """

    id: str
    formula: str
    unit: str
    a_where: str
    b_where: str
    sides: Callable[[Run, str], tuple[float, float]]
    broken: str
    kind: str = EQUAL
    over: Callable[[Run], Sequence[str]] = _whole
    relative: float = _SAME
    absolute: Callable[[Run, str], float] = lambda run, key: 0.0
    told: Callable[[Run], str] = lambda run: ""


def identities(adapter: str | None) -> Iterator[Identity]:
    """Give the formulas for the runs of a framework's adapter."""
    yield from _times()
    yield from _counts()
    yield from _energies()
    yield from _hardware()
    for rule in grammar(adapter).ACCOUNTING if adapter else ():
        yield from _counters(rule)


def _fixed(value: float) -> Callable[[Run, str], float]:
    return lambda run, key: value


def _times() -> Iterator[Identity]:
    yield Identity(
        "phases_sum", "sum of the phases' intervals = duration of the run", "ms",
        "records/phases", "duration of run",
        lambda run, key: (sum(run.recorded_ms(phase) for phase in PHASES), run.get("run", "duration")),
        "the phases are no partition of the run", absolute=_fixed(1.0),
    )  # fmt: skip
    yield Identity(
        "phases_apart", "time that two intervals share <= 0", "ms", "records/phases", "nothing",
        lambda run, key: (_shared_ms(run), 0.0),
        "time is counted in two phases", kind=AT_MOST,
    )  # fmt: skip
    yield Identity(
        "phase_duration", "duration of a phase = sum of its intervals", "ms", "duration", "records/phases",
        lambda run, key: (run.get(key, "duration"), run.recorded_ms(key)),
        "the table tells another time than was recorded", over=all_phases, absolute=_fixed(1e-3),
    )  # fmt: skip
    yield Identity(
        "durations_sum", "sum of the durations of the phases = duration of the run", "ms",
        "duration of each phase",
        "duration of run",
        lambda run, key: (sum(run.duration_or_none(phase) for phase in PHASES), run.get("run", "duration")),
        "a reader who adds the stages does not get the total", absolute=_fixed(1.0),
    )  # fmt: skip
    yield Identity(
        "first_token", "time to first token = all time before decode", "ms", "time_to_first_token",
        "records/phases",
        lambda run, key: (run.get("run", "time_to_first_token"), _before_decode_ms(run)),
        "the first token is not where decoding begins", absolute=_fixed(1e-3),
    )  # fmt: skip
    yield Identity(
        "first_token_after_load", "time to first token after load + load = time to first token", "ms",
        "time_to_first_token_after_load + duration of load", "time_to_first_token",
        lambda run, key: (
            run.get("run", "time_to_first_token_after_load") + run.get("load", "duration"),
            run.get("run", "time_to_first_token"),
        ),
        "load is not what the two times differ by", absolute=_fixed(1e-3),
    )  # fmt: skip
    yield Identity(
        "median_latency", "(tokens - 1) / 2 x median time between tokens <= duration of decode", "ms",
        "inter_token_latency_p50, tokens", "duration of decode",
        lambda run, key: (
            (run.get("decode", "tokens") - 1) / 2 * run.get("decode", "inter_token_latency_p50"),
            run.get("decode", "duration"),
        ),
        "the times between tokens are not of this answer", kind=AT_MOST,
    )  # fmt: skip
    yield Identity(
        "latency_order", "median time between tokens <= its 99th percentile", "ms", "inter_token_latency_p50",
        "inter_token_latency_p99",
        lambda run, key: (run.get("decode", "inter_token_latency_p50"), run.get("decode",
        "inter_token_latency_p99")),
        "two percentiles are exchanged", kind=AT_MOST,
    )  # fmt: skip


def _before_decode_ms(run: Run) -> float:
    if not run.spans("decode"):
        raise AbsentError("duration of decode: no interval of it was seen, nor what lies before it")
    return sum(run.recorded_ms(phase) for phase in BEFORE_DECODE)


def _shared_ms(run: Run) -> float:
    spans = sorted(span for phase in PHASES for span in run.spans(phase))
    return sum(max(0, here[1] - after[0]) for here, after in pairwise(spans)) * 1e-3


def _counted(run: Run, phase: str) -> float:
    """Return the tokens that are evaluated in a phase: the first of an answer ends the prefill."""
    return run.get(phase, "tokens") - (1 if phase == "decode" else 0)


def _counts() -> Iterator[Identity]:
    yield Identity(
        "rate", "tokens a second x duration = tokens (of decode: tokens - 1)", "1",
        "tokens_per_second x duration", "tokens",
        lambda run, key: (
            run.get(key, "tokens_per_second") * run.get(key, "duration") / 1e3,
            _counted(run, key),
        ),
        "rate, time and count are not of one run", over=lambda run: COUNTED,
    )  # fmt: skip
    yield Identity(
        "time_per_token", "tokens (of decode: tokens - 1) x time per token = duration", "ms",
        "tokens / tokens_per_second",
        "duration",
        lambda run, key: (
            _counted(run, key) * 1e3 / run.get(key, "tokens_per_second"),
            run.get(key, "duration"),
        ),
        "a time per token is not that of the run", over=lambda run: COUNTED,
    )  # fmt: skip
    yield Identity(
        "budget", "tokens = token budget", "1", "tokens", "token_budget",
        lambda run, key: _budget(run),
        "answers of different length are compared",
    )  # fmt: skip
    yield Identity(
        "answer", "tokens of the recorded answer = tokens", "1", "records/answers", "tokens",
        lambda run, key: (_answer(run), run.get("decode", "tokens")),
        "two counts are told for one answer",
    )  # fmt: skip
    yield Identity(
        "agreement", "100 (observed - reported) / reported = agreement", "%", "duration, reported",
        "agreement",
        lambda run, key: (
            100.0 * (run.get(key, "duration") / run.get(key, f"reported.{key}") - 1.0),
            run.get(key, f"agreement.{key}"),
        ),
        "observed and reported times differ by another share than is told", over=lambda run: OBSERVED_ALONE,
        absolute=_fixed(1e-6),
    )  # fmt: skip


def _budget(run: Run) -> tuple[float, float]:
    # Both counts stay in the tables when the gate on them withholds the run: only then may they differ.
    run.get("run", "duration")
    return run.get("decode", "tokens"), run.get("decode", "token_budget")


def _answer(run: Run) -> float:
    if run.answer_tokens is None:
        raise AbsentError("the recorded answer has no count of tokens")
    return run.answer_tokens


def _energies() -> Iterator[Identity]:
    yield Identity(
        "energy", "mean power x duration = energy", "J", "power x duration", "energy",
        lambda run, key: (run.get(key, "power") * run.get(key, "duration") / 1e3, run.get(key, "energy")),
        "power and energy are not of one time", over=all_phases,
    )  # fmt: skip
    yield Identity(
        "energy_net", "power at rest x duration = energy - net energy", "J", "(power - power_net) x duration",
        "energy - energy_net",
        lambda run, key: (
            (run.get(key, "power") - run.get(key, "power_net")) * run.get(key, "duration") / 1e3,
            run.get(key, "energy") - run.get(key, "energy_net"),
        ),
        "two baselines were taken off", over=all_phases, absolute=_fixed(1e-6),
    )  # fmt: skip
    yield Identity(
        "energy_parts", "sum of the phases' energies that are known <= energy of the run", "J",
        "energy of each phase",
        "energy of run",
        lambda run, key: (
            sum(run.get(phase, "energy") for phase in PHASES if run.known(phase, "energy")),
            run.get("run", "energy"),
        ),
        "the parts take more than the whole", kind=AT_MOST, relative=1e-3,
    )  # fmt: skip
    yield Identity(
        "energy_per_token", "energy per token x (tokens - 1) = energy of decode", "J",
        "energy_per_token x (tokens - 1)",
        "energy of decode",
        lambda run, key: (
            run.get("decode", "energy_per_token") * _counted(run, "decode"), run.get("decode", "energy"),
        ),
        "an energy per token is not that of the run",
    )  # fmt: skip
    yield Identity(
        "current_voltage", "current x voltage over the time = energy", "J", "records/samples", "energy",
        lambda run, key: (run.joules(key), run.get(key, "energy")),
        "power is not that of the battery", over=all_phases,
    )  # fmt: skip
    yield Identity(
        "below_idle", "power at rest <= power of the run", "W", "power - power_net of run", "power of run",
        lambda run, key: (
            run.get("run", "power") - run.get("run", "power_net"), run.get("run", "power"),
        ),
        "computing cannot take less than resting: baseline or power is not the device's",
        kind=AT_MOST, relative=0.05,
    )  # fmt: skip


def _temperature(run: Run, key: str, name: str) -> float:
    phase, kind = key.split(" ")
    return run.get(phase, f"temperature_{name}.{kind}" if kind != "-" else f"temperature_{name}")


def _zones(run: Run) -> list[str]:
    return [f"{phase} {kind}" for kind in run.classes() or ["-"] for phase in all_phases(run)]


def _share(run: Run, key: str) -> float:
    """Return by how many percent of a core the ticks of five counters can be off over a phase."""
    length = run.get(key, "duration")
    return 100.0 * 5 * _TICK_MS / length if length else 0.0


def _hardware() -> Iterator[Identity]:
    yield Identity(
        "temperature_rise", "temperature at the start + rise = maximum", "degC",
        "temperature_start + temperature_rise",
        "temperature_max",
        lambda run, key: (
            _temperature(run, key, "start") + _temperature(run, key, "rise"), _temperature(run, key, "max"),
        ),
        "the temperatures are not of one phase", over=_zones,
    )  # fmt: skip
    yield Identity(
        "temperature_max", "maximum of a phase <= maximum of the run", "degC", "temperature_max of the phase",
        "temperature_max of run",
        lambda run, key: (_temperature(run, key, "max"), _temperature(run, f"run {key.split(' ')[1]}",
        "max")),
        "a part is hotter than the whole", kind=AT_MOST, over=_zones,
    )  # fmt: skip
    yield Identity(
        "temperature_range", "distance of the maximum from the middle of what a zone can say <= half of it",
        "K",
        "temperature_max", f"zones say {COLDEST_C:g} to {HOTTEST_C:g} degC",
        lambda run, key: (
            abs(_temperature(run, key, "max") - (COLDEST_C + HOTTEST_C) / 2), (HOTTEST_C - COLDEST_C) / 2,
        ),
        "the scale of a zone is wrong", kind=AT_MOST, over=_zones,
    )  # fmt: skip
    for metric in ("system_cpu", "workload_cpu"):
        yield Identity(
            metric, f"{metric} <= 100 % x cores", "%", metric, "100 x cpus of the device",
            partial(_cores, metric),
            "more cores are busy than there are",
            kind=AT_MOST, over=all_phases, relative=0.05, absolute=_share,
        )  # fmt: skip
    yield Identity(
        "memory_part", "peak memory of a phase <= that of the run", "MiB", "rss_peak", "rss_peak of run",
        lambda run, key: (run.get(key, "rss_peak"), run.get("run", "rss_peak")),
        "a part takes more than the whole", kind=AT_MOST, over=all_phases,
    )  # fmt: skip
    yield Identity(
        "memory", "peak memory of the run <= memory of the device", "MiB", "rss_peak of run",
        "memory_bytes of the device",
        lambda run, key: (run.get("run", "rss_peak"), run.device("memory_bytes") / 2**20),
        "the workload is larger than the device", kind=AT_MOST,
    )  # fmt: skip


def _cores(metric: str, run: Run, key: str) -> tuple[float, float]:
    return run.get(key, metric), 100.0 * run.device("cpus")


def _reported(run: Run, counter: str) -> float:
    name = f"reported.{counter}"
    for phase, metric in run.metrics:
        if metric == name:
            return run.get(phase, metric)
    raise AbsentError(f"the framework reports no {counter}")


def _counters(rule: Accounting) -> Iterator[Identity]:
    """Give what a framework's counters must obey: parts lie inside, what is outside does not overlap."""
    inside, printed = " + ".join(rule.parts), _PRINTED_MS * (len(rule.parts) + 1)

    def sum_(run: Run) -> float:
        return sum(_reported(run, part) for part in rule.parts)

    def rest(run: Run) -> str:
        return f"{_reported(run, rule.whole) - sum_(run):.1f} ms of {rule.whole} are {rule.rest}"

    yield Identity(
        f"inside_{rule.whole}", f"{inside} <= {rule.whole}, as reported", "ms", f"reported {inside}",
        f"reported {rule.whole}",
        lambda run, key: (sum_(run), _reported(run, rule.whole)),
        f"{rule.whole} does not count what it is said to count", kind=AT_MOST, absolute=_fixed(printed),
        told=rest,
    )  # fmt: skip

    def apart(other: str, run: Run, key: str) -> tuple[float, float]:
        return _reported(run, rule.whole) + _reported(run, other), run.get("run", "duration")

    def lies(other: str, run: Run) -> str:
        left = _reported(run, rule.whole) - sum_(run)
        length = _reported(run, other)
        fits = "could be in" if length <= left else "cannot be in"
        return f"{other} of {length:.1f} ms {fits} the {left:.1f} ms that {rule.whole} counts beside {inside}"

    for other in rule.outside:
        yield Identity(
            f"outside_{rule.whole}_{other}", f"{rule.whole} + {other}, as reported, <= duration of the run",
            "ms",
            f"reported {rule.whole} + {other}", "duration of run",
            partial(apart, other),
            f"{other} lies inside {rule.whole}: the two overlap",
            kind=AT_MOST, absolute=_fixed(2 * _PRINTED_MS),
            told=partial(lies, other),
        )  # fmt: skip

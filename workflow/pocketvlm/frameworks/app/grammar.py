"""From the record of an app's run to boundaries, counters and the answer.

What a wait with a phase covers is the app's own time; everything else is interaction. A phase that shares its
wait with others, or whose ends were seen too late for its length, is NA with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from pocketvlm.apps.record import Record, Wait
from pocketvlm.apps.statistics import TIMES, Found
from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import INTERACTION, Accounting, Boundary, Counter, Output, Report

ACCOUNTING: tuple[Accounting, ...] = ()

UNSURE_SHARE = 0.1
"""A phase is NA when its length is not known to this share of it."""
# Both ends of a phase are read off a clock that shows hundredths of a second.
_CLOCK_MS = 20.0
_EXPECTED = ("load", "text_prefill", "image_encode", "image_prefill", "decode")
_PROMPT = ("text_prefill", "image_encode", "image_prefill")
# Where an entry has another name for a counter than all adapters have.
_NAMES = {"time_to_first_token": "first_token"}
_FILED = {
    "load": "load",
    "image_encode": "image_encode",
    "image_prefill": "image_prefill",
    "decode": "decode",
}


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run of an app; see `Grammar.parse`."""
    record = output.app
    if record is None or not record.waits:
        raise WorkloadError(
            "the run has no record of an app that computed",
            do="give a wait of the app's script a phase, see docs/android-apps.md",
        )
    unobservable = _unobservable(record)
    tokens = {phase: _count(record, phase) for phase in ("decode", "text_prefill", "image_prefill")}
    answer = record.found["answer"].text if "answer" in record.found else ""
    first, why = _first_token(record)
    if first is None:
        unobservable["first_token"] = why
    made = tokens["decode"]
    return Report(
        boundaries=_boundaries(record, output.wall_us),
        counters=tuple(_counters(record)),
        tokens=tokens,
        decode_steps=None if made is None else max(0, made - 1),
        answer=answer,
        answer_bytes=answer.encode(),
        token_times_us=np.empty(0, np.int64),
        first_token_us=first,
        unobservable=unobservable,
    )


def _first_token(record: Record) -> tuple[int | None, str]:
    """Return when the answer began, as the last wait of the prompt ended; or None and why it was not seen."""
    decoding = next((n for n, wait in enumerate(record.waits) if wait.phases == ("decode",)), None)
    before = record.waits[: decoding or 0]
    if not before or not set(before[-1].phases) & set(_PROMPT):
        return None, "the app does not show when its answer begins"
    if doubt := _doubt(before):
        return None, doubt
    return before[-1].end_us, ""


def _doubt(waits: Sequence[Wait]) -> str:
    """Return why the length of waits is not known closely enough; empty when it is."""
    length = sum(wait.end_us - wait.start_us for wait in waits)
    unsure = sum(wait.unsure_us for wait in waits)
    if unsure <= UNSURE_SHARE * length:
        return ""
    return (
        f"its {length * 1e-6:.2f} s are known to {unsure * 1e-6:.2f} s only: taps and looks at the "
        "screen take their time"
    )


def _boundaries(record: Record, wall_us: int) -> tuple[Boundary, ...]:
    found = [Boundary("start", 0, INTERACTION)]
    for wait in record.waits:
        name = wait.phases[0]
        start = max(found[-1].t_us, min(wait.start_us, wall_us))
        if start == found[-1].t_us:
            # What the app did before ended in this moment, or the run began with it.
            found.pop()
        begun = "first_token" if wait.phases == ("decode",) else f"{name}_start"
        found.append(Boundary(begun, start if found else 0, name, observed=wait.unsure_us == 0))
        end = max(start, min(wait.end_us, wall_us))
        ended = "last_token" if "decode" in wait.phases else f"{name}_end"
        found.append(Boundary(ended, end, INTERACTION, observed=wait.unsure_us == 0))
    return tuple(found)


def _unobservable(record: Record) -> dict[str, str]:
    """Return why phases are NA: not waited for, waited for together, or not seen closely enough."""
    found = {}
    by_phase: dict[str, list[Wait]] = {}
    for wait in record.waits:
        for phase in wait.phases:
            by_phase.setdefault(phase, []).append(wait)
        if len(wait.phases) > 1:
            together = f"the app does not show where {', '.join(wait.phases[:-1])} and {wait.phases[-1]} part"
            found.update(dict.fromkeys(wait.phases, together))
    for phase, waits in by_phase.items():
        if doubt := _doubt(waits):
            found.setdefault(phase, doubt)
    if doubt := _doubt(record.waits):
        found["run"] = doubt
    for phase in _EXPECTED:
        if phase not in by_phase:
            found[phase] = "the app's script waits for nothing that would show it"
    return found


def _count(record: Record, phase: str) -> int | None:
    found = record.found.get(f"tokens.{phase}")
    return None if found is None or found.value is None else round(found.value)


def _counters(record: Record) -> Iterator[Counter]:
    for name in TIMES:
        if found := record.found.get(f"time.{name}"):
            yield _counter(record, name, found)
    if rate := record.found.get("rate.decode"):
        # As other frameworks that print a rate have it: the mean time of a step.
        step = 1e3 / rate.value if rate.value else None
        why = rate.reason or "nothing observed is the mean of the steps"
        yield Counter("decode_step", "decode", step, (), why)


def _counter(record: Record, name: str, found: Found) -> Counter:
    phase = _FILED.get(name, "run")
    waited = {wait.phases for wait in record.waits}
    if phase in _FILED.values() and (phase,) in waited:
        covers: tuple[str, ...] = (phase,)
    elif name == "prompt_eval":
        covers = _PROMPT
    else:
        covers = ()
    reason = found.reason if found.value is None else "" if covers else "nothing observed means the same"
    unsure = sum(wait.unsure_us for wait in record.waits if set(wait.phases) & set(covers))
    return Counter(_NAMES.get(name, name), phase, found.value, covers, reason, unsure * 1e-3 + _CLOCK_MS)

"""Whether the workload's threads stayed on the CPUs that its cell asks for (the setting `affinity`)."""

from __future__ import annotations

from collections import defaultdict

from pocketvlm.analyse.numbers import visible
from pocketvlm.analyse.raw import Run, ThreadSeen
from pocketvlm.analyse.sensors import Value
from pocketvlm.cpulist import canonical, parse

NOT_ASKED = "the cell asks for no CPUs (affinity)"

_NAMED = 5
_NAME_MAX = 16


def threads_misplaced(run: Run) -> Value:
    """Return how many threads might run on other CPUs than the cell asks for.

    Returns:
        the count; its `samples` are the threads seen. `reason` says why there is no number, and of one above
        0 which threads they were and where they might run. NOT_ASKED where the cell asks for none.
    """
    inputs = run.meta.get("key_inputs")
    settings = inputs.get("settings") if isinstance(inputs, dict) else None
    asked = settings.get("affinity") if isinstance(settings, dict) else None
    if asked is None:
        return Value(None, None, NOT_ASKED)
    wanted = parse(asked) if isinstance(asked, str) else None
    if not wanted:
        return Value(None, None, f"the run's settings name no list of CPUs: {_clean(str(asked))}")
    if not run.threads:
        return Value(None, 0, "no thread of the workload was seen, so nobody knows where it ran")
    watch = run.probe.get("threads")
    omitted = watch.get("omitted") if isinstance(watch, dict) else None
    if omitted != 0:
        return Value(None, len(run.threads), "not every thread of the workload was looked at")
    strays: dict[int, ThreadSeen] = {}
    by_tid: dict[int, list[ThreadSeen]] = defaultdict(list)
    for seen in run.threads:
        by_tid[seen.tid].append(seen)
    for tid, lists in by_tid.items():
        # The first thread begins as taskset, which only then keeps itself, and what it becomes, to the CPUs.
        counted = lists[1:] if tid == run.pid and len(lists) > 1 else lists
        stray = next((seen for seen in counted if not _within(seen.allowed, wanted)), None)
        if stray:
            strays[tid] = stray
    if not strays:
        return Value(0.0, len(by_tid))
    named = [f"{_clean(s.name)} on {_list(s.allowed)}" for s in list(strays.values())[:_NAMED]]
    more = len(strays) - len(named)
    told = f"{', '.join(named)}{f' and {more} more' if more else ''}"
    asked_text = canonical(wanted)
    why = f"{len(strays)} of {len(by_tid)} threads were not kept on the CPUs {asked_text}: {told}"
    return Value(float(len(strays)), len(by_tid), why)


def _within(allowed: str, wanted: frozenset[int]) -> bool:
    cpus = parse(allowed)
    return cpus is not None and cpus <= wanted


def _list(allowed: str) -> str:
    cpus = parse(allowed)
    return canonical(cpus) if cpus else "an unreadable list"


def _clean(name: str) -> str:
    """Return a thread's name, which anybody may choose, as part of a clause of a gate."""
    text = visible(name, _NAME_MAX)[0] or "?"
    return "".join("," if c == ";" else " " if c.isspace() else c for c in text)

"""Where things stand in what MLC-LLM's programs print, and those of its fork MLC-Imp.

Three forms of statistics, of which the last one on stdout counts:

| form | source | lines |
|---|---|---|
| short | `RuntimeStatsText` of cpp/llm_chat.cc | `prefill: X tok/s, decode: X tok/s` |
| the same | MLC-Imp | … ` prefill:X s, decode: X s` besides |
| verbose | `VerboseRuntimeStatsText` | `throughput`, `total tokens` and `total time` under two headings |
| usage | `RequestMetrics` of cpp/serve/metrics.cc | a line of JSON, `usage` with `extra` |

They may be in another order and have the user's role before them, as after `/stats` in the chat. Before the
answer the chat prints `Loading finished` (once: `Finish loading`), then the role that answers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketvlm.frameworks.transcript import NUMBER, Answer, Line, complaint, last_lines

_ROLE = rb"(?:[^\s:{}]{1,32}: ){0,2}"
_SHORT = re.compile(_ROLE + rb"(?:prefill|encode|decode): .*tok/s.*")
_PART = re.compile(rb"\b(prefill|encode|decode): *(" + NUMBER + rb") *(tok/s|s)(?=[\s,]|$)")
_HEADING = re.compile(_ROLE + rb"-{4,} *(prefill|encode|decode) *-{4,}\s*")
_FIELD = re.compile(rb"(throughput|total tokens|total time): *(" + NUMBER + rb") *(tok/s|tok|s)\s*")
_UNITS = {b"throughput": b"tok/s", b"total tokens": b"tok", b"total time": b"s"}
_USAGE = re.compile(rb"(?:[A-Za-z_]{1,32}: ?){0,2}(\{.*\})\s*")

_LOADED = re.compile(rb"^(?:Loading finished|Finish loading)[^\n]*$", re.MULTILINE)
_SYSTEM = re.compile(rb"^System prompts finished[^\n]*$", re.MULTILINE)
_ANSWERS = re.compile(rb"^" + _ROLE + rb"(?:<\|)?assistant(?:\|>)?: ?", re.MULTILINE | re.IGNORECASE)
_COMPLAINT = re.compile(
    rb"^Error:|TVMError|InternalError: Check failed|magic number error|load error", re.MULTILINE
)

_NAMES = {b"prefill": "prefill", b"encode": "prefill", b"decode": "decode"}
_MOST_TOKENS = 1 << 30


@dataclass(frozen=True)
class Statistics:
    """What a program printed about itself, numbers as text.

    Args:
        form: `short`, `verbose` or `usage`.
        begin: offset of their first line.
        rates: tokens per second of `prefill` and `decode`.
        seconds: their times.
        counts: their tokens; of `usage` also `sampled`.
        twice: a name that they give two values, or empty.
        more: other times of `usage`: `first_token` and `total`, in seconds.
    """

    form: str
    begin: int
    rates: Mapping[str, bytes] = field(default_factory=dict)
    seconds: Mapping[str, bytes] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    twice: str = ""
    more: Mapping[str, bytes] = field(default_factory=dict)


def statistics(stdout: bytes) -> Statistics | None:
    """Return the last statistics of an output; None if there are none."""
    every = last_lines(stdout)
    for number in range(len(every) - 1, -1, -1):
        line = every[number]
        if _SHORT.fullmatch(line.text):
            return _short(line)
        if _HEADING.fullmatch(line.text):
            return _verbose(every, number)
        usage = _usage(line)
        if usage is not None:
            return usage
    return None


def _short(line: Line) -> Statistics:
    rates: dict[str, bytes] = {}
    seconds: dict[str, bytes] = {}
    twice = ""
    for key, value, unit in _PART.findall(line.text):
        table = rates if unit == b"tok/s" else seconds
        name = _NAMES[key]
        twice = name if name in table else twice
        table[name] = value
    return Statistics("short", line.begin, rates, seconds, {}, twice)


def _verbose(every: list[Line], last: int) -> Statistics:
    """Return the section under the last heading and the one right before it, in whichever order they are."""
    headings = [n for n in range(last + 1) if _HEADING.fullmatch(every[n].text)]
    first = last
    for before in reversed(headings[:-1]):
        between = (line.text for line in every[before + 1 : first])
        if last - before > 5 or not all(_FIELD.fullmatch(text) or not text.strip() for text in between):
            break
        first = before
    tables: dict[bytes, dict[str, bytes]] = {name: {} for name in _UNITS}
    twice, part = "", ""
    for line in every[first:]:
        heading, found = _HEADING.fullmatch(line.text), _FIELD.fullmatch(line.text)
        if heading:
            part = _NAMES[heading[1]]
        elif found and found[3] == _UNITS[found[1]]:
            table = tables[found[1]]
            twice = part if part in table else twice
            table[part] = found[2]
    counts = {name: int(text) for name, text in tables[b"total tokens"].items() if text.isdigit()}
    rates, seconds = tables[b"throughput"], tables[b"total time"]
    return Statistics("verbose", every[first].begin, rates, seconds, counts, twice)


def _usage(line: Line) -> Statistics | None:
    match = _USAGE.fullmatch(line.text)
    if not match:
        return None
    try:
        value = json.loads(match[1])
    except (ValueError, RecursionError):
        return None
    usage = value.get("usage", value) if isinstance(value, dict) else None
    extra = usage.get("extra") if isinstance(usage, dict) else None
    if not isinstance(usage, dict) or not isinstance(extra, dict):
        return None
    rates = {name: text for name in ("prefill", "decode") if (text := _text(extra, f"{name}_tokens_per_s"))}
    more = {
        name: text
        for name, key in (("first_token", "ttft_s"), ("total", "end_to_end_latency_s"))
        if (text := _text(extra, key))
    }
    sources = (
        ("prefill", extra.get("prefill_tokens")),
        ("decode", extra.get("decode_tokens")),
        ("sampled", usage.get("completion_tokens")),
    )
    counts = {name: count for name, count in sources if type(count) is int and 0 < count < _MOST_TOKENS}
    return Statistics("usage", line.begin, rates, {}, counts, "", more)


def _text(extra: Mapping[str, Any], key: str) -> bytes | None:
    value = extra.get(key)
    return repr(value).encode() if type(value) in (int, float) else None


def problem(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did."""
    if said := complaint(stderr, _COMPLAINT):
        return f"exited with 0 after it had said: {said}"
    found = statistics(stdout)
    if found is None:
        return "ended without its statistics"
    lacking = [name for name in ("prefill", "decode") if name not in found.rates]
    if lacking:
        return f"ended with statistics that have no rate of {lacking[0]}"
    if found.twice:
        return f"printed two values of {found.twice}"
    return None


def answer(stdout: bytes, found: Statistics) -> Answer:
    """Return where the answer is in an output with these statistics."""
    before = stdout[: found.begin]
    end = len(before.rstrip(b"\r\n"))
    loaded = _LOADED.search(before)
    system = _SYSTEM.search(before, loaded.end()) if loaded else None
    last = system or loaded
    role = _ANSWERS.search(before, last.end() if last else 0)
    echo = role.end() - 1 if role else min(last.end(), len(before) - 1) if last else -1
    return Answer(
        begin=min(echo + 1, end),
        end=end,
        loaded=loaded.end() - 1 if loaded else -1,
        echo=echo,
    )

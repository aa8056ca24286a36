"""Where things stand in what mllm's programs print: the statistics, the answer, and complaints.

Two generations, told apart by their statistics:

| | first: the demo programs | second |
|---|---|---|
| source | `Module::profiling` | `ARGeneration::perfSummary` |
| statistics | between two lines of `=` | between `= Performance Summary =` and a line of `=` |
| names | `Load time`, `Prefilling speed` … `TTFT`, `Decoding speed` | `Prefill time`, `Decode steps` … |
| units | s, tokens/s | s (older: microseconds), tokens/s; coloured, through a pipe, too |
| before the answer | `[Q] …` and `[A] `; LLaVA: the prompt, `… ASSISTANT:` | `Processing...`, `Response: ` |

The statistics are the last of their kind on stdout: an answer that imitates them stands before them, and what
an answer begins after is chosen by what was printed before it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from pocketvlm.frameworks.transcript import Answer, Line, complaint, last_lines

PROGRAM = "mllm"

_RULE = re.compile(rb"(?:\[[A-Z]{1,8}\][^=]{0,200})?={20,}\s*")
_SUMMARY = re.compile(rb"=+ Performance Summary =+\s*")
_EVENTS = re.compile(rb"=+ Custom Events =+\s*")
_FIELD = re.compile(rb"(?:\[[A-Z]{1,8}\].{0,200}?)?\s*(?P<key>[A-Za-z][A-Za-z ]{0,38}?) *: *(?P<value>\S.*)")
_LOADED = b"Load time"
_NEEDED = {
    1: ("prefilling speed", "decoding speed"),
    2: ("decode time",),
}
# What may stand between the answer and the statistics besides line ends: a colour, or a line of dashes.
_AFTER = re.compile(rb"(?:\x1b\[[0-9;]{0,32}[A-Za-z]|(?<=\n)-{20,200})\Z")
_LONGEST_AFTER = 256
# A program prints two or three of them; more are an answer, and each costs time.
_MOST_AFTER = 16
_BLOCK = 1 << 16
# The last is a tensor that the file lacks: the program computes on with whatever was in memory.
_COMPLAINT = re.compile(
    rb"^Error:|[Mm]agic number error|load error|^[^\n]{0,400}\S not found[ \t\r]{0,8}$", re.MULTILINE
)


@dataclass(frozen=True)
class Block:
    """The statistics that a program printed in the end.

    Args:
        generation: 1 or 2.
        begin: offset of their first line.
        fields: value by name in lower case, as printed.
        twice: a name that they give two values, or empty.
        events: value by name of the events that a second-generation program timed.
    """

    generation: int
    begin: int
    fields: Mapping[str, bytes]
    twice: str = ""
    events: Mapping[str, bytes] = field(default_factory=dict)


def statistics(stdout: bytes) -> Block | None:
    """Return the statistics at the end of an output; None if there are none, or not all of them."""
    every = last_lines(stdout)
    rules = [n for n, line in enumerate(every) if _RULE.fullmatch(line.text)]
    heads = [n for n, line in enumerate(every) if _SUMMARY.fullmatch(line.text)]
    if len(rules) > 1 and not any(head > rules[-2] for head in heads):
        opening, closing = rules[-2:]
        inside = every[opening + 1 : closing]
        if any(_LOADED in line.text for line in inside):
            return Block(1, every[opening].begin, *_fields(inside))
    if heads:
        opening = heads[-1]
        after = next((n for n in rules if n > opening), None)
        if after is not None:
            inside = every[opening + 1 : after]
            return Block(2, every[opening].begin, *_fields(inside), _events(every[after + 1 :]))
    return None


def _events(after: list[Line]) -> dict[str, bytes]:
    begin = next((n for n, line in enumerate(after) if _EVENTS.fullmatch(line.text)), len(after))
    end = next((n for n in range(begin + 1, len(after)) if _RULE.fullmatch(after[n].text)), None)
    return _fields(after[begin + 1 : end])[0] if end else {}


def _fields(inside: list[Line]) -> tuple[dict[str, bytes], str]:
    found: dict[str, bytes] = {}
    twice = ""
    for line in inside:
        match = _FIELD.fullmatch(line.text)
        if match:
            name = match["key"].decode().lower()
            twice = name if name in found else twice
            found[name] = match["value"].strip()
    return found, twice


def problem(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did."""
    if said := complaint(stderr, _COMPLAINT):
        return f"exited with 0 after it had said: {said}"
    block = statistics(stdout)
    if block is None:
        return "ended without its timing block"
    lacking = [name for name in _NEEDED[block.generation] if name not in block.fields]
    if lacking:
        return f"ended with a timing block that has no {lacking[0]}"
    if block.twice:
        return f"printed two values of {block.twice}"
    return None


def _end(before: bytes) -> int:
    """Return where the answer ends in what stands before the statistics."""
    end = _without_line_ends(before, len(before))
    for _ in range(_MOST_AFTER):
        from_ = max(0, end - _LONGEST_AFTER)
        after = _AFTER.search(before[from_:end])
        if not after:
            break
        end = _without_line_ends(before, from_ + after.start())
    return end


def _without_line_ends(data: bytes, end: int) -> int:
    """Return where the line ends begin that stand right before `end`; only what is looked at is copied."""
    while end:
        begin = max(0, end - _BLOCK)
        kept = len(data[begin:end].rstrip(b"\r\n"))
        if kept:
            return begin + kept
        end = begin
    return 0


def answer(stdout: bytes, block: Block) -> Answer:
    """Return where the answer is in an output with these statistics."""
    before = stdout[: block.begin]
    end = _end(before)
    loaded = re.search(rb"^[^\n]{0,16}Processing\.\.\.[^\n]*$", before, re.MULTILINE)
    asked = re.search(rb"^\[Q\] ", before, re.MULTILINE)
    if loaded:
        echo = re.compile(rb"Response: ").search(before, loaded.end())
    elif asked:
        echo = re.compile(rb"^\[A\] ", re.MULTILINE).search(before, asked.end())
    else:
        echo = re.search(rb"ASSISTANT:", before)
    begin = echo.end() if echo else (loaded.end() + 1 if loaded else 0)
    return Answer(
        begin=min(begin, end),
        end=end,
        loaded=loaded.end() - 1 if loaded else -1,
        echo=echo.end() - 1 if echo else -1,
    )

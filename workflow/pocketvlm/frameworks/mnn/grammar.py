"""What `mnn_vlm.py` prints: lines of its own around the answer that MNN's engine streams.

    phase = text_prefill                      Python and model have loaded; the image file is read and decoded
    phase = image_encode
    phase = text_prefill
    image_tokens = 291 tokens
    [MNNLLM] response: text=…, stream=1, …    the engine repeats the prompt
    <answer>[MNNLLM] response:                and ends the answer, one evaluation after the last token

    phase = other
    load = 429.557 ms                         what the engine says of itself

Text and image of a prompt are evaluated in one call: when one ends and the other begins is not to be seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Accounting, Boundary, Counter, Output, Report, Stream
from pocketvlm.frameworks.transcript import arrivals, check_count, check_exit, in_one_piece, tail

# No counter contains another.
ACCOUNTING: tuple[Accounting, ...] = ()

_PROGRAM = "mnn_vlm.py"
_PHASE = re.compile(rb"^phase = (image_encode|text_prefill|other)\r?$", re.MULTILINE)
_PROMPT = b"[MNNLLM] response: text="
_PROMPT_END = re.compile(rb", stream=1, max_new_tokens=-?\d{1,9}\r?\n")
_CLOSING = re.compile(rb"\[MNNLLM\] response: \r?\n$")
_FIGURE = re.compile(rb"^(\w{1,30}) = (\d{1,15}(?:\.\d{1,6})?) (?:ms|tokens)\r?$", re.MULTILINE)
_STATUS = re.compile(rb"^status = (\w{1,40})\r?$", re.MULTILINE)
_ENDS = (b"MAX_TOKENS_FINISHED", b"NORMAL_FINISHED")

# The phases that the program announces before the answer, in order, each with the name of its boundary.
_ANNOUNCED = (
    ("load_end", "text_prefill"),
    ("image_encode_start", "image_encode"),
    ("image_encode_end", "text_prefill"),
)
_JOINT = "MNN evaluates text and image of the prompt in one call"
_MORE = "MNN evaluates the last token, too: its time is longer than from the first token to the last"
_LESS = "MNN's time to load leaves out the vision tower and the start of Python"
# Counter to the engine's name for it, the phase, what it covers, and why nothing observed means the same.
_COUNTERS = (
    ("load", "load", "load", (), _LESS),
    ("image_encode", "vision", "image_encode", ("image_encode",), ""),
    ("prompt_eval", "prefill", "run", ("text_prefill", "image_prefill"), ""),
    ("decode", "decode", "decode", (), _MORE),
    ("sample", "sample", "decode", (), "nothing observed is sampling alone"),
)


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run; see `Grammar.parse`."""
    check_exit(output, _PROGRAM)
    stdout = output.stdout
    data = stdout.data
    spoken = data.find(_PROMPT)
    prompt = None if spoken < 0 else _PROMPT_END.search(data, spoken)
    end = data.rfind(b"\nphase = other")
    if prompt is None or end < prompt.end():
        raise _unusable("printed no answer", output)
    begin, figures = prompt.end(), dict(_FIGURE.findall(data[:spoken] + data[end:]))
    status = _STATUS.search(data, end)
    if status is None or status[1] not in _ENDS:
        raise _unusable(f"ended with {status[1].decode() if status else 'no status'}", output)
    closing = _CLOSING.search(data[begin:end])
    last = begin + closing.start() if closing else end
    if last == begin:
        raise _unusable("printed an empty answer", output)
    sampled = _count(figures, b"answer_tokens", output)
    check_count(_PROGRAM, sampled, max_tokens=max_tokens, exact=exact)
    image, whole = (_count(figures, name, output) for name in (b"image_tokens", b"prompt_tokens"))
    boundaries, unobservable = _boundaries(stdout, spoken, (begin, last), output)
    times = arrivals(stdout, begin, last)
    if unseen := in_one_piece(times, sampled):
        unobservable["first_token"] = unobservable["decode"] = unseen
    return Report(
        boundaries=tuple(boundaries),
        counters=_counters(figures),
        tokens={
            "decode": sampled,
            "image_prefill": image,
            "text_prefill": whole - image if whole > image else None,
        },
        decode_steps=sampled - 1,
        answer=data[begin:last].decode("utf-8", errors="replace"),
        answer_bytes=data[begin:last],
        token_times_us=times,
        first_token_us=None if unseen else next(b.t_us for b in boundaries if b.name == "first_token"),
        unobservable=unobservable,
    )


def _boundaries(
    stdout: Stream, limit: int, answer: tuple[int, int], output: Output
) -> tuple[list[Boundary], dict[str, str]]:
    """Return the boundaries, and why phases cannot be seen.

    Args:
        stdout: the stream.
        limit: where the engine begins to speak.
        answer: begin and end of the answer.
        output: for messages, and for how long the run was.
    """
    said = list(_PHASE.finditer(stdout.data, 0, limit))
    if [match[1].decode() for match in said] != [phase for _, phase in _ANNOUNCED]:
        raise _unusable("did not announce each phase", output)
    begin, end = answer
    places = [(name, phase, match.end()) for (name, phase), match in zip(_ANNOUNCED, said, strict=True)]
    places += [("first_token", "decode", begin), ("last_token", "other", end - 1), ("closed", "", end)]
    found = [Boundary("start", 0, "load")]
    reasons = dict.fromkeys(("text_prefill", "image_prefill"), _JOINT)
    for (name, phase, offset), (after, _, later) in pairwise(places):
        seen = stdout.chunk_of(offset) != stdout.chunk_of(later)
        if not seen:
            # When this was printed is known only to be not later: neither side of it has a length.
            for hidden in sorted({found[-1].phase, phase} - {"other"}):
                reasons.setdefault(hidden, f"{name} arrived in one piece with {after}")
        t_us = min(stdout.time_of(offset), output.wall_us)
        found.append(Boundary(name, t_us, phase, observed=seen))
    return found, reasons


def _counters(figures: Mapping[bytes, bytes]) -> tuple[Counter, ...]:
    made = []
    for name, printed, phase, covers, why in _COUNTERS:
        value = figures.get(printed.encode())
        if value is None:
            made.append(Counter(name, phase, None, reason=f"{_PROGRAM} printed no {printed}"))
        elif not float(value):
            # Its clocks are of microseconds: what took none was not timed.
            reason = f"{_PROGRAM} printed {value.decode()} ms as {printed}"
            made.append(Counter(name, phase, None, reason=reason))
        else:
            made.append(Counter(name, phase, float(value), covers, why))
    return tuple(made)


def _count(figures: Mapping[bytes, bytes], name: bytes, output: Output) -> int:
    printed = figures.get(name, b"")
    if not printed.isdigit() or not int(printed):
        raise _unusable(f"printed {printed.decode() or 'no'} {name.decode()}", output)
    return int(printed)


def _unusable(what: str, output: Output) -> WorkloadError:
    return WorkloadError(
        f"{_PROGRAM} {what}; stdout ends with: {tail(output.stdout.data)}",
        do="run it by hand with the same arguments; what MNN says of bad weights is on stdout",
    )

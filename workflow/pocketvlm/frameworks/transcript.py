"""Reading the output of programs that stream an answer to stdout and then print statistics about themselves.

What is said here holds for every such program; which lines it prints is its adapter's business. Offsets are
into the bytes of stdout as they came, colours included.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Boundary, Output, Stream

PREFILL = ("text_prefill", "image_encode", "image_prefill")
"""The phases that a program runs in one piece when it says nothing between prompt and first token."""

NUMBER = rb"[-+]?(?:\d{1,15}(?:\.\d{0,15})?(?:[eE][-+]?\d{1,3})?|nan|inf)"
"""What C++ prints for a floating-point number, the ones that are none included."""

NO_ANSWER_START = "the output has nothing that tells where the answer begins"
"""Why a first token was not seen where nothing is printed right before the answer."""

MAX_LINE = 8192
LAST = 1 << 16
"""Bytes at the end of stdout in which statistics are looked for."""

# No time in seconds and no rate per second lies outside; NaN does not lie inside.
_LEAST, _MOST = 1e-9, 1e12
_TAIL_LINES = 6
_TAIL_CHARS = 200
_COLOUR = re.compile(rb"\x1b\[[0-9;]{0,32}[A-Za-z]")


@dataclass(frozen=True)
class Line:
    """One line of a stream: its text without colours and line end, and where its bytes are."""

    text: bytes
    begin: int
    end: int


@dataclass(frozen=True)
class Mark:
    """A line or a piece of one whose arrival is a moment of the run.

    Args:
        name: of the boundary.
        offset: of its last byte.
        phase: what begins there.
    """

    name: str
    offset: int
    phase: str


@dataclass(frozen=True)
class Answer:
    """Where an answer stands in stdout.

    Args:
        begin, end: its offsets; the same when it is empty.
        loaded: offset of the last byte of the line at the end of loading, -1 where no line is.
        echo: offset of the last byte of what was printed right before the answer, -1 if that is not known.
    """

    begin: int
    end: int
    loaded: int
    echo: int


def last_lines(data: bytes) -> list[Line]:
    """Return the lines at the end of a stream, where statistics are; of long ones only the beginning."""
    found = []
    begin = 0 if len(data) <= LAST else data.find(b"\n", len(data) - LAST) + 1 or len(data)
    while begin < len(data):
        newline = data.find(b"\n", begin)
        end = newline if newline >= 0 else len(data)
        text = _COLOUR.sub(b"", data[begin : min(end, begin + MAX_LINE)])
        found.append(Line(text.rstrip(b"\r"), begin, end))
        begin = end + 1
    return found


def complaint(stderr: bytes, pattern: re.Pattern[bytes]) -> str | None:
    """Return the line of a log in which a pattern is found first, fit for a message; None if none has it."""
    match = pattern.search(stderr)
    if not match:
        return None
    begin, end = stderr.rfind(b"\n", 0, match.end()) + 1, stderr.find(b"\n", match.end())
    return tail(stderr[begin : end if end >= 0 else len(stderr)][:MAX_LINE])


def check_exit(output: Output, program: str) -> None:
    """Raise WorkloadError if the program did not end by itself with status 0."""
    last = tail(output.stderr.data)
    if output.deadline_hit:
        raise WorkloadError(
            f"{program} did not end before its deadline; stderr ends with: {last}",
            do="raise the deadline in the experiment, or choose a smaller model or token budget",
        )
    if not output.exited:
        raise WorkloadError(
            f"{program} was killed by signal {output.signal}; stderr ends with: {last}",
            do="check free memory on the device (signal 9) and the CPU features of the build (signal 4)",
        )
    if output.status != 0:
        raise WorkloadError(
            f"{program} exited with status {output.status}; stderr ends with: {last}",
            do="run it by hand with the same arguments and look at what it prints",
        )


def check_answer(program: str, where: Answer, output: Output) -> None:
    """Raise WorkloadError if the answer is empty."""
    if where.begin == where.end:
        raise WorkloadError(
            f"{program} printed no answer; stderr ends with: {tail(output.stderr.data)}",
            do="run it by hand with the same arguments and look at what it prints",
        )


def check_count(program: str, sampled: int | None, *, max_tokens: int, exact: bool) -> None:
    """Raise WorkloadError if it is known that the answer has not the tokens that it must have."""
    if sampled is not None and (sampled > max_tokens or (exact and sampled != max_tokens)):
        raise WorkloadError(
            f"{program} sampled {sampled} tokens, the budget is {max_tokens}",
            do="check that it takes the budget and ignores end-of-text where the workload says so, and that "
            "the context holds prompt and answer",
        )


def tail(data: bytes) -> str:
    """Return the last lines of a log for a message: control characters escaped, length limited."""
    last = [line for line in data[-MAX_LINE:].split(b"\n") if line.strip()][-_TAIL_LINES:]
    texts = []
    for line in last:
        text = line.decode("utf-8", errors="replace").strip()
        text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
        texts.append(text if len(text) <= _TAIL_CHARS else text[:_TAIL_CHARS] + "…")
    return " | ".join(texts) or "nothing"


def positive(printed: bytes | None, what: str, program: str) -> tuple[float | None, str]:
    """Return a number that can be a time or a rate, or None and why there is none.

    Args:
        printed: its text as the program printed it; None when it printed none.
        what: its name there.
        program: who printed it.
    """
    if printed is None:
        return None, f"{program} printed no {what}"
    text = printed.decode("ascii", errors="replace")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not _LEAST <= value <= _MOST:
        return None, f"{program} printed {text} as {what}"
    return value, ""


def arrivals(stdout: Stream, begin: int, end: int) -> NDArray[np.int64]:
    """Return when each piece of the answer in [begin, end) arrived, microseconds, shape (pieces,)."""
    first, last = stdout.chunk_of(begin), stdout.chunk_of(end - 1)
    return np.asarray(stdout.times[first : last + 1], dtype=np.int64)


def in_one_piece(times: NDArray[np.int64], sampled: int | None) -> str:
    """Return why the first token of an answer was not seen: all of it arrived at once. Empty where it was.

    Args:
        times: when the pieces of the answer arrived, shape (pieces,).
        sampled: how many tokens it has, None if unknown; a single one is a piece by itself.
    """
    if times.size > 1 or sampled == 1:
        return ""
    return "the whole answer arrived in one piece: when its first token was there was not seen"


def counted(times: NDArray[np.int64], rate: float | None) -> int | None:
    """Return how many tokens an answer has if its pieces are its tokens, or None where that is not confirmed.

    A program that prints a rate and no count is believed to have printed each token by itself when its own
    rate says so: n pieces enclose n - 1 steps, and

        steps = rate x (arrival of the last piece - arrival of the first)

    rounds to that very number. A token that came together with another, or that printed nothing, is missing
    from the pieces and not from the product.

    Args:
        times: when the pieces arrived, microseconds, shape (pieces,).
        rate: steps per second by the program's own account.
    """
    if rate is None or times.size < 2:
        return None
    steps = rate * float(times[-1] - times[0]) * 1e-6
    return int(times.size) if abs(steps - (times.size - 1)) < 0.5 else None


def timeline(
    stdout: Stream,
    marks: Sequence[Mark],
    answer: tuple[int, int],
    *,
    wall_us: int,
    joint: str,
    unseen: str = "",
) -> tuple[tuple[Boundary, ...], dict[str, str]]:
    """Return the boundaries of a run and why phases cannot be seen.

    What ends the answer is printed right after the last token, with nothing computed between: arriving
    together, the two are one moment.

    Args:
        stdout: the stream.
        marks: what was printed before the answer, in order; `load_end` among them if the end of loading was.
        answer: begin and end of the answer.
        wall_us: length of the run.
        joint: why text and image are not seen apart.
        unseen: why the beginning of the answer is not seen, empty if it is.
    """
    begin, end = answer
    found = [Boundary("start", 0, "load")]
    reasons = dict.fromkeys(PREFILL, joint)
    if not any(mark.name == "load_end" for mark in marks):
        reasons["load"] = "the output has no line at the end of loading"
    following = [*(mark.offset for mark in marks), begin]
    for mark, after in zip(marks, following[1:], strict=True):
        alone = stdout.chunk_of(mark.offset) != stdout.chunk_of(after)
        if not alone:
            reasons.setdefault(found[-1].phase, f"{mark.name} arrived in one piece with what follows it")
        found.append(Boundary(mark.name, stdout.time_of(mark.offset), mark.phase, alone, exact=False))
    if not unseen and begin and stdout.chunk_of(begin - 1) == stdout.chunk_of(begin):
        unseen = "the first token arrived in one piece with what was printed before it"
    if unseen:
        reasons["first_token"] = reasons["decode"] = unseen
        reasons.setdefault(found[-1].phase, unseen)
    found.append(Boundary("first_token", stdout.time_of(begin), "decode", not unseen))
    found.append(Boundary("last_token", stdout.time_of(end - 1), "other"))
    return tuple(b if b.t_us <= wall_us else _at(b, wall_us) for b in found), reasons


def _at(boundary: Boundary, t_us: int) -> Boundary:
    """Output drained after the process ended: the moment is not later than its end."""
    return Boundary(boundary.name, t_us, boundary.phase, observed=False, exact=boundary.exact)

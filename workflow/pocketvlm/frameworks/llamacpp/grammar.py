"""What `llama-mtmd-cli` prints, in three generations: its output becomes boundaries, counters and the answer.

Lines are matched by key, wherever they stand. Sources, per version of the sdist (all under vendor/llama.cpp):

| | 0.3.9 | 0.3.16 | 0.3.36 |
|---|---|---|---|
| end of load (`main: loading model`) | stdout | stdout | stderr, prefixed |
| image lines | stderr (mtmd.cpp) | stdout, no prefix (mtmd-helper.cpp) | stderr, prefixed, `--verbosity 4` |
| timing block (llama-context.cpp) | stderr | stderr | stderr, prefixed, `--verbosity 4` |
| answer (mtmd-cli.cpp) | stdout | stdout | stdout |

The answer begins after the first empty line of stdout (`LOG("\\n")` at the end of eval_message) and ends
before the final `"\\n\\n"`; nothing inside it is ever read as a log line, so a model cannot forge a counter.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

import numpy as np

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Accounting, Boundary, Counter, Output, Report, Stream
from pocketvlm.frameworks.llamacpp.offload import offload
from pocketvlm.frameworks.transcript import in_one_piece, tail

# llama-context.cpp: 'total time' begins at llama_perf_context_reset(), after the warm-up; 'load time' ends
# before it. What is queued is counted when it is awaited, so that encoding and evaluating the image lie
# inside 'prompt eval time'.
ACCOUNTING = (
    Accounting(
        "total",
        parts=("prompt_eval", "decode"),
        outside=("load",),
        rest="loading the vision tower, decoding the image file, sampling and printing",
    ),
    Accounting(
        "prompt_eval",
        parts=("image_encode", "image_prefill"),
        outside=(),
        rest="evaluating the text",
    ),
)

MAX_LINE = 8192

_ESCAPE = re.compile(rb"\x1b\[[0-9;]{0,16}[A-Za-z]")
_PREFIX = re.compile(rb"(?:\d{1,6}\.\d\d\.\d{3}\.\d{3} +)?(?:[IWED] )?")
_LINES = (
    ("load_end", re.compile(rb"main: loading model")),
    ("image_encode_start", re.compile(rb"encoding (?:image|mtmd batch)\b")),
    (
        "image_encode_end",
        re.compile(rb"(?:image(?:/| )slice encoded in|mtmd batch encoding done in) (?P<ms>\d{1,12}) ms"),
    ),
    (
        "image_decode_start",
        re.compile(
            rb"decoding image batch (?P<i>\d{1,6})/(?P<n>\d{1,6}), n_tokens_batch = (?P<tokens>\d{1,9})"
        ),
    ),
    (
        "image_decode_end",
        re.compile(rb"image decoded \(batch (?P<i>\d{1,6})/(?P<n>\d{1,6})\) in (?P<ms>\d{1,12}) ms"),
    ),
)
_TIMING = re.compile(
    rb"(?:llama_perf_context_print|llama_print_timings|common_perf_print): +"
    rb"(?P<key>[a-z][a-z ]{0,30}?) time = +(?P<ms>\d{1,12}(?:\.\d{1,6})?) ms"
    rb"(?: / +(?P<count>\d{1,9}) (?:tokens|runs))?"
)
# Printed back to back with nothing computed between: arriving together, the pair is still one moment.
_BACK_TO_BACK = {
    ("image_encode_end", "image_decode_start"),
    ("image_decode_end", "image_decode_start"),
    ("image_decode_end", "image_encode_start"),
}
_COVERED = ("text_prefill", "image_encode", "image_prefill")


@dataclass(frozen=True)
class _Event:
    name: str
    t_us: int
    stream: str
    chunk: int
    offset: int
    ms: int = 0
    tokens: int = 0
    batch: int = 1
    batches: int = 1


@dataclass(frozen=True)
class _Timing:
    ms: float
    count: int | None


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run of llama-mtmd-cli; see `Grammar.parse`."""
    _check_exit(output)
    answer_at = _answer_start(output.stdout.data)
    events = _events(output.stdout, "stdout", answer_at) + _events(
        output.stderr, "stderr", len(output.stderr.data)
    )
    events.sort(key=lambda event: (event.t_us, event.stream, event.offset))
    timings = _timings(output.stderr.data)
    if "eval" not in timings or "prompt eval" not in timings:
        raise WorkloadError(
            f"llama-mtmd-cli ended without its timing block; stderr ends with: {tail(output.stderr.data)}",
            do="run it by hand with the same arguments; versions from 2026 print it only with --verbosity 4",
        )
    begin, end, separate_end = _answer_span(output.stdout.data, answer_at)
    if begin == end:
        raise WorkloadError(
            f"llama-mtmd-cli printed no answer; stderr ends with: {tail(output.stderr.data)}",
            do="run it by hand with the same arguments and look at what it prints",
        )
    steps = _decode_steps(timings["eval"])
    tokens = steps + 1
    if tokens > max_tokens or (exact and tokens != max_tokens):
        raise WorkloadError(
            f"llama-mtmd-cli sampled {tokens} tokens, the budget is {max_tokens}",
            do="check that end-of-text is ignored (--ignore-eos) and the context holds prompt and answer",
        )
    data = output.stdout.data[begin:end]
    if tokens < max_tokens and data.endswith(b"\n"):
        data = data[:-1]  # generate_response prints one more newline when it stops at end-of-text
    first_chunk, last_chunk = output.stdout.chunk_of(begin), output.stdout.chunk_of(end - 1)
    last_alone = separate_end < 0 or output.stdout.chunk_of(separate_end) != last_chunk
    boundaries, unobservable = _boundaries(
        events,
        output.stdout,
        first=(first_chunk, begin),
        last=(last_chunk, last_alone),
        wall_us=output.wall_us,
    )
    image_tokens = sum(event.tokens for event in events if event.name == "image_decode_start")
    prompt_tokens = timings["prompt eval"].count
    seen_image = any(event.name == "image_decode_start" for event in events)
    text_tokens = None if prompt_tokens is None or not seen_image else prompt_tokens - image_tokens
    times = np.asarray(output.stdout.times[first_chunk : last_chunk + 1], dtype=np.int64)
    if unseen := in_one_piece(times, tokens):
        before = boundaries[[b.name for b in boundaries].index("first_token") - 1].phase
        for phase in (before, "first_token"):
            unobservable.setdefault(phase, unseen)
        unobservable["decode"] = unseen
    return Report(
        boundaries=boundaries,
        counters=_counters(events, timings, steps, _unannounced(boundaries, output.stdout, answer_at, steps)),
        tokens={
            "decode": tokens,
            "image_prefill": image_tokens if seen_image else None,
            "text_prefill": text_tokens if text_tokens is None or text_tokens > 0 else None,
        },
        decode_steps=steps,
        answer=data.decode("utf-8", errors="replace"),
        answer_bytes=data,
        token_times_us=times,
        first_token_us=None if unseen else next(b.t_us for b in boundaries if b.name == "first_token"),
        unobservable=unobservable,
        offload=offload(_clean(line) for line in output.stderr.data.split(b"\n")),
    )


def _check_exit(output: Output) -> None:
    last = tail(output.stderr.data)
    if output.deadline_hit:
        raise WorkloadError(
            f"llama-mtmd-cli did not end before its deadline; stderr ends with: {last}",
            do="raise the deadline in the experiment, or choose a smaller model or token budget",
        )
    if not output.exited:
        raise WorkloadError(
            f"llama-mtmd-cli was killed by signal {output.signal}; stderr ends with: {last}",
            do="check free memory on the device (signal 9) and the CPU features of the build (signal 4)",
        )
    if output.status != 0:
        raise WorkloadError(
            f"llama-mtmd-cli exited with status {output.status}; stderr ends with: {last}",
            do="run it by hand with the same arguments; unreadable weights or a missing image end so",
        )


def _clean(line: bytes) -> bytes:
    line = _ESCAPE.sub(b"", line[:MAX_LINE]).rstrip(b"\r")
    match = _PREFIX.match(line)
    return line[match.end() :] if match else line


def _answer_start(stdout: bytes) -> int:
    """Return the offset after the first empty line, or the length if there is none."""
    if stdout.startswith(b"\n"):
        return 1
    if stdout.startswith(b"\r\n"):
        return 2
    match = re.search(rb"\n\r?\n", stdout)
    return match.end() if match else len(stdout)


def _answer_span(stdout: bytes, begin: int) -> tuple[int, int, int]:
    """Return begin and end of the answer, and the offset of the closing empty line or -1."""
    if len(stdout) - begin >= 2 and stdout.endswith(b"\n\n"):
        return begin, len(stdout) - 2, len(stdout) - 2
    return begin, len(stdout), -1


def _events(stream: Stream, name: str, limit: int) -> list[_Event]:
    """Return the known lines before `limit`, stamped by the chunk that brought the end of each."""
    events = []
    start = 0
    while start < limit:
        newline = stream.data.find(b"\n", start, limit)
        end = newline if newline >= 0 else limit
        line = _clean(stream.data[start:end])
        for key, pattern in _LINES:
            match = pattern.match(line)
            if match:
                fields = match.groupdict()
                offset = min(end, len(stream.data) - 1)
                events.append(
                    _Event(
                        name=key,
                        t_us=stream.time_of(offset),
                        stream=name,
                        chunk=stream.chunk_of(offset),
                        offset=offset,
                        ms=int(fields.get("ms") or 0),
                        tokens=int(fields.get("tokens") or 0),
                        batch=int(fields.get("i") or 1),
                        batches=int(fields.get("n") or 1),
                    )
                )
                break
        start = end + 1
    return events


def _timings(stderr: bytes) -> dict[str, _Timing]:
    timings = {}
    for line in stderr.split(b"\n"):
        match = _TIMING.match(_clean(line))
        if match:
            count = match["count"]
            timings[match["key"].decode()] = _Timing(float(match["ms"]), int(count) if count else None)
    return timings


def _decode_steps(timing: _Timing) -> int:
    """Return how many single-token evaluations were finished before the last token was sampled.

    llama_context::synchronize counts an evaluation when its result is awaited, which the sampler of the NEXT
    token does: N sampled tokens leave N - 1 counted. llama_perf_context never prints less than 1, so no time
    means none.
    """
    if timing.ms == 0.0:
        return 0
    return timing.count or 0


def _boundaries(
    events: list[_Event],
    stdout: Stream,
    *,
    first: tuple[int, int],
    last: tuple[int, bool],
    wall_us: int,
) -> tuple[tuple[Boundary, ...], dict[str, str]]:
    found = [Boundary("start", 0, "load")]
    unobservable: dict[str, str] = {}
    first_event = _Event("first_token", int(stdout.times[first[0]]), "stdout", first[0], first[1])
    sequence = events

    def together(index: int) -> str | None:
        """Return the later event that came in the same chunk and hides when this one was printed."""
        here = sequence[index]
        for before, after in zip(sequence[index:], [*sequence[index + 1 :], first_event], strict=True):
            if (after.stream, after.chunk) != (here.stream, here.chunk):
                return None
            if (before.name, after.name) not in _BACK_TO_BACK:
                return after.name
        return None

    def add(index: int, name: str, phase: str, *, exact: bool = True) -> None:
        hidden_by = together(index)
        if hidden_by:
            reason = f"{name} arrived in one piece with {hidden_by}: when it was printed was not seen"
            unobservable.setdefault(found[-1].phase, reason)
            unobservable.setdefault(phase, reason)
        found.append(Boundary(name, sequence[index].t_us, phase, observed=hidden_by is None, exact=exact))

    names = [event.name for event in sequence]
    for index, event in enumerate(sequence):
        following = names[index + 1] if index + 1 < len(names) else ""
        if event.name == "load_end":
            # The image file is decoded and preprocessed before the first text is evaluated, unannounced.
            add(index, "load_end", "text_prefill", exact=False)
        elif event.name == "image_encode_start":
            add(index, "image_encode_start", "image_encode")
        elif event.name == "image_encode_end":
            if following == "image_decode_start":
                add(index, "image_encode_end", "image_prefill")
            else:
                add(index, "image_encode_end", "text_prefill", exact=False)
                reason = "the output has no line between the evaluation of the image and of the text after it"
                unobservable.update(text_prefill=reason, image_prefill=reason)
        elif event.name == "image_decode_start":
            if index and names[index - 1] != "image_encode_end" and event.batch == 1:
                add(index, "image_prefill_start", "image_prefill")
        elif event.batch == event.batches:
            add(index, "image_prefill_end", "text_prefill")
    if "load_end" not in names:
        reason = "the output has no line at the end of load"
        unobservable.update(load=reason, text_prefill=reason)
    if "image_encode_start" not in names:
        reason = "the output has no line about the image"
        for phase in _COVERED:
            unobservable.setdefault(phase, reason)
    # Two streams are read one after the other: an answer cannot precede the line about its own prompt.
    latest = max(boundary.t_us for boundary in found)
    ordered = first_event.t_us >= latest
    found.append(Boundary("first_token", max(first_event.t_us, latest), "decode", observed=ordered))
    last_us = max(int(stdout.times[last[0]]), found[-1].t_us)
    found.append(Boundary("last_token", last_us, "other", observed=last[1]))
    if not last[1]:
        unobservable.setdefault("decode", "last_token arrived in one piece with the end of the answer")
    return tuple(b if b.t_us <= wall_us else _at(b, wall_us) for b in found), unobservable


def _at(boundary: Boundary, t_us: int) -> Boundary:
    """Output drained after the process ended: the moment is not later than its end."""
    return Boundary(boundary.name, t_us, boundary.phase, observed=False, exact=boundary.exact)


def _unannounced(
    boundaries: tuple[Boundary, ...], stdout: Stream, answer_at: int, steps: int
) -> dict[str, float]:
    """Return the most milliseconds of observed time that a counter leaves out and no line announces.

    `prompt_eval`: decoding and preprocessing the image file, between the end of load and the first text.
    `decode`: sampling, which `eval time` excludes. The first sampling is seen, from the empty line that ends
    the prompt's evaluation to the first token; its memory being new, it is the slowest. Each step has one.
    """
    found = {"prompt_eval": 0.0, "decode": 0.0}
    for here, after in itertools.pairwise(boundaries):
        if here.name == "load_end":
            found["prompt_eval"] = (after.t_us - here.t_us) * 1e-3
    first = next(b.t_us for b in boundaries if b.name == "first_token")
    if answer_at > 0 and stdout.chunk_of(answer_at - 1) != stdout.chunk_of(answer_at):
        found["decode"] = steps * (first - stdout.time_of(answer_at - 1)) * 1e-3
    return found


def _counters(
    events: list[_Event], timings: dict[str, _Timing], steps: int, unannounced: dict[str, float]
) -> tuple[Counter, ...]:
    def image(event_name: str, name: str) -> Counter:
        values = [event.ms for event in events if event.name == event_name]
        if not values:
            return Counter(name, name, None, reason=f"llama.cpp printed no {event_name} line")
        return Counter(name, name, float(sum(values)), covers=(name,))

    def timing(key: str, name: str, phase: str, covers: tuple[str, ...], reason: str) -> Counter:
        if key not in timings:
            return Counter(name, phase, None, reason=f"llama.cpp printed no '{key} time' line")
        more = unannounced.get(name, 0.0)
        return Counter(name, phase, timings[key].ms, covers, "" if covers else reason, more)

    decode = timing("eval", "decode", "decode", ("decode",), "")
    if steps == 0:
        decode = Counter("decode", "decode", None, reason="no evaluation followed the first token")
    return (
        timing("load", "load", "load", (), "'load time' ends at the first evaluation, the warm-up's"),
        image("image_encode_end", "image_encode"),
        image("image_decode_end", "image_prefill"),
        timing("prompt eval", "prompt_eval", "run", _COVERED, ""),
        decode,
        timing(
            "sampling" if "sampling" in timings else "sample",
            "sample",
            "decode",
            (),
            "nothing observed is sampling alone",
        ),
        timing("total", "total", "run", (), "'total time' begins after the warm-up, unannounced"),
    )

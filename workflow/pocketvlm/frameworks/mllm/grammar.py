"""What mllm's output means, in both generations; `output` finds where things stand in it.

First generation (`Module::profiling`), with t0 the time of the first evaluation, the vision tower's included,
and t1…tn those after it:

    Load time = time of reading the weights                       -> load
    TTFT = t0                                                     -> prompt_eval
    Prefilling speed = text tokens / t0                           -> text tokens = speed x TTFT
    Decoding speed = n / (t1 + … + tn)                            -> decode_step = 1 / speed, its mean step

It counts nothing else. LLaVA's prefilling speed counts the tokens of the text alone, the image being one of
them there, whereas text - 1 + 576 were evaluated: the speed that it prints is no speed of anything and is not
used. 576 = (336 / 14)^2, the positions of LLaVA-1.5's tower (CLIP ViT-L/14 at 336 pixels). How many tokens
were sampled is taken from the pieces of the answer where the decoding speed confirms them
(`transcript.counted`).

Second generation (`ARGeneration::perfSummary`):

    Prefill time = evaluation of prompt and image (`ViT` of the custom events lies inside)   -> prompt_eval
    Decode time = from the first token's printing to the last one's                          -> decode
    Total time = Prefill time + Decode time                                                  -> total
    Decode steps = evaluations after the first: one less than the tokens
    Prefill tokens = of text and image together

In neither is anything printed between prompt and first token, and the first thing printed at all comes after
the image was decoded: load is seen only where the program says `Processing...`.
"""

from __future__ import annotations

import re

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Accounting, Counter, Output, Report
from pocketvlm.frameworks.mllm.output import PROGRAM, Block, answer, problem, statistics
from pocketvlm.frameworks.transcript import (
    NO_ANSWER_START,
    NUMBER,
    PREFILL,
    Answer,
    Mark,
    arrivals,
    check_answer,
    check_count,
    check_exit,
    counted,
    in_one_piece,
    positive,
    tail,
    timeline,
)

# Its total is the sum of two counters and says nothing more.
ACCOUNTING = (
    Accounting("prompt_eval", parts=("image_encode",), outside=(), rest="evaluating text and image"),
)

LLAVA_IMAGE_TOKENS = 576
LLAVA_MARKER = b"<image>"

JOINT = (
    "mllm encodes the image and evaluates image and text in one piece, with no line between: "
    "what each took is not seen"
)
_TIME = re.compile(rb"(" + NUMBER + rb") *(s|ms|us|\xc2\xb5s|\xce\xbcs)\b")
_RATE = re.compile(rb"(" + NUMBER + rb") *tokens/s\b")
_TTFT = re.compile(rb"TTFT: *(" + NUMBER + rb") *s\b")
_COUNT = re.compile(rb"\d{1,9}")
_MS = {b"s": 1e3, b"ms": 1.0}


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run of an mllm program; see `Grammar.parse`."""
    check_exit(output, PROGRAM)
    stdout = output.stdout
    why = problem(stdout.data, output.stderr.data)
    block = statistics(stdout.data)
    if why or block is None:
        raise WorkloadError(
            f"{PROGRAM} {why}; stderr ends with: {tail(output.stderr.data)}",
            do="run it by hand with the same arguments; unreadable weights or a missing file end so",
        )
    where = answer(stdout.data, block)
    check_answer(PROGRAM, where, output)
    times = arrivals(stdout, where.begin, where.end)
    rate, _ = _rate(block)
    unseen = "" if where.echo >= 0 else NO_ANSWER_START
    if block.generation == 1:
        sampled = None if unseen else counted(times, rate)
    else:
        sampled = _sampled(block, max_tokens=max_tokens, exact=exact)
    check_count(PROGRAM, sampled, max_tokens=max_tokens, exact=exact)
    unseen = unseen or in_one_piece(times, sampled)
    marks = [
        *([Mark("load_end", where.loaded, "text_prefill")] if where.loaded >= 0 else []),
        *([Mark("prompt", where.echo, "text_prefill")] if where.loaded < 0 <= where.echo else []),
    ]
    boundaries, unobservable = timeline(
        stdout, marks, (where.begin, where.end), wall_us=output.wall_us, joint=JOINT, unseen=unseen
    )
    if where.loaded < 0:
        unobservable["load"] = "the first line that mllm prints comes after it has decoded the image, too"
    data = stdout.data[where.begin : where.end]
    first = next(b.t_us for b in boundaries if b.name == "first_token")
    return Report(
        boundaries=boundaries,
        counters=_first(block) if block.generation == 1 else _second(block, ended_early=sampled is None),
        tokens={"decode": sampled, **_prompt_tokens(stdout.data, where, block)},
        decode_steps=None if sampled is None else sampled - 1,
        answer=data.decode("utf-8", errors="replace"),
        answer_bytes=data,
        token_times_us=times,
        first_token_us=None if "first_token" in unobservable else first,
        unobservable=unobservable,
    )


def _sampled(block: Block, *, max_tokens: int, exact: bool) -> int | None:
    """Return how many tokens the second generation sampled.

    Of an answer that ended by itself it cannot be said: `streamGenerate` does not count the evaluation that
    gave the end-of-text, `chat` does.
    """
    printed = block.fields.get("decode steps", b"")
    if not _COUNT.fullmatch(printed):
        return None
    tokens = int(printed) + 1
    return tokens if exact or tokens >= max_tokens else None


def _rate(block: Block) -> tuple[float | None, str]:
    """Return steps of decoding a second, as the first generation prints them."""
    match = _RATE.match(block.fields.get("decoding speed", b""))
    return positive(match[1] if match else None, "decoding speed", PROGRAM)


def _prompt_tokens(stdout: bytes, where: Answer, block: Block) -> dict[str, int | None]:
    """Return the tokens of text and image where the first generation tells those of the text, else None."""
    unknown: dict[str, int | None] = {"text_prefill": None, "image_prefill": None}
    printed = block.fields.get("prefilling speed", b"")
    speed, ttft = _RATE.match(printed), _TTFT.search(printed)
    if not speed or not ttft or stdout[: max(where.echo, 0)].count(LLAVA_MARKER) != 1:
        return unknown
    rate, _ = positive(speed[1], "prefilling speed", PROGRAM)
    seconds, _ = positive(ttft[1], "TTFT", PROGRAM)
    if rate is None or seconds is None:
        return unknown
    product = rate * seconds
    # Both are printed with six digits: the product of a count of some hundreds is off by less than this.
    whole = round(product)
    if whole < 2 or abs(product - whole) > 0.02 + 2e-5 * product:
        return unknown
    return {"text_prefill": whole - 1, "image_prefill": LLAVA_IMAGE_TOKENS}


def _first(block: Block) -> tuple[Counter, ...]:
    fields = block.fields
    load, why_load = _milliseconds(fields.get("load time"), "load time")
    ttft = _TTFT.search(fields.get("prefilling speed", b""))
    prefill, why_prefill = positive(ttft[1] if ttft else None, "TTFT", PROGRAM)
    rate, why_rate = _rate(block)
    no_count = "mllm prints a decoding speed and not of how many tokens"
    return (
        Counter("load", "load", load, (), why_load or "mllm's load time is that of the weights alone"),
        Counter("image_encode", "image_encode", None, reason="mllm does not time the vision tower"),
        Counter(
            "prompt_eval", "run", None if prefill is None else prefill * 1e3,
            () if prefill is None else PREFILL, why_prefill,
        ),
        Counter("decode", "decode", None, reason=no_count),
        Counter(
            "decode_step", "decode", None if rate is None else 1e3 / rate, (),
            why_rate or "nothing observed is the mean of the steps",
        ),
        Counter("total", "run", None, reason="mllm prints no total time"),
    )  # fmt: skip


def _second(block: Block, *, ended_early: bool) -> tuple[Counter, ...]:
    fields = block.fields
    decode, why_decode = _milliseconds(fields.get("decode time"), "decode time")
    if not why_decode and ended_early:
        why_decode = "the answer may have ended early: then mllm counts an evaluation more than is seen"
    prefill = fields.get("prefill total time", fields.get("prefill time"))

    def timing(name: str, phase: str, covers: tuple[str, ...], printed: bytes | None, key: str) -> Counter:
        value, why = _milliseconds(printed, key)
        return Counter(name, phase, value, covers if value is not None else (), why)

    total, why_total = _milliseconds(fields.get("total time"), "total time")
    step, why_step = _milliseconds(fields.get("avg decode time"), "avg decode time")
    first, why_first = _milliseconds(fields.get("ttft"), "TTFT")
    return (
        Counter("load", "load", None, reason="mllm does not time loading"),
        timing("image_encode", "image_encode", ("image_encode",), block.events.get("vit"), "event ViT"),
        timing("prompt_eval", "run", PREFILL, prefill, "prefill time"),
        Counter("decode", "decode", decode, () if why_decode else ("decode",), why_decode),
        Counter(
            "decode_step", "decode", step, (), why_step or "nothing observed is the mean of the steps"
        ),
        Counter(
            "first_token", "run", first, (), why_first or "where the prompt's evaluation begins is not seen"
        ),
        Counter("total", "run", total, (), why_total or "mllm's total leaves out loading and the image file"),
    )  # fmt: skip


def _milliseconds(printed: bytes | None, key: str) -> tuple[float | None, str]:
    """Return a printed time in milliseconds, or None and why there is none."""
    match = _TIME.match(printed or b"")
    if printed is not None and not match:
        return None, f"{PROGRAM} printed no time as {key}"
    value, why = positive(match[1] if match else None, key, PROGRAM)
    return (None if value is None or match is None else value * _MS.get(match[2], 1e-3)), why

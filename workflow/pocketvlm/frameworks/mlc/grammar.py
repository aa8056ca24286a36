"""What the output of MLC-LLM's programs means; `output` finds where things stand in it.

Prefill ends when the first token is sampled; the image is encoded in it. In the chat (cpp/llm_chat.cc) the
first token is no decoded one:

    decoded = tokens that decoding steps gave = sampled tokens - 1
    verbose:  decode = total time, or decoded / throughput where this has more digits
              prompt_eval = total time of prefill
    short:    decode_step = 1 / rate of decode: there is no count and no time

Usage as JSON (cpp/serve/metrics.h), times from when the request was added:

    prefill_tokens_per_s = prefill_tokens / ttft_s                    -> prompt_eval = ttft_s
    decode_tokens_per_s = decode_tokens / time after the first token  -> decode = decode_tokens / that rate
    end_to_end_latency_s = both                                       -> total
    completion_tokens = sampled tokens

The chat shows its answer every second token and the first two together: when the first token was there, and
with it decoding, is seen only where the pieces of the answer are its tokens, by the count printed or by the
rate (`transcript.counted`).
"""

from __future__ import annotations

from dataclasses import dataclass

from pocketvlm.errors import WorkloadError
from pocketvlm.frameworks import Accounting, Counter, Output, Report
from pocketvlm.frameworks.mlc.output import Statistics, answer, problem, statistics
from pocketvlm.frameworks.transcript import (
    NO_ANSWER_START,
    PREFILL,
    Mark,
    arrivals,
    check_answer,
    check_count,
    check_exit,
    counted,
    positive,
    tail,
    timeline,
)

# None of its counters lies inside another but in the total of the usage, which is the sum of two of them.
ACCOUNTING: tuple[Accounting, ...] = ()

# A time that is printed coarser than this, of itself, is not held against what was observed.
_COARSEST = 0.005
_COARSE = "it is printed with too few digits to be held against what was observed"


@dataclass(frozen=True)
class Dialect:
    """In what the programs of the MLC family differ.

    Args:
        program: the name, for messages and reasons.
        prefill: why its count and time of prefill do not belong together; empty where they do.
    """

    program: str
    prefill: str = ""


MLC = Dialect("MLC-LLM")


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run of an MLC-LLM program; see `Grammar.parse`."""
    return read(output, MLC, max_tokens=max_tokens, exact=exact)


def read(output: Output, dialect: Dialect, *, max_tokens: int, exact: bool) -> Report:
    """Return what an output means in a dialect; errors as `Grammar.parse`."""
    program, stdout = dialect.program, output.stdout
    check_exit(output, program)
    why = problem(stdout.data, output.stderr.data)
    found = statistics(stdout.data)
    if why or found is None:
        raise WorkloadError(
            f"{program} {why}; stderr ends with: {tail(output.stderr.data)}",
            do="run it by hand with the same arguments, to the end, and let it print its statistics",
        )
    where = answer(stdout.data, found)
    check_answer(program, where, output)
    times = arrivals(stdout, where.begin, where.end)
    unseen = "" if where.echo >= 0 else NO_ANSWER_START
    sampled = _sampled(found)
    if sampled is None and not unseen:
        sampled = counted(times, positive(found.rates["decode"], "rate", program)[0])
    check_count(program, sampled, max_tokens=max_tokens, exact=exact)
    if not unseen and times.size != sampled:
        unseen = (
            f"the answer came in {times.size} pieces and has {sampled or 'an unknown number of'} tokens: "
            f"{program}'s chat shows several at a time, the first among them"
        )
    boundaries, unobservable = timeline(
        stdout,
        [Mark("load_end", where.loaded, "text_prefill")] if where.loaded >= 0 else [],
        (where.begin, where.end),
        wall_us=output.wall_us,
        joint=_joint(dialect),
        unseen=unseen,
    )
    data = stdout.data[where.begin : where.end]
    first = next(b.t_us for b in boundaries if b.name == "first_token")
    return Report(
        boundaries=boundaries,
        counters=_counters(found, dialect),
        tokens={"decode": sampled, "text_prefill": None, "image_prefill": None},
        decode_steps=None if sampled is None else sampled - 1,
        answer=data.decode("utf-8", errors="replace"),
        answer_bytes=data,
        token_times_us=times,
        first_token_us=None if "first_token" in unobservable else first,
        unobservable=unobservable,
    )


def _joint(dialect: Dialect) -> str:
    reason = (
        f"{dialect.program} encodes the image and evaluates image and text in one piece, with no line between"
    )
    return f"{reason}; {dialect.prefill}" if dialect.prefill else reason


def _sampled(found: Statistics) -> int | None:
    """Return how many tokens were sampled, as far as the program counts them."""
    if found.form == "usage":
        return found.counts.get("sampled")
    decoded = found.counts.get("decode")
    return None if decoded is None else decoded + 1


def _counters(found: Statistics, dialect: Dialect) -> tuple[Counter, ...]:
    rate, why_rate = positive(found.rates["decode"], "rate of decode", dialect.program)
    first, why_first = _seconds(found.more.get("first_token"), "ttft_s", dialect)
    total, why_total = _seconds(found.more.get("total"), "total time", dialect)
    return (
        Counter("load", "load", None, reason=f"{dialect.program} does not time loading"),
        Counter("image_encode", "image_encode", None, reason=f"{dialect.program} does not time the image"),
        _prompt_eval(found, dialect),
        _decode(found, dialect),
        Counter(
            "decode_step", "decode", None if rate is None else 1e3 / rate, (),
            why_rate or "nothing observed is the mean of the steps",
        ),
        Counter("first_token", "run", first, (), why_first or "when the request was added is not seen"),
        Counter("total", "run", total, (), why_total or "it leaves out loading and the image file"),
    )  # fmt: skip


def _seconds(printed: bytes | None, key: str, dialect: Dialect) -> tuple[float | None, str]:
    value, why = positive(printed, key, dialect.program)
    return (None if value is None else value * 1e3), why


def _prompt_eval(found: Statistics, dialect: Dialect) -> Counter:
    printed = found.more.get("first_token") if found.form == "usage" else found.seconds.get("prefill")
    value, why = _seconds(printed, "time of prefill", dialect)
    why = why or dialect.prefill or (_COARSE if _grain(found, printed) > _COARSEST else "")
    return Counter("prompt_eval", "run", value, () if why else PREFILL, why)


def _decode(found: Statistics, dialect: Dialect) -> Counter:
    """Return the time of decoding, from whichever of time and rate has more digits."""
    program = dialect.program
    time, why = positive(found.seconds.get("decode"), "time of decode", program)
    rate, why_rate = positive(found.rates["decode"], "rate of decode", program)
    steps = found.counts.get("decode")
    grain, grain_rate = _grain(found, found.seconds.get("decode")), _grain(found, found.rates["decode"])
    if rate is not None and steps and (time is None or grain_rate < grain):
        time, grain = steps / rate, grain_rate
    if time is None:
        return Counter("decode", "decode", None, reason=why_rate or why)
    why = _COARSE if grain > _COARSEST else ""
    return Counter("decode", "decode", time * 1e3, () if why else ("decode",), why)


def _grain(found: Statistics, printed: bytes | None) -> float:
    """Return half the last digit of a printed number as a share of it; infinite for what is none.

    JSON has a number's own digits, however few.
    """
    value, _ = positive(printed, "", "")
    if value is None or printed is None:
        return float("inf")
    if found.form == "usage":
        return 0.0
    digits, _, power = printed.lower().partition(b"e")
    return 0.5 * 10.0 ** (int(power or 0) - len(digits.partition(b".")[2])) / value

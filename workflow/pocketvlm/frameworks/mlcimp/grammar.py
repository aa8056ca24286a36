"""What the output of MLC-Imp's programs means: MLC-LLM's of early 2024, with the image in the prompt.

Its statistics are MLC-LLM's short and verbose ones; the short ones have the times, too, in tenths of a
second.
`ForwardTokens` sets the count of prompt tokens anew at each call (a chunk of the prompt, the system prompt),
while their times are added up: the rate of prefill that it prints is the last call's tokens over the time of
all of them. The time is reported as its own; the rate is not used.
"""

from __future__ import annotations

from pocketvlm.frameworks import Output, Report
from pocketvlm.frameworks.mlc.grammar import ACCOUNTING, Dialect, read

__all__ = ["ACCOUNTING", "parse"]

MLC_IMP = Dialect(
    "MLC-Imp",
    prefill="MLC-Imp counts the prompt tokens of the last call only and adds up the time of all: "
    "its rate is not comparable",
)


def parse(output: Output, *, max_tokens: int, exact: bool) -> Report:
    """Return boundaries, counters and answer of one run of an MLC-Imp program; see `Grammar.parse`."""
    return read(output, MLC_IMP, max_tokens=max_tokens, exact=exact)

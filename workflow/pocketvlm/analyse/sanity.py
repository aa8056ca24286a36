"""Whether an answer of trained weights can be one at all. Random weights answer nonsense, and are not asked.

What is looked for are signs of weights, a projector or a build that do not work: such runs are fast or slow
for reasons of their own. How good an answer is, is no matter of this file. Text of a model is untrusted: only
its beginning is searched for repetitions, and a message quotes a short and printable piece of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

REAL = ("hub", "file")
"""Kinds of weights that were trained."""

_LOOKED_AT = 64 << 10
# A piece of up to so many characters that comes so often in a row, and makes up this share of the answer.
_LONGEST_PIECE, _TIMES, _SHARE = 32, 8, 0.5
_QUOTED = 40


def wrong_answer(answer: bytes, expected_words: Sequence[str] = ()) -> str:
    """Return what is wrong with an answer, in words without `;`; empty when nothing is.

    Args:
        answer: what was printed, verbatim.
        expected_words: words that it must hold; one may be several, parted by `|`, of which one suffices.
    """
    if not answer.strip():
        return "the answer has no words"
    try:
        text = answer.decode()
    except UnicodeDecodeError as error:
        return f"the answer is no UTF-8 from byte {error.start} on"
    beginning = text[:_LOOKED_AT].strip()
    piece, times = repeated(beginning)
    if times >= _TIMES and len(piece) * times >= _SHARE * len(beginning):
        return f"the answer repeats {_quoted(piece)} {times} times in a row"
    missing = [each for each in expected_words if not _holds(text, each)]
    if missing:
        return f"the answer lacks {', '.join(_quoted(each) for each in missing)}"
    return ""


def repeated(text: str) -> tuple[str, int]:
    """Return the piece of up to 32 characters that takes up most of a text in a row, and how often it comes.

    A piece that begins later in its own round (`bab` of `ababab`) counts as the same one.
    """
    codes = np.frombuffer(text.encode("utf-32-le", errors="replace"), dtype="<u4")
    best, found = 0, (text[:1], 1)
    for size in range(1, min(_LONGEST_PIECE, codes.size // 2) + 1):
        same = np.concatenate(([0], (codes[size:] == codes[:-size]).astype(np.int8), [0]))
        edges = np.flatnonzero(np.diff(same))
        starts, ends = edges[::2], edges[1::2]
        if not starts.size:
            continue
        longest = int(np.argmax(ends - starts))
        times = int(ends[longest] - starts[longest]) // size + 1
        # Of pieces that tell the same the shortest, which came first: `ab` and not `abab`.
        if times > 1 and times * size > best:
            best = times * size
            found = (text[int(starts[longest]) : int(starts[longest]) + size], times)
    return found


def _holds(text: str, words: str) -> bool:
    return any(
        re.search(rf"(?<!\w){re.escape(word.strip())}", text, re.IGNORECASE) for word in words.split("|")
    )


def _quoted(text: str) -> str:
    # Clauses of a gate are parted by `;`.
    shown = ascii(text[:_QUOTED]) if not text.isprintable() else repr(text[:_QUOTED])
    return shown.replace(";", ",")

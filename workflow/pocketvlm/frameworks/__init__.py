"""Inference runtimes: the one table of adapters, and what every adapter's grammar takes and gives.

An adapter is a folder with `command.py` (how the runtime is obtained and called), `memory.py` (how much
memory a run takes) and `grammar.py` (what its output means). Everything else asks this table by the adapter's
name and never looks at the name itself.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from pocketvlm.errors import ConfigError

ADAPTERS = {"llamacpp": "pocketvlm.frameworks.llamacpp"}

PHASES = ("load", "text_prefill", "image_encode", "image_prefill", "decode", "other")

JUDGED = {
    "image_encode": "image_encode",
    "image_prefill": "image_prefill",
    "decode": "decode",
    "prompt_eval": "text_prefill",
}
"""Counter to the phase that is doubtful when observed and reported disagree on it. `prompt_eval` covers the
image, too, but that has counters of its own: what it adds is text."""

FOREIGN = ("prompt_eval",)
"""Counters whose unannounced work is none of the phase's own: a rate over it would be too low."""


@dataclass(frozen=True)
class Stream:
    """One output stream of a workload.

    Args:
        data: its bytes, shape (bytes,).
        ends: offset just after each chunk, ascending, shape (chunks,).
        times: when each chunk arrived, microseconds from the start of the run, shape (chunks,).
    """

    data: bytes
    ends: NDArray[np.int64]
    times: NDArray[np.int64]

    def chunk_of(self, offset: int) -> int:
        """Return the index of the chunk that brought the byte at `offset`."""
        return int(np.searchsorted(self.ends, offset, side="right"))

    def time_of(self, offset: int) -> int:
        """Return when the byte at `offset` arrived, microseconds from the start of the run."""
        return int(self.times[self.chunk_of(offset)])


@dataclass(frozen=True)
class Output:
    """What was seen of a workload from outside, and how it ended."""

    stdout: Stream
    stderr: Stream
    wall_us: int
    exited: bool = True
    status: int | None = 0
    signal: int | None = None
    deadline_hit: bool = False


@dataclass(frozen=True)
class Boundary:
    """The moment at which a phase begins (and the one before it ends).

    Args:
        name: what was seen, such as `image_encode_end`.
        t_us: microseconds from the start of the run.
        phase: the phase that begins here.
        observed: false when the line arrived together with a later one, so that only an upper bound is known.
        exact: false when work of another kind, unannounced, lies between this moment and the phase.
    """

    name: str
    t_us: int
    phase: str
    observed: bool = True
    exact: bool = True


@dataclass(frozen=True)
class Counter:
    """A duration that the framework reports about itself.

    Args:
        name: `load`, `image_encode`, `image_prefill`, `prompt_eval`, `decode`, `sample`, `total`.
        phase: the phase it is filed under, or `run` when it covers several.
        value_ms: milliseconds, None when this output lacks it.
        covers: the observed phases whose sum means the same; empty when nothing observed does.
        reason: why the value is None, or why nothing observed means the same; empty otherwise.
        unannounced_ms: the most by which the observed time may be longer because of work that the counter
            leaves out and no line announces.
    """

    name: str
    phase: str
    value_ms: float | None
    covers: tuple[str, ...] = ()
    reason: str = ""
    unannounced_ms: float = 0.0


@dataclass(frozen=True)
class Accounting:
    """What one of a framework's counters counts, in terms of its others.

    Args:
        whole: the counter.
        parts: counters that lie inside it, apart from each other: their sum is never more than the whole.
        outside: counters of times that the whole leaves out: none of them overlaps it.
        rest: what else the whole counts, in words.
    """

    whole: str
    parts: tuple[str, ...]
    outside: tuple[str, ...]
    rest: str


@dataclass(frozen=True)
class Report:
    """A workload's output, understood.

    Args:
        boundaries: in the order of time; the first is the start of the run at 0.
        counters: durations as reported by the framework.
        tokens: number of tokens by phase (`decode`: sampled ones, `text_prefill`, `image_prefill`), None if
            unknown.
        decode_steps: evaluations between the first and the last answer token.
        answer: text of the answer; bytes that are no UTF-8 are replaced by U+FFFD.
        answer_bytes: the same, verbatim.
        token_times_us: arrival of each chunk of the answer, microseconds from the start, shape (chunks,).
        first_token_us: arrival of the first chunk of the answer.
        unobservable: phase to reason, for phases whose extent could not be seen in this output.
    """

    boundaries: tuple[Boundary, ...]
    counters: tuple[Counter, ...]
    tokens: dict[str, int | None]
    decode_steps: int
    answer: str
    answer_bytes: bytes
    token_times_us: NDArray[np.int64]
    first_token_us: int
    unobservable: dict[str, str] = field(default_factory=dict)


class Grammar(Protocol):
    """The part of an adapter that reads output.

    Attributes:
        ACCOUNTING: which of its counters contain which; a counter that is in none of them stands alone.
    """

    ACCOUNTING: tuple[Accounting, ...]

    def parse(self, output: Output, *, max_tokens: int, exact: bool) -> Report:
        """Return what the output means.

        Args:
            output: streams and exit.
            max_tokens: the workload's token budget.
            exact: whether the workload must have used its whole budget (end-of-text ignored).

        Raises:
            WorkloadError: the workload crashed, or printed nothing that can be used.
        """
        ...  # pragma: no cover


def _part(adapter: str, part: str) -> ModuleType:
    if adapter not in ADAPTERS:
        raise ConfigError(
            f"unknown framework adapter {adapter!r}",
            where="adapter of a framework",
            do=f"use one of {', '.join(sorted(ADAPTERS))}, or add a folder of frameworks/ to ADAPTERS",
        )
    return importlib.import_module(f"{ADAPTERS[adapter]}.{part}")


def grammar(adapter: str) -> Grammar:
    """Return the grammar of an adapter; ConfigError for an unknown name."""
    return cast(Grammar, _part(adapter, "grammar"))


def command(adapter: str) -> ModuleType:
    """Return the command module of an adapter; ConfigError for an unknown name."""
    return _part(adapter, "command")


def memory(adapter: str) -> ModuleType:
    """Return the memory module of an adapter (`footprint`); ConfigError for an unknown name."""
    return _part(adapter, "memory")


def tuning(adapter: str) -> ModuleType:
    """Return the tuning module of an adapter: `AXES`, `settings_of`, `candidates` and `defaults`.

    Raises:
        ConfigError: an unknown adapter, or one of which nothing is known that could be tuned.
    """
    try:
        return _part(adapter, "tuning")
    except ModuleNotFoundError:
        raise ConfigError(
            f"the adapter {adapter} does not say what could be tuned",
            where="tune of the experiment",
            do="Add its tuning.py, as docs/tuning.md describes",
        ) from None

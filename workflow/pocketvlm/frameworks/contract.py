"""What every adapter takes and gives: the streams of a workload, and what a grammar makes of them.

An adapter is a folder of `frameworks` with three modules: `command` and `memory`, whose contracts are the
protocols `Command` and `Memory`, and `grammar`, whose contract is `Grammar`. docs/frameworks.md says how to
write one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from pocketvlm.apps.record import Record

PHASES = ("load", "text_prefill", "image_encode", "image_prefill", "decode", "other")
INTERACTION = "interaction"
"""Time in which an app waited to be used by us: no phase of the run, and part of none of its totals."""

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
    """What was seen of a workload from outside, and how it ended; of an app what was done and shown."""

    stdout: Stream
    stderr: Stream
    wall_us: int
    exited: bool = True
    status: int | None = 0
    signal: int | None = None
    deadline_hit: bool = False
    app: Record | None = None


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
        name: `load`, `image_encode`, `image_prefill`, `prompt_eval`, `decode`, `decode_step` (one of the
            answer's tokens), `first_token` (until the first), `sample`, `total`.
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
class Offload:
    """Where a run computed, as the framework tells.

    Args:
        layers, of: how many layers of the language model were on the backend's device, of how many; None
            where the output does not say.
        vision: what computed the vision tower, by the framework's own name; None where that is not said.
        cpu: what the framework calls the CPU there.
        device: the device in the framework's words; empty where it says none.
        failure: what it said of a device that it did not find; empty for nothing.
    """

    layers: int | None
    of: int | None
    vision: str | None
    cpu: str
    device: str = ""
    failure: str = ""


@dataclass(frozen=True)
class Report:
    """A workload's output, understood.

    Args:
        boundaries: in the order of time; the first is the start of the run at 0, and may be the only one.
        counters: durations as reported by the framework.
        tokens: number of tokens by phase (`decode`: sampled ones, `text_prefill`, `image_prefill`), None or
            left out if unknown.
        decode_steps: evaluations between the first and the last answer token, one less than the sampled
            tokens; None if unknown.
        answer: text of the answer; bytes that are no UTF-8 are replaced by U+FFFD.
        answer_bytes: the same, verbatim.
        token_times_us: arrival of each chunk of the answer, microseconds from the start, shape (chunks,).
        first_token_us: arrival of the first chunk of the answer; None where it was not seen.
        unobservable: phase to reason, for phases whose extent could not be seen in this output. A phase in
            which the run has time that belongs to others (such as `other`, where nothing but the start was
            seen) is among them. `first_token` to the reason, where that was not seen; `run` where the
            length of the whole is not known.
        offload: where it computed; None of a framework that never tells.
    """

    boundaries: tuple[Boundary, ...]
    counters: tuple[Counter, ...]
    tokens: dict[str, int | None]
    decode_steps: int | None
    answer: str
    answer_bytes: bytes
    token_times_us: NDArray[np.int64]
    first_token_us: int | None
    unobservable: dict[str, str] = field(default_factory=dict)
    offload: Offload | None = None


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


class Command(Protocol):
    """The part of an adapter that calls the framework's program.

    Attributes:
        WEIGHTS: the format of its weights: `gguf`, `mllm`, `mlc` and the like, a key of a model's `formats`.
        ROLES: the weights on its command line, each `@weights/<role>` there.
        REQUIRED: files that a bundle must have, such as `bin/llama-mtmd-cli`.
        OPTIONAL: files that a bundle may have, and that something else asks for.
        SETTINGS: the framework's own settings by name, each `frameworks.options.Setting`.
    """

    WEIGHTS: str
    ROLES: tuple[str, ...]
    REQUIRED: tuple[str, ...]
    OPTIONAL: tuple[str, ...]
    SETTINGS: Mapping[str, Any]

    def resolve_settings(self, settings: Mapping[str, Any], *, where: str = ...) -> Mapping[str, Any]:
        """Return all settings, those that a cell does not give at their defaults.

        Raises:
            ConfigError: a setting is unknown or its value is not allowed.
        """
        ...  # pragma: no cover

    def unavailable(
        self,
        *,
        model: Mapping[str, Any],
        workload: Mapping[str, Any],
        settings: Mapping[str, Any],
        backend: str,
    ) -> str | None:
        """Return why this framework cannot express a cell; None when it can.

        Args:
            model: the model's entry of config/models.yaml.
            workload: of config/workloads.
            settings: the cell's own, as it gives them.
            backend: where it is to compute.
        """
        ...  # pragma: no cover

    def command(
        self,
        *,
        version: str,
        backend: str,
        model: Mapping[str, Any],
        workload: Mapping[str, Any],
        settings: Mapping[str, Any],
        quirks: Mapping[str, Any],
        image_name: str,
    ) -> list[str]:
        """Return the command of a cell; a whole word `@bundle/<path>`, `@weights/<role>` or
        `@workload/<image>` stands for that file, or folder of files, on the device, and `@python` for the
        device's Python.
        """
        ...  # pragma: no cover

    def environment(self, *, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
        """Return the variables that the command needs, empty for most; part of a run's key.

        A value that is `@bundle/<path>` as a whole stands for that file or folder on the device.
        """
        ...  # pragma: no cover

    def unfinished(self, stdout: bytes, stderr: bytes) -> str | None:
        """Return why a run that exited with 0 did not come to its end; None when it did."""
        ...  # pragma: no cover


class Memory(Protocol):
    """The part of an adapter that knows how much memory a run takes."""

    def footprint(
        self, records: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]
    ) -> dict[str, int]:
        """Return the bytes that a run holds at its peak, by what holds them.

        Args:
            records: the weights record by role (`weights.description`, or `weights.formats` for what is no
                GGUF file: `bytes` alone is sure).
            settings: all settings, as `resolve_settings` gives them.

        Raises:
            UnknownShapeError: it cannot be told.
        """
        ...  # pragma: no cover

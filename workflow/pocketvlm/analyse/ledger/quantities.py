"""What each kind of published value is, how the same is measured here, and which bound it has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from pocketvlm.analyse.bounds import Limit
from pocketvlm.analyse.paper.latency import COLUMNS as STAGES
from pocketvlm.analyse.paper.latency import PROMPT
from pocketvlm.analyse.paper.ours import Cell, Estimate, Results
from pocketvlm.config.paper import Paper

LESS, MORE = "less", "more"
Limits = Mapping[tuple[str, str], Limit]
"""The bounds of one cell by phase and metric."""


@dataclass(frozen=True)
class Source:
    """Where our numbers of one cell come from."""

    results: Results
    cell: Cell
    paper: Paper


@dataclass(frozen=True)
class Quantity:
    """A quantity that a paper publishes.

    Attributes:
        name: as it stands in the ledger.
        phase: the phase that it belongs to, `run` for the whole.
        unit: of the published value.
        ours: how it is had here, in that unit; None where nothing measured here is the same.
        bound: its bound in that unit, from those of the cell; None where there is none.
        fast: whether less or more of it is faster; empty for what has no speed.
        tokens: the counts that must agree for two values to be comparable: `prompt`, `answer`.
        other: why there is nothing of ours, or what is to be said beside it.
    """

    name: str
    phase: str
    unit: str
    ours: Callable[[Source], Estimate] | None = None
    bound: Callable[[Limits, int], float | None] | None = None
    fast: str = ""
    tokens: tuple[str, ...] = ()
    other: str = ""


def _scaled(value: Estimate, factor: float) -> Estimate:
    median, low, high = (
        None if number is None else number * factor for number in (value.median, value.low, value.high)
    )
    return replace(value, median=median, low=low, high=high)


def _observed(*phases: str, factor: float = 1.0) -> Callable[[Source], Estimate]:
    """Give the observed duration of phases, added up run by run, in ms times a factor."""

    def ours(source: Source) -> Estimate:
        if len(phases) == 1:
            return _scaled(source.results.of(source.cell, phases[0], "duration"), factor)
        return _scaled(source.results.sum_of(source.cell, phases), factor)

    return ours


def _counter(stage: str, factor: float = 1.0) -> Callable[[Source], Estimate]:
    """Give the framework's own counter, where nothing that is observed from outside means the same."""

    def ours(source: Source) -> Estimate:
        passed = source.results.of(source.cell, "run", "duration")
        if passed.median is None:
            return passed
        return _scaled(source.results.of(source.cell, *STAGES[stage].printed), factor)

    return ours


def _metric(phase: str, metric: str, factor: float = 1.0) -> Callable[[Source], Estimate]:
    return lambda source: _scaled(source.results.of(source.cell, phase, metric), factor)


def _per_token(source: Source) -> Estimate:
    rate = source.results.of(source.cell, "decode", "tokens_per_second")
    if rate.median is None:
        return rate
    low, high = (None if end is None else 1e3 / end for end in (rate.high, rate.low))
    return replace(rate, median=1e3 / rate.median, low=low, high=high)


def prompt_tokens(source: Source) -> Estimate:
    """Return how many tokens the prompt has, text and image."""
    parts = [source.results.of(source.cell, phase, "tokens") for phase in ("text_prefill", "image_prefill")]
    lacking = next((part for part in parts if part.median is None), None)
    if lacking is not None:
        return lacking
    total = sum(part.median for part in parts if part.median is not None)
    return Estimate(total, min(part.n for part in parts))


def _per_prompt_token(source: Source) -> Estimate:
    whole, tokens = source.results.sum_of(source.cell, PROMPT), prompt_tokens(source)
    return whole if tokens.median is None else _scaled(whole, 1 / tokens.median)


def _memory_share(source: Source) -> Estimate:
    """Return the workload's peak memory in percent of the pool that the paper reckons with."""
    pool = source.paper.published("utilisation", "memory_pool_gb")
    if pool is None:
        return Estimate(None, note="the paper names no pool of memory")
    return _scaled(source.results.of(source.cell, "run", "rss_peak"), 100 * (1 << 20) / (pool.middle * 1e9))


def _shortest(*phases: str, factor: float = 1.0) -> Callable[[Limits, int], float | None]:
    """Give the bound of phases one after the other, in ms times a factor; None when one has no bound."""

    def bound(limits: Limits, _tokens: int) -> float | None:
        found = [limits.get((phase, "duration")) for phase in phases]
        return None if None in found else factor * sum(limit.bound for limit in found if limit)

    return bound


def _rate_bound(limits: Limits, _tokens: int) -> float | None:
    found = limits.get(("decode", "tokens_per_second"))
    return found.bound if found else None


def _per_token_bound(limits: Limits, tokens: int) -> float | None:
    rate = _rate_bound(limits, tokens)
    return 1e3 / rate if rate else None


def _per_prompt_token_bound(limits: Limits, tokens: int) -> float | None:
    whole = _shortest(*PROMPT)(limits, tokens)
    return whole / tokens if whole and tokens else None


_NO_METRIC = "no metric of this project is the same quantity"
UNKNOWN = Quantity("unknown", "run", "", other="nothing is known about what this published value is")

_LOAD = Quantity(
    "load",
    "load",
    "ms",
    _counter("load"),
    fast=LESS,
    other="the framework's own counter: nothing observed from outside means the same",
)
_IMAGE_ENCODE = Quantity(
    "image_encode", "image_encode", "ms", _observed("image_encode"), _shortest("image_encode"), LESS
)
_PROMPT_EVAL = Quantity(
    "prompt_eval", "run", "ms", _observed(*PROMPT), _shortest(*PROMPT), LESS, ("prompt",),
    "text prefill, image encoding and image prefill, as llama.cpp's counter has them",
)  # fmt: skip
_GENERATION = Quantity(
    "token_generation", "decode", "ms", _observed("decode"), _shortest("decode"), LESS, ("answer",)
)
_TOTAL = Quantity(
    "total", "run", "ms", _counter("total"), _shortest(*PROMPT, "decode"), LESS, ("prompt", "answer"),
    "the framework's own counter: nothing observed from outside means the same",
)  # fmt: skip
_SECONDS: dict[str, Quantity] = {
    "load_s": replace(_LOAD, unit="s", ours=_counter("load", 1e-3)),
    "image_encode_s": replace(
        _IMAGE_ENCODE,
        unit="s",
        ours=_observed("image_encode", factor=1e-3),
        bound=_shortest("image_encode", factor=1e-3),
    ),
    "prompt_eval_s": replace(
        _PROMPT_EVAL, unit="s", ours=_observed(*PROMPT, factor=1e-3), bound=_shortest(*PROMPT, factor=1e-3)
    ),
    "token_generation_s": replace(
        _GENERATION, unit="s", ours=_observed("decode", factor=1e-3), bound=_shortest("decode", factor=1e-3)
    ),
    "total_s": replace(
        _TOTAL, unit="s", ours=_counter("total", 1e-3), bound=_shortest(*PROMPT, "decode", factor=1e-3)
    ),
}
_HOTTEST = Quantity("temperature", "run", "degC", _metric("run", "temperature_max.cpu"))

QUANTITIES: Mapping[str, Quantity] = {
    # table 2
    "load": _LOAD,
    "image_encode": _IMAGE_ENCODE,
    "image_decode": Quantity(
        "image_decode", "image_prefill", "ms", _observed("image_prefill"), _shortest("image_prefill"), LESS
    ),
    "prompt_eval": _PROMPT_EVAL,
    "token_generation": _GENERATION,
    "total": _TOTAL,
    # table 3, and what follows from both
    "answer_tokens": Quantity("answer_tokens", "decode", "tokens", _metric("decode", "tokens")),
    "decode_rate": Quantity(
        "decode_rate", "decode", "1/s", _metric("decode", "tokens_per_second"), _rate_bound, MORE
    ),
    # section 4.3
    "cpu_pct": Quantity("cpu", "run", "% of one core", _metric("run", "system_cpu")),
    "gpu_pct": Quantity("gpu", "run", "%", _metric("run", "gpu_busy")),
    "npu_pct": Quantity("npu", "run", "%", _metric("run", "npu_busy")),
    "temp_plateau_c": _HOTTEST,
    "current_a": Quantity("current", "run", "A", other="current stands in no table: power and energy do"),
    "power_w": Quantity("power", "run", "W", _metric("run", "power")),
    "memory_pct": Quantity(
        "memory", "run", "% of the paper's pool", _memory_share, other="the workload's resident memory"
    ),
    "idle.current_a": Quantity("idle current", "run", "A", other="current stands in no table"),
    "idle.temp_c": Quantity("idle temperature", "run", "degC", other="idle runs stand in no table"),
    "memory_pool_gb": Quantity("memory of the phone", "run", "GB", other="it is no measurement"),
    # section 4.4 and figure 4
    "temp_c": _HOTTEST,
    "battery.capacity_mah": Quantity("battery capacity", "run", "mAh", other="it is no measurement"),
    "battery.queries_per_minute": Quantity("queries", "run", "1/min", other="it is no measurement"),
    "battery.cpu_only_llava_h": Quantity(
        "battery life on the CPU", "run", "h", other="it follows from a model: see battery_life.csv"
    ),
    "battery.gpu_path": Quantity(
        "battery life on the GPU", "run", "", other="it follows from a model: see battery_life.csv"
    ),
    # the running text
    **_SECONDS,
    "image_encode_ms": _IMAGE_ENCODE,
    "prompt_tokens": Quantity("prompt_tokens", "run", "tokens", prompt_tokens),
    "generated_tokens": Quantity("generated_tokens", "decode", "tokens", _metric("decode", "tokens")),
    "ms_per_prompt_token": Quantity(
        "time per prompt token", "run", "ms", _per_prompt_token, _per_prompt_token_bound, LESS, ("prompt",)
    ),
    "ms_per_token": Quantity("time per token", "decode", "ms", _per_token, _per_token_bound, LESS),
    "reported_tok_s": Quantity("reported rate", "run", "1/s", other=_NO_METRIC),
    "visual_preprocessing_s": Quantity("visual preprocessing", "run", "s", other=_NO_METRIC),
}
"""By the name of a value in the paper's file."""

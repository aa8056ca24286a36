"""llama.cpp's own benchmark, `llama-bench`: an independent word on how fast a cell decodes and prefills.

It times the same library with tokens drawn at random, without sampling, tokenizer, image or printing. What it
must share with a cell is passed explicitly; how two options are spelt differs between versions and is data
(`bench` of a version in config/frameworks.yaml). Options and output: tools/llama-bench/llama-bench.cpp of the
sdists 0.3.9, 0.3.16 and 0.3.36.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pocketvlm.errors import ConfigError, WorkloadError
from pocketvlm.frameworks.llamacpp.backend import backend_of, layers_on
from pocketvlm.frameworks.llamacpp.command import KV_TYPES, resolve_settings

PROGRAM = "bin/llama-bench"
# A line holds one test with all its samples: more is no line of llama-bench.
_MAX_LINE = 1 << 20
_MAX_SAMPLES = 10_000
# One fewer than `llama-mtmd-cli` takes (ggml_type_from_name, the same in the three versions).
_KV_TYPES = tuple(name for name in KV_TYPES if name != "f32")

# A smaller difference between two caches is none: llama.cpp uses them in steps of up to as many tokens.
_CACHE_STEP = 256


@dataclass(frozen=True)
class Test:
    """What one start of the benchmark times.

    Attributes:
        prompt: tokens of a prompt that are timed, 0 for none.
        answer: tokens decoded one by one that are timed, 0 for none; one of the two is 0.
        depth: tokens that are in the cache before.
        repetitions: how often it is timed in one start, after a warm-up of its own.
    """

    prompt: int
    answer: int
    depth: int
    repetitions: int

    @property
    def tokens(self) -> int:
        """Tokens timed in each repetition."""
        return self.prompt + self.answer


def command(*, backend: str, settings: Mapping[str, Any], quirks: Mapping[str, Any], test: Test) -> list[str]:
    """Return the command of one start, with `@bundle/…` and `@weights/…` in the place of paths.

    Args:
        backend: where it is to compute: all layers there, none for cpu.
        settings: those of the cell; what it has in common with the benchmark. The context is what the test
            needs, for there is no option for it.
        quirks: the version's `bench` of the catalogue: the arguments of flash_attention and mmap, each when
            `enabled` and when `disabled`.
        test: what to time.

    Raises:
        ConfigError: a setting is wrong, or the version's entry lacks something.
    """
    chosen = resolve_settings(settings)
    if unknown := [name for name in ("kv_type_k", "kv_type_v") if chosen[name] not in _KV_TYPES]:
        raise ConfigError(
            f"llama-bench has no cache of the type {chosen[unknown[0]]}",
            where=f"settings.{unknown[0]}",
            do=f"Use one of {', '.join(_KV_TYPES)} for cells that it is to be run beside",
        )
    try:
        fused = quirks["flash_attention"]["enabled" if chosen["flash_attention"] else "disabled"]
        mapped = quirks["mmap"]["enabled" if chosen["mmap"] else "disabled"]
    except KeyError as error:
        raise ConfigError(
            f"the version's bench lacks {error.args[0]!r}",
            where="config/frameworks.yaml, llama.cpp, versions, bench",
            do="Give for flash_attention and mmap the arguments of enabled and disabled",
        ) from error
    return [
        *(f"@bundle/{PROGRAM}", "--model", "@weights/model"),
        *("--n-prompt", str(test.prompt), "--n-gen", str(test.answer), "--n-depth", str(test.depth)),
        *("--repetitions", str(test.repetitions)),
        *("--threads", str(chosen["threads"])),
        *("--batch-size", str(chosen["batch"]), "--ubatch-size", str(chosen["ubatch"])),
        *("--cache-type-k", str(chosen["kv_type_k"]), "--cache-type-v", str(chosen["kv_type_v"])),
        *fused,
        *mapped,
        *("--n-gpu-layers", str(layers_on(backend))),
        *("--output", "jsonl"),
    ]


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a start that exited with 0 did not come to its end, by its output; None when it did."""
    return None if _lines(stdout) else "ended without a line of results"


def rates(stdout: bytes, *, backend: str, settings: Mapping[str, Any], test: Test) -> list[float]:
    """Return tokens per second of each repetition.

    Args:
        stdout: what it printed.
        backend: where it was to compute.
        settings: those of the cell; what the benchmark says it ran with is held against them.
        test: what was to be timed.

    Raises:
        WorkloadError: it printed no such result, or timed something else than it was asked for.
    """
    found = _lines(stdout)
    if len(found) != 1:
        raise _strange(f"printed {len(found)} results, one was asked for")
    (result,) = found
    chosen = resolve_settings(settings)
    asked = {
        "n_prompt": test.prompt,
        "n_gen": test.answer,
        "n_depth": test.depth,
        "n_threads": chosen["threads"],
        "n_batch": chosen["batch"],
        "n_ubatch": chosen["ubatch"],
        "type_k": chosen["kv_type_k"],
        "type_v": chosen["kv_type_v"],
        # true and false in 0.3.9 and 0.3.16; 1, 0 and -1 for "auto" in 0.3.36.
        "flash_attn": chosen["flash_attention"],
        "n_gpu_layers": layers_on(backend),
        "backends": where.registry if (where := backend_of(backend)) else "CPU",
        **_mapping(result, mapped=bool(chosen["mmap"])),
    }
    for name, value in asked.items():
        if result.get(name) != value:
            raise _strange(f"says that {name} was {str(result.get(name))[:40]!r}, it was to be {value!r}")
    samples = result.get("samples_ns")
    if not isinstance(samples, list) or len(samples) != test.repetitions or len(samples) > _MAX_SAMPLES:
        raise _strange(f"gives no list of {test.repetitions} samples")
    if not all(type(sample) is int and sample > 0 for sample in samples):
        raise _strange("gives a sample that is no time")
    return [1e9 * test.tokens / sample for sample in samples]


def unlike(settings: Mapping[str, Any], test: Test) -> str:
    """Return in what the benchmark cannot be made like a cell, empty where that is nothing.

    It makes the cache as large as its test (`cparams.n_ctx` in llama-bench.cpp), and a cell's `context` says
    how large the cell's is. Without flash attention the values lie transposed, a row for each dimension that
    is as long as the cache: what of a row is read is the further apart the larger the cache is.
    """
    context = int(resolve_settings(settings)["context"])
    held = test.depth + test.prompt + test.answer
    if abs(context - held) < _CACHE_STEP:
        return ""
    return f"the cell's cache is for {context} tokens and the benchmark's for {held}"


def _mapping(result: Mapping[str, Any], *, mapped: bool) -> dict[str, Any]:
    """Return how a version says whether weights were mapped: `use_mmap`, or the `load_mode` of newer ones."""
    if "use_mmap" in result:
        return {"use_mmap": mapped}
    return {"load_mode": "mmap" if mapped else "none"}


def _lines(stdout: bytes) -> list[dict[str, Any]]:
    """Return the results that it printed; anything else on its stdout is passed over."""
    found = []
    for line in stdout.splitlines():
        if not line.startswith(b"{") or len(line) > _MAX_LINE:
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "samples_ns" in value:
            found.append(value)
    return found


def _strange(what: str) -> WorkloadError:
    return WorkloadError(
        f"llama-bench {what}",
        do="Run it by hand with the same arguments, which are in meta.json of its run",
    )

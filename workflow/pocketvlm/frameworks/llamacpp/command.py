"""The command line of `llama-mtmd-cli`: one image, one prompt, a fixed number of tokens.

Every setting that changes a number is passed explicitly, so that no default of a version decides it. What
differs between versions (the image's marker, how an option is spelt) is data: `quirks` of
config/frameworks.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pocketvlm.errors import ConfigError

PROGRAM = "bin/llama-mtmd-cli"
WEIGHTS = "gguf"
ROLES = ("model", "mmproj")
REQUIRED = (PROGRAM,)
# What makes the quantised weights, on the machine that builds.
OPTIONAL = ("bin/llama-quantize",)
# What every version prints on stderr when the answer is complete; `grammar` reads the lines themselves.
_TIMES = (re.compile(rb"prompt eval time +="), re.compile(rb"(?<!prompt )eval time +="))

# ggml types that a KV cache may have (kv_cache_types in common/arg.cpp).
KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")


@dataclass(frozen=True)
class Setting:
    """One setting of a cell.

    Attributes:
        default: the value where a cell does not give one.
        allowed: what the value may be, in words.
        accepts: whether a value is allowed.
        meaning: one line for the documentation and for messages.
    """

    default: int | bool | str
    allowed: str
    accepts: Callable[[Any], bool]
    meaning: str


def _integer(least: int, most: int) -> tuple[str, Callable[[Any], bool]]:
    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    return f"an integer from {least} to {most}", accepts


def _truth() -> tuple[str, Callable[[Any], bool]]:
    return "true or false", lambda value: isinstance(value, bool)


def _one_of(values: Sequence[str]) -> tuple[str, Callable[[Any], bool]]:
    return f"one of {', '.join(values)}", lambda value: isinstance(value, str) and value in values


SETTINGS: Mapping[str, Setting] = {
    "threads": Setting(1, *_integer(1, 512), "threads that compute, for prompt and answer alike"),
    "context": Setting(4096, *_integer(64, 1 << 20), "tokens that the KV cache holds"),
    "batch": Setting(2048, *_integer(1, 1 << 16), "tokens of a prompt handed over at a time"),
    "ubatch": Setting(512, *_integer(1, 1 << 16), "tokens computed at a time"),
    "flash_attention": Setting(False, *_truth(), "fused attention"),
    "kv_type_k": Setting("f16", *_one_of(KV_TYPES), "type of the cached keys"),
    "kv_type_v": Setting("f16", *_one_of(KV_TYPES), "type of the cached values"),
    # Mapped weights are read from storage when they are first used: part of loading would count as prefill.
    "mmap": Setting(False, *_truth(), "map the weights instead of reading them while loading"),
}


def resolve_settings(settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, int | bool | str]:
    """Return all settings, those that a cell does not give at their defaults.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    for name, value in settings.items():
        if name not in SETTINGS:
            raise ConfigError(
                f"llama.cpp has no setting {name!r}",
                where=f"{where}.{name}",
                do=f"Use one of: {', '.join(SETTINGS)}",
            )
        if not SETTINGS[name].accepts(value):
            raise ConfigError(
                f"{name} is {value!r}",
                where=f"{where}.{name}",
                do=f"Give {SETTINGS[name].allowed} ({SETTINGS[name].meaning})",
            )
    resolved = {name: settings.get(name, setting.default) for name, setting in SETTINGS.items()}
    if resolved["kv_type_v"] not in ("f32", "f16", "bf16") and not resolved["flash_attention"]:
        raise ConfigError(
            f"kv_type_v is {resolved['kv_type_v']} without flash attention, which llama.cpp refuses",
            where=f"{where}.kv_type_v",
            do="Set flash_attention: true, or leave kv_type_v at f16",
        )
    return resolved


def build_argv(
    *,
    binary: str,
    model: str,
    mmproj: str,
    image: str,
    workload: Mapping[str, Any],
    settings: Mapping[str, Any],
    chat_template: str,
    quirks: Mapping[str, Any],
) -> list[str]:
    """Return the command of one run; paths stand in it as they are given.

    Args:
        binary, model, mmproj, image: paths on the device.
        workload: `prompt`, `image_position` (`first` or `last`), `max_tokens`, `ignore_eos`, `temperature`,
            `seed`.
        settings: those of the cell; SETTINGS has the defaults.
        chat_template: the built-in template that the model was trained with (`vicuna` for LLaVA-1.5).
        quirks: the version's: `marker`, `flash_attention`, `mmap` (each the arguments when `enabled` and
            when `disabled`), `extra`.

    Raises:
        ConfigError: a setting, the workload or the quirks cannot be expressed.
    """
    chosen = resolve_settings(settings)
    try:
        marker = quirks["marker"]
        fused = quirks["flash_attention"]["enabled" if chosen["flash_attention"] else "disabled"]
        mapped = quirks["mmap"]["enabled" if chosen["mmap"] else "disabled"]
    except KeyError as error:
        raise ConfigError(
            f"the version's quirks lack {error.args[0]!r}",
            where="config/frameworks.yaml, llama.cpp, quirks",
            do="Give marker, and for flash_attention and mmap the arguments of enabled and disabled",
        ) from error
    argv = [
        *(binary, "--model", model, "--mmproj", mmproj, "--image", image),
        *("--chat-template", chat_template),
        *("--prompt", place_marker(workload, marker)),
        *("--predict", str(workload["max_tokens"])),
        *("--temp", f"{workload['temperature']:g}", "--seed", str(workload["seed"])),
        *("--threads", str(chosen["threads"]), "--threads-batch", str(chosen["threads"])),
        *("--ctx-size", str(chosen["context"])),
        *("--batch-size", str(chosen["batch"]), "--ubatch-size", str(chosen["ubatch"])),
        *("--cache-type-k", str(chosen["kv_type_k"]), "--cache-type-v", str(chosen["kv_type_v"])),
        *fused,
        *mapped,
    ]
    if workload["ignore_eos"]:
        argv.append("--ignore-eos")
    return [*argv, *quirks.get("extra", ())]


def place_marker(workload: Mapping[str, Any], marker: str) -> str:
    """Return the prompt with the image's marker where the workload wants it.

    Raises:
        ConfigError: the prompt has a marker of its own, or the position is neither `first` nor `last`.
    """
    prompt = str(workload["prompt"]).strip()
    if marker in prompt:
        raise ConfigError(
            f"the prompt contains the image's marker {marker}",
            where=f"workload {workload.get('id', '')}: prompt",
            do="Take it out; image_position places the image",
        )
    position = workload["image_position"]
    if position == "first":
        return f"{marker}\n{prompt}"
    if position == "last":
        return f"{prompt}\n{marker}"
    raise ConfigError(
        f"image_position is {position!r}",
        where=f"workload {workload.get('id', '')}: image_position",
        do="Give first or last",
    )


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did.

    Args:
        stdout, stderr: what it printed, in any encoding or none.
    """
    if not all(line.search(stderr) for line in _TIMES):
        return "ended without its timing block"
    return None


def command(
    *,
    version: str,
    backend: str = "cpu",
    model: Mapping[str, Any],
    workload: Mapping[str, Any],
    settings: Mapping[str, Any],
    quirks: Mapping[str, Any],
    image_name: str,
) -> list[str]:
    """Return the command of a cell with `@bundle/…`, `@weights/…` and `@workload/…` in the place of paths.

    Args:
        version: the framework's version, for messages.
        backend: where it computes: nothing to say where there is only one.
        model: the model's entry of config/models.yaml (`chat_template`).
        workload, settings, quirks: see `build_argv`.
        image_name: name of the workload's image.
    """
    if "chat_template" not in model:
        raise ConfigError(
            f"the model names no chat template, without which llama.cpp {version} does not start",
            where="config/models.yaml: chat_template",
            do="Give the template it was trained with, vicuna for LLaVA-1.5 or deepseek for MobileVLM",
        )
    return build_argv(
        binary=f"@bundle/{PROGRAM}",
        model="@weights/model",
        mmproj="@weights/mmproj",
        image=f"@workload/{image_name}",
        workload=workload,
        settings=settings,
        chat_template=str(model["chat_template"]),
        quirks=quirks,
    )


def unavailable(
    *, model: Mapping[str, Any], workload: Mapping[str, Any], settings: Mapping[str, Any], backend: str
) -> str | None:
    """Return why llama.cpp cannot express a cell: it can express every workload there is."""
    return None


def environment(*, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the command needs: none."""
    return {}

"""The command line of an MLC-LLM program for vision-language models.

MLC-LLM's own programs ask for the prompt on the keyboard, and none of them runs on a phone outside an app.
What a user builds on its library is `bin/mlc-chat` in a bundle, and how it spells its arguments is data:
`quirks` of the version, see `frameworks.template`. docs/frameworks-mllm-mlc.md says what such a program must
do.

Weights are a folder of parameter shards with `mlc-chat-config.json` and the tokenizer (`model`), and the
model's compiled library for the target (`library`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks import options, template
from pocketvlm.frameworks.mlc import output
from pocketvlm.frameworks.options import Setting, integer

PROGRAM = "bin/mlc-chat"
WEIGHTS = "mlc"
ROLES = ("model", "library")
REQUIRED = (PROGRAM,)
OPTIONAL: tuple[str, ...] = ()

# DetectDeviceName of MLC-LLM's chat knows these and others that no phone has.
BACKENDS = ("cpu", "opencl", "vulkan")

SETTINGS: Mapping[str, Setting] = {
    "threads": Setting(1, *integer(1, 512), "threads of TVM's pool (TVM_NUM_THREADS)"),
    "context": Setting(4096, *integer(64, 1 << 20), "tokens that the KV cache holds (context_window_size)"),
    "prefill_chunk": Setting(2048, *integer(1, 1 << 20), "tokens computed at a time (prefill_chunk_size)"),
}


def resolve_settings(settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, int | bool | str]:
    """Return all settings, those that a cell does not give at their defaults.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    return options.resolve("MLC-LLM", SETTINGS, settings, where=where)


def unavailable(
    *, model: Mapping[str, Any], workload: Mapping[str, Any], settings: Mapping[str, Any], backend: str
) -> str | None:
    """Return why MLC-LLM cannot express a cell; None when it can."""
    if backend not in BACKENDS:
        return f"MLC-LLM compiles models for {', '.join(BACKENDS)}, not for {backend}"
    return None


def environment(*, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the command needs: the number of threads, which no argument takes."""
    return {"TVM_NUM_THREADS": str(resolve_settings(settings)["threads"])}


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did."""
    return output.problem(stdout, stderr)


def command(
    *,
    version: str,
    backend: str = "opencl",
    model: Mapping[str, Any],
    workload: Mapping[str, Any],
    settings: Mapping[str, Any],
    quirks: Mapping[str, Any],
    image_name: str,
) -> list[str]:
    """Return the command of a cell with `@bundle/…`, `@weights/…` and `@workload/…` in the place of paths.

    Args:
        version: the framework's version, for messages.
        backend: where it computes, `{device}` among the arguments.
        model: the model's entry of config/models.yaml.
        workload, quirks: see `template.argv`.
        settings: those of the cell; SETTINGS has the defaults.
        image_name: name of the workload's image.

    Raises:
        ConfigError: the quirks are incomplete, or cannot express the workload or the settings.
    """
    resolved = resolve_settings(settings)
    return template.argv(
        f"@bundle/{PROGRAM}",
        framework="MLC",
        version=version,
        files={**{role: f"@weights/{role}" for role in ROLES}, "image": f"@workload/{image_name}"},
        workload=workload,
        # The environment has the threads.
        settings={name: value for name, value in resolved.items() if name != "threads"},
        quirks=quirks,
        more={"device": backend},
    )

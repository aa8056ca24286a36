"""The command line of an mllm program for vision-language models, first or second generation.

mllm has no program that takes any image and prompt: its demonstrations have both written into them (first
generation) or ask for them on the keyboard (second). What a user builds instead is `bin/mllm` in a bundle,
and how it spells its arguments is data: `quirks` of the version, see `frameworks.template`.
docs/frameworks-mllm-mlc.md says what such a program must do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks import options, template
from pocketvlm.frameworks.mllm import output
from pocketvlm.frameworks.options import Setting, integer

PROGRAM = "bin/mllm"
WEIGHTS = "mllm"
ROLES = ("model", "vocabulary")
REQUIRED = (PROGRAM,)
OPTIONAL: tuple[str, ...] = ()

SETTINGS: Mapping[str, Setting] = {
    "threads": Setting(1, *integer(1, 512), "threads that compute, for prompt and answer alike"),
    "context": Setting(4096, *integer(64, 1 << 20), "tokens that the KV cache holds (its `limits`)"),
}


def resolve_settings(settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, int | bool | str]:
    """Return all settings, those that a cell does not give at their defaults.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    return options.resolve("mllm", SETTINGS, settings, where=where)


def unavailable(
    *, model: Mapping[str, Any], workload: Mapping[str, Any], settings: Mapping[str, Any], backend: str
) -> str | None:
    """Return why mllm cannot express a cell; None when it can."""
    if backend != "cpu":
        return f"mllm's programs for vision-language models compute on the CPU, not with {backend}"
    if workload["temperature"] != 0:
        return (
            f"mllm's programs take the likeliest token each time, the workload samples at temperature "
            f"{workload['temperature']:g}"
        )
    return None


def environment(*, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the command needs: none."""
    return {}


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did.

    mllm exits with 0 after unreadable weights, too, and computes on without a tensor that the file lacks.
    """
    return output.problem(stdout, stderr)


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
        model: the model's entry of config/models.yaml.
        workload, quirks: see `template.argv`.
        settings: those of the cell; SETTINGS has the defaults.
        image_name: name of the workload's image.

    Raises:
        ConfigError: the quirks are incomplete, or cannot express the workload or the settings.
    """
    return template.argv(
        f"@bundle/{PROGRAM}",
        framework="mllm",
        version=version,
        files={**{role: f"@weights/{role}" for role in ROLES}, "image": f"@workload/{image_name}"},
        workload=workload,
        settings=resolve_settings(settings),
        quirks=quirks,
        greedy=True,
    )

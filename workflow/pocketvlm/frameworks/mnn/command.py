"""The command line of `mnn_vlm.py`, our program around MNN's LLM engine: one image, one prompt, greedily.

The engine comes as a Python extension (the wheel MNN): what runs is the device's Python, `@python`, with the
program of the bundle, which finds the unpacked wheel beside itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pocketvlm.frameworks import options
from pocketvlm.frameworks.options import Setting, integer, one_of

PROGRAM = "bin/mnn_vlm.py"
WEIGHTS = "mnn"
ROLES = ("model",)
REQUIRED = (PROGRAM, "lib/MNN/llm/__init__.py")
# What converts weights to the format.
OPTIONAL = ("lib/MNN/tools/mnnconvert.py",)

# What the program says last, of an answer that took its budget or ended by itself.
_END = b"\nphase = other"
_ENDED = re.compile(rb"^status = (?:MAX_TOKENS|NORMAL)_FINISHED\r?$", re.MULTILINE)

_LEVELS = ("low", "normal", "high")
_IMAGE = "<img>image_0</img>"
# What the engine or the program would take for more than text.
_TAKEN = ("<img>", "<audio>", "<video>", "<image>", "</image>", "<patch>")

SETTINGS: Mapping[str, Setting] = {
    "threads": Setting(1, *integer(1, 512), "threads that compute, for prompt and answer alike"),
    "precision": Setting("normal", *one_of(_LEVELS), "of floats: low takes half floats where there are any"),
    "memory": Setting("low", *one_of(_LEVELS), "low computes with quantised weights, the others unpack them"),
}


def resolve_settings(settings: Mapping[str, Any], *, where: str = "settings") -> dict[str, int | bool | str]:
    """Return all settings, those that a cell does not give at their defaults; ConfigError for a wrong one."""
    return options.resolve("MNN", SETTINGS, settings, where=where)


def unavailable(
    *, model: Mapping[str, Any], workload: Mapping[str, Any], settings: Mapping[str, Any], backend: str
) -> str | None:
    """Return why MNN cannot express a cell; None when it can."""
    if workload["temperature"] != 0:
        return f"the program for MNN samples greedily, and the temperature is {workload['temperature']:g}"
    if found := [word for word in _TAKEN if word in workload["prompt"]]:
        return f"the prompt contains {found[0]}, which MNN takes for an image, a sound or a film"
    if backend != "cpu":
        return f"the wheel of MNN computes on the CPU, not on {backend}"
    return None


def environment(*, backend: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that the command needs: none."""
    return {}


def command(
    *,
    version: str,
    backend: str,
    model: Mapping[str, Any],
    workload: Mapping[str, Any],
    settings: Mapping[str, Any],
    quirks: Mapping[str, Any],
    image_name: str,
) -> list[str]:
    """Return the command of a cell with `@python`, `@bundle/…`, `@weights/…` and `@workload/…` for paths.

    Raises:
        ConfigError: a setting cannot be expressed.
    """
    chosen = resolve_settings(settings)
    prompt = str(workload["prompt"]).strip()
    parts = [_IMAGE, prompt] if workload["image_position"] == "first" else [prompt, _IMAGE]
    return [
        # Neither the user's packages and variables nor compiled files beside the program.
        *("@python", "-I", "-B", f"@bundle/{PROGRAM}"),
        *("--model", "@weights/model", "--image", f"@workload/{image_name}"),
        *("--prompt", "\n".join(parts), "--max-tokens", str(workload["max_tokens"])),
        *(word for name, value in chosen.items() for word in (f"--{name}", str(value))),
    ]


def unfinished(stdout: bytes, stderr: bytes) -> str | None:
    """Return why a run that exited with 0 did not come to its end, by its output; None when it did."""
    end = stdout.rfind(_END)
    return None if end >= 0 and _ENDED.search(stdout, end) else "did not answer to the end"

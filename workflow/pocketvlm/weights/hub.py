"""Models of the Hugging Face hub: which of them can be had here, and which file of a model is which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.weights.lock import Lock

COMMAND = "snakemake --cores 1 lock_models"
"""What to run where the network reaches the hub; it writes the lock."""


def is_hub(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the table of models comes from the hub."""
    return bool(entry["kind"] == "hub")


def wanted(entry: Mapping[str, Any], quantisation: str | None = None) -> list[str]:
    """Return the names of the files that a model needs, `model-<quantisation>` and `mmproj-f16`.

    Args:
        entry: a hub entry of the table of models.
        quantisation: only what this quantisation needs; default: every file that is named.
    """
    files = entry["hub"]["files"]
    if quantisation is None:
        return list(files)
    direct = f"model-{quantisation}"
    return [direct if direct in files else "model-f16", "mmproj-f16"]


def unavailable(
    name: str, entry: Mapping[str, Any], lock: Lock, quantisation: str | None = None
) -> str | None:
    """Return why a model cannot be fetched as things are; None when it can, or does not come from the hub.

    Args:
        name: the model's name in the table.
        entry: its entry in the table of models.
        lock: the locked entries (`load_lock`).
        quantisation: ask for this quantisation only; default: every file that the table names.
    """
    if not is_hub(entry):
        return None
    hub = entry["hub"]
    if "unpublished" in hub:
        return f"{name}: {hub['unpublished']}"
    if name not in lock:
        return f"{name} is not locked: run {COMMAND} where the hub can be reached"
    locked = lock[name]
    if locked["repository"] != hub["repository"]:
        return f"{name} was locked in {locked['repository']} and is now {hub['repository']}: run {COMMAND}"
    for file in wanted(entry, quantisation):
        pinned = locked["files"].get(file)
        if pinned is None or pinned["file"] != hub["files"].get(file):
            return f"{name}: {file} is not locked as the table of models names it: run {COMMAND}"
    return None

"""Models of the Hugging Face hub: which of them can be had here, and which file of a model is which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pocketvlm.errors import ConfigError
from pocketvlm.weights.lock import LOCK_COMMAND, Lock


def is_hub(entry: Mapping[str, Any]) -> bool:
    """Whether an entry of the table of models comes from the hub."""
    return bool(entry["kind"] == "hub")


def check(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise ConfigError when a hub entry of the table of models contradicts itself."""
    for name, entry in models.items():
        if not is_hub(entry):
            continue
        hub, where = entry["hub"], f"config/models.yaml: {name}"
        extra = sorted({"preset", "sha256", "shape"} & set(entry))
        if extra:
            raise ConfigError(
                f"{extra[0]!r} belongs to synthetic weights",
                where=where,
                do="Remove it: the lock pins them",
            )
        if "unpublished" in hub:
            if hub["files"]:
                raise ConfigError(
                    "the model has files and a reason why there are none",
                    where=f"{where}.hub",
                    do="Remove `unpublished` or the files",
                )
            continue
        if "mmproj-f16" not in hub["files"]:
            raise ConfigError(
                "no vision projector is named", where=f"{where}.hub.files", do="Add mmproj-f16: its path"
            )
        for quantisation in made_here(entry):
            if "model-f16" not in hub["files"]:
                raise ConfigError(
                    f"there is no file of {quantisation} and none to make it from",
                    where=f"{where}.hub.files",
                    do=f"Add model-{quantisation} or model-f16, or remove the quantisation",
                )
            if "quantiser" not in entry:
                raise ConfigError(
                    f"{quantisation} is to be made from model-f16 and no quantiser is named",
                    where=where,
                    do="Add `quantiser`",
                )


def made_here(entry: Mapping[str, Any]) -> list[str]:
    """Return the quantisations of a hub model that the quantiser makes, for the hub has no file of them."""
    hub = entry["hub"]
    if "unpublished" in hub:
        return []
    return [q for q in entry["quantisations"] if f"model-{q}" not in hub["files"]]


def fetched(entry: Mapping[str, Any]) -> list[str]:
    """Return the files of a hub model that are downloaded, by role and type; without any, those it lacks."""
    hub = entry["hub"]
    if "unpublished" in hub:
        return [*[f"model-{q}" for q in entry["quantisations"]], "mmproj-f16"]
    return list(hub["files"])


def wanted(entry: Mapping[str, Any], quantisation: str | None = None) -> list[str]:
    """Return the files that a model needs, by role and type.

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
    reason = _reason(name, entry, lock, wanted(entry, quantisation))
    return ": ".join(filter(None, reason)) if reason else None


def other_format(name: str, entry: Mapping[str, Any], weights_format: str) -> str:
    """Return why a model's weights in another framework's format cannot be had: it is always a reason, today.

    Args:
        name: the model's name in the table.
        entry: its entry in the table of models.
        weights_format: a key of its `formats`: `mllm`, `mlc`.
    """
    formats = entry.get("formats", {})
    if weights_format not in formats:
        return f"{name}: the table of models names no {weights_format} weights"
    return f"{name}: {formats[weights_format]['unprovisioned']}"


def pin(name: str, entry: Mapping[str, Any], lock: Lock, part: str) -> dict[str, Any]:
    """Return what a download needs, `repository, revision, file, bytes, sha256, type`; or `unavailable, do`.

    Args:
        name: the model's name in the table.
        entry: its entry in the table of models.
        lock: the locked entries.
        part: a file by role and type, e.g. `model-Q4_K_M`.
    """
    reason = _reason(name, entry, lock, [part])
    if reason is not None:
        what, do = reason
        return {"unavailable": what, "do": do or "Name its files in config/models.yaml when there are any"}
    locked = lock[name]
    role, _, type_name = part.partition("-")
    return {
        "repository": locked["repository"],
        "revision": locked["revision"],
        **locked["files"][part],
        "type": type_name.upper() if role == "model" else None,
    }


def _reason(name: str, entry: Mapping[str, Any], lock: Lock, parts: list[str]) -> tuple[str, str] | None:
    """Return why files of a model cannot be fetched, and what to do if the reason does not say it."""
    hub = entry["hub"]
    if "unpublished" in hub:
        return f"{name}: {hub['unpublished']}", ""
    if name not in lock:
        return f"{name} is not locked", f"run {LOCK_COMMAND} where the hub can be reached"
    locked = lock[name]
    if locked["repository"] != hub["repository"]:
        what = f"{name} was locked in {locked['repository']} and is now {hub['repository']}"
        return what, f"run {LOCK_COMMAND} again"
    for part in parts:
        pinned = locked["files"].get(part)
        if pinned is None or pinned["file"] != hub["files"].get(part):
            what = f"{part} of {name} is not locked as the table of models names it"
            return what, f"run {LOCK_COMMAND} again"
    return None

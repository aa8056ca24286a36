"""Frameworks that are driven through their app: the `app` of a version, checked before anything runs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvlm.apps import script, statistics
from pocketvlm.config.schema import validate
from pocketvlm.frameworks.settings import AFFINITY

if TYPE_CHECKING:
    from pocketvlm.config.study import Cell

ADAPTER = "app"
"""The adapter of every such framework: what differs between apps is their entry."""
IMAGE_FOLDER = "/sdcard/Pictures/pocketvlm"


def check(app: Mapping[str, Any], *, where: str) -> None:
    """Check an entry as far as that needs no cell.

    Raises:
        ConfigError: a key or value is wrong, the script cannot be followed, or a statistic is of no text.
    """
    validate(dict(app), "app", where=where)
    parsed = script.parse(
        app["script"], where=f"{where}.script", variables=dict.fromkeys(script.VARIABLES, "x")
    )
    statistics.parse(app.get("statistics", {}), reads_of(parsed), where=f"{where}.statistics")


def reads_of(parsed: script.Script) -> list[str]:
    """Return the names under which a script keeps texts."""
    return [step.name for step in parsed.run if step.kind == "read"]


def unavailable(
    app: Mapping[str, Any], *, cell: Cell, workload: Mapping[str, Any], device: Mapping[str, Any]
) -> str | None:
    """Return why a cell cannot be measured through the app; None when it can.

    Args:
        app: the version's `app`.
        cell: the cell.
        workload: its workload.
        device: its file of config/devices.
    """
    if device["kind"] == "local":
        return "an Android app runs on a phone, and this device is a computer"
    if cell.quantisation not in app["models"].get(cell.model, {}):
        known = ", ".join(f"{name} {q}" for name, by in app["models"].items() for q in by)
        return f"the app has no {cell.model} at {cell.quantisation} (`models` of its entry: {known})"
    if workload["ignore_eos"]:
        return "an app answers until the end of the text: the workload's ignore_eos cannot be had"
    if AFFINITY in cell.settings:
        return "an app's threads belong to Android: the setting affinity cannot be had"
    if "apk" in app and not Path(app["apk"]["path"]).is_file():
        return f"there is no apk {app['apk']['path']}: put it there or correct its path"
    return None


def of_cell(app: Mapping[str, Any], *, cell: Cell, workload: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return how a cell is measured through the app, in plain values: what its runs' key is made of.

    Statistics are none of it: they are looked for in what was read, and mending a pattern measures nothing
    anew.

    Raises:
        ConfigError: the workload's prompt cannot be typed, or a variable of the script is not known.
    """
    image = image_name(Path(workload["image_path"]))
    variables = {
        "prompt": str(workload["prompt"]).strip(),
        "image": image,
        "model": app["models"][cell.model][cell.quantisation],
        "max_tokens": str(workload["max_tokens"]),
    }
    script.parse(app["script"], where=f"{where}.script", variables=variables)
    return {
        "package": app["package"],
        "activity": app["activity"],
        "apk": app["apk"]["sha256"] if "apk" in app else None,
        "version_name": app.get("version_name"),
        "permissions": list(app.get("permissions", ())),
        "image": f"{app.get('image_folder', IMAGE_FOLDER).rstrip('/')}/{image}",
        "script": {part: list(app["script"][part]) for part in ("prepare", "run")},
        "variables": variables,
    }


def image_name(path: Path) -> str:
    """Return the name that a workload's image gets on the phone: one that is nobody else's there."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    return f"pocketvlm-{digest}{path.suffix.lower()}"

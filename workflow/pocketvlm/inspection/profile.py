"""`profile.json` of docs/formats.md: the record of a close look at a device; nothing measured needs it."""

from __future__ import annotations

import datetime
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pocketvlm.devices.base import Device, substitute
from pocketvlm.inspection import metrics, rates
from pocketvlm.inspection.fingerprint import fingerprint, permissions

log = logging.getLogger(__name__)

DEFAULT_SECONDS = 10
_CALIBRATION = ("current_scale", "configured", "reason", "findings", "seconds")


def inspect(
    device: Device,
    config: Mapping[str, Any],
    identity: Mapping[str, Any],
    calibration: Mapping[str, Any],
    probe: Path,
) -> dict[str, Any]:
    """Look at a device that is held and left alone, and return the content of profile.json.

    Args:
        device: the device.
        config: its file of `config/devices`; `inspect_s` says for how long sensors are watched.
        identity: its identity.json.
        calibration: its calibration.json.
        probe: folder of the probe's bundle for its target.

    Raises:
        DeviceError, TransientDeviceError: the device refuses or does not answer.
    """
    begun = time.monotonic()
    seconds = int(config.get("inspect_s", DEFAULT_SECONDS))
    watched = rates.watched(identity, device.places)
    log.info("%d sensors of %s are watched for %d s", len(watched["sensors"]), device.id, seconds)
    watched_s, seen = rates.record(device, watched, probe, seconds)
    described = fingerprint(device, identity, _battery_folder(watched, device))
    denied = [substitute(path, device.places) for path in _denied(identity)]
    below = [f"{device.sysfs_root}{path}" if path.startswith("/sys/") else path for path in denied]
    paths = [sensor["path"].replace("{pid}", "self") for sensor in watched["sensors"]]
    listed = permissions(device, [*paths, *below])
    sensors = [
        {
            **{name: value for name, value in sensor.items() if name != "range"},
            "path": original["path"],
            "group": original["group"],
            "asked_ms": watched["groups"][sensor["group"]]["period_ms"],
            "permission": None if "{pid}" in sensor["path"] else listed.get(sensor["path"]),
            **seen[sensor["name"]],
        }
        for original, sensor in zip(identity["sensors"], watched["sensors"], strict=True)
    ]
    return {
        "format": 1,
        "device": device.id,
        "kind": device.kind,
        "notice": identity["notice"],
        "taken": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H:%M:%SZ}",
        "fingerprint": described,
        "sensors": sensors,
        "missing": [
            {**lack, "permission": _permission(str(lack["reason"]), listed, device.sysfs_root)}
            for lack in identity["missing"]
        ],
        "snapshots": sorted(identity.get("snapshots", {})),
        "current": {name: calibration[name] for name in _CALIBRATION},
        "metrics": [asdict(row) for row in metrics.outlook(identity)],
        "inspection": {
            "watched_s": round(watched_s, 3),
            "calibration_s": calibration["seconds"],
            "seconds": round(time.monotonic() - begun + calibration["seconds"], 2),
        },
    }


def _battery_folder(watched: Mapping[str, Any], device: Device) -> str:
    """Return the folder of the battery that the sensors stand for, else that of Android's name."""
    for sensor in watched["sensors"]:
        if sensor["group"] == "battery":
            return str(sensor["path"]).rpartition("/")[0]
    return f"{device.sysfs_root}/sys/class/power_supply/battery"


def _denied(identity: Mapping[str, Any]) -> list[str]:
    """Return the files that are there and cannot be read, as the reasons name them."""
    reasons = [str(lack["reason"]) for lack in identity["missing"]]
    return [path for reason in reasons for path in _paths(reason)]


def _paths(reason: str) -> list[str]:
    return re.findall(r"(/[^\s;]+) can(?:not be read| be read by root)", reason)


def _permission(reason: str, listed: Mapping[str, dict[str, str]], root: str) -> dict[str, str] | None:
    for path in _paths(reason):
        found = listed.get(f"{root}{path}") or listed.get(path)
        if found:
            return found
    return None

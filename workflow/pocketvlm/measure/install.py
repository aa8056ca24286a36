"""Having the right app on a phone: installed from its file where another or none is there."""

from __future__ import annotations

import logging
import re

from pocketvlm.apps.driven import App
from pocketvlm.devices.base import Device
from pocketvlm.errors import DeviceError

log = logging.getLogger(__name__)

_ASK_S = 30.0
# A large app is compiled while it is installed.
_INSTALL_S = 600.0


def install(device: Device, app: App, apk: str | None) -> None:
    """Install an app if the phone has another version of it or none.

    Args:
        device: the phone.
        app: the app.
        apk: path of the pushed file on the device; None where its entry names none.

    Raises:
        DeviceError: it cannot be installed, or the phone has another version than the entry names.
    """
    if apk is not None and app.apk_sha256 is not None and _installed(device, app) != app.apk_sha256:
        log.info("installing %s on %s", app.package, device.id)
        result = device.shell(["pm", "install", "-r", apk], _INSTALL_S)
        if result.status != 0 or "Success" not in result.stdout:
            said = f"{result.stdout} {result.stderr}".strip()[-300:]
            raise DeviceError(
                f"{app.package} cannot be installed on {device.id}: {said}",
                do="Look what the message says; an app of another signature must be removed by hand first, "
                "and some phones must allow `install via USB`",
            )
        if _installed(device, app) != app.apk_sha256:
            raise DeviceError(
                f"what is installed as {app.package} on {device.id} is not the file that was given",
                do="Look whether the apk is of this package, and in one piece (no split apks)",
            )
    if app.version_name is not None:
        found = _version(device, app)
        if found != app.version_name:
            raise DeviceError(
                f"{device.id} has {app.package} {found or 'not at all'}, wanted is {app.version_name}",
                do="Install that version, or correct version_name of the app's entry",
            )


def _installed(device: Device, app: App) -> str | None:
    """Return the sha256 of the installed file, None where there is none or it is not one file."""
    paths = [
        line.removeprefix("package:")
        for line in device.shell(["pm", "path", app.package], _ASK_S).stdout.splitlines()
        if line.startswith("package:/")
    ]
    if len(paths) != 1:
        return None
    match = re.match(r"[0-9a-f]{64}\b", device.shell(["sha256sum", paths[0]], _ASK_S).stdout)
    return match[0] if match else None


def _version(device: Device, app: App) -> str | None:
    printed = device.shell(["dumpsys", "package", app.package], _ASK_S).stdout
    match = re.search(r"^\s*versionName=(\S.*?)\s*$", printed, re.MULTILINE)
    return match[1][:100] if match else None

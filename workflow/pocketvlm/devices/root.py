"""Root on a phone: only where its file allows it, through the `su` that it has, and never without a log line.

Two kinds of `su` are in use, and neither takes the other's arguments: that of Magisk and KernelSU
(`su -c 'COMMAND'`, one text for a shell) and that of AOSP's userdebug builds (`su WHO COMMAND…`,
system/extras/su/su.cpp). Where adbd itself runs as root (`adb root`), no `su` is needed.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence

from pocketvlm.devices.base import Device, Result
from pocketvlm.errors import DeviceError, TransientDeviceError

log = logging.getLogger(__name__)

# A manager of root may ask the person at the phone first, and gives up by itself after ten seconds or so.
_ASK_SECONDS = 30.0
_LOGGED = 500


class Root:
    """How commands become root's on one device; the device is asked at the first command, and once.

    Attributes:
        way: `already`, `magisk` or `aosp`; None before the first command.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self.way: str | None = None

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root, and log it. Errors as for `Device.as_root`."""
        if not self._device.root:
            raise not_allowed(self._device.id, argv)
        if self.way is None:
            self.way = self._find()
        log.info("as root on %s: %s", self._device.id, _shown(argv))
        return _through(self.way, argv)

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command as root once and wait for it."""
        return self._device.shell(self.command(argv), timeout)

    def _find(self) -> str:
        """Return the way to root that answers as user 0: `already`, `magisk` or `aosp`."""
        device, said = self._device, []
        for way in ("already", "magisk", "aosp"):
            asked = _through(way, ["id", "-u"])
            if way != "already":
                log.info("as root on %s: id -u (through %s)", device.id, asked[0])
            try:
                answer = device.shell(asked, _ASK_SECONDS)
            except TransientDeviceError as error:
                raise TransientDeviceError(
                    f"`{shlex.join(asked)}` on {device.id} did not answer: {error.what}",
                    do="If the phone asks whether the shell may be root, allow it for good, and start again",
                ) from error
            if answer.status == 0 and answer.stdout.strip() == "0":
                return way
            words = answer.stderr.strip() or answer.stdout.strip() or f"status {answer.status}"
            said.append(f"`{shlex.join(asked)}` says {words[:100]!r}")
        raise DeviceError(
            f"{device.id} lets nobody be root: {'; '.join(said)}",
            where=f"config/devices/{device.id}.yaml: root",
            do="Allow the shell to be root in the phone's manager of root (Magisk, KernelSU) or by `adb "
            "root`, or take `root: true` out of the device's file and do without what needs it",
        )


def privileged(device: Device, argv: Sequence[str]) -> list[str]:
    """Return a command for the best reader there: root where the device's file allows it, else as it is."""
    return device.as_root(argv) if device.root else list(argv)


def not_allowed(device: str, argv: Sequence[str]) -> DeviceError:
    """Return the error for a command that needs root on a device whose file does not allow it."""
    return DeviceError(
        f"`{_shown(argv)}` needs root, and nothing runs as root on {device}",
        where=f"config/devices/{device}.yaml: root",
        do="Write `root: true` there if it is a phone that lets its shell be root, or do without",
    )


def _through(way: str, argv: Sequence[str]) -> list[str]:
    if way == "magisk":
        # The text is for the shell that `su` starts.
        return ["su", "-c", shlex.join(argv)]
    return ["su", "0", *argv] if way == "aosp" else list(argv)


def _shown(argv: Sequence[str]) -> str:
    text = shlex.join(argv)
    return text if len(text) <= _LOGGED else f"{text[:_LOGGED]}… ({len(text)} characters)"

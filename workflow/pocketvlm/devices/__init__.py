"""Devices: what they are, how to reach them, and how files and commands get there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pocketvlm.devices.base import Device


def lock_name(config: Mapping[str, Any]) -> str:
    """Return the name under which `locks.device_lock` holds a device: one name for one thing to be held.

    A phone is held by its serial, so that two files that mean one phone, or two clones, exclude each other;
    where its config names none, the adb server is asked for the only phone there is. An emulated phone and
    this machine have no serial that lasts, and are held by the id of their file (besides the host's lock).

    Args:
        config: the device's file of `config/devices`.

    Raises:
        DeviceError, TransientDeviceError: no serial is named, and none or several phones are connected, or
            the only one cannot be used, as for `open_device`.
    """
    if config["kind"] != "phone":
        return str(config["id"])
    from pocketvlm.devices.adb import serial_of

    return f"serial-{serial_of(config)}"


def absence(config: Mapping[str, Any]) -> str | None:
    """Return why a device is not there, or None when it is; nothing is asked of the device itself.

    This machine and the emulated phone are always there. A phone that is connected and refuses (unauthorised,
    offline, one of several) is there: that is a person's to mend, and the job that needs it says how.

    Args:
        config: the device's file of `config/devices`.
    """
    if config["kind"] != "phone":
        return None
    from pocketvlm.devices.adb_server import not_connected

    transport = config["transport"]
    return not_connected(int(transport["server_port"]), transport["serial"])


@contextlib.contextmanager
def open_device(config: Mapping[str, Any], *, results: Path) -> Iterator[Device]:
    """Reach a device: connect to a phone, take the lease of an emulated one, or use this machine.

    Args:
        config: the device's file of `config/devices`.
        results: folder of the results, below which this machine keeps what other devices get pushed.

    Raises:
        DeviceError, TransientDeviceError: it is not there, or not ready.
        ProvisionError: what makes the emulated phone cannot be had here.
    """
    # Imported here because the phone's own processes import this package and need none of it.
    if config["kind"] == "local":
        from pocketvlm.devices.base import substitute
        from pocketvlm.devices.local import LocalDevice

        folder = substitute(config["remote_dir"], {"results": str(results.absolute())})
        yield LocalDevice(config["id"], Path(folder))
    elif config["kind"] == "emulated":
        from pocketvlm.devices.emulated.lease import lease

        with lease(config) as phone:
            yield phone
    else:
        from pocketvlm.devices.adb import connect

        yield connect(config)

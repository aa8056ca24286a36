"""The adb server on this machine: reaching it, choosing a device, and saying what its refusals mean."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import adbutils  # type: ignore[import-untyped]
from adbutils import AdbClient, AdbConnection, AdbError, AdbTimeout
from adbutils.errors import AdbConnectionError  # type: ignore[import-untyped]

from pocketvlm.devices.base import too_large
from pocketvlm.devices.sync import SyncRefusedError, TooLargeError
from pocketvlm.errors import DeviceError, TransientDeviceError, of_the_disk

# A device that answers nothing for so long is stopped, not slow: a shell round trip takes milliseconds. A
# device's file may say another time (`stall_seconds`).
STALL_SECONDS = 30.0
# The server itself answers at once; one that was just started needs a moment to find what is plugged in.
_SERVER_SECONDS = 5.0
_SEARCH_SECONDS = 2.0
# Variables by which adb is sent to another server or told another address.
_ELSEWHERE = frozenset({"ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ADB_MDNS_AUTO_CONNECT"})
# adbutils' words for an end of the stream where bytes or an answer should come: nothing to tell a person.
_CLOSED = re.compile(r"Expected \d+ bytes, got|Unknown data: b''")
_TWINS = "several devices with this serial"


class _Connection(AdbConnection):  # type: ignore[misc]
    """A connection that never starts an adb server by itself: adbutils would start one on another port."""

    def _safe_connect(self) -> socket.socket:
        connection: socket.socket = self._create_socket()
        return connection


class Client(AdbClient):  # type: ignore[misc]
    """A client of the adb server on a port of this machine.

    Args:
        port: the server's.
        stall_seconds: how long to wait for an answer.
    """

    def __init__(self, port: int, stall_seconds: float | None = None) -> None:
        self.stall_seconds = STALL_SECONDS if stall_seconds is None else stall_seconds
        super().__init__(host="127.0.0.1", port=port, socket_timeout=self.stall_seconds)

    def make_connection(self, timeout: float | None = None) -> AdbConnection:
        connection = _Connection(self.host, self.port)
        connection.conn.settimeout(timeout or self.stall_seconds)
        return connection


def adb_program() -> Path:
    """Return the adb program of the adbutils wheel."""
    return Path(adbutils.__file__).parent / "binaries" / "adb"


def start_server(port: int) -> bool:
    """Start an adb server on this port of the loopback interface, if none answers there.

    Returns:
        Whether it had to be started.

    Raises:
        DeviceError: it does not start.
    """
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return False
    # The user's own variables could have it listen elsewhere, or look for another server than this one.
    environment = {name: value for name, value in os.environ.items() if name not in _ELSEWHERE}
    # Without multicast DNS, whose socket (UDP 5353) is open to the network.
    environment |= {"ANDROID_ADB_SERVER_PORT": str(port), "ADB_MDNS": "0"}
    done = subprocess.run(
        [adb_program(), "start-server"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )
    if done.returncode != 0:
        raise DeviceError(
            f"the adb server does not start on port {port}: {' '.join(done.stderr.split())[-300:]}",
            do="Run `adb start-server` by hand to see why",
        )
    return True


def not_connected(port: int, serial: str | None) -> str | None:
    """Return why a phone is not there, or None when the adb server knows it, in whatever state.

    A server that has to be started for the question is ended again, unless it finds the phone.

    Args:
        port: of the adb server on this machine.
        serial: the phone's; None for any phone.
    """
    which = f"no phone with serial {serial}" if serial is not None else "no phone"
    try:
        started = start_server(port)
        client = Client(port, _SERVER_SECONDS)
        found: dict[str, str] = {}
        end = time.monotonic() + (_SEARCH_SECONDS if started else 0.0)
        while True:
            with errors("the adb server", None, "the question what is connected"):
                found = _known(client, _SERVER_SECONDS)
            if serial in found or (serial is None and found):
                return None
            if time.monotonic() >= end:
                break
            time.sleep(0.1)
        if started:
            with contextlib.suppress(AdbError, OSError, EOFError):
                client.server_kill()
    except (DeviceError, OSError, subprocess.TimeoutExpired) as error:
        what = error.what if isinstance(error, DeviceError) else str(error)
        return f"{which} can be reached: {what}"
    listed = ", ".join(f"{name} ({state})" for name, state in sorted(found.items())) or "none"
    return f"{which} is connected: adb on port {port} knows {listed}"


def _known(client: AdbClient, timeout: float | None = None) -> dict[str, str]:
    """Return the state of each device by serial, `_TWINS` where several have it.

    adbutils' own list cuts a state of several words.
    """
    connection = client.make_connection(timeout)
    try:
        connection.send_command("host:devices")
        connection.check_okay()
        lines = connection.read_string_block().splitlines()
    finally:
        connection.conn.close()
    found: dict[str, str] = {}
    for serial, state in (line.split("\t", 1) for line in lines if "\t" in line):
        # Serials are not always the maker's: cheap phones and rewritten ones share a few.
        found[serial] = _TWINS if serial in found else state
    return found


def choose_serial(client: AdbClient, wanted: str | None, device_id: str) -> str:
    """Return the serial to use, of the devices that the adb server knows.

    Raises:
        DeviceError: no device, not this one, several without a choice, or one that is not authorised.
        TransientDeviceError: the device is offline.
    """
    place = f"config/devices/{device_id}.yaml, key transport.serial"
    with errors(device_id, wanted):
        known = _known(client)
    listed = ", ".join(f"{serial} ({state})" for serial, state in sorted(known.items())) or "none"
    if wanted is None:
        if len(known) > 1:
            raise DeviceError(
                f"several devices are connected and the config does not say which one is {device_id}: "
                f"{listed}",
                where=place,
                do="Write the serial of the one that is meant",
            )
        if not known:
            raise DeviceError(
                f"no device is connected for {device_id}",
                where=place,
                do="Plug the phone in, switch on USB debugging, and look at `adb devices`",
            )
        wanted = next(iter(known))
    if wanted not in known:
        raise DeviceError(
            f"device {wanted} is not connected; adb knows: {listed}",
            where=place,
            do="Check the cable and USB debugging, or correct the serial",
        )
    if known[wanted] != "device":
        raise _refusal(f"device {known[wanted]}", device_id, wanted)
    return wanted


def _refusal(message: str, device_id: str, serial: str | None) -> DeviceError:
    """Turn what adb says about a device into an error with the next step."""
    which = f"{device_id} ({serial})" if serial and serial != device_id else device_id
    text = message.lower()
    if "unauthorized" in text:
        return DeviceError(
            f"{which} has not authorised this machine",
            do="Unlock the phone and confirm 'Allow USB debugging' on its screen",
        )
    if _TWINS in text:
        return DeviceError(
            f"several connected devices have the serial of {which}",
            do="Unplug all but the one that is meant: adb cannot tell them apart",
        )
    if "no permissions" in text:
        return DeviceError(
            f"this user may not open the USB device of {which}",
            do="Install Debian's package android-sdk-platform-tools-common (udev rules) and plug it in again",
        )
    if "more than one" in text:
        return DeviceError(
            f"several connected devices match {which}",
            do=f"Write the serial of the one that is meant to transport.serial in "
            f"config/devices/{device_id}.yaml",
        )
    if "not found" in text or "no devices" in text or "unknown host service" in text:
        return DeviceError(
            f"{which} is not connected: {message}",
            do="Check the cable, USB debugging and transport.serial, and look at `adb devices`",
        )
    if any(word in text for word in ("offline", "authorizing", "connecting", "closed", "host", "recovery")):
        return TransientDeviceError(
            f"{which} is not ready: {message}",
            do="Plug it in again or restart it, and look at `adb devices` until its state is 'device'",
        )
    return DeviceError(f"{which}: adb says: {message}", do="Look at `adb devices` and at the phone's screen")


@contextlib.contextmanager
def errors(device_id: str, serial: str | None, doing: str = "a call") -> Iterator[None]:
    """Map what adbutils and sockets raise to this project's errors."""
    which = f"{device_id} ({serial})" if serial else device_id
    again = "Check the cable, unlock the phone, and start again: finished runs are kept"
    try:
        yield
    except SyncRefusedError as error:
        raise _refused_file(str(error), which, doing) from error
    except TooLargeError as error:
        raise too_large(str(error), which, error.limit) from error
    except (AdbTimeout, TimeoutError) as error:
        raise TransientDeviceError(f"{which} stopped answering during {doing}", do=again) from error
    except AdbConnectionError as error:
        raise TransientDeviceError(
            f"no adb server answers for {which}: {error}",
            do="Start again; the workflow starts its server anew",
        ) from error
    except (AdbError, OSError, EOFError, ValueError) as error:
        closed = _CLOSED.match(str(error))
        if isinstance(error, AdbError) and not closed:
            raise _refusal(str(error), device_id, serial) from error
        if of_the_disk(error):
            raise  # a file on this machine, and no connection
        how = "it was closed" if closed else error
        raise TransientDeviceError(
            f"the connection to {which} was lost during {doing}: {how}", do=again
        ) from error


def _refused_file(reason: str, which: str, doing: str) -> DeviceError:
    if re.search(r"no space left", reason, re.IGNORECASE):
        do = "Free space on the device, or point remote_dir elsewhere"
    elif re.search(r"permission denied|read-only|operation not permitted", reason, re.IGNORECASE):
        do = "Point remote_dir to a folder that the shell user may write, e.g. /data/local/tmp/pocketvlm"
    else:
        do = "Check the path and the free space on the device"
    return DeviceError(f"{which} refused {doing}: {reason or 'no reason given'}", do=do)

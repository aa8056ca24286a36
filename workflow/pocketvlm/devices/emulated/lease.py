"""A lease on the emulated phone: it is up inside the block and gone after it, however the block ends."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.adb_server import adb_program
from pocketvlm.devices.base import substitute
from pocketvlm.devices.emulated.confine import CONFINING, place
from pocketvlm.devices.emulated.furnish import environment, furnish
from pocketvlm.devices.locks import hold
from pocketvlm.errors import DeviceError, ProvisionError
from pocketvlm.provision.apt import WITHOUT, tree
from pocketvlm.provision.cache import cache_root

_START_SECONDS = 90.0
_END_SECONDS = 10.0


@contextlib.contextmanager
def lease(config: Mapping[str, Any]) -> Iterator[AdbDevice]:
    """Start the emulated phone and end it.

    Args:
        config: the device's file of `config/devices`, kind `emulated`.

    Yields:
        The phone, connected. `device.places` has `qemu`, the program that runs arm64 code, and `root`, its
        folder.

    Raises:
        ProvisionError: adbd, qemu or a compiler cannot be had here; the message names what runs without.
        DeviceError: it does not come up.
    """
    settings = config["emulated"]
    root = Path(substitute(settings["folder"], {"cache": str(cache_root())})).absolute()
    commands = _programs(settings)
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(hold(root.parent / f"{root.name}.lock", f"the emulated phone in {root}"))
        furnish(root, rooted=bool(config.get("root", False)))
        address, adbd_port = _free_address()
        server_port = _free_port("127.0.0.1")
        order = {
            **commands,
            "root": str(root),
            "adb": str(adb_program()),
            "address": address,
            "adbd_port": adbd_port,
            "server_port": server_port,
            "server_home": str(cache_root() / "adb-home"),
            "python": sys.executable,
            "cores": os.cpu_count() or 1,
            "ambient": settings["ambient_celsius"],
            "charge_mah": settings["battery_mah"],
            "options": {
                "rooted": bool(config.get("root", False)),
                "charger_connected": settings.get("charger_connected", False),
                "denied": settings.get("denied", False),
                "gauge": settings.get("gauge", {}),
            },
            "environment": environment(root, address, adbd_port),
        }
        serial = stack.enter_context(_supervised(order, lock))
        places = {"root": str(root), "qemu": commands["qemu"]}
        yield AdbDevice(
            device_id=config["id"],
            kind=config["kind"],
            serial=serial,
            port=server_port,
            remote_dir=substitute(config["remote_dir"], places),
            sysfs_root=substitute(config["sysfs_root"], places),
            exec_prefix=[substitute(word, places) for word in config["exec_prefix"]],
            places=places,
            stall_seconds=config.get("stall_seconds"),
            root=bool(config.get("root", False)),
        )


@contextlib.contextmanager
def _supervised(order: Mapping[str, Any], lock: int) -> Iterator[str]:
    """Run the supervisor; it inherits the lock, so that the lock is free only when everything is gone."""
    # Under a name of its own: the linker takes a space or a colon in the cache's path for the end of a name,
    # and then goes on without the library.
    place(Path(order["root"]))
    log = Path(order["root"], "log", "supervisor.log")
    with log.open("wb") as stderr:
        supervisor = subprocess.Popen(
            [sys.executable, "-P", "-m", "pocketvlm.devices.emulated.supervisor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
            pass_fds=[lock],
        )
    assert supervisor.stdin is not None
    assert supervisor.stdout is not None
    try:
        supervisor.stdin.write((json.dumps(order) + "\n").encode())
        supervisor.stdin.flush()
        answered = select.select([supervisor.stdout], [], [], _START_SECONDS)[0]
        line = supervisor.stdout.readline() if answered else b""
        answer = json.loads(line) if line else {"error": f"its supervisor does not answer; see {log}"}
        if "error" in answer:
            raise DeviceError(
                f"the emulated phone does not start: {answer['error']}",
                do=f"Start again, and if it fails again look at the log. {WITHOUT}",
            )
        yield str(answer["serial"])
    finally:
        # Closing the pipe is the order to end.
        with contextlib.suppress(BrokenPipeError):
            supervisor.stdin.close()
        try:
            supervisor.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            supervisor.kill()
            supervisor.wait()
        supervisor.stdout.close()


def _programs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Fetch and build what the phone is made of; return the commands."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise ProvisionError(
            f"the emulated phone runs on Linux on x86-64 or arm64, and this is {platform.system()} "
            f"on {platform.machine()}",
            do=WITHOUT,
        )
    adbd = tree(["adbd"], suite=settings["adbd_suite"])
    qemu = tree(["qemu-user-static"]) / "usr/bin/qemu-aarch64-static"
    libraries = adbd / "usr/lib" / f"{platform.machine()}-linux-gnu"
    linkers = sorted(libraries.glob("ld-linux-*.so.*"))
    program = adbd / "usr/lib/android-sdk/platform-tools/adbd"
    for needed in (qemu, program, *(linkers[:1] or [libraries / "ld-linux-*.so.*"])):
        if not needed.is_file():
            raise ProvisionError(f"Debian's packages lack {needed.name}", where=str(needed), do=WITHOUT)
    # Its own dynamic linker and libraries: the system's are older. Given as options, not as variables, none
    # of this is inherited by the commands that run on the phone.
    command = [linkers[0], "--preload", CONFINING, "--library-path", f"{libraries}:{libraries}/android"]
    command += [program]
    return {"adbd": [str(word) for word in command], "qemu": str(qemu)}


def _free_address() -> tuple[str, int]:
    """Return a loopback address of the phone's own and a free port on it."""
    # Another address for every start keeps phones of several clones apart even where their ports meet.
    address = f"127.0.0.{2 + (os.getpid() + time.monotonic_ns()) % 250}"
    return address, _free_port(address)


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])

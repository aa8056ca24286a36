"""Faults of what is between this machine and the phone: adbd, the adb server, the cable."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable

import yaml

from pocketvlm.devices import open_device
from pocketvlm.devices.adb_server import adb_program
from tests.adb_server import FakeServer
from tests.chaos.fault import fault
from tests.chaos.phone import ask
from tests.chaos.scene import DEVICE, EXPERIMENT, Scene
from tests.chaos.workload import standin

# A push of so many bytes takes long enough to be seen.
PADDING = 96 << 20
_BLOCK = ("run", "push", "pull", "between runs", "idle")
_LOST = r"connection to chaos-phone .* was lost|stopped answering|is not connected|is not ready"


def at(scene: Scene, point: str, action: Callable[[], None]) -> None:
    """Do something while a block is at a point and the phone's adbd stands still."""
    if point == "push":
        scene.pad_program(PADDING)
    with scene.held(point):
        scene.hit()
        action()


@fault("adbd killed", *_BLOCK, says=_LOST)
def _adbd_killed(scene: Scene, point: str) -> None:
    at(scene, point, lambda: scene.phone.signal("adbd", signal.SIGKILL))


@fault("adbd stopped", *_BLOCK, says=r"stopped answering")
def _adbd_stopped(scene: Scene, point: str) -> None:
    at(scene, point, lambda: _stay(scene))


def _stay(scene: Scene) -> None:
    """Let adbd stand still until the start has given up."""
    scene.end()


@fault("adb server killed", *_BLOCK, says=_LOST)
def _server_killed(scene: Scene, point: str) -> None:
    at(scene, point, lambda: scene.phone.signal("adb server", signal.SIGKILL))


@fault("phone vanishes and comes back under another transport id", *_BLOCK, says=_LOST)
def _reconnected(scene: Scene, point: str) -> None:
    def pull_the_cable() -> None:
        serial, port = scene.phone.address()
        scene.phone.signal("adbd", signal.SIGCONT)
        ask(port, f"host:disconnect:{serial}")
        # The emulated phone may be given back before the cable is in again.
        with contextlib.suppress(OSError):
            ask(port, f"host:connect:{serial}")

    at(scene, point, pull_the_cable)


@fault("second adb server on the phone", *_BLOCK, says=None)
def _two_servers(scene: Scene, point: str) -> None:
    def connect_another() -> None:
        second = server(scene, free_port())
        adbd = scene.phone.process("adbd")
        assert adbd is not None
        os.kill(adbd, signal.SIGCONT)
        said = ask(second, f"host:connect:{scene.phone.address()[0]}")
        assert "connected to" in said, said

    at(scene, point, connect_another)


def server(scene: Scene, port: int) -> int:
    """Start an adb server of the scene's own on a port of the loopback interface, and return the port."""
    home = scene.path / "another-home"
    home.mkdir(exist_ok=True)
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": os.environ["PATH"]}
    environment |= {"ADB_MDNS": "0", "ADB_USB": "0", "ADB_EMU": "0", "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554"}
    process = subprocess.Popen(
        [adb_program(), "-P", str(port), "nodaemon", "server"],
        env=environment,
        cwd=scene.path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def end() -> None:
        process.kill()
        process.wait()

    scene.at_end(end)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return port
        except OSError:
            time.sleep(0.05)
    raise AssertionError("the second adb server does not start")


def free_port() -> int:
    """A port of the loopback interface that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def as_phone(scene: Scene, port: int) -> str:
    """Let the emulated phone be one that stays when the workflow ends, behind the adb server of a port.

    Returns:
        Its serial.
    """
    path = scene.path / f"config/devices/{DEVICE}.yaml"
    config = yaml.safe_load(path.read_text())
    own = {**config, "emulated": {**config["emulated"], "folder": str(scene.phone.root)}}
    lease = contextlib.ExitStack()
    scene.at_end(lease.close)
    device = lease.enter_context(open_device(own, results=scene.path / "results"))
    assert device.serial is not None
    config |= {
        "kind": "phone",
        "transport": {"serial": device.serial, "server_port": port},
        "remote_dir": device.remote_dir,
        "sysfs_root": device.sysfs_root,
        "exec_prefix": list(device.exec_prefix),
    }
    del config["emulated"]
    path.write_text(yaml.safe_dump(config))
    # A serial that is an address means a phone on a network, which airplane mode would cut.
    scene.project.edit(f"config/experiments/{EXPERIMENT}.yaml", "airplane_mode: true, ", "")
    return device.serial


def _refused(scene: Scene, devices: str) -> None:
    """Start where a scripted server says this of the phone; the next start meets a real one."""
    port = free_port()
    serial = as_phone(scene, port)
    scripted = FakeServer(devices.format(serial=serial), port=port)
    scene.start()
    scene.hit()
    scene.end()
    scripted.close()
    server(scene, port)
    ask(port, f"host:connect:{serial}")


@fault("phone has not authorised this machine", "identify", says=r"has not authorised this machine")
def _unauthorised(scene: Scene, _point: str) -> None:
    _refused(scene, "{serial}\tunauthorized\n")


@fault("two phones with one serial", "identify", says=r"several connected devices have the serial")
def _twins(scene: Scene, _point: str) -> None:
    _refused(scene, "{serial}\tdevice\n{serial}\tdevice\n")


@fault("workflow and adbd killed, and the phone goes on with the run", "run", says="")
def _goes_on(scene: Scene, point: str) -> None:
    port = server(scene, free_port())
    serial = as_phone(scene, port)
    ask(port, f"host:connect:{serial}")
    scene.replace_program(standin("ENDLESS"))
    scene.reach(point)
    scene.hit()
    assert scene.started is not None
    # An adbd that lives would end the run when its connection is closed.
    scene.phone.signal("adbd", signal.SIGKILL)
    os.killpg(scene.started.process.pid, signal.SIGKILL)
    time.sleep(1)
    assert scene.phone.workload() is not None, "the workload ended by itself"

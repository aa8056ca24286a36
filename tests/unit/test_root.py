"""Root on a phone: only where its file says so, through the `su` that it has, quoted and told in the log."""

from __future__ import annotations

import logging
import shlex
import socket
import threading
from collections.abc import Callable

import pytest

from pocketvlm.config.schema import validate
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.identify import identify
from pocketvlm.devices.local import LocalDevice
from pocketvlm.devices.root import privileged
from pocketvlm.errors import ConfigError, DeviceError, TransientDeviceError
from tests.adb_server import FakeServer, packet

HOSTILE = ["sh", "-c", "echo \"$1\" '; reboot' $(id)", "sh", "a b\n'c\" $HOME `id` \\ \t*"]


def magisk(words: list[str]) -> tuple[int, str]:
    """`su -c TEXT` runs a shell; any other use is refused."""
    if words[:2] == ["su", "-c"] and len(words) == 3:
        return (0, "0\n") if shlex.split(words[2]) == ["id", "-u"] else (0, "by magisk")
    return (1, "su: unknown") if words[0] == "su" else plain(words)


def aosp(words: list[str]) -> tuple[int, str]:
    """`su WHO COMMAND…`; -c is no user."""
    if words[:2] == ["su", "0"]:
        return (0, "0\n") if words[2:] == ["id", "-u"] else (0, "by aosp")
    return (1, "su: invalid uid/gid '-c'") if words[0] == "su" else plain(words)


def already(words: list[str]) -> tuple[int, str]:
    """adbd runs as root, and there is no su."""
    if words[0] == "su":
        return 127, "su: not found"
    return (0, "0\n") if words == ["id", "-u"] else (0, "as it is")


def unrooted(words: list[str]) -> tuple[int, str]:
    """A phone as it is sold."""
    return (127, "su: inaccessible or not found") if words[0] == "su" else plain(words)


def denied(words: list[str]) -> tuple[int, str]:
    """There is a su, which gives the shell its own user again."""
    if words[0] == "su":
        return 0, "2000\n"
    return plain(words)


def plain(words: list[str]) -> tuple[int, str]:
    return (0, "2000\n") if words == ["id", "-u"] else (0, "as shell")


Answer = Callable[[list[str]], tuple[int, str]]


def phone(adb_server, answer: Answer, *, root: bool = True) -> tuple[AdbDevice, FakeServer]:
    """A phone whose shell answers as `answer` says."""

    def shell(connection: socket.socket) -> None:
        status, printed = answer(words_of(server.asked[-1]))
        # What does not start tells no process id.
        said = printed if status else f"7\n{printed}"
        connection.sendall(b"OKAY" + packet(1, said.encode()) + packet(3, bytes([status])))

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    device = AdbDevice(
        device_id="pixel", kind="phone", serial=None, port=server.port, remote_dir="/d", root=root
    )
    return device, server


def commands(server: FakeServer) -> list[list[str]]:
    return [words_of(asked) for asked in server.asked if asked.startswith("shell")]


def words_of(service: str) -> list[str]:
    """The command that a shell service runs, without what makes it tell its process id."""
    tells = "echo $$; exec "
    text = service.removeprefix("shell,v2,raw:")
    if text.startswith(tells):
        return shlex.split(text.removeprefix(tells))
    words = shlex.split(text.removeprefix("exec "))
    assert words[0] == "su"
    assert words[-1].startswith(tells), "what su starts tells its own process id"
    inner = words[-1].removeprefix(tells)
    return ["su", "-c", inner] if words[1] == "-c" else [*words[:2], *shlex.split(inner)]


@pytest.mark.parametrize(
    ("answer", "wanted", "tried"),
    [
        (already, HOSTILE, 1),
        (magisk, ["su", "-c", shlex.join(HOSTILE)], 2),
        (aosp, ["su", "0", *HOSTILE], 3),
    ],
)
def test_the_su_that_answers_is_used_and_asked_for_once(adb_server, answer, wanted, tried):
    device, server = phone(adb_server, answer)
    assert server.asked.count("shell") == 0, "nothing is asked before a command needs it"
    assert device.as_root(HOSTILE) == wanted
    assert device.as_root(["reboot"])[-1].endswith("reboot")
    assert len(commands(server)) == tried
    result = device.root_shell(HOSTILE, 5)
    assert result.stdout in ("as it is", "by magisk", "by aosp")
    assert commands(server)[tried:] == [wanted]


@pytest.mark.parametrize("answer", [unrooted, denied])
def test_a_phone_that_gives_root_to_nobody_says_how_to_go_on(adb_server, answer):
    device, _ = phone(adb_server, answer)
    with pytest.raises(DeviceError, match="pixel lets nobody be root") as caught:
        device.root_shell(["true"], 5)
    for word in ("su -c", "su 0 id -u", "Magisk", "root: true", "config/devices/pixel.yaml: root"):
        assert word in str(caught.value)
    assert not isinstance(caught.value, TransientDeviceError)


def test_a_su_that_asks_the_person_and_gets_no_answer_says_so(adb_server, monkeypatch):
    monkeypatch.setattr("pocketvlm.devices.root._ASK_SECONDS", 0.3)
    monkeypatch.setattr("pocketvlm.devices.adb_server.STALL_SECONDS", 1.0)

    def shell(connection: socket.socket) -> None:
        asked = server.asked[-1]
        connection.sendall(b"OKAY" + packet(1, b"7\n"))
        if "exec su" in asked and "kill" not in asked:
            connection.recv(1)  # until the client gives up
        else:
            connection.sendall(packet(1, b"2000\n") + packet(3, b"\0"))

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    device = AdbDevice(
        device_id="pixel", kind="phone", serial=None, port=server.port, remote_dir="/d", root=True
    )
    with pytest.raises(TransientDeviceError, match="allow it for good"):
        device.as_root(["true"])


def test_what_is_roots_is_ended_by_root(adb_server):
    gone = threading.Event()

    def shell(connection: socket.socket) -> None:
        words = words_of(server.asked[-1])
        probe = "probe" in words[-1]
        if words == ["id", "-u"] or not probe:
            status, printed = magisk(words)
            connection.sendall(b"OKAY" + packet(1, b"7\n" + printed.encode()) + packet(3, bytes([status])))
            if "kill" in words[-1]:
                gone.set()
            return
        connection.sendall(b"OKAY" + packet(1, b"41\n"))
        gone.wait(10)
        connection.sendall(packet(3, b"\x89"))

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    device = AdbDevice(
        device_id="pixel", kind="phone", serial=None, port=server.port, remote_dir="/d", root=True
    )
    process = device.spawn(device.as_root(["probe", "run"]))
    assert process.pid == 41
    process.kill()
    assert process.wait(5).status == 0x89
    *_, last = commands(server)
    assert last[:2] == ["su", "-c"]
    assert "kill -KILL 41" in last[2]


def test_every_command_of_roots_is_in_the_log(adb_server, caplog):
    device, server = phone(adb_server, magisk)
    with caplog.at_level(logging.INFO, "pocketvlm"):
        device.root_shell(HOSTILE, 5)
        device.spawn(device.as_root(["probe", "a b"])).wait(5)
        device.root_shell(["echo", "x" * 5000], 5)
    logged = [record.getMessage() for record in caplog.records]
    assert f"as root on pixel: {shlex.join(HOSTILE)}" in logged
    assert "as root on pixel: probe 'a b'" in logged
    assert all(len(line) < 700 for line in logged)
    by_root = [words for words in commands(server) if words[0] == "su"]
    assert len(logged) == len(by_root), "as many lines as commands, the first question included"


def test_without_leave_no_command_needs_or_tries_root(adb_server, tmp_path):
    device, server = phone(adb_server, magisk, root=False)
    for refused in (lambda: device.as_root(["id"]), lambda: device.root_shell(["id"], 5)):
        with pytest.raises(DeviceError, match="nothing runs as root on pixel") as caught:
            refused()
        assert "Write `root: true` there" in str(caught.value)
    assert privileged(device, ["cat", "x"]) == ["cat", "x"]
    assert commands(server) == []
    local = LocalDevice("box", tmp_path)
    assert local.root is False
    for refused in (lambda: local.as_root(["id"]), lambda: local.root_shell(["id"], 5)):
        with pytest.raises(DeviceError, match="nothing runs as root on box"):
            refused()


IDENTITY_CONFIG = {
    "id": "pixel",
    "kind": "phone",
    "target": "aarch64-linux-musl",
    "host_cores": False,
    "remote_dir": "/d",
    "sysfs_root": "",
    "exec_prefix": [],
    "periods_ms": dict.fromkeys(
        ["cpu", "memory", "workload", "gpu", "npu", "thermal", "battery", "rapl"], 100
    ),
    "transport": {"serial": None, "server_port": 5037},
}


@pytest.mark.parametrize("root", [False, True])
def test_what_may_be_root_looks_as_root_and_its_identity_says_so(adb_server, root):
    def answer(words: list[str]) -> tuple[int, str]:
        if words[:2] == ["su", "-c"]:
            inner = shlex.split(words[2])
            return magisk(words) if inner == ["id", "-u"] else (0, LOOKED + f"R\t{GPU}\t7 %\n")
        if words[:2] == ["sh", "-c"] and "scaling_cur_freq" in words[2]:
            return 0, LOOKED + f"D\t{GPU}\n"
        return plain(words)

    device, server = phone(adb_server, answer, root=root)
    identity = identify(device, IDENTITY_CONFIG)
    assert ("root" in identity) is root
    assert identity.get("root", True) is True
    assert ("gpu.busy" in {sensor["name"] for sensor in identity["sensors"]}) is root
    assert any("su" in words for words in commands(server)) is root


LOOKED = "V\tkernel\t6.1\nV\tmachine\taarch64\nR\t/proc/stat#cpu0\t1\n"
GPU = "/sys/class/kgsl/kgsl-3d0/gpu_busy_percentage"


def test_a_file_may_allow_root_on_a_phone_and_not_on_this_machine():
    validate({**IDENTITY_CONFIG, "root": True}, "device", where="pixel.yaml")
    local = {name: value for name, value in IDENTITY_CONFIG.items() if name != "transport"}
    validate({**local, "kind": "local", "root": False}, "device", where="box.yaml")
    with pytest.raises(ConfigError, match="root"):
        validate({**local, "kind": "local", "root": True}, "device", where="box.yaml")

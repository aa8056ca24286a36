"""The adb client against a scripted server: what each refusal of adb becomes for the person who meets it."""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.devices import lock_name
from pocketvlm.devices.adb import AdbDevice
from pocketvlm.devices.base import parse_free_space
from pocketvlm.errors import DeviceError, TransientDeviceError, of_the_disk
from tests.adb_server import FakeServer, packet


def device(server: FakeServer, serial: str | None = None) -> AdbDevice:
    return AdbDevice(
        device_id="pixel", kind="phone", serial=serial, port=server.port, remote_dir="/data/local/tmp/p"
    )


@pytest.mark.parametrize(
    ("devices", "serial", "error", "words"),
    [
        ("", None, DeviceError, ["no device is connected for pixel", "USB debugging"]),
        (
            "a\tdevice\nb\tdevice\n",
            None,
            DeviceError,
            ["several devices", "a (device), b (device)", "transport.serial"],
        ),
        (
            "a\tdevice\n",
            "z",
            DeviceError,
            ["device z is not connected", "a (device)", "config/devices/pixel.yaml"],
        ),
        (
            "a\tdevice\nb\tdevice\na\tdevice\n",
            "a",
            DeviceError,
            ["several connected devices have the serial of pixel (a)", "Unplug all but the one"],
        ),
        ("a\tunauthorized\n", "a", DeviceError, ["not authorised", "Allow USB debugging"]),
        ("a\toffline\n", "a", TransientDeviceError, ["not ready", "offline", "Plug it in again"]),
        ("a\tauthorizing\n", None, TransientDeviceError, ["not ready"]),
        ("a\tno permissions (user in plugdev group)\n", "a", DeviceError, ["may not open", "udev"]),
    ],
)
def test_a_device_that_cannot_be_used_says_what_to_do(adb_server, devices, serial, error, words):
    with pytest.raises(DeviceError) as caught:
        device(adb_server(devices), serial)
    assert type(caught.value) is error
    for word in words:
        assert word in str(caught.value)


def test_the_only_device_is_taken_and_every_call_names_it(adb_server):
    def shell(connection: socket.socket) -> None:
        connection.sendall(b"OKAY" + packet(1, b"77\nout") + packet(2, b"err") + packet(3, b"\x05"))

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    phone = device(server)
    result = phone.shell(["sh", "-c", "echo 'a b'; exit 5"], 5)
    assert (result.status, result.stdout, result.stderr) == (5, "out", "err")
    assert phone.serial == "only"
    calls = [service for service in server.asked if service.startswith("shell")]
    assert calls == ["shell,v2,raw:echo $$; exec sh -c 'echo '\"'\"'a b'\"'\"'; exit 5'"]
    assert server.asked[server.asked.index(calls[0]) - 1] == "host:tport:serial:only"


def test_a_connection_that_is_lost_is_transient_and_nothing_is_run_again(adb_server):
    def shell(connection: socket.socket) -> None:
        connection.sendall(b"OKAY" + packet(1, b"77\nhalf"))
        connection.shutdown(socket.SHUT_RDWR)

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    with pytest.raises(
        TransientDeviceError,
        match=r"connection to pixel \(only\) was lost during `su -c 'probe run x/y'`: it was closed",
    ):
        device(server).shell(["su", "-c", "/data/local/tmp/probe run x/y"], 5)
    assert sum(service.startswith("shell") for service in server.asked) == 1


def test_a_command_that_adb_cannot_take_is_refused_and_not_cut(adb_server):
    server = adb_server("only\tdevice\n")
    phone = device(server)
    with pytest.raises(DeviceError, match="longer than the 65535") as caught:
        phone.shell(["program", "--prompt", "'" * 30_000], 5)
    assert not isinstance(caught.value, TransientDeviceError) and "prompt" in caught.value.do
    assert not [service for service in server.asked if service.startswith("shell")]


def test_a_device_that_hangs_is_given_up_at_the_deadline(adb_server, monkeypatch):
    monkeypatch.setattr("pocketvlm.devices.adb_server.STALL_SECONDS", 0.5)

    def shell(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        connection.recv(1)  # until the client gives up

    server = adb_server("only\tdevice\n", {"shell,v2,raw": shell})
    phone = device(server)
    started = time.monotonic()
    with pytest.raises(TransientDeviceError, match="stopped answering"):
        phone.shell(["true"], 5)
    assert time.monotonic() - started < 4


def _runs_on(connection: socket.socket) -> None:
    connection.sendall(b"OKAY" + packet(1, b"77\n"))
    connection.recv(1)  # until the client gives up


def test_a_device_that_stops_during_a_silent_run_is_noticed_before_the_deadline(adb_server):
    def sync(connection: socket.socket) -> None:
        asked.append(time.monotonic())
        if len(asked) > 2:
            connection.recv(1)
            return
        connection.sendall(b"OKAY")
        connection.recv(1024)
        connection.sendall(b"STAT" + struct.pack("<III", 0o040755, 0, 0))
        connection.recv(1024)

    asked: list[float] = []
    server = adb_server("only\tdevice\n", {"shell,v2,raw": _runs_on, "sync": sync})
    phone = AdbDevice(
        device_id="pixel", kind="phone", serial=None, port=server.port, remote_dir="/d", stall_seconds=0.6
    )
    process = phone.spawn(["/d/objects/ab/probe", "run"])
    with pytest.raises(TransientDeviceError, match=r"pixel \(only\) stopped answering during `probe run`"):
        process.wait(60)
    assert len(asked) == 3, "two signs of life, and none at the third question"
    assert sum(service.startswith("shell") for service in server.asked) == 1


def test_a_server_that_ends_before_it_answers_is_a_lost_connection(adb_server):
    server = adb_server("only\tdevice\n", {"shell,v2,raw": lambda connection: None})
    with pytest.raises(TransientDeviceError, match=r"connection to .* was lost during .*: it was closed"):
        device(server).shell(["true"], 5)


def test_a_full_disk_of_this_machine_is_no_lost_connection(adb_server, tmp_path: Path):
    def sync(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        connection.recv(1024)
        connection.sendall(b"STAT" + struct.pack("<III", 0o100644, 1, 0))
        connection.recv(1024)
        with contextlib.suppress(OSError):
            connection.sendall(b"DATA" + struct.pack("<I", 60_000) + bytes(60_000) + b"DONE" + bytes(4))

    full = tmp_path / ".file.part"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device") as caught:
        device(adb_server("only\tdevice\n", {"sync": sync})).pull("/d/file", tmp_path / "file")
    told = of_the_disk(caught.value)
    assert told is not None
    assert "this machine's disk is full" in str(told)
    assert "Free space there" in str(told)


def test_the_devices_reason_for_a_refused_push_is_told(adb_server, tmp_path: Path):
    def sync(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        received = b""
        while b"DONE" not in received:
            received += connection.recv(65536)
        reason = b"couldn't create file: No space left on device"
        connection.sendall(b"FAIL" + struct.pack("<I", len(reason)) + reason)

    (tmp_path / "file").write_bytes(b"x" * 200_000)
    with pytest.raises(DeviceError, match="No space left on device") as caught:
        device(adb_server("only\tdevice\n", {"sync": sync})).push(tmp_path / "file", "/data/x")
    assert "Free space on the device" in str(caught.value)
    assert not isinstance(caught.value, TransientDeviceError)


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 16 * 65536, 16 * 65536 + 5, 3_000_000])
def test_a_file_arrives_whole_whatever_its_size(adb_server, tmp_path: Path, size: int):
    got = bytearray()
    modes: list[bytes] = []

    def sync(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        stream = connection.makefile("rb")
        kind, length = struct.unpack("<4sI", stream.read(8))
        modes.append(kind + stream.read(length))
        while True:
            kind, length = struct.unpack("<4sI", stream.read(8))
            if kind == b"DONE":
                break
            assert (kind, length <= 65536, length > 0) == (b"DATA", True, True)
            got.extend(stream.read(length))
        connection.sendall(b"OKAY" + struct.pack("<I", 0))

    content = bytes(number * 7 % 256 for number in range(size % 4096)) + b"z" * (size - size % 4096)
    (tmp_path / "file").write_bytes(content)
    sent: list[int] = []
    device(adb_server("only\tdevice\n", {"sync": sync})).push(
        tmp_path / "file", "/d/x", 0o755, progress=sent.append
    )
    assert bytes(got) == content
    assert modes == [b"SEND/d/x,33261"]
    assert sent[-1:] == ([size] if size else [])


def test_a_name_that_leads_out_of_the_folder_is_refused(adb_server, tmp_path: Path):
    def sync(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        connection.recv(1024)
        connection.sendall(b"STAT" + struct.pack("<III", 0o040755, 0, 0))
        connection.recv(1024)
        name = b"../evil"
        connection.sendall(b"DENT" + struct.pack("<IIII", 0o100644, 1, 0, len(name)) + name)
        connection.sendall(b"DONE" + bytes(16))

    with pytest.raises(DeviceError, match="a name that is none"):
        device(adb_server("only\tdevice\n", {"sync": sync})).pull("/d", tmp_path / "pulled")
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(("length", "fits"), [(100_000, True), (100_001, False)])
def test_a_file_that_does_not_end_is_not_taken(
    adb_server, tmp_path: Path, monkeypatch, length: int, fits: bool
):
    """The listing says 1 byte; what is sent is counted."""
    monkeypatch.setattr("pocketvlm.devices.adb.PULL_LIMIT_BYTES", 100_000)

    def sync(connection: socket.socket) -> None:
        connection.sendall(b"OKAY")
        connection.recv(1024)
        connection.sendall(b"STAT" + struct.pack("<III", 0o100644, 1, 0))
        connection.recv(1024)
        for size in (60_000, length - 60_000):
            connection.sendall(b"DATA" + struct.pack("<I", size) + bytes(size))
        connection.sendall(b"DONE" + bytes(4))
        # The client may go with packets unread.
        with contextlib.suppress(ConnectionResetError):
            connection.recv(1)

    phone = device(adb_server("only\tdevice\n", {"sync": sync}))
    if fits:
        phone.pull("/d/file", tmp_path / "pulled/file")
        assert (tmp_path / "pulled/file").stat().st_size == length
        return
    with pytest.raises(DeviceError, match=r"/d/file on pixel \(only\) is longer than") as caught:
        phone.pull("/d/file", tmp_path / "pulled/file")
    assert not isinstance(caught.value, TransientDeviceError)
    assert list((tmp_path / "pulled").iterdir()) == []


def config(name: str, port: int, serial: str | None) -> dict[str, Any]:
    return {"id": name, "kind": "phone", "transport": {"serial": serial, "server_port": port}}


def test_one_phone_by_two_names_is_one_lock(adb_server):
    port = adb_server("1a2b\tdevice\n").port
    named = {lock_name(config(name, port, serial)) for name in ("one", "two") for serial in ("1a2b", None)}
    assert named == {"serial-1a2b"}
    assert lock_name(config("one", port, "3c4d")) == "serial-3c4d"


def test_what_has_no_serial_is_held_by_its_id():
    assert lock_name({"id": "local", "kind": "local"}) == "local"
    assert lock_name({"id": "emulated-phone", "kind": "emulated", "emulated": {}}) == "emulated-phone"


@pytest.mark.parametrize(
    ("devices", "error", "words"),
    [
        ("", DeviceError, "no device is connected for pixel"),
        ("a\tdevice\nb\tdevice\n", DeviceError, "several devices are connected"),
        ("a\toffline\n", TransientDeviceError, "not ready"),
    ],
)
def test_a_phone_that_cannot_be_named_is_not_held(adb_server, devices, error, words):
    with pytest.raises(DeviceError, match=words) as caught:
        lock_name(config("pixel", adb_server(devices).port, None))
    assert type(caught.value) is error


def test_no_server_is_started_behind_ones_back(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a program was started"))
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TransientDeviceError, match="no adb server answers for pixel"):
        AdbDevice(device_id="pixel", kind="phone", serial="a", port=port, remote_dir="/d")


def test_an_old_server_is_refused(adb_server):
    with pytest.raises(DeviceError, match="version 39, older than 41"):
        device(adb_server("a\tdevice\n", version=39))


@pytest.mark.parametrize(
    "printed",
    [
        "Filesystem     1024-blocks     Used Available Capacity Mounted on\n/dev/vda 100 1 42 10% /data\n",
        "Filesystem 1K-blocks Used Available Use% Mounted on\n/dev/block/dm 5 100 1 42 10% /data/my files\n",
    ],
)
def test_free_space_is_read_whatever_the_names(printed):
    assert parse_free_space(printed) == 42 * 1024


@pytest.mark.parametrize("printed", ["", "df: x: No such file\n", "a b c\nd e f\n"])
def test_what_is_no_output_of_df_is_refused(printed):
    with pytest.raises(ValueError, match="no output of df"):
        parse_free_space(printed)

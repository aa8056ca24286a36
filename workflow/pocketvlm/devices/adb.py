"""A phone over adb: adbutils' connections, with exit status, deadline and serial on every call."""

from __future__ import annotations

import contextlib
import re
import shlex
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from adbutils import AdbConnection  # type: ignore[import-untyped]

from pocketvlm.devices.adb_server import Client, choose_serial, errors, start_server
from pocketvlm.devices.base import PULL_LIMIT_BYTES, Calls, Process, Progress, Result, parse_free_space, run
from pocketvlm.devices.root import Root
from pocketvlm.devices.sync import SyncRefusedError, SyncSession
from pocketvlm.errors import DeviceError, TransientDeviceError

# After the last byte of a large file the device may first have to write its cache to flash.
_FLUSH_SECONDS = 300.0
_OUTPUT_LIMIT = 64 << 20
# How often in the time after which a device counts as stopped it is asked for a sign of life.
_BEATS = 3
_STDOUT, _STDERR, _EXIT = 1, 2, 3
_FOLDERS = re.compile(r"(?<![^\s'\"=])/(?:[^\s/'\"]+/)+")


class AdbProcess:
    """A command on the device, over the shell protocol: its own exit status, stderr apart.

    Source of the packets: packages/modules/adb/shell_protocol.h in AOSP: one byte kind, 32-bit length, data.
    """

    def __init__(self, device: AdbDevice, argv: Sequence[str]) -> None:
        self._device = device
        self.command = shlex.join(argv)
        # For messages: a person knows a program by its name, and paths of objects are long.
        self.label = _FOLDERS.sub("", self.command)[:100]
        # While it is being found out how to be root, nothing runs as root.
        self._of_root = device.root_known and argv[0] == "su"
        self._status: int | None = None
        self._error: DeviceError | None = None
        self._output = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self._ended = threading.Event()
        # The shell says its process id and then becomes the command, so that the command can be ended: adb
        # itself does not end a command whose connection is closed.
        with errors(device.id, device.serial, f"`{self.label}`"):
            self._connection = device.open(f"shell,v2,raw:{_telling(argv)}")
            try:
                self._socket: socket.socket = self._connection.conn
                first = bytearray()
                while b"\n" not in first and not self._ended.is_set():
                    kind, data = self._packet()
                    if kind == _STDOUT:
                        first += data
                    else:
                        self._take(kind, data)
                number, newline, rest = bytes(first).partition(b"\n")
                # A `su` that refuses ends without a number; there is nothing to end then.
                self.pid = int(number) if newline and number.isdigit() else 0
                self._output[_STDOUT] += rest if self.pid else bytes(first)
                # From here on it may say nothing for as long as it runs.
                self._socket.settimeout(None)
            except BaseException:
                self._connection.close()
                raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self._error is not None:
            raise self._error
        return self._status

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until it ends; TimeoutError when it does not in time.

        A workload may say nothing for minutes. Meanwhile the device is asked for a sign of life now and then,
        so that one that has stopped is noticed long before the deadline.
        """
        end = None if timeout is None else time.monotonic() + timeout
        beat = self._device.stall_seconds / _BEATS
        while not self._ended.wait(beat if end is None else min(beat, max(0.0, end - time.monotonic()))):
            if end is not None and time.monotonic() >= end:
                raise TimeoutError
            try:
                self._device.check_alive(f"`{self.label}`")
            except DeviceError:
                if not self._ended.is_set():
                    raise
        status = self.poll()
        assert status is not None
        stdout, stderr = (bytes(self._output[kind]).decode(errors="replace") for kind in (_STDOUT, _STDERR))
        return Result(status, stdout, stderr)

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        if not self._ended.is_set():
            # The shell's own kill: a small Debian has no other.
            self._device.shell(self._by_its_user(f"kill -TERM {self.pid}"), 10)

    def kill(self) -> None:
        """Kill the command and its process group; adbd gives each command a session of its own."""
        if not self._ended.is_set():
            self._device.shell(self.killer(), 10)

    def killer(self) -> list[str]:
        """Return the command that kills this one."""
        # dash and mksh do not take the same spelling for a process group.
        group = f"kill -s KILL -- -{self.pid} || kill -KILL -{self.pid}"
        return self._by_its_user(f"{{ {group}; kill -KILL {self.pid}; }} 2>/dev/null; true")

    def _by_its_user(self, script: str) -> list[str]:
        """Return the command for a script that may end this one: what is root's, only root may end."""
        argv = ["sh", "-c", script]
        return self._device.as_root(argv) if self._of_root else argv

    def close(self) -> None:
        """Let go of the connection, whatever the command does."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _packet(self) -> tuple[int, bytes]:
        kind, length = struct.unpack("<BI", self._connection.read_exact(5))
        return kind, self._connection.read_exact(length) if length else b""

    def _take(self, kind: int, data: bytes) -> None:
        if kind == _EXIT:
            self._status = data[0]
            self._ended.set()
        elif kind in self._output:
            kept = self._output[kind]
            kept += data[: max(0, _OUTPUT_LIMIT - len(kept))]

    def _read(self) -> None:
        try:
            with errors(self._device.id, self._device.serial, f"`{self.label}`"):
                while not self._ended.is_set():
                    self._take(*self._packet())
        except DeviceError as error:
            self._error = error
        finally:
            self._ended.set()
            self._connection.conn.close()


def _telling(argv: Sequence[str]) -> str:
    """Return the text for the phone's shell that runs a command and first tells its process id.

    What `su` starts is another process than `su` itself, often no child of it: it tells its own.
    """
    argv = list(argv)
    if argv[0] == "su" and argv[1:2] == ["-c"] and len(argv) == 3:
        return "exec " + shlex.join(["su", "-c", f"echo $$; exec {argv[2]}"])
    if argv[0] == "su" and len(argv) > 2:
        return "exec " + shlex.join([*argv[:2], "sh", "-c", f"echo $$; exec {shlex.join(argv[2:])}"])
    return f"echo $$; exec {shlex.join(argv)}"


class AdbDevice(Calls):
    """A phone over adb, real or emulated (see `Device`); `server_port` is that of its adb server here."""

    def __init__(
        self,
        *,
        device_id: str,
        kind: str,
        serial: str | None,
        port: int,
        remote_dir: str,
        sysfs_root: str = "",
        exec_prefix: Sequence[str] = (),
        places: Mapping[str, str] | None = None,
        stall_seconds: float | None = None,
        root: bool = False,
    ) -> None:
        super().__init__()
        self.id = device_id
        self.kind = kind
        self.server_port = port
        self._client = Client(port, stall_seconds)
        with errors(device_id, serial, "the first question"):
            version = self._client.server_version()
        if version < 41:
            raise DeviceError(
                f"the adb server on port {port} is version {version}, older than 41",
                do="Run `adb kill-server` of the old adb; the workflow then starts its own",
            )
        self.serial: str | None = choose_serial(self._client, serial, device_id)
        self.remote_dir = remote_dir
        self.sysfs_root = sysfs_root
        self.exec_prefix = tuple(exec_prefix)
        self.places: Mapping[str, str] = {
            "sysfs_root": sysfs_root,
            "remote_dir": remote_dir,
            **(places or {}),
        }
        self.root = root
        self._root = Root(self)
        with errors(device_id, self.serial, "the question for its features"):
            connection = self._client.make_connection()
            try:
                connection.send_command(f"host-serial:{self.serial}:features")
                connection.check_okay()
                self._features = frozenset(connection.read_string_block().split(","))
            finally:
                connection.conn.close()
        if "shell_v2" not in self._features:
            raise DeviceError(
                f"{device_id} ({self.serial}) has an adb too old to tell the exit status of a command",
                do="Use a phone with Android 7 or newer",
            )

    def open(self, service: str) -> AdbConnection:
        """Open a service of this very device; the caller closes `.conn`.

        Raises what adbutils and sockets raise.
        """
        self.count_call()
        connection = self._client.make_connection()
        try:
            connection.send_command(f"host:tport:serial:{self.serial}")
            connection.check_okay()
            connection.read_exact(8)  # the transport's number, which nothing here needs
            # adbutils' send_command may send a part only of a long command.
            data = service.encode()
            if len(data) > 0xFFFF:
                raise DeviceError(
                    f"a command of {len(data)} bytes is longer than the 65535 that adb takes",
                    do="Shorten the workload's prompt",
                )
            connection.conn.sendall(f"{len(data):04x}".encode() + data)
            connection.check_okay()
        except BaseException:
            connection.conn.close()
            raise
        return connection

    @property
    def stall_seconds(self) -> float:
        """How long the device may answer nothing."""
        return float(self._client.stall_seconds)

    def check_alive(self, doing: str) -> None:
        """Ask the device's adbd for a sign of life, which starts no process there.

        Args:
            doing: what is under way, for the message.

        Raises:
            TransientDeviceError: it does not answer.
        """
        with self._sync(doing) as session:
            session.mode("/")

    @contextlib.contextmanager
    def _sync(self, doing: str) -> Iterator[SyncSession]:
        with errors(self.id, self.serial, doing):
            connection = self.open("sync:")
            try:
                session = SyncSession(connection.conn)
                yield session
                session.quit()
            finally:
                connection.conn.close()

    def push(self, local: Path, remote: str, mode: int = 0o644, *, progress: Progress | None = None) -> None:
        """Copy a file to the device; what breaks off leaves a part under this name."""
        if not local.is_file():
            raise DeviceError(f"there is no file {local} to push", do="Run the rule that makes it again")
        with self._sync(f"the push of {local.name} to {remote}") as session:
            session.send(local, remote, mode, int(time.time()), progress, _FLUSH_SECONDS)

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or a folder from the device, over one connection."""
        with self._sync(f"the pull of {remote}") as session:
            mode = session.mode(remote)
            if stat.S_ISDIR(mode):
                local.mkdir(parents=True, exist_ok=True)
                session.receive(list(_files(session, remote, local)), PULL_LIMIT_BYTES)
            elif mode == 0:
                raise SyncRefusedError("no such file or folder")
            else:
                local.parent.mkdir(parents=True, exist_ok=True)
                session.receive([(remote, local)], PULL_LIMIT_BYTES)

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command once and wait for it; kill it at the deadline."""
        process = AdbProcess(self, argv)
        try:
            return process.wait(timeout)
        except TimeoutError:
            # Not over `shell` once more: a device that hangs would hang here too.
            with contextlib.suppress(DeviceError):
                killer = AdbProcess(self, process.killer())
                with contextlib.suppress(TimeoutError):
                    killer.wait(5)
                killer.close()
            raise TransientDeviceError(
                f"`{process.command[:200]}` did not end within {timeout:g} s on {self.id} ({self.serial})",
                do="Look whether the device still answers (`adb shell true`), or give the command more time",
            ) from None
        finally:
            process.close()

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a command once and return while it runs."""
        return AdbProcess(self, argv)

    @property
    def root_known(self) -> bool:
        """Whether a command has been run as root here, so that it is known how."""
        return self._root.way is not None

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root, through the `su` that the phone has."""
        return self._root.command(argv)

    def root_shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command as root once and wait for it."""
        return self._root.shell(argv, timeout)

    def properties(self) -> dict[str, str]:
        """Return the properties that `getprop` prints, empty where the device has none."""
        result = self.shell(["sh", "-c", "command -v getprop >/dev/null || exit 0; getprop"], 30)
        return dict(re.findall(r"^\[([^\]]+)\]: \[(.*)\]$", result.stdout, re.MULTILINE))

    def free_space(self, path: str) -> int:
        """Return how many bytes a file below `path` could take."""
        return parse_free_space(run(self, ["df", "-kP", path], 30))


def _files(session: SyncSession, remote: str, local: Path) -> Iterator[tuple[str, Path]]:
    """Walk a folder on the device, making its folders here; links and device nodes are left out."""
    for entry in session.entries(remote):
        # A device's names are untrusted: none may lead out of the folder.
        if "/" in entry.name or "\0" in entry.name:
            raise SyncRefusedError(f"{remote} holds a name that is none: {entry.name!r}")
        below, here = f"{remote.rstrip('/')}/{entry.name}", local / entry.name
        if stat.S_ISDIR(entry.mode):
            here.mkdir(exist_ok=True)
            yield from _files(session, below, here)
        elif stat.S_ISREG(entry.mode):
            yield below, here


def serial_of(config: Mapping[str, Any]) -> str:
    """Return the serial of the phone that a config means: the one it names, else that of the only one there.

    Args:
        config: the device's file of `config/devices`, kind `phone`.

    Raises:
        DeviceError, TransientDeviceError: no serial is named, and none or several are connected, or the only
            one cannot be used, as for `connect`.
    """
    transport = config["transport"]
    if transport["serial"] is not None:
        return str(transport["serial"])
    port = int(transport["server_port"])
    start_server(port)
    return choose_serial(Client(port, config.get("stall_seconds")), None, config["id"])


def connect(config: Mapping[str, Any]) -> AdbDevice:
    """Connect to a phone as its config says.

    Args:
        config: the device's file of `config/devices`, kind `phone`.
    """
    transport = config["transport"]
    port = int(transport["server_port"])
    start_server(port)
    return AdbDevice(
        device_id=config["id"],
        kind=config["kind"],
        serial=transport["serial"],
        port=port,
        remote_dir=config["remote_dir"],
        sysfs_root=config["sysfs_root"],
        exec_prefix=config["exec_prefix"],
        stall_seconds=config.get("stall_seconds"),
        root=config.get("root", False),
    )

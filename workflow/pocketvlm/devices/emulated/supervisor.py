"""The parent of everything that makes the emulated phone appear; it ends when its holder does.

It reads what to start as one line of JSON from its standard input, answers with one line, and then waits for
that input to close, which the kernel does however the holder ends. Its children are an adb server, adbd and
the writer of the sensors; each of them is ended by its own process id, and so is whatever adbd has started.
adbd and the server are started again when they die, as init does on a phone.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pocketvlm.devices.emulated import load
from pocketvlm.devices.emulated.confine import confines

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_START_SECONDS = 20.0
_END_SECONDS = 2.0
_RESTARTS = 20
_LIBC = ctypes.CDLL(None, use_errno=True)


class StartError(Exception):
    """Something does not come up; the text says what and where its log is."""


class Supervisor:
    """Starts, keeps and ends the processes of one emulated phone.

    Args:
        order: `root`, `adb`, `adbd` (command as a list), `environment` of adbd, `address`, `adbd_port`,
            `server_port`, `server_home`, `python`, and the writer's `cores`, `ambient`, `charge_mah`,
            `options`.
    """

    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._root = Path(order["root"])
        self._logs = self._root / "log"
        self._logs.mkdir(parents=True, exist_ok=True)
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._restarts = 0

    def start(self) -> str:
        """Bring everything up; return the phone's serial."""
        self._start_server()
        self._start_adbd()
        self._start_writer()
        serial = f"{self._order['address']}:{self._order['adbd_port']}"
        self._connect(serial)
        return serial

    def tend(self) -> None:
        """Start again what has died, and reap what adbd left to us."""
        while True:
            try:
                process, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if process == 0:
                break
            for name, child in list(self._children.items()):
                if child.pid == process:
                    child.returncode = 0  # reaped here, so that Popen does not look for it any more
                    self._restart(name)

    def _restart(self, name: str) -> None:
        self._restarts += 1
        if self._restarts > _RESTARTS:
            raise StartError(f"{name} dies again and again; see {self._logs}")
        time.sleep(0.2)
        if name == "writer":
            self._start_writer()
        elif name == "adbd":
            self._start_adbd()
        else:
            self._start_server()
            # The writer leaves the server's process out of the load and must learn its new number.
            self._end("writer")
            self._start_writer()
            self._connect(f"{self._order['address']}:{self._order['adbd_port']}")

    def stop(self) -> None:
        """End all that is below this process: first asked, then killed."""
        for _signal in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + _END_SECONDS
            asked: set[int] = set()
            while time.monotonic() < deadline:
                left = load.descendants(os.getpid())
                for process in left:
                    if process not in asked:
                        asked.add(process)
                        _send(process, _signal)
                try:
                    while os.waitpid(-1, os.WNOHANG)[0]:
                        pass
                except ChildProcessError:
                    return
                time.sleep(0.02)

    def _start_server(self) -> None:
        order = self._order
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            # adb keeps its key and its log there, not in the user's home.
            "HOME": order["server_home"],
            "TMPDIR": order["server_home"],
            "ANDROID_ADB_SERVER_PORT": str(order["server_port"]),
            # No multicast DNS (UDP 5353), no search for emulators, and no USB: a real phone on the cable
            # belongs to the user's own server.
            "ADB_MDNS": "0",
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",
            "ADB_EMU": "0",
            "ADB_USB": "0",
        }
        Path(order["server_home"]).mkdir(parents=True, exist_ok=True)
        command = [order["adb"], "-P", str(order["server_port"]), "nodaemon", "server"]
        self._launch("adb-server", command, environment, signal.SIGKILL)
        self._wait_for_socket("adb-server", "127.0.0.1", order["server_port"])

    def _start_adbd(self) -> None:
        order = self._order
        child = self._launch("adbd", order["adbd"], order["environment"], signal.SIGKILL)
        self._wait_for_socket("adbd", order["address"], order["adbd_port"])
        # The linker only warns of a library that it does not load; adbd would then listen on every address.
        if not confines(child.pid):
            child.kill()
            raise StartError("adbd runs without the library that confines it to loopback, and was ended")

    def _start_writer(self) -> None:
        order = self._order
        arguments = {name: order[name] for name in ("root", "cores", "ambient", "charge_mah", "options")}
        arguments |= {"parent": os.getpid(), "without": [self._children["adb-server"].pid]}
        command = [order["python"], "-P", "-m", "pocketvlm.devices.emulated.writer", json.dumps(arguments)]
        # It is asked, not killed, so that it saves the phone's state when this process dies.
        child = self._launch("writer", command, dict(os.environ), signal.SIGTERM, stdout=subprocess.PIPE)
        assert child.stdout is not None
        if not select.select([child.stdout], [], [], _START_SECONDS)[0] or not child.stdout.readline():
            raise StartError(f"the sensors do not start; see {self._logs / 'writer.log'}")
        child.stdout.close()

    def _launch(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str],
        with_parent: signal.Signals,
        stdout: int | None = None,
    ) -> subprocess.Popen[bytes]:
        with (self._logs / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                cwd=self._root,
                env=environment,
                preexec_fn=_ended_with_parent(os.getpid(), with_parent),
            )
        self._children[name] = child
        return child

    def _end(self, name: str) -> None:
        child = self._children[name]
        child.terminate()
        try:
            child.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()

    def _wait_for_socket(self, name: str, address: str, port: int) -> None:
        """adbd says that it listens before it does, so the socket itself is asked."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if self._children[name].poll() is not None:
                break
            try:
                socket.create_connection((address, port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        log = self._logs / f"{name}.log"
        last = log.read_text(errors="replace").strip().splitlines()[-3:]
        said = " / ".join(last) or "it says nothing"
        raise StartError(f"{name} does not come up on {address}:{port}: {said}; see {log}")

    def _connect(self, serial: str) -> None:
        """Tell the server of the phone and wait until it is one; `adb connect` says 0 when it failed, too."""
        deadline, said = time.monotonic() + _START_SECONDS, ""
        while time.monotonic() < deadline:
            said = self._ask(f"host:connect:{serial}")
            if self._ask(f"host-serial:{serial}:get-state") == "device":
                return
            time.sleep(0.05)
        raise StartError(f"the adb server does not reach the phone at {serial}: {said}")

    def _ask(self, question: str) -> str:
        """Ask the adb server one thing; empty when it refuses. Source: packages/modules/adb/SERVICES.TXT."""
        try:
            with socket.create_connection(("127.0.0.1", self._order["server_port"]), timeout=5) as connection:
                connection.sendall(f"{len(question):04x}{question}".encode())
                with connection.makefile("rb") as stream:
                    okay, length = stream.read(4), stream.read(4)
                    answer = stream.read(int(length or b"0", 16)).decode(errors="replace")
                    return answer if okay == b"OKAY" else ""
        except (OSError, ValueError):
            return ""


def _send(process: int, number: signal.Signals) -> None:
    try:
        os.kill(process, number)
        # A stopped process would not see the signal.
        os.kill(process, signal.SIGCONT)
    except ProcessLookupError:
        pass


def _ended_with_parent(parent: int, number: signal.Signals) -> Callable[[], None]:
    def prepare() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _first_line() -> bytes:
    """Read one line from the pipe and not a byte more, so that its end is seen by select."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            sys.exit("no order was given")
        line += byte
    return bytes(line)


def main() -> None:
    """Start, answer, wait for the holder to go, end."""
    holder = os.getppid()
    # Ctrl-C of the terminal goes to the holder; this process ends when the holder lets go.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    supervisor = Supervisor(json.loads(_first_line()))
    try:
        answer = {"serial": supervisor.start(), "pid": os.getpid()}
        os.write(1, (json.dumps(answer) + "\n").encode())
        while os.getppid() == holder:
            if select.select([0], [], [], 0.25)[0] and not os.read(0, 4096):
                break
            supervisor.tend()
    except StartError as error:
        os.write(1, (json.dumps({"error": str(error)}) + "\n").encode())
    finally:
        supervisor.stop()


if __name__ == "__main__":
    main()

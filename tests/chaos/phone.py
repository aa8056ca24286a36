"""The emulated phone of a project as a fault sees it: its processes, its files, and where a block is."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path

# What tells each process of the phone from the others, in its command line.
_MARKS = {
    "adbd": b"platform-tools/adbd",
    "adb server": b"nodaemon\0server",
    "writer": b"pocketvlm.devices.emulated.writer",
}


class Phone:
    """Processes and files of the emulated phone whose root folder is `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "data/local/tmp/pocketvlm"
        self.objects = self.folder / "objects"
        self.runs = self.folder / "runs"

    def process(self, name: str) -> int | None:
        """The id of `adbd`, the `adb server` or the `writer` of the sensors; None while it is not there."""
        mark = _MARKS[name]
        for process, command in commands():
            if mark in command and _cwd(process) == str(self.root):
                return process
        return None

    def workload(self) -> int | None:
        """The id of the framework's program under the probe; None while none runs."""
        programs = str(self.objects).encode()
        for process, command in commands():
            # The probe's own command, and that of a `su` before it, name the workload's after `--`.
            if programs in command and b"--mmproj\0" in command and b"--sensors" not in command:
                return process
        return None

    def address(self) -> tuple[str, int]:
        """Serial of the phone, as the adb server knows it, and the port of that server."""
        adbd, server = self.process("adbd"), self.process("adb server")
        assert adbd is not None
        assert server is not None
        named = dict(
            line.split("=", 1)
            for line in Path(f"/proc/{adbd}/environ").read_text().split("\0")
            if "=" in line
        )
        words = Path(f"/proc/{server}/cmdline").read_text().split("\0")
        serial = f"{named['POCKETVLM_BIND_ADDRESS']}:{named['ADBD_PORT']}"
        return serial, int(words[words.index("-P") + 1])

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of the phone, which must be there."""
        process = self.process(name)
        assert process is not None, f"there is no {name} to send {number.name} to"
        os.kill(process, number)

    def part(self) -> Path | None:
        """The file that is being pushed or checked under its temporary name; None while there is none."""
        return next(iter(self.objects.glob("*/.*.part")), None)

    def run_folder(self) -> Path | None:
        """The folder of the run under way; None while there is none."""
        with contextlib.suppress(OSError):
            return next(iter(self.runs.iterdir()), None)
        return None


def ask(port: int, question: str) -> str:
    """Ask an adb server one thing and return what it answers. Source: packages/modules/adb/SERVICES.TXT."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(f"{len(question):04x}{question}".encode())
        with connection.makefile("rb") as stream:
            stream.read(4)
            return stream.read(int(stream.read(4) or b"0", 16)).decode(errors="replace")


def commands() -> list[tuple[int, bytes]]:
    """Every process of the machine with its command line, words ended by NUL."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 (polled every millisecond)
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/cmdline", "rb") as stream:  # noqa: PTH123
                found.append((int(name), stream.read()))
    return found


def below(folder: Path) -> dict[int, str]:
    """The processes that work in a folder or name it, this one and its ancestors left out."""
    mark = os.fsencode(folder)
    found = {}
    for process, command in commands():
        if process != os.getpid() and (mark in command or _cwd(process).startswith(str(folder))):
            found[process] = command.replace(b"\0", b" ").decode(errors="replace")[:200]
    return found


def _cwd(process: int) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(f"/proc/{process}/cwd")  # noqa: PTH115
    return ""

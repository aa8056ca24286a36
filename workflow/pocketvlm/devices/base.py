"""The contract of a device: what every stage that meets one may ask of it."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pocketvlm.errors import DeviceError

# Called with the bytes sent so far.
Progress = Callable[[int], None]

# The most that is taken from a device as one file. A run leaves sensor tables and a model's words, some MiB
# at most; a device that sends more is broken or hostile and must not fill this machine's disk.
PULL_LIMIT_BYTES = 512 << 20


@dataclass(frozen=True)
class Result:
    """How a command ended on the device.

    Attributes:
        status: the exit status of that very execution; 128 + N when signal N killed it.
        stdout, stderr: what it wrote, undecodable bytes replaced.
    """

    status: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A command that runs on the device."""

    @property
    def pid(self) -> int:
        """Its process id on the device."""

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs.

        Raises:
            TransientDeviceError: the connection to the device was lost.
        """

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until it ends.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            TimeoutError: it runs on; nothing was done to it.
            TransientDeviceError: the connection to the device was lost.
        """

    def terminate(self) -> None:
        """Ask it to end (SIGTERM to this one process, which passes it on if it has children)."""

    def kill(self) -> None:
        """End it and its process group at once."""


class Calls:
    """Counts what a device is asked for: `device.calls`. Several threads may ask at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.calls = 0

    def count_call(self) -> None:
        """One more."""
        with self._lock:
            self.calls += 1


class Device(Protocol):
    """Something that runs a workload.

    Attributes:
        id: name of the device's file in the config.
        kind: `phone`, `local` or `emulated`.
        serial: what its bridge calls it; None for this machine.
        remote_dir: absolute folder on the device where everything of pocketvlm lives.
        sysfs_root: folder on the device that holds `sys`; empty for the device's own root.
        exec_prefix: words before the command of every program compiled for the device's target.
        calls: how many times it has been asked for something, by all threads.
        places: what `{name}` stands for in sensor paths and prefixes of its identity.
        root: whether its file says `root: true`, so that commands may run as root there.
    """

    id: str
    kind: str
    serial: str | None
    remote_dir: str
    sysfs_root: str
    exec_prefix: tuple[str, ...]
    calls: int
    places: Mapping[str, str]
    root: bool

    def push(self, local: Path, remote: str, mode: int = 0o644, *, progress: Progress | None = None) -> None:
        """Copy a file to the device; its folder is made. What breaks off may leave a part under this name.

        Args:
            local: the file.
            remote: absolute path on the device.
            mode: permission bits there.
            progress: called with the bytes sent so far.

        Raises:
            DeviceError: refused, with the device's reason (no space, no permission).
            TransientDeviceError: the device stopped answering.
        """

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file, or a folder with all below it, from the device; a file appears complete or not at all.

        Raises:
            DeviceError: there is no such thing, it cannot be read, or a file of it is longer than
                `PULL_LIMIT_BYTES`.
            TransientDeviceError: the device stopped answering.
        """

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command exactly once and wait for it.

        Args:
            argv: the program and its arguments, passed on as they are (no shell interprets them).
            timeout: seconds; then the command is killed.

        Raises:
            TransientDeviceError: it did not end in time, or the connection was lost.
            DeviceError: the device refuses commands.
        """

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a command exactly once and return while it runs. Same errors as `shell`."""

    def as_root(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs `argv` as root: `argv` itself where commands are root's already.

        Raises:
            DeviceError: its file does not say `root: true`, or the device gives root to nobody.
            TransientDeviceError: its `su` does not answer in time, as while it asks the person at the phone.
        """

    def root_shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command as root, once, and say so in the log. Errors of `as_root` and `shell`."""

    def properties(self) -> dict[str, str]:
        """Return the device's own properties (`getprop`), empty where it has none."""

    def free_space(self, path: str) -> int:
        """Return how many bytes a file below an existing folder could take."""


def substitute(text: str, places: Mapping[str, str]) -> str:
    """Put the device's own places into a path or word of its identity: `{sysfs_root}/sys/…`, `{qemu}`.

    Only the names in `places` are replaced; any other brace (`{pid}`) stays for whom it is meant.
    """
    for name, value in places.items():
        text = text.replace("{" + name + "}", value)
    return text


def too_large(remote: str, which: str, limit: int) -> DeviceError:
    """Return the error for a file that a device gives and that is longer than anything a run leaves there."""
    return DeviceError(
        f"{remote} on {which} is longer than the {limit >> 20} MiB that are taken from a device as one file",
        do="Look at that file on the device, and delete it there if it is not from this project",
    )


def run(device: Device, argv: Sequence[str], timeout: float) -> str:
    """Run a command on a device and return what it printed.

    Raises:
        DeviceError: it ended with another status than 0.
    """
    result = device.shell(argv, timeout)
    if result.status != 0:
        said = (result.stderr.strip() or result.stdout.strip() or "nothing")[:500]
        raise DeviceError(
            f"`{shlex.join(argv)[:200]}` ended with status {result.status} on {device.id} and said: {said}",
            do="Run it by hand on the device to see why",
        )
    return result.stdout


def parse_free_space(printed: str) -> int:
    """Return the available bytes from the output of `df -kP` for one path.

    Source: POSIX df, option -P: six columns, the fourth in units of 1024 bytes.

    Raises:
        ValueError: this is no output of `df -kP`.
    """
    lines = printed.strip().splitlines()
    words = lines[-1].split() if len(lines) > 1 else []
    # A file system's name or a mount point may hold spaces; the numbers are the words before `NN%`.
    for number, word in enumerate(words):
        if number >= 3 and word.endswith("%") and words[number - 1].isdigit():
            return int(words[number - 1]) * 1024
    raise ValueError(f"no output of df -kP: {printed[:200]!r}")

"""This machine as a device: the same contract as a phone's, without a bridge."""

from __future__ import annotations

import contextlib
import errno
import os
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

from pocketvlm.devices.base import (
    PULL_LIMIT_BYTES,
    Calls,
    Process,
    Progress,
    Result,
    parse_free_space,
    run,
    too_large,
)
from pocketvlm.devices.folder import MARK, MARK_TEXT
from pocketvlm.devices.root import not_allowed
from pocketvlm.errors import DeviceError, TransientDeviceError

_COPY_BYTES = 8 << 20
# Where any Linux keeps its commands; the user's own PATH is not that of another machine.
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


class LocalProcess:
    """A command that runs on this machine, in a session of its own and with no more than `environment`."""

    def __init__(self, argv: Sequence[str], directory: Path, environment: Mapping[str, str]) -> None:
        try:
            self._child = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=directory,
                env=dict(environment),
                start_new_session=True,
            )
            self._failed: Result | None = None
        except OSError as error:
            # What a shell would say: 127 for no such program, 126 for one that cannot be run.
            status = 127 if error.errno == errno.ENOENT else 126
            self._failed = Result(status, "", f"{argv[0]}: {error.strerror}\n")
            return
        self._output: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        streams = (self._child.stdout, self._child.stderr)
        self._readers = [
            threading.Thread(target=_drain, args=(stream, kept), daemon=True)
            for stream, kept in zip(streams, self._output, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process id; 0 when the program could not be started."""
        return 0 if self._failed else self._child.pid

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        if self._failed:
            return self._failed.status
        status = self._child.poll()
        return None if status is None else _shell_status(status)

    def wait(self, timeout: float | None = None) -> Result:
        """Wait until it ends; TimeoutError when it does not in time."""
        if self._failed:
            return self._failed
        try:
            status = self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        for reader in self._readers:
            # A grandchild that outlives the command may hold the pipes open.
            reader.join(1.0)
        stdout, stderr = (bytes(kept).decode(errors="replace") for kept in self._output)
        return Result(_shell_status(status), stdout, stderr)

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        if not self._failed and self._child.poll() is None:
            self._child.terminate()

    def kill(self) -> None:
        """Kill the command's process group."""
        if self._failed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)


class LocalDevice(Calls):
    """This machine (see `Device`).

    Commands get a fixed environment, as on a phone: programs read variables (llama.cpp every `LLAMA_ARG_…`),
    and what the user happens to have set is in no run's key.
    """

    def __init__(self, device_id: str, remote_dir: Path) -> None:
        super().__init__()
        self.id = device_id
        self.kind = "local"
        self.serial: str | None = None
        self.remote_dir = str(remote_dir.absolute())
        self.sysfs_root = ""
        self.exec_prefix: tuple[str, ...] = ()
        self.places: Mapping[str, str] = {
            **{"sysfs_root": "", "remote_dir": self.remote_dir},
            # For workloads that are Python programs: the environment of this workflow.
            "python": sys.executable,
        }
        self.root = False
        home, temporary = Path(self.remote_dir, "home"), Path(self.remote_dir, "tmp")
        mark = Path(self.remote_dir, MARK)
        if not mark.parent.is_dir() or not any(mark.parent.iterdir()):
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.write_text(MARK_TEXT)
        # A folder that others filled is left as it is; `folder.claim` refuses it.
        if mark.is_file():
            for folder in (home, temporary):
                folder.mkdir(exist_ok=True)
        self._environment = {
            "PATH": _PATH,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "LC_ALL": "C.UTF-8",
        }

    def push(self, local: Path, remote: str, mode: int = 0o644, *, progress: Progress | None = None) -> None:
        """Copy a file into the device's folder, sharing blocks where the file system can."""
        self.count_call()
        target = Path(remote)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with local.open("rb") as source, target.open("wb") as sink:
                _copy(source.fileno(), sink.fileno(), progress)
            target.chmod(mode)
        except OSError as error:
            raise _refused(error, f"{local} cannot be copied to {remote}") from error

    def pull(self, remote: str, local: Path) -> None:
        """Copy a file or a folder out of the device's folder."""
        self.count_call()
        source = Path(remote)
        try:
            if source.is_dir():
                shutil.copytree(
                    source,
                    local,
                    dirs_exist_ok=True,
                    copy_function=_copy_out,
                    ignore=_neither_file_nor_folder,
                )
                return
            local.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=local.parent, prefix=f".{local.name}.")
            os.close(descriptor)
            try:
                _copy_out(str(source), name)
                Path(name).chmod(0o644)
                Path(name).replace(local)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except (OSError, shutil.Error) as error:
            raise _refused(error, f"{remote} cannot be copied to {local}") from error

    def shell(self, argv: Sequence[str], timeout: float) -> Result:
        """Run a command once and wait for it."""
        self.count_call()
        process = LocalProcess(argv, Path(self.remote_dir), self._environment)
        try:
            return process.wait(timeout)
        except TimeoutError:
            raise TransientDeviceError(
                f"`{shlex.join(argv)[:200]}` did not end within {timeout:g} s on {self.id} and was killed",
                do="Look what the machine is busy with, or give the command more time",
            ) from None
        finally:
            if process.poll() is None:
                process.kill()

    def spawn(self, argv: Sequence[str]) -> Process:
        """Start a command once and return while it runs."""
        self.count_call()
        return LocalProcess(argv, Path(self.remote_dir), self._environment)

    def as_root(self, argv: Sequence[str]) -> NoReturn:
        """Refuse: nothing of the project becomes root on the machine that it runs on."""
        raise not_allowed(self.id, argv)

    def root_shell(self, argv: Sequence[str], timeout: float) -> NoReturn:
        """Refuse, as `as_root`."""
        raise not_allowed(self.id, argv)

    def properties(self) -> dict[str, str]:
        """This machine has no Android properties."""
        return {}

    def free_space(self, path: str) -> int:
        """Return how many bytes a file below `path` could take."""
        return parse_free_space(run(self, ["df", "-kP", path], 30))


def _shell_status(status: int) -> int:
    return 128 - status if status < 0 else status


def _drain(stream: IO[bytes], kept: bytearray) -> None:
    with stream:
        while chunk := os.read(stream.fileno(), 65536):
            kept += chunk


def _copy(source: int, sink: int, progress: Progress | None) -> None:
    """Copy all bytes of a descriptor; copy_file_range(2) shares blocks on btrfs and xfs."""
    sent = 0
    in_kernel = True
    while True:
        if in_kernel:
            try:
                count = os.copy_file_range(source, sink, _COPY_BYTES)
            except OSError as error:
                if sent or error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                in_kernel = False
                continue
        else:
            chunk = os.read(source, _COPY_BYTES)
            count = len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(sink, view) :]
        if count == 0:
            return
        sent += count
        if progress is not None:
            progress(sent)


def _neither_file_nor_folder(folder: str, names: list[str]) -> set[str]:
    """Return what else a folder holds: links and pipes of a workload are left out, as adb leaves them out."""
    modes = {name: Path(folder, name).lstat().st_mode for name in names}
    return {name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))}


def _copy_out(source: str, target: str) -> None:
    if Path(source).stat().st_size > PULL_LIMIT_BYTES:
        raise too_large(source, "this machine", PULL_LIMIT_BYTES)
    shutil.copyfile(source, target)
    shutil.copystat(source, target)


def _refused(error: Exception, what: str) -> DeviceError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DeviceError(f"{what}: {reason}", do="Free space on this file system and start again")
    return DeviceError(f"{what}: {reason}", do="Check that both exist and that you may read and write them")

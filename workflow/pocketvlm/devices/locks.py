"""Locks that the kernel releases when their holder ends, however it ends: flock(2) on files in the cache.

They are advisory and hold between processes of one user on one machine; that is where two workflows can meet
on a device. A lock file stays when its lock is released: deleting it would let two processes lock two files
of one name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pocketvlm.errors import PocketvlmError, TransientDeviceError
from pocketvlm.provision.cache import cache_root

_POLL_SECONDS = 0.1
_REMIND_SECONDS = 60.0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")  # in one piece: jobs share it


@contextlib.contextmanager
def device_lock(
    device_id: str, *, deadline: float | None = None, report: Callable[[str], None] = _say
) -> Iterator[None]:
    """Hold a device, so that no other block runs on it.

    Args:
        device_id: what `pocketvlm.devices.lock_name` says for the device's config.
        deadline: seconds to wait for another holder; None waits as long as it takes.
        report: takes lines about the wait.

    Raises:
        TransientDeviceError: another process still held it at the deadline.
    """
    with hold(_lock_file(f"device-{device_id}"), f"device {device_id}", deadline, report):
        yield


@contextlib.contextmanager
def host_lock(*, deadline: float | None = None, report: Callable[[str], None] = _say) -> Iterator[None]:
    """Hold this machine's cores, for blocks on a device that computes with them (`local`, an emulated phone).

    Raises:
        TransientDeviceError: another process still held them at the deadline.
    """
    with hold(_lock_file("host"), "this machine's cores", deadline, report):
        yield


@contextlib.contextmanager
def workdir_lock(path: Path) -> Iterator[None]:
    """Hold a working directory, so that two workflows do not write the same results.

    Raises:
        PocketvlmError: another process holds it; nothing is waited for.
    """
    digest = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    with _lock_file(f"workdir-{digest}").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PocketvlmError(
                f"another workflow runs in this folder: {_holder(stream)}",
                where=str(path),
                do="Wait until it has ended, or work in another clone",
            ) from None
        _sign(stream)
        yield


def _lock_file(name: str) -> Path:
    folder = cache_root() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    # Serials hold colons and may hold anything; the digest keeps names apart that look alike after cleaning.
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
    if clean != name:
        clean += "-" + hashlib.sha256(name.encode()).hexdigest()[:8]
    return folder / f"{clean}.lock"


@contextlib.contextmanager
def hold(
    path: Path, what: str, deadline: float | None = None, report: Callable[[str], None] = _say
) -> Iterator[int]:
    """Hold a lock file, and give its descriptor: who inherits it keeps the lock after this process.

    Args:
        path: the file, made if it is not there.
        what: what it stands for, for the messages.
        deadline: seconds to wait for another holder; None waits as long as it takes.
        report: takes lines about the wait.

    Raises:
        TransientDeviceError: another process still held it at the deadline.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    # A descriptor is not inheritable, so no child keeps the lock when this process ends.
    with path.open("a+") as stream:
        reported: float | None = None
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                pass
            now = time.monotonic()
            if deadline is not None and now - started >= deadline:
                raise TransientDeviceError(
                    f"{what} is still in use after {deadline:g} s: {_holder(stream)}",
                    where=str(path),
                    do="Wait until that process has ended, or end it",
                )
            if reported is None or now - reported >= _REMIND_SECONDS:
                report(f"waiting for {what}, in use: {_holder(stream)}")
                reported = now
            time.sleep(_POLL_SECONDS)
        if reported is not None:
            report(f"{what} is free after {time.monotonic() - started:.0f} s")
        _sign(stream)
        yield stream.fileno()


def _sign(stream: IO[str]) -> None:
    """Write who holds the lock; only its holder does."""
    stream.seek(0)
    stream.truncate()
    json.dump({"pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}, stream)
    stream.flush()


def _holder(stream: IO[str]) -> str:
    """Say who holds a lock, as far as its file tells."""
    stream.seek(0)
    try:
        signed = json.loads(stream.read())
        return f"process {int(signed['pid'])} since {signed['since']}"
    except (ValueError, KeyError, TypeError):
        # Seen between the holder's truncate and its write.
        return "a process that has just started"

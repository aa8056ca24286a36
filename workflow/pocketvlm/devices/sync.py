"""adb's file sync protocol, spoken over a connection of adbutils.

adbutils' own push sends 4 KiB a packet, which costs a third of the speed, drops the device's reason for a
refusal and opens two more connections a file. Source of the packets: packages/modules/adb/SYNC.TXT and
file_sync_protocol.h in AOSP. All integers are 32-bit little-endian; `DATA` holds at most 64 KiB.
"""

from __future__ import annotations

import os
import socket
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

_CHUNK = 64 * 1024
# Packets sent with one system call. More of them are not faster, and the deadline counts from call to call.
_BATCH = 16
# Requests a pull has under way: enough to hide the round trip, too few to fill a socket's buffer.
_WINDOW = 32


class SyncRefusedError(Exception):
    """The device answered FAIL; the text is its reason."""


class TooLargeError(Exception):
    """A file from the device is longer than is taken; the text is its path, `limit` the bytes."""

    def __init__(self, remote: str, limit: int) -> None:
        super().__init__(remote)
        self.limit = limit


@dataclass(frozen=True)
class Listed:
    """One entry of a folder on the device: name, st_mode, size (modulo 2**32)."""

    name: str
    mode: int
    size: int


class SyncSession:
    """A `sync:` session on a connected socket, whose timeout bounds each wait."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(
        self,
        local: Path,
        remote: str,
        mode: int,
        mtime: int,
        progress: Callable[[int], None] | None = None,
        flush_seconds: float | None = None,
    ) -> None:
        """Send a file.

        Args:
            local: the file.
            remote: path on the device.
            mode: permission bits.
            mtime: modification time it gets, in seconds.
            progress: called with the bytes sent so far.
            flush_seconds: how long the device may take after the last byte; None is the socket's timeout.

        Raises:
            SyncRefusedError: the device could not write it.
            OSError, EOFError: the connection broke or timed out.
        """
        self._request(b"SEND", f"{remote},{stat.S_IFREG | mode}".encode())
        with local.open("rb", buffering=0) as stream:
            self._send_data(stream, progress)
        self._socket.sendall(b"DONE" + struct.pack("<I", mtime))
        usual = self._socket.gettimeout()
        self._socket.settimeout(flush_seconds if flush_seconds is not None else usual)
        kind, length = self._header()
        self._socket.settimeout(usual)
        if kind == b"FAIL":
            raise SyncRefusedError(self._exactly(length).decode(errors="replace"))
        if kind != b"OKAY":
            raise EOFError(f"unexpected answer {kind!r} to SEND")

    def _send_data(self, stream: IO[bytes], progress: Callable[[int], None] | None) -> None:
        # Headers and data lie in one buffer, so that a batch is one system call.
        step = 8 + _CHUNK
        buffer = bytearray(step * _BATCH)
        view = memoryview(buffer)
        body = [view[index * step + 8 : (index + 1) * step] for index in range(_BATCH)]
        for index in range(_BATCH):
            struct.pack_into("<4sI", buffer, index * step, b"DATA", _CHUNK)
        sent = 0
        while count := os.readv(stream.fileno(), body):
            whole, rest = divmod(count, _CHUNK)
            length = whole * step
            if rest:
                struct.pack_into("<I", buffer, length + 4, rest)
            self._socket.sendall(view[: length + (8 + rest if rest else 0)])
            if rest:
                struct.pack_into("<I", buffer, length + 4, _CHUNK)
            sent += count
            if progress is not None:
                progress(sent)

    def entries(self, remote: str) -> list[Listed]:
        """List a folder, without `.` and `..`; a path that is no folder, or cannot be read, is empty."""
        self._request(b"LIST", remote.encode())
        found: list[Listed] = []
        while True:
            kind, mode = self._header()
            size, _, length = struct.unpack("<III", self._exactly(12))
            if kind == b"DONE":
                return found
            if kind != b"DENT":
                raise EOFError(f"unexpected answer {kind!r} to LIST")
            name = os.fsdecode(self._exactly(length))
            if name not in (".", ".."):
                found.append(Listed(name, mode, size))

    def mode(self, remote: str) -> int:
        """Return st_mode of a path, symbolic links not followed; 0 when there is none."""
        self._request(b"STAT", remote.encode())
        kind, mode = self._header()
        self._exactly(8)
        if kind != b"STAT":
            raise EOFError(f"unexpected answer {kind!r} to STAT")
        return mode

    def receive(self, files: Sequence[tuple[str, Path]], limit: int) -> None:
        """Fetch files, requests sent ahead of the answers; each appears under its name when it is complete.

        Args:
            files: path on the device and local path, whose folder exists.
            limit: the most bytes that are taken as one file. What a listing says is not asked: the device
                may send something else.

        Raises:
            SyncRefusedError: the device could not read one; the text names it.
            TooLargeError: one is longer than `limit`; the session is of no more use.
            OSError, EOFError: the connection broke or timed out.
        """
        waiting = iter(files)
        under_way: deque[tuple[str, Path]] = deque()
        while True:
            for remote, local in waiting:
                self._request(b"RECV", remote.encode())
                under_way.append((remote, local))
                if len(under_way) >= _WINDOW:
                    break
            if not under_way:
                return
            remote, local = under_way.popleft()
            partial = local.with_name(f".{local.name}.part")
            try:
                with partial.open("wb") as sink:
                    left = limit
                    for chunk in self._chunks(remote):
                        left -= len(chunk)
                        if left < 0:
                            raise TooLargeError(remote, limit)
                        sink.write(chunk)
                partial.replace(local)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise

    def quit(self) -> None:
        """Tell the device that the session is over."""
        self._socket.sendall(b"QUIT" + struct.pack("<I", 0))

    def _chunks(self, remote: str) -> Iterator[bytes]:
        while True:
            kind, length = self._header()
            if kind == b"DONE":
                return
            data = self._exactly(length)
            if kind == b"FAIL":
                raise SyncRefusedError(f"{remote}: {data.decode(errors='replace')}")
            if kind != b"DATA":
                raise EOFError(f"unexpected answer {kind!r} to RECV")
            yield data

    def _request(self, kind: bytes, path: bytes) -> None:
        if len(path) > 1024:
            raise SyncRefusedError("the path is longer than the 1024 bytes that adb allows")
        self._socket.sendall(kind + struct.pack("<I", len(path)) + path)

    def _header(self) -> tuple[bytes, int]:
        kind, value = struct.unpack("<4sI", self._exactly(8))
        return kind, value

    def _exactly(self, count: int) -> bytes:
        if count > 1 << 20:
            raise EOFError(f"a packet of {count} bytes is longer than the protocol allows")
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            got = self._socket.recv_into(view)
            if got == 0:
                raise EOFError("the connection was closed")
            view = view[got:]
        return bytes(buffer)

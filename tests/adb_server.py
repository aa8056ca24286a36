"""A scripted adb server on loopback: it knows the phones that a test says, in the state that it says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable

Service = Callable[[socket.socket], None]


class FakeServer:
    """An adb server on loopback; `services` has a function for each service that takes the socket over."""

    def __init__(
        self, devices: str, services: dict[str, Service] | None = None, version: int = 41, port: int = 0
    ) -> None:
        self.devices, self.services, self.version = devices, services or {}, version
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # A thread that waits in accept would keep the port.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while length := stream.read(4):
                service = stream.read(int(length, 16)).decode()
                self.asked.append(service)
                if service == "host:version":
                    connection.sendall(block(f"{self.version:04x}"))
                elif service.startswith("host:devices"):
                    connection.sendall(block(self.devices))
                elif service.endswith(":features"):
                    connection.sendall(block("shell_v2,cmd"))
                elif service.startswith("host:tport:"):
                    connection.sendall(b"OKAY" + bytes(8))
                    continue
                else:
                    handler = self.services.get(service.partition(":")[0])
                    if handler is None:
                        connection.sendall(b"FAIL" + block("no such service")[4:])
                    else:
                        handler(connection)
                return


def block(text: str) -> bytes:
    return b"OKAY" + f"{len(text):04x}{text}".encode()


def packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data

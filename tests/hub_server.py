"""A Hugging Face hub on loopback: real HTTP, two origins as the real one has, and every kind of misbehaviour.

The hub's own origin answers `GET /api/models/<repository>/revision/<revision>?blobs=true` and `HEAD` or `GET
/<repository>/resolve/<revision>/<file>`, the latter with a redirect to the storage's origin, which serves the
bytes with `Range`. Faults are queued per kind of request; each request takes one.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER_REVISION = "89abcdef0123456789abcdef0123456789abcdef"
REPOSITORY = "someone/some-model-GGUF"


class Request(http.server.BaseHTTPRequestHandler):
    """One request to the hub or to its storage."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        # Asked as a proxy, the path is a whole address.
        path = re.sub("^http://[^/]+", "", self.path).partition("?")[0]
        kind = "api" if path.startswith("/api/") else "blob" if path.startswith("/blob/") else self.command
        ask = Asked(kind, path, self.headers.get("Range"), self.headers.get("Authorization"))
        self.hub.asked.append(ask)
        queue = self.hub.faults.get(kind, [])
        fault = queue.pop(0) if queue else None
        with contextlib.suppress(ConnectionError):
            if fault is None or not fault(self):
                {"api": self.api, "blob": self.blob}.get(kind, self.resolve)(path)

    def reply(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Send a whole answer; underscores in header names stand for hyphens."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def refused(self, repository: str, revision: str) -> bool:
        hub = self.hub
        if repository not in hub.repositories:
            self.reply(404, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in (hub.revision, "main"):
            self.reply(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message=f"Invalid rev {revision}")
        else:
            return False
        return True

    def api(self, path: str) -> None:
        found = re.fullmatch("/api/models/([^/]+/[^/]+)/revision/(.+)", path)
        assert found, path
        repository, revision = found.groups()
        if self.refused(repository, revision):
            return
        hub = self.hub
        siblings: list[dict[str, object]] = [{"rfilename": "README.md", "size": 3, "blobId": "0" * 40}]
        for name, data in hub.repositories[repository].items():
            lfs = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 134}
            siblings.append({"rfilename": name, "size": len(data), "blobId": "1" * 40, "lfs": lfs})
        value = {
            "_id": "1",
            "id": repository,
            "modelId": repository,
            "sha": hub.revision,
            "private": False,
            "gated": "auto" if hub.token else False,
            "disabled": False,
            "downloads": 1,
            "likes": 0,
            "tags": ["gguf", f"license:{hub.licence}"],
            "siblings": siblings,
        }
        self.reply(200, json.dumps(value).encode(), Content_Type="application/json")

    def resolve(self, path: str) -> None:
        found = re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not found:
            self.reply(404, b"no such page")
            return
        repository, revision, name = found.groups()
        if self.refused(repository, revision):
            return
        hub = self.hub
        if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
            status = 403 if self.headers.get("Authorization") else 401
            message = f"Access to model {repository} is restricted."
            self.reply(status, b"", X_Error_Code="GatedRepo", X_Error_Message=message)
        elif name not in hub.repositories[repository]:
            self.reply(404, b"", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        else:
            data = hub.repositories[repository][name]
            sha256 = hashlib.sha256(data).hexdigest()
            self.reply(
                302,
                Location=f"{hub.storage}/blob/{repository}/{name}",
                X_Repo_Commit=hub.revision,
                X_Linked_Size=str(len(data)),
                X_Linked_Etag=f'"{sha256}"',
            )

    def blob(self, path: str) -> None:
        repository, name = re.fullmatch("/blob/([^/]+/[^/]+)/(.+)", path).groups()  # type: ignore[union-attr]
        self.send_blob(self.hub.repositories[repository][name])

    def begins(self) -> int:
        """The byte from which the storage is asked to send."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def blob_head(self, data: bytes, begins: int) -> None:
        if begins:
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begins}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(data) - begins))
        self.end_headers()

    def send_blob(self, data: bytes, *, until: int | None = None, piece: int = 0, pause: float = 0.0) -> None:
        """Send the bytes that were asked for, to `until`, then cut; in pieces of that size with pauses."""
        begins = self.begins()
        if begins >= len(data):
            self.reply(416, b"", Content_Range=f"bytes */{len(data)}")
            return
        self.blob_head(data, begins)
        body = data[begins:until]
        for at in range(0, len(body), piece or len(body) or 1):
            self.wfile.write(body[at : at + (piece or len(body))])
            self.wfile.flush()
            time.sleep(pause)
        if until is not None and until < len(data):
            self.close_connection = True


Fault = Callable[[Request], bool]
"""Answers a request in the hub's place and returns True, or only disturbs it and returns False."""


@dataclass(frozen=True)
class Asked:
    """What a request asked for."""

    kind: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Hub:
    """A hub whose content and answers a test can bend."""

    url: str = ""
    storage: str = ""
    revision: str = REVISION
    licence: str = "apache-2.0"
    token: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    def ranges(self) -> list[str | None]:
        """What was asked of the storage, in order."""
        return [ask.range for ask in self.asked if ask.kind == "blob"]


def busy(status: int, retry_after: str | None = None) -> Fault:
    """The server has too much to do, and perhaps says for how long."""

    def fault(request: Request) -> bool:
        request.reply(status, b"", **({"Retry_After": retry_after} if retry_after is not None else {}))
        return True

    return fault


def stored(request: Request) -> bytes:
    """The bytes that a request to the storage is about."""
    path = re.sub("^http://[^/]+", "", request.path)
    repository, name = re.fullmatch("/blob/([^/]+/[^/]+)/(.+)", path).groups()  # type: ignore[union-attr]
    return request.hub.repositories[repository][name]


def cut(at: int) -> Fault:
    """The connection ends at that byte of the file."""

    def fault(request: Request) -> bool:
        request.send_blob(stored(request), until=at)
        return True

    return fault


def slow(piece: int, pause: float) -> Fault:
    """The bytes come in small pieces."""

    def fault(request: Request) -> bool:
        request.send_blob(stored(request), piece=piece, pause=pause)
        return True

    return fault


def stalled(at: int, seconds: float) -> Fault:
    """The connection stays open and nothing comes any more."""

    def fault(request: Request) -> bool:
        request.send_blob(stored(request), until=at)
        time.sleep(seconds)
        return True

    return fault


def other_bytes(change: Callable[[bytes], bytes]) -> Fault:
    """The storage has other bytes than the hub says."""

    def fault(request: Request) -> bool:
        request.send_blob(change(stored(request)))
        return True

    return fault


def whole(request: Request) -> bool:
    """The storage knows no ranges."""
    data = stored(request)
    request.reply(200, data)
    return True


def other_range(request: Request) -> bool:
    """The storage sends another range than was asked for."""
    data = stored(request)
    request.send_response(206)
    request.send_header("Content-Range", f"bytes 7-{len(data) - 1}/{len(data)}")
    request.send_header("Content-Length", str(len(data) - 7))
    request.end_headers()
    request.wfile.write(data[7:])
    return True


def endless(request: Request) -> bool:
    """The storage sends more than the file has, without saying how much."""
    data = stored(request)
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    for piece in (data, b"more"):
        request.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")
    return True


class Server(http.server.ThreadingHTTPServer):
    """A server that takes it calmly when a client leaves."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextlib.contextmanager
def serving(**files: bytes) -> Iterator[Hub]:
    """A hub that has these files, ending in .gguf, in REPOSITORY."""
    hub = Hub(repositories={REPOSITORY: {f"{name}.gguf": data for name, data in files.items()}})
    handler = type("Handler", (Request,), {"hub": hub})
    servers = [Server(("127.0.0.1", 0), handler) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    hub.url, hub.storage = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def tiny_gguf(folder: Path, size: int, file_type: int | None = None) -> bytes:
    """Return a GGUF file with one tensor of that many random bytes, which says to be of that type."""
    path = folder / f"tiny-{size}.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    if file_type is not None:
        writer.add_file_type(file_type)
    writer.add_tensor("weights", np.random.default_rng(size).integers(-99, 99, size, dtype=np.int8))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    path.unlink()
    return data

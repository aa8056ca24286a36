"""Downloading an sdist from an index on loopback, in health and in every kind of sickness."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provision import pip_config, sdist
from pocketvlm.provision.pip_config import PipConfig

NAME = "some_project-1.2.3.tar.gz"


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        info = tarfile.TarInfo("some_project-1.2.3/PKG-INFO")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    return buffer.getvalue()


ARCHIVE = archive()
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


@dataclass
class Index:
    """A package index whose answers a test can bend."""

    url: str = ""
    as_json: bool = False
    files: dict[str, bytes] = field(default_factory=lambda: {NAME: ARCHIVE})
    before: list[Callable[[http.server.BaseHTTPRequestHandler], bool]] = field(default_factory=list)
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def config(self, **changes: object) -> PipConfig:
        options: dict[str, object] = {"index_url": f"{self.url}/simple", "timeout_s": 2.0, "retries": 2}
        return PipConfig(**{**options, **changes})  # type: ignore[arg-type]


@pytest.fixture
def index() -> Iterator[Index]:
    state = Index()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            state.asked.append((self.path, self.headers.get("Authorization")))
            if state.before and state.before.pop(0)(self):
                return
            if self.path.rstrip("/") == "/simple/some-project":
                if state.as_json:
                    kind = "application/vnd.pypi.simple.v1+json"
                    files = [
                        {"filename": name, "url": f"/files/{name}", "hashes": {}} for name in state.files
                    ]
                    body = json.dumps({"name": "some-project", "files": files}).encode()
                else:
                    kind = "text/html"
                    links = "".join(f'<a href="/files/{name}">{name}</a>' for name in state.files)
                    body = f"<html><body>{links}</body></html>".encode()
            elif self.path.startswith("/files/") and self.path[7:] in state.files:
                kind, body = "application/octet-stream", state.files[self.path[7:]]
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield state
    server.shutdown()
    server.server_close()


def fetch(index: Index, path: Path, version: str = "1.2.3", sha256: str = SHA256, **changes: object) -> None:
    sdist.download("some-project", version, sha256, path, settings=index.config(**changes), pause=0.01)


@pytest.mark.parametrize("as_json", [False, True])
def test_the_right_archive_is_taken(index: Index, tmp_path: Path, as_json: bool) -> None:
    index.as_json = as_json
    index.files = {
        "some_project-1.2.3-py3-none-any.whl": b"a wheel",
        "some_project-1.2.2.tar.gz": b"older",
        NAME: ARCHIVE,
    }
    fetch(index, tmp_path / "deep" / "source.tar.gz")
    assert (tmp_path / "deep" / "source.tar.gz").read_bytes() == ARCHIVE
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["source.tar.gz"]


def test_another_hash_stops_with_both_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(IntegrityError, match=f"{SHA256}, expected {wrong}"):
        fetch(index, tmp_path / "source.tar.gz", sha256=wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_download_leaves_the_former_file(index: Index, tmp_path: Path) -> None:
    (tmp_path / "source.tar.gz").write_bytes(b"former")
    with pytest.raises(IntegrityError):
        fetch(index, tmp_path / "source.tar.gz", sha256="0" * 64)
    assert (tmp_path / "source.tar.gz").read_bytes() == b"former"


@pytest.mark.parametrize("project_known", [True, False])
def test_a_missing_version_names_version_and_index(index: Index, tmp_path: Path, project_known: bool) -> None:
    if not project_known:
        index.before = [lambda request: request.send_error(404) or True]  # type: ignore[func-returns-value]
    with pytest.raises(ProvisionError, match=r"no source archive of some-project 9\.9") as caught:
        fetch(index, tmp_path / "source.tar.gz", version="9.9")
    assert index.url in str(caught.value)


def test_a_wheel_alone_is_no_source(index: Index, tmp_path: Path) -> None:
    index.files = {"some_project-1.2.3-py3-none-any.whl": b"a wheel"}
    with pytest.raises(ProvisionError, match="no source archive"):
        fetch(index, tmp_path / "source.tar.gz")


def cut(request: http.server.BaseHTTPRequestHandler) -> bool:
    request.send_response(200)
    request.send_header("Content-Length", str(len(ARCHIVE)))
    request.end_headers()
    request.wfile.write(ARCHIVE[:20])
    request.close_connection = True
    return True


def passes(_: http.server.BaseHTTPRequestHandler) -> bool:
    return False


def test_a_cut_connection_is_tried_again(index: Index, tmp_path: Path) -> None:
    index.before = [passes, cut]
    fetch(index, tmp_path / "source.tar.gz")
    assert (tmp_path / "source.tar.gz").read_bytes() == ARCHIVE


def test_connections_that_are_always_cut_end_in_an_error(index: Index, tmp_path: Path) -> None:
    index.before = [passes, cut] * 3
    with pytest.raises(ProvisionError, match=r"some-project 1\.2\.3 cannot be downloaded"):
        fetch(index, tmp_path / "source.tar.gz")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at", [0, 1])
def test_a_server_error_passes(index: Index, tmp_path: Path, at: int) -> None:
    def fails(request: http.server.BaseHTTPRequestHandler) -> bool:
        request.send_error(503)
        return True

    index.before = [passes] * at + [fails]
    fetch(index, tmp_path / "source.tar.gz")
    assert (tmp_path / "source.tar.gz").read_bytes() == ARCHIVE


def test_a_server_that_stalls_is_given_up(index: Index, tmp_path: Path) -> None:
    def stalls(request: http.server.BaseHTTPRequestHandler) -> bool:
        time.sleep(1.0)
        return True

    index.before = [passes, stalls]
    began = time.monotonic()
    with pytest.raises(ProvisionError, match=r"cannot be downloaded: .*Timeout"):
        fetch(index, tmp_path / "source.tar.gz", timeout_s=0.2, retries=0)
    assert time.monotonic() - began < 1.0


def test_a_server_that_trickles_is_given_up(index: Index, tmp_path: Path) -> None:
    def trickles(request: http.server.BaseHTTPRequestHandler) -> bool:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        try:
            for _ in range(100):
                request.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            pass
        return True

    index.before = [passes, trickles]
    with pytest.raises(ProvisionError, match="fewer than"):
        fetch(index, tmp_path / "source.tar.gz", timeout_s=0.3, retries=0)


def test_nobody_listens(tmp_path: Path) -> None:
    config = PipConfig(index_url="http://127.0.0.1:9/simple", timeout_s=1, retries=0)
    with pytest.raises(ProvisionError, match="cannot be downloaded") as caught:
        sdist.download("some-project", "1.2.3", SHA256, tmp_path / "x", settings=config)
    assert "pip config list" in caught.value.do


def test_credentials_are_used_and_never_shown(
    index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = index.url.replace("http://", "http://user:pass-word@") + "/simple"
    fetch(index, tmp_path / "source.tar.gz", index_url=secret)
    assert any(authorization for _, authorization in index.asked)
    index.before = [passes, cut] * 3
    with pytest.raises(ProvisionError) as caught:
        fetch(index, tmp_path / "other.tar.gz", index_url=secret)
    seen = capsys.readouterr()
    assert "pass-word" not in str(caught.value) + seen.out + seen.err
    assert "127.0.0.1" in str(caught.value)


def test_a_folder_of_archives_serves_without_an_index(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / NAME).write_bytes(ARCHIVE)
    config = PipConfig(find_links=(str(tmp_path / "links"), str(tmp_path / "absent")), no_index=True)
    sdist.download("some-project", "1.2.3", SHA256, tmp_path / "out", settings=config)
    assert (tmp_path / "out").read_bytes() == ARCHIVE


def test_pips_precedence_is_kept() -> None:
    config = pip_config.parse(
        "global.index-url='https://a.example/simple'\n"
        "global.extra-index-url='https://b.example/simple https://c.example/simple'\n"
        "install.index-url='https://not-this.example'\n"
        "global.timeout='60'\n:env:.index-url='https://d.example/simple'\n:env:.no-index='true'\n"
        "global.retries='1'\n"
    )
    assert config.index_url == "https://d.example/simple"
    assert config.extra_index_urls == ("https://b.example/simple", "https://c.example/simple")
    assert (config.timeout_s, config.no_index, config.retries) == (60.0, True, 1)


def test_pips_own_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "https://chosen.example/simple")
    assert pip_config.read().index_url == "https://chosen.example/simple"

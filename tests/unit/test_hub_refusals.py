"""What a download honours and refuses: tokens, caches, proxies, offline mode, space, the table's word."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import get_session

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.weights import download
from tests import hub_server
from tests.hub_server import OTHER_REVISION, REPOSITORY, REVISION, Hub
from tests.hub_target import Target, flipped, point_at


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_repository_says_what_to_do(
    hub: Hub, target: Target, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    hub.token = "hf_good"
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(ProvisionError, match=f"refuses {REPOSITORY} \\({403 if token else 401}\\)") as caught:
        target.fetch()
    assert "Accept its licence" in caught.value.do and "HF_TOKEN" in caught.value.do
    assert "hf_wrong" not in str(caught.value)
    assert len(hub.asked) == 1 and not target.path.exists()


@pytest.mark.parametrize("place", ["environment", "home"])
def test_a_token_opens_a_gated_repository_and_does_not_leave_the_hub(
    hub: Hub, target: Target, gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    hub.token = "hf_good"
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_good")
    else:
        (tmp_path / "home").mkdir()
        (tmp_path / "home/token").write_text("hf_good\n")
    target.fetch()
    assert target.is_right(gguf)
    assert {ask.kind: ask.authorization for ask in hub.asked} == {
        "HEAD": "Bearer hf_good",
        "GET": "Bearer hf_good",
        "blob": None,
    }


def test_a_revision_that_is_gone(hub: Hub, target: Target) -> None:
    hub.revision = OTHER_REVISION
    with pytest.raises(ProvisionError, match=f"has no revision {REVISION} any more") as caught:
        target.fetch()
    assert "lock_models" in caught.value.do
    assert len(hub.asked) == 1 and not target.path.exists()


def test_a_revision_that_goes_during_the_download(hub: Hub, target: Target) -> None:
    def vanish(request: hub_server.Request) -> bool:
        hub.revision = OTHER_REVISION
        request.send_blob(hub_server.stored(request), until=1_500_000)
        return True

    hub.faults["blob"] = [vanish]
    with pytest.raises(ProvisionError, match="has no revision"):
        target.fetch()
    assert not target.path.exists()


def test_a_file_or_a_repository_that_is_gone(hub: Hub, target: Target) -> None:
    hub.repositories[REPOSITORY].clear()
    with pytest.raises(ProvisionError, match=r"has no file model\.gguf"):
        target.fetch()
    hub.repositories.clear()
    with pytest.raises(ProvisionError, match=f"has no {REPOSITORY}"):
        target.fetch()
    assert not target.path.exists()


def test_a_hub_that_is_down(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at(monkeypatch, "http://127.0.0.1:1", tmp_path)
    with pytest.raises(ProvisionError, match=r"cannot be had: ConnectError.*3 times in a row"):
        target.fetch()


def test_what_is_no_hub_is_not_believed(hub: Hub, target: Target) -> None:
    def page(request: hub_server.Request) -> bool:
        request.reply(200, b"<html>log in to the network first</html>", Content_Type="text/html")
        return True

    hub.faults = {"HEAD": [page] * 9, "GET": [page] * 9}
    with pytest.raises(IntegrityError, match="has 40 bytes on the hub"):
        target.fetch()
    assert target.files() == []


def test_what_is_no_gguf_is_not_kept(hub: Hub, target: Target) -> None:
    page = b"this is no model"
    hub.repositories[REPOSITORY]["model.gguf"] = page
    wrong = Target(
        {**target.pin, "bytes": len(page), "sha256": hashlib.sha256(page).hexdigest()}, target.path
    )
    with pytest.raises(IntegrityError, match="it is no GGUF file"):
        wrong.fetch()
    assert target.files() == []


@pytest.mark.parametrize(("file_type", "right"), [(2, True), (15, False), (None, True)])
def test_a_file_of_another_type_than_the_table_says_is_refused(
    hub: Hub,
    target: Target,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    file_type: int | None,
    right: bool,
) -> None:
    data = hub_server.tiny_gguf(tmp_path, 1000, file_type)
    hub.repositories[REPOSITORY]["model.gguf"] = data
    pin = {**target.pin, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "type": "Q4_0"}
    named = Target(pin, target.path)
    if right:
        named.fetch()
        assert named.is_right(data)
        assert ("does not say its type" in caplog.text) == (file_type is None)
    else:
        with pytest.raises(IntegrityError, match="has file type 15, Q4_0 is 2") as caught:
            named.fetch()
        assert "Name another file" in caught.value.do and named.files() == []


def cached(home: Path, data: bytes) -> None:
    """Put a file where huggingface_hub keeps it."""
    folder = home / "hub" / f"models--{REPOSITORY.replace('/', '--')}" / "snapshots" / REVISION
    folder.mkdir(parents=True)
    (folder / "model.gguf").write_bytes(data)


def test_the_users_cache_is_used_and_left_as_it_is(
    hub: Hub, target: Target, gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(tmp_path / "home", gguf)
    before = sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "home").rglob("*"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    target.fetch()
    assert target.is_right(gguf) and hub.asked == []
    assert sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "home").rglob("*")) == before


def test_a_damaged_file_of_the_users_cache_is_not_used(
    hub: Hub, target: Target, gguf: bytes, tmp_path: Path
) -> None:
    cached(tmp_path / "home", flipped(gguf))
    target.fetch()
    assert target.is_right(gguf) and hub.ranges() == [None]


def test_offline_nothing_is_asked(hub: Hub, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ProvisionError, match="HF_HUB_OFFLINE is set") as caught:
        target.fetch()
    assert f"hf download {REPOSITORY} model.gguf --revision {REVISION}" in caught.value.do
    assert hub.asked == [] and not target.path.exists()


def test_a_proxy_is_used(
    hub: Hub, target: Target, gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's name exists nowhere: only the proxy can have answered."""
    from huggingface_hub.utils import close_session  # type: ignore[attr-defined]

    point_at(monkeypatch, "http://hub.invalid", tmp_path)
    monkeypatch.setenv("HTTP_PROXY", hub.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    close_session()
    try:
        target.fetch()
        assert get_session() is not None
    finally:
        close_session()
    assert target.is_right(gguf)


def test_no_space_is_said_before_anything_is_asked(
    hub: Hub, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(target.path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=download.SPARE_BYTES + 2_000_000))
    with pytest.raises(ProvisionError, match=r"0\.00 GB are to come and 0\.07 GB are free"):
        target.fetch()
    assert hub.asked == []
    # What came already needs no room.
    target.partial().write_bytes(hub.repositories[REPOSITORY]["model.gguf"][:2_000_000])
    target.fetch()
    assert hub.ranges() == ["bytes=2000000-"]


def test_space_in_the_shared_cache_counts_too(
    hub: Hub, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, usage = tmp_path / "full", shutil.disk_usage(tmp_path)
    full.mkdir()
    monkeypatch.setenv("SNAKEMAKE_OUTPUT_CACHE", str(full / "not there yet"))
    monkeypatch.setattr(shutil, "disk_usage", lambda at: usage._replace(free=0) if at == full else usage)
    with pytest.raises(ProvisionError, match="free") as caught:
        target.fetch()
    assert caught.value.where == str(full)


def test_a_disk_that_fills_up(hub: Hub, target: Target, gguf: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = download._receive

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(ProvisionError, match="are free"):
        target.fetch()
    assert not target.path.exists()
    monkeypatch.setattr(download, "_receive", receive)
    target.fetch()
    assert target.is_right(gguf)


def test_one_process_at_a_time(hub: Hub, target: Target, gguf: bytes) -> None:
    with target.partial().open("a+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ProvisionError, match="another process"):
            target.fetch()
    target.fetch()
    assert target.is_right(gguf)


def test_without_a_lock_nothing_is_asked(hub: Hub, target: Target) -> None:
    with pytest.raises(ProvisionError, match=r"x is not locked.*Run snakemake"):
        download.fetch({"unavailable": "x is not locked", "do": "run snakemake"}, target.path)
    assert hub.asked == [] and target.files() == []

"""Downloading from a hub on loopback, in health and in every kind of sickness: right, or not there."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import get_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvlm.errors import IntegrityError, PocketvlmError, ProvisionError
from pocketvlm.weights import download
from pocketvlm.weights.description import read_record
from pocketvlm.weights.hub_access import Patience
from tests import hub_server
from tests.hub_server import OTHER_REVISION, REPOSITORY, REVISION, Hub, busy, cut, other_bytes, slow, stalled

HASTE = Patience(tries=3, pause_s=0.01, longest_s=5, timeout_s=2, stall_s=2, report_s=3600)
SIZE = 3_000_000


def point_at(monkeypatch: pytest.MonkeyPatch, url: str, home: Path) -> None:
    """Let huggingface_hub ask that hub; it reads the environment only once."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return hub_server.tiny_gguf(tmp_path_factory.mktemp("gguf"), SIZE)


@pytest.fixture
def hub(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub_server.serving(model=data) as served:
        point_at(monkeypatch, served.url, tmp_path / "home")
        yield served


class Target(NamedTuple):
    """What is to be downloaded, and whereto."""

    pin: dict[str, Any]
    path: Path

    def fetch(self, patience: Patience = HASTE) -> None:
        download.fetch(self.pin, self.path, patience)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.path.parent.iterdir())

    def partial(self) -> Path:
        return self.path.parent / f".{self.path.name}.{self.pin['sha256'][:16]}.partial"

    def is_right(self, data: bytes) -> bool:
        """The file and its record are there, whole, and nothing else."""
        if self.files() != sorted([self.path.name, self.path.with_suffix(".json").name]):
            return False
        record = read_record(self.path)
        return self.path.read_bytes() == data and record["sha256"] == self.pin["sha256"]


@pytest.fixture
def target(data: bytes, tmp_path: Path) -> Target:
    pin = {
        "repository": REPOSITORY,
        "revision": REVISION,
        "file": "model.gguf",
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    folder = tmp_path / "weights"
    folder.mkdir()
    return Target(pin, folder / "model-Q4_0.gguf")


def test_a_file_comes_whole_with_its_record(hub: Hub, target: Target, data: bytes) -> None:
    target.fetch()
    assert target.is_right(data)
    assert [ask.kind for ask in hub.asked] == ["HEAD", "GET", "blob"]
    assert target.path.stat().st_mode & 0o777 == 0o644
    record = json.loads(target.path.with_suffix(".json").read_text())
    assert record["bytes"] == len(data) and record["parameters"] == SIZE


def test_a_slow_hub_is_waited_for_and_progress_is_told(
    hub: Hub, target: Target, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults["blob"] = [slow(300_000, 0.05)]
    with caplog.at_level(logging.INFO, "pocketvlm"):
        target.fetch(Patience(tries=1, timeout_s=2, report_s=0.1))
    assert target.is_right(data)
    lines = [record.getMessage() for record in caplog.records if "% of 3 MB" in record.getMessage()]
    assert 2 <= len(lines) <= 8
    assert all(line.startswith("model.gguf: ") and line.endswith(" MB/s") for line in lines)


@pytest.mark.parametrize("kind", ["HEAD", "GET", "blob"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_left_alone_for_as_long_as_it_asks(
    hub: Hub, target: Target, data: bytes, kind: str, status: int
) -> None:
    hub.faults[kind] = [busy(status, "1")]
    began = time.monotonic()
    target.fetch()
    assert 1 <= time.monotonic() - began < 3
    assert target.is_right(data)
    assert [ask.kind for ask in hub.asked].count(kind) == 2


def test_retry_after_may_be_a_date(hub: Hub, target: Target, data: bytes) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    hub.faults["blob"] = [busy(503, format_datetime(until, usegmt=True))]
    target.fetch()
    # A date has whole seconds.
    assert datetime.now(UTC) >= until.replace(microsecond=0)
    assert target.is_right(data)


@pytest.mark.parametrize("said", ["soon", "-1", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(
    hub: Hub, target: Target, data: bytes, said: str
) -> None:
    hub.faults["blob"] = [busy(429, said)]
    target.fetch()
    assert target.is_right(data)


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_stays_busy_is_given_up(hub: Hub, target: Target, status: int) -> None:
    hub.faults["blob"] = [busy(status, "0")] * 10
    with pytest.raises(ProvisionError, match=f"the hub answered {status}, 3 times in a row"):
        target.fetch()
    assert len(hub.ranges()) == 3
    assert not target.path.exists()


def test_a_pause_of_a_day_is_not_waited_for(hub: Hub, target: Target) -> None:
    hub.faults["HEAD"] = [busy(429, "86400")]
    began = time.monotonic()
    with pytest.raises(ProvisionError, match="asks to wait 86400 s"):
        target.fetch()
    assert time.monotonic() - began < 2
    assert not target.path.exists()


def test_a_cut_connection_is_taken_up_where_it_ended(hub: Hub, target: Target, data: bytes) -> None:
    hub.faults["blob"] = [cut(1_200_000), cut(2_500_000)]
    target.fetch()
    assert target.is_right(data)
    assert hub.ranges() == [None, "bytes=1200000-", "bytes=2500000-"]


def test_a_connection_by_which_nothing_comes_any_more_is_ended(hub: Hub, target: Target, data: bytes) -> None:
    hub.faults["blob"] = [stalled(1_000_000, 30)]
    began = time.monotonic()
    target.fetch(Patience(tries=3, pause_s=0.01, timeout_s=0.5))
    assert time.monotonic() - began < 10
    assert target.is_right(data)
    assert hub.ranges() == [None, "bytes=1000000-"]


def test_a_connection_that_only_looks_alive_is_ended(hub: Hub, target: Target, data: bytes) -> None:
    hub.faults["blob"] = [slow(10, 0.05)]
    target.fetch(Patience(tries=3, pause_s=0.01, timeout_s=5, stall_s=0.5))
    assert target.is_right(data)
    (first, second) = hub.ranges()
    assert first is None and second is not None


def test_cuts_that_bring_nothing_come_to_an_end(hub: Hub, target: Target) -> None:
    hub.faults["blob"] = [cut(100_000 + 10 * number) for number in range(20)]
    with pytest.raises(ProvisionError, match="3 times in a row") as caught:
        target.fetch()
    assert "start again: what came is kept" in caught.value.do
    assert len(hub.ranges()) == 3
    assert not target.path.exists() and target.partial().stat().st_size == 100_020


def test_cuts_that_bring_much_are_no_failures(
    hub: Hub, target: Target, data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WORTHWHILE_BYTES", 100_000)
    hub.faults["blob"] = [cut(at) for at in range(200_000, 2_800_001, 200_000)]
    target.fetch()
    assert target.is_right(data)
    assert len(hub.ranges()) == 15


def test_the_next_start_takes_up_what_came(hub: Hub, target: Target, data: bytes) -> None:
    hub.faults["blob"] = [cut(1_500_000)]
    with pytest.raises(ProvisionError):
        target.fetch(Patience(tries=1))
    assert target.files() == [target.partial().name]
    target.fetch()
    assert target.is_right(data)
    assert hub.ranges() == [None, "bytes=1500000-"]


def test_what_was_damaged_since_the_last_start_is_downloaded_again(
    hub: Hub, target: Target, data: bytes
) -> None:
    target.partial().write_bytes(bytes(1_500_000))
    target.fetch()
    assert target.is_right(data)
    assert hub.ranges() == ["bytes=1500000-", None]


def test_what_another_revision_left_is_removed(hub: Hub, target: Target, data: bytes) -> None:
    (target.path.parent / f".{target.path.name}.0000000000000000.partial").write_bytes(b"old")
    target.fetch()
    assert target.is_right(data)


@pytest.mark.parametrize(
    "fault", [hub_server.whole, hub_server.other_range], ids=lambda fault: fault.__name__
)
def test_a_storage_that_knows_no_ranges(
    hub: Hub, target: Target, data: bytes, fault: hub_server.Fault
) -> None:
    hub.faults["blob"] = [cut(1_500_000), fault]
    target.fetch()
    assert target.is_right(data)


def flipped(whole: bytes) -> bytes:
    return whole[:-1] + bytes([whole[-1] ^ 1])


def test_a_wrong_hash_is_refused_with_both(hub: Hub, target: Target, data: bytes) -> None:
    hub.faults["blob"] = [other_bytes(flipped)]
    actual = hashlib.sha256(flipped(data)).hexdigest()
    with pytest.raises(IntegrityError, match=f"{actual}, expected {target.pin['sha256']}"):
        target.fetch()
    assert target.files() == []
    target.fetch()
    assert target.is_right(data)


def test_a_wrong_hash_after_a_cut_is_refused(hub: Hub, target: Target) -> None:
    hub.faults["blob"] = [cut(1_500_000), other_bytes(flipped)]
    with pytest.raises(IntegrityError, match="expected"):
        target.fetch()
    assert target.files() == []


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"more"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_file_of_another_size_is_refused(
    hub: Hub, target: Target, data: bytes, change: Any, everywhere: bool
) -> None:
    """The hub announces the other size, or only its storage has it."""
    if everywhere:
        hub.repositories[REPOSITORY]["model.gguf"] = change(data)
    else:
        hub.faults["blob"] = [other_bytes(change)]
    with pytest.raises(IntegrityError, match=f"{len(change(data))} bytes on the hub.* says {len(data)}"):
        target.fetch()
    assert target.files() == []


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_file_that_shrank_during_the_download_is_refused(
    hub: Hub, target: Target, data: bytes, everywhere: bool
) -> None:
    shrunk = data[:1_400_000]

    def shrink(request: hub_server.Request) -> bool:
        if everywhere:
            hub.repositories[REPOSITORY]["model.gguf"] = shrunk
        request.send_blob(data, until=1_500_000)
        return True

    hub.faults["blob"] = [shrink, other_bytes(lambda _: shrunk), other_bytes(lambda _: shrunk)]
    with pytest.raises(IntegrityError, match=f"has 1400000 bytes on the hub, the lock says {len(data)}"):
        target.fetch()
    assert target.files() == []


def test_a_file_without_an_end_is_refused(hub: Hub, target: Target) -> None:
    hub.faults["blob"] = [hub_server.endless]
    with pytest.raises(IntegrityError, match="does not end"):
        target.fetch()
    assert target.files() == []


def test_other_bytes_under_the_same_revision_are_not_even_asked_for(
    hub: Hub, target: Target, data: bytes
) -> None:
    hub.repositories[REPOSITORY]["model.gguf"] = flipped(data)
    with pytest.raises(IntegrityError, match="the lock says"):
        target.fetch()
    assert hub.ranges() == [] and target.files() == []


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
    hub: Hub, target: Target, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    hub.token = "hf_good"
    if place == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_good")
    else:
        (tmp_path / "home").mkdir()
        (tmp_path / "home/token").write_text("hf_good\n")
    target.fetch()
    assert target.is_right(data)
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
    hub: Hub, target: Target, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached(tmp_path / "home", data)
    before = sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "home").rglob("*"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    target.fetch()
    assert target.is_right(data) and hub.asked == []
    assert sorted((path, path.lstat().st_mtime_ns) for path in (tmp_path / "home").rglob("*")) == before


def test_a_damaged_file_of_the_users_cache_is_not_used(
    hub: Hub, target: Target, data: bytes, tmp_path: Path
) -> None:
    cached(tmp_path / "home", flipped(data))
    target.fetch()
    assert target.is_right(data) and hub.ranges() == [None]


def test_offline_nothing_is_asked(hub: Hub, target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ProvisionError, match="HF_HUB_OFFLINE is set") as caught:
        target.fetch()
    assert f"hf download {REPOSITORY} model.gguf --revision {REVISION}" in caught.value.do
    assert hub.asked == [] and not target.path.exists()


def test_a_proxy_is_used(
    hub: Hub, target: Target, data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    assert target.is_right(data)


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


def test_a_disk_that_fills_up(hub: Hub, target: Target, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = download._receive

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(ProvisionError, match="are free"):
        target.fetch()
    assert not target.path.exists()
    monkeypatch.setattr(download, "_receive", receive)
    target.fetch()
    assert target.is_right(data)


def test_one_process_at_a_time(hub: Hub, target: Target, data: bytes) -> None:
    with target.partial().open("a+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(ProvisionError, match="another process"):
            target.fetch()
    target.fetch()
    assert target.is_right(data)


def test_without_a_lock_nothing_is_asked(hub: Hub, target: Target) -> None:
    with pytest.raises(ProvisionError, match=r"x is not locked.*Run snakemake"):
        download.fetch({"unavailable": "x is not locked", "do": "run snakemake"}, target.path)
    assert hub.asked == [] and target.files() == []


SMALL = 40_000
FAULTS = {
    "cut early": cut(1_000),
    "cut late": cut(39_000),
    "busy": busy(503, "0"),
    "limited": busy(429, "0"),
    "gone": busy(404),
    "refused": busy(403),
    "flipped": other_bytes(flipped),
    "shorter": other_bytes(lambda data: data[:20_000]),
    "longer": other_bytes(lambda data: data * 2),
    "whole": hub_server.whole,
    "other range": hub_server.other_range,
    "endless": hub_server.endless,
    "none": lambda request: False,
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hub, bytes]]:
    data = hub_server.tiny_gguf(tmp_path_factory.mktemp("gguf"), SMALL)
    with hub_server.serving(model=data) as served:
        yield served, data


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(sorted(FAULTS)), max_size=5), min_size=1, max_size=4))
def test_whatever_happens_a_file_is_right_or_not_there(
    small: tuple[Hub, bytes],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    starts: list[list[str]],
) -> None:
    served, data = small
    folder = tmp_path_factory.mktemp("whatever")
    pin = {"repository": REPOSITORY, "revision": REVISION, "file": "model.gguf", "bytes": len(data)}
    target = Target({**pin, "sha256": hashlib.sha256(data).hexdigest()}, folder / "w" / "model.gguf")
    point_at(monkeypatch, served.url, folder / "home")
    for faults in [*starts, []]:
        served.faults["blob"] = [FAULTS[name] for name in faults]
        try:
            target.fetch(Patience(tries=2, pause_s=0, timeout_s=2))
        except PocketvlmError:
            assert not target.path.exists() and not target.path.with_suffix(".json").exists()
        else:
            assert target.is_right(data)
            return
    raise AssertionError("the hub was well at last, and still the file did not come")

"""Downloading from a hub on loopback, in health and in every kind of sickness: right, or not there."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pocketvlm.errors import IntegrityError, PocketvlmError, ProvisionError
from pocketvlm.weights import download
from pocketvlm.weights.hub_access import Patience
from tests import hub_server
from tests.hub_server import REPOSITORY, REVISION, Hub, busy, cut, other_bytes, slow, stalled
from tests.hub_target import SIZE, Target, flipped, point_at


def test_a_file_comes_whole_with_its_record(hub: Hub, target: Target, gguf: bytes) -> None:
    target.fetch()
    assert target.is_right(gguf)
    assert [ask.kind for ask in hub.asked] == ["HEAD", "GET", "blob"]
    assert target.path.stat().st_mode & 0o777 == 0o644
    record = json.loads(target.path.with_suffix(".json").read_text())
    assert record["bytes"] == len(gguf) and record["parameters"] == SIZE


def test_a_slow_hub_is_waited_for_and_progress_is_told(
    hub: Hub, target: Target, gguf: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hub.faults["blob"] = [slow(300_000, 0.05)]
    with caplog.at_level(logging.INFO, "pocketvlm"):
        target.fetch(Patience(tries=1, timeout_s=2, report_s=0.1))
    assert target.is_right(gguf)
    lines = [record.getMessage() for record in caplog.records if "% of 3 MB" in record.getMessage()]
    assert 2 <= len(lines) <= 8
    assert all(line.startswith("model.gguf: ") and line.endswith(" MB/s") for line in lines)


@pytest.mark.parametrize("kind", ["HEAD", "GET", "blob"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_left_alone_for_as_long_as_it_asks(
    hub: Hub, target: Target, gguf: bytes, kind: str, status: int
) -> None:
    hub.faults[kind] = [busy(status, "1")]
    began = time.monotonic()
    target.fetch()
    assert 1 <= time.monotonic() - began < 3
    assert target.is_right(gguf)
    assert [ask.kind for ask in hub.asked].count(kind) == 2


def test_retry_after_may_be_a_date(hub: Hub, target: Target, gguf: bytes) -> None:
    until = datetime.now(UTC) + timedelta(seconds=2)
    hub.faults["blob"] = [busy(503, format_datetime(until, usegmt=True))]
    target.fetch()
    # A date has whole seconds.
    assert datetime.now(UTC) >= until.replace(microsecond=0)
    assert target.is_right(gguf)


@pytest.mark.parametrize("said", ["soon", "-1", ""])
def test_a_retry_after_that_says_nothing_is_passed_over(
    hub: Hub, target: Target, gguf: bytes, said: str
) -> None:
    hub.faults["blob"] = [busy(429, said)]
    target.fetch()
    assert target.is_right(gguf)


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


def test_a_cut_connection_is_taken_up_where_it_ended(hub: Hub, target: Target, gguf: bytes) -> None:
    hub.faults["blob"] = [cut(1_200_000), cut(2_500_000)]
    target.fetch()
    assert target.is_right(gguf)
    assert hub.ranges() == [None, "bytes=1200000-", "bytes=2500000-"]


def test_a_connection_by_which_nothing_comes_any_more_is_ended(hub: Hub, target: Target, gguf: bytes) -> None:
    hub.faults["blob"] = [stalled(1_000_000, 30)]
    began = time.monotonic()
    target.fetch(Patience(tries=3, pause_s=0.01, timeout_s=0.5))
    assert time.monotonic() - began < 10
    assert target.is_right(gguf)
    assert hub.ranges() == [None, "bytes=1000000-"]


def test_a_connection_that_only_looks_alive_is_ended(hub: Hub, target: Target, gguf: bytes) -> None:
    hub.faults["blob"] = [slow(10, 0.05)]
    target.fetch(Patience(tries=3, pause_s=0.01, timeout_s=5, stall_s=0.5))
    assert target.is_right(gguf)
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
    hub: Hub, target: Target, gguf: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WORTHWHILE_BYTES", 100_000)
    hub.faults["blob"] = [cut(at) for at in range(200_000, 2_800_001, 200_000)]
    target.fetch()
    assert target.is_right(gguf)
    assert len(hub.ranges()) == 15


def test_the_next_start_takes_up_what_came(hub: Hub, target: Target, gguf: bytes) -> None:
    hub.faults["blob"] = [cut(1_500_000)]
    with pytest.raises(ProvisionError):
        target.fetch(Patience(tries=1))
    assert target.files() == [target.partial().name]
    target.fetch()
    assert target.is_right(gguf)
    assert hub.ranges() == [None, "bytes=1500000-"]


def test_what_was_damaged_since_the_last_start_is_downloaded_again(
    hub: Hub, target: Target, gguf: bytes
) -> None:
    target.partial().write_bytes(bytes(1_500_000))
    target.fetch()
    assert target.is_right(gguf)
    assert hub.ranges() == ["bytes=1500000-", None]


def test_what_another_revision_left_is_removed(hub: Hub, target: Target, gguf: bytes) -> None:
    (target.path.parent / f".{target.path.name}.0000000000000000.partial").write_bytes(b"old")
    target.fetch()
    assert target.is_right(gguf)


@pytest.mark.parametrize(
    "fault", [hub_server.whole, hub_server.other_range], ids=lambda fault: fault.__name__
)
def test_a_storage_that_knows_no_ranges(
    hub: Hub, target: Target, gguf: bytes, fault: hub_server.Fault
) -> None:
    hub.faults["blob"] = [cut(1_500_000), fault]
    target.fetch()
    assert target.is_right(gguf)


def test_a_wrong_hash_is_refused_with_both(hub: Hub, target: Target, gguf: bytes) -> None:
    hub.faults["blob"] = [other_bytes(flipped)]
    actual = hashlib.sha256(flipped(gguf)).hexdigest()
    with pytest.raises(IntegrityError, match=f"{actual}, expected {target.pin['sha256']}"):
        target.fetch()
    assert target.files() == []
    target.fetch()
    assert target.is_right(gguf)


def test_a_wrong_hash_after_a_cut_is_refused(hub: Hub, target: Target) -> None:
    hub.faults["blob"] = [cut(1_500_000), other_bytes(flipped)]
    with pytest.raises(IntegrityError, match="expected"):
        target.fetch()
    assert target.files() == []


@pytest.mark.parametrize("change", [lambda whole: whole[:-1], lambda whole: whole + b"more"])
@pytest.mark.parametrize("everywhere", [True, False])
def test_a_file_of_another_size_is_refused(
    hub: Hub, target: Target, gguf: bytes, change: Any, everywhere: bool
) -> None:
    """The hub announces the other size, or only its storage has it."""
    if everywhere:
        hub.repositories[REPOSITORY]["model.gguf"] = change(gguf)
    else:
        hub.faults["blob"] = [other_bytes(change)]
    with pytest.raises(IntegrityError, match=f"{len(change(gguf))} bytes on the hub.* says {len(gguf)}"):
        target.fetch()
    assert target.files() == []


@pytest.mark.parametrize("everywhere", [True, False])
def test_a_file_that_shrank_during_the_download_is_refused(
    hub: Hub, target: Target, gguf: bytes, everywhere: bool
) -> None:
    shrunk = gguf[:1_400_000]

    def shrink(request: hub_server.Request) -> bool:
        if everywhere:
            hub.repositories[REPOSITORY]["model.gguf"] = shrunk
        request.send_blob(gguf, until=1_500_000)
        return True

    hub.faults["blob"] = [shrink, other_bytes(lambda _: shrunk), other_bytes(lambda _: shrunk)]
    with pytest.raises(IntegrityError, match=f"has 1400000 bytes on the hub, the lock says {len(gguf)}"):
        target.fetch()
    assert target.files() == []


def test_a_file_without_an_end_is_refused(hub: Hub, target: Target) -> None:
    hub.faults["blob"] = [hub_server.endless]
    with pytest.raises(IntegrityError, match="does not end"):
        target.fetch()
    assert target.files() == []


def test_other_bytes_under_the_same_revision_are_not_even_asked_for(
    hub: Hub, target: Target, gguf: bytes
) -> None:
    hub.repositories[REPOSITORY]["model.gguf"] = flipped(gguf)
    with pytest.raises(IntegrityError, match="the lock says"):
        target.fetch()
    assert hub.ranges() == [] and target.files() == []


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

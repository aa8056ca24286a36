"""Taking everything off several devices: each is tried, and what could not be cleaned is said."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.devices.folder import MARK, Removed
from pocketvlm.devices.locks import device_lock
from pocketvlm.errors import DeviceError, PocketvlmError
from pocketvlm.measure import clean

LOCAL: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "config/devices/local.yaml").read_text())


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POCKETVLM_CACHE", str(tmp_path / "cache"))


def device(name: str, folder: Path) -> dict[str, Any]:
    return {**LOCAL, "id": name, "remote_dir": str(folder)}


def filled(folder: Path, *, ours: bool) -> Path:
    (folder / "objects").mkdir(parents=True)
    (folder / "objects" / "weights").write_bytes(bytes(200_000))
    (folder / ("extra" if not ours else MARK)).touch()
    return folder


def test_each_device_is_cleaned_and_what_went_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pocketvlm")
    devices = [device("a", filled(tmp_path / "a", ours=True)), device("b", tmp_path / "b")]
    clean.clean(devices, tmp_path / "results")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    assert f"a: removed {tmp_path}/a: 1 file, 0.2 MB" in caplog.text
    assert f"b: nothing of pocketvlm was in {tmp_path}/b" in caplog.text


def test_one_that_cannot_be_cleaned_keeps_no_other_from_it(tmp_path: Path) -> None:
    theirs, ours = filled(tmp_path / "theirs", ours=False), filled(tmp_path / "ours", ours=True)
    with pytest.raises(DeviceError, match="was not made by pocketvlm"):
        clean.clean([device("a", theirs), device("b", ours)], tmp_path / "results")
    assert (theirs / "objects/weights").exists() and not ours.exists()


def test_all_that_failed_are_named(tmp_path: Path, adb_server: Any) -> None:
    theirs = filled(tmp_path / "theirs", ours=False)
    transport = {"serial": "1a2b", "server_port": adb_server("").port}
    phone = {**LOCAL, "id": "pixel", "kind": "phone", "host_cores": False, "transport": transport}
    with pytest.raises(PocketvlmError) as caught:
        clean.clean([device("a", theirs), {**phone, "remote_dir": "/data/local/tmp/p"}], tmp_path / "results")
    assert "a: " in caught.value.what and "pixel: device 1a2b is not connected" in caught.value.what
    assert caught.value.do.endswith("give the same command again")


def test_it_waits_for_a_block_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is taken from under a workload: the device's lock comes first."""
    ours = filled(tmp_path / "ours", ours=True)
    order: list[str] = []
    whole = clean.folder.remove
    monkeypatch.setattr(clean.folder, "remove", lambda it: order.append("removed") or whole(it))

    def waits(line: str, *_: object) -> None:
        if "waiting for" in line:
            order.append("waits")
            assert (ours / "objects/weights").exists()
            held.__exit__(None, None, None)

    monkeypatch.setattr("pocketvlm.measure.block.log.info", waits)
    held = device_lock("a")
    held.__enter__()
    clean.clean([device("a", ours)], tmp_path / "results")
    assert order == ["waits", "removed"] and not ours.exists()


def test_bytes_and_files_are_told_in_words() -> None:
    assert clean.told(Removed(1, 12)) == "1 file, 12 bytes"
    assert clean.told(Removed(1200, 3_456_789_012)) == "1200 files, 3456.8 MB"

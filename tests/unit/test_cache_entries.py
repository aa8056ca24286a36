"""The between-workflow cache: what is not as its job left it is thrown away."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvlm.provision import cache


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def store(folder: Path, output: Path, name: str) -> Path:
    """Do what Snakemake does: by way of a temporary folder into the cache, a link in its place."""
    passing = folder / "tmpabcdefgh"
    passing.mkdir()
    entry = folder / name
    output.rename(passing / name)
    (passing / name).chmod(0o777 if (passing / name).is_dir() else 0o666)
    # Into a folder that is there already, as Snakemake does too.
    shutil.move(passing / name, entry)
    passing.rmdir()
    return entry


def made_file(tmp_path: Path, folder: Path, data: bytes = b"weights", name: str = "ab12.gguf") -> Path:
    output = tmp_path / "output.gguf"
    output.write_bytes(data)
    cache.register(output, folder)
    return store(folder, output, name)


def made_bundle(tmp_path: Path, folder: Path, name: str = "cd34") -> Path:
    output = tmp_path / "bundle"
    (output / "bin").mkdir(parents=True)
    (output / "bin" / "program").write_bytes(b"program")
    (output / "manifest.json").write_text("{}")
    cache.register(output, folder)
    (output / ".snakemake_timestamp").touch()
    return store(folder, output, name)


def test_the_cache_is_closed_to_others(tmp_path: Path, folder: Path) -> None:
    folder.mkdir(mode=0o777)
    cache.prepare(folder, tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700


def test_registered_entries_stay(tmp_path: Path, folder: Path) -> None:
    entries = [made_file(tmp_path, folder), made_bundle(tmp_path, folder)]
    cache.prepare(folder, tmp_path / "results")
    cache.prepare(folder, tmp_path / "results")
    assert all(entry.exists() for entry in entries)


def test_an_unchanged_entry_is_not_read_again(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_file(tmp_path, folder)
    made_bundle(tmp_path, folder)

    def read(_: Path) -> str:
        raise AssertionError("the entry was read")

    monkeypatch.setattr(cache, "digest", read)
    cache.prepare(folder, tmp_path / "results")


def test_an_entry_that_was_copied_in_is_read_once(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = made_file(tmp_path, folder)
    os.utime(entry, ns=(1, 1))
    reads: list[Path] = []
    digest = cache.digest
    monkeypatch.setattr(cache, "digest", lambda path: reads.append(path) or digest(path))
    for _ in range(3):
        cache.prepare(folder, tmp_path / "results")
    assert reads == [entry]
    assert entry.exists()


def test_a_corrupt_file_is_thrown_away(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    entry, intact = made_file(tmp_path, folder), made_bundle(tmp_path, folder)
    with entry.open("r+b") as stream:
        stream.write(b"W")
    with caplog.at_level(logging.WARNING):
        cache.prepare(folder, tmp_path / "results")
    assert not entry.exists()
    assert intact.exists()
    assert "ab12.gguf is not what was stored" in caplog.text


@pytest.mark.parametrize("damage", ["changed", "missing", "added"])
def test_a_corrupt_bundle_is_thrown_away(tmp_path: Path, folder: Path, damage: str) -> None:
    entry = made_bundle(tmp_path, folder)
    if damage == "changed":
        (entry / "bin" / "program").write_bytes(b"Program")
    elif damage == "missing":
        (entry / "bin" / "program").unlink()
    else:
        (entry / "bin" / "other").write_bytes(b"")
    cache.prepare(folder, tmp_path / "results")
    assert not entry.exists()


def test_an_entry_that_nobody_registered_is_thrown_away(tmp_path: Path, folder: Path) -> None:
    cache.prepare(folder, tmp_path / "results")
    (folder / "ef56.gguf").write_bytes(b"half")
    cache.prepare(folder, tmp_path / "results")
    assert not (folder / "ef56.gguf").exists()


def test_a_bundle_made_twice_at_once_is_kept(tmp_path: Path, folder: Path) -> None:
    entry = made_bundle(tmp_path, folder)
    assert made_bundle(tmp_path, folder) == entry
    assert (entry / entry.name / "bin" / "program").exists()
    cache.prepare(folder, tmp_path / "results")
    assert (entry / "bin" / "program").read_bytes() == b"program"
    assert not (entry / entry.name).exists()
    assert not list(folder.glob(f"{cache.PASSING}*"))


def test_links_to_a_corrupt_entry_go_with_it(tmp_path: Path, folder: Path) -> None:
    results = tmp_path / "results"
    entry, bundle = made_file(tmp_path, folder), made_bundle(tmp_path, folder)
    (results / "weights" / "m").mkdir(parents=True)
    (results / "weights" / "m" / "model.gguf").symlink_to(entry)
    linked = results / "bundles" / "b"
    linked.mkdir(parents=True)
    for part in bundle.iterdir():
        (linked / part.name).symlink_to(part)
    # Snakemake links the folder as a whole where it stored it, and file by file where it fetched it.
    whole = results / "bundles" / "whole"
    whole.symlink_to(bundle)
    (results / "bundles" / "own").mkdir()
    (results / "bundles" / "own" / "elsewhere").symlink_to("/nowhere")
    cache.prepare(folder, results)
    assert linked.exists() and whole.exists()
    (bundle / "manifest.json").write_text("[]")
    entry.write_bytes(b"x")
    cache.prepare(folder, results)
    assert not linked.exists()
    assert not whole.is_symlink()
    assert not (results / "weights" / "m" / "model.gguf").is_symlink()
    assert (results / "bundles" / "own" / "elsewhere").is_symlink()


def test_what_another_process_is_moving_in_is_left_until_it_is_old(tmp_path: Path, folder: Path) -> None:
    cache.prepare(folder, tmp_path / "results")
    passing = folder / "tmpq1w2e3r4"
    passing.mkdir()
    (passing / "half.gguf").write_bytes(b"half")
    cache.prepare(folder, tmp_path / "results")
    assert (passing / "half.gguf").exists()
    old = time.time() - 2 * 86400
    for path in (passing / "half.gguf", passing):
        os.utime(path, (old, old))
    cache.prepare(folder, tmp_path / "results")
    assert not passing.exists()


def test_a_damaged_record_costs_a_reading_and_no_entry(tmp_path: Path, folder: Path) -> None:
    entry = made_file(tmp_path, folder)
    for record in (folder / "known").glob("*.json"):
        record.write_text("{")
    cache.prepare(folder, tmp_path / "results")
    assert entry.exists()


def test_without_a_cache_nothing_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.LOCATION, raising=False)
    (tmp_path / "output").write_bytes(b"x")
    cache.register(tmp_path / "output")
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    monkeypatch.setenv(cache.LOCATION, str(tmp_path / "cache"))
    cache.register(tmp_path / "output")
    assert len(list((tmp_path / "cache" / "known").glob("*.json"))) == 1


STORE = """
import sys
from pathlib import Path
from pocketvlm.provision import cache
folder, own = Path(sys.argv[1]), Path(sys.argv[2])
for number in range(25):
    output = own / "output"
    output.write_bytes(f"{own.name} {number}".encode())
    cache.register(output, folder)
    passing = folder / f"tmp{own.name}{number}"
    passing.mkdir()
    output.rename(passing / "x")
    (passing / "x").rename(folder / f"{own.name}{number}.gguf")
    passing.rmdir()
"""
PREPARE = """
import sys
from pathlib import Path
from pocketvlm.provision import cache
for _ in range(40):
    cache.prepare(Path(sys.argv[1]), Path(sys.argv[2]) / "results")
"""


def test_workflows_at_once_lose_nothing(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    processes = []
    for number, code in enumerate([STORE, STORE, PREPARE, PREPARE]):
        own = tmp_path / f"w{number}"
        own.mkdir()
        processes.append(subprocess.Popen([sys.executable, "-c", code, str(folder), str(own)]))
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0, 0]
    cache.prepare(folder, tmp_path / "results")
    assert len(list(folder.glob("*.gguf"))) == 50

"""The between-workflow cache: what is not as it was made is made again."""

import os
import time
from pathlib import Path

import pytest

from pocketvlm.provision import outputs


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache with one good file and one good folder, as Snakemake would have moved them in."""
    cache = tmp_path / "cache"
    made = tmp_path / "made"
    (made / "bundle" / "bin").mkdir(parents=True)
    (made / "weights").write_bytes(b"weights")
    (made / "bundle" / "bin" / "probe").write_bytes(b"probe")
    for name in ("weights", "bundle"):
        outputs.register(made / name, cache)
        (made / name).rename(cache / f"hash-of-{name}")
    (cache / "hash-of-bundle" / ".snakemake_timestamp").touch()
    return cache


def test_what_was_registered_is_kept_and_closed_to_others(cache: Path) -> None:
    assert outputs.prepare(cache) == []
    assert cache.stat().st_mode & 0o777 == 0o700
    assert (cache / "hash-of-weights").read_bytes() == b"weights"


@pytest.mark.parametrize("seen_before", [False, True])
@pytest.mark.parametrize("damaged", ["hash-of-weights", "hash-of-bundle/bin/probe"])
def test_a_changed_entry_is_thrown_away_and_the_other_kept(
    cache: Path, damaged: str, seen_before: bool
) -> None:
    if seen_before:
        outputs.prepare(cache)
    (cache / damaged).write_bytes(b"w3ights")
    entry = damaged.split("/")[0]
    assert outputs.prepare(cache) == [entry]
    assert not (cache / entry).exists()
    assert len([path for path in cache.iterdir() if path.name.startswith("hash")]) == 1


def test_a_file_missing_from_a_folder_is_found(cache: Path) -> None:
    (cache / "hash-of-bundle" / "bin" / "probe").unlink()
    assert outputs.prepare(cache) == ["hash-of-bundle"]


def test_an_entry_that_nobody_registered_is_not_trusted(cache: Path) -> None:
    (cache / "hash-of-something").write_bytes(b"from elsewhere")
    assert outputs.prepare(cache) == ["hash-of-something"]


def test_unchanged_entries_are_not_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs.prepare(cache)
    monkeypatch.setattr(outputs, "sha256_file", lambda path: pytest.fail(f"{path} was read again"))
    assert outputs.prepare(cache) == []


def test_a_damaged_memo_only_costs_time(cache: Path) -> None:
    outputs.prepare(cache)
    (cache / "known" / "seen.json").write_text("{")
    assert outputs.prepare(cache) == []


def test_a_bundle_whose_links_lead_nowhere_is_no_output(cache: Path, tmp_path: Path) -> None:
    results = tmp_path / "results"
    (results / "bundles" / "probe").mkdir(parents=True)
    (results / "weights").mkdir()
    (results / "bundles" / "probe" / "bin").symlink_to(cache / "hash-of-bundle" / "bin")
    (results / "weights" / "model").symlink_to(cache / "hash-of-weights")
    outputs.prepare(cache, results)
    assert (results / "bundles" / "probe" / "bin" / "probe").read_bytes() == b"probe"
    (cache / "hash-of-bundle" / "bin" / "probe").write_bytes(b"damaged")
    outputs.prepare(cache, results)
    assert not (results / "bundles" / "probe").exists()
    assert (results / "weights" / "model").read_bytes() == b"weights"


def test_only_old_leftovers_of_a_killed_move_are_swept(cache: Path) -> None:
    for name in ("tmpold", "tmpnew"):
        (cache / name).mkdir()
    day = 25 * 3600
    os.utime(cache / "tmpold", (time.time() - day, time.time() - day))
    outputs.prepare(cache)
    assert not (cache / "tmpold").exists()
    assert (cache / "tmpnew").exists()

"""The raw store: runs under the hash of everything that made them; append-only, complete or absent."""

from __future__ import annotations

import datetime
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import read_json, sha256_file, sha256_json, write_json

# Bumped by hand when the way of measuring changes what a number means: old runs then no longer count.
PROTOCOL_VERSION = 1

_NUMBER = re.compile(r"\d{2,}")


@dataclass(frozen=True)
class StoredRun:
    """A complete run of the store.

    Attributes:
        key: hex sha256 of `key_inputs`.
        number: place under its key, from 0.
        folder: where its files are.
        meta: the content of `meta.json`.
    """

    key: str
    number: int
    folder: Path
    meta: Mapping[str, Any]

    @property
    def name(self) -> str:
        """`<key>/<nn>`, as an index names it."""
        return f"{self.key}/{self.number:02d}"


def run_key(key_inputs: Mapping[str, Any]) -> str:
    """Return the key of a run: the sha256 of the canonical JSON of what made it."""
    return sha256_json({"protocol_version": PROTOCOL_VERSION, **key_inputs})


class RawStore:
    """Runs under `root`/<key>/<nn>/."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def complete(self, key: str) -> list[StoredRun]:
        """Return the complete runs under a key that still count, lowest number first."""
        folder = self.root / key
        first = self._first_that_counts(key)
        numbers = sorted(
            int(entry.name)
            for entry in (folder.iterdir() if folder.is_dir() else ())
            if _NUMBER.fullmatch(entry.name) and (entry / "meta.json").is_file()
        )
        return [self.run(f"{key}/{number:02d}") for number in numbers if number >= first]

    def run(self, name: str) -> StoredRun:
        """Return the complete run `<key>/<nn>`, whether it still counts or not.

        Raises:
            IntegrityError: there is no such run.
        """
        key, number = name.split("/")
        folder = self.root / name
        try:
            return StoredRun(key, int(number), folder, read_json(folder / "meta.json"))
        except FileNotFoundError:
            raise IntegrityError(
                f"the run {name} is not in the raw store",
                where=str(folder),
                do="Restore it, or run `snakemake --cores 4 remeasure`",
            ) from None

    def set_aside(self, key: str) -> None:
        """Let no run that a key has now count any more: it stays on disk, others are measured anew."""
        with self._locked(key):
            write_json(self.root / key / "counts-from.json", {"format": 1, "number": self._next_number(key)})

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """A folder on the store's own file system to gather a run in; gone afterwards unless it was added."""
        drafts = self.root / ".drafts"
        self._sweep(drafts)
        folder = drafts / f"{os.getpid()}-{os.urandom(4).hex()}"
        folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, draft: Path, key_inputs: Mapping[str, Any], meta: Mapping[str, Any]) -> StoredRun:
        """Add a gathered run: hash its files, write `meta.json` last, and rename the folder into place.

        Args:
            draft: a folder of `draft()` with the probe's files in it.
            key_inputs: what made the run; hashed to its key.
            meta: role, block, argv and the like; `format`, `key`, `number`, `key_inputs`, `files` are added.
        """
        key = run_key(key_inputs)
        files = {
            path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(draft.iterdir())
            if path.is_file()
        }
        with self._locked(key):
            number = self._next_number(key)
            complete = {
                **meta,
                "format": 1,
                "key": key,
                "number": number,
                "key_inputs": {"protocol_version": PROTOCOL_VERSION, **key_inputs},
                "files": files,
            }
            for path in draft.iterdir():
                _flush(path)
            write_json(draft / "meta.json", complete)
            target = self.root / key / f"{number:02d}"
            draft.rename(target)
            _flush(target.parent)
        return StoredRun(key, number, target, complete)

    def check(self, run: StoredRun) -> None:
        """Raise IntegrityError when a file of a run is not what its `meta.json` says."""
        for name, expected in run.meta["files"].items():
            path = run.folder / name
            actual = sha256_file(path) if path.is_file() else "absent"
            if actual != expected["sha256"]:
                raise IntegrityError(
                    f"{name} of run {run.name} has sha256 {actual}, expected {expected['sha256']}",
                    where=str(path),
                    do="Restore it, or remove the run's folder and run again with --forcerun measure_block",
                )

    def keep_failed(self, draft: Path, key_inputs: Mapping[str, Any], failed: Path) -> Path:
        """Move what a failed run left to `failed`/<key>/<time>/, to be looked at; nothing reads it."""
        time = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        target = failed / run_key(key_inputs) / time
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(draft / "key_inputs.json", dict(key_inputs))
        draft.rename(target)
        return target

    def _first_that_counts(self, key: str) -> int:
        path = self.root / key / "counts-from.json"
        return int(read_json(path)["number"]) if path.is_file() else 0

    def _next_number(self, key: str) -> int:
        numbers = [int(path.name) for path in (self.root / key).iterdir() if _NUMBER.fullmatch(path.name)]
        return max(numbers, default=-1) + 1

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        folder = self.root / key
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _sweep(drafts: Path) -> None:
        """Remove the drafts of processes that are gone: what a killed workflow left half-gathered."""
        if not drafts.is_dir():
            return
        for folder in drafts.iterdir():
            pid = folder.name.split("-")[0]
            if pid.isdigit() and not _alive(int(pid)):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

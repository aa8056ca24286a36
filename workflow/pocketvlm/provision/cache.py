"""The user's cache, the one place outside the clone where the workflow writes, and what in it is trusted.

Snakemake's between-workflow cache moves an output into one folder under a hash of how it was made and puts a
link in its place; it never looks at the bytes again. Here a producing job registers the bytes it made, and at
each start every entry that is not what a job registered is thrown away, so that Snakemake makes it again.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from pocketvlm.provenance import canonical_json, read_json, sha256_file, sha256_json, write_json

LOCATION = "SNAKEMAKE_OUTPUT_CACHE"
KNOWN = "known"
# Snakemake writes it into folders that it declares as outputs.
IGNORED = ".snakemake_timestamp"
# Snakemake moves an entry in by way of a temporary folder; an old one was left by a killed process.
PASSING = "tmp"
PASSING_HOURS = 12

log = logging.getLogger(__name__)

# What changes when a file's bytes do, without reading them: path in the entry, inode, size, time of change.
Seen = list[list[str | int]]


def cache_root() -> Path:
    """Return the cache's folder, made if it is not there and closed to other users.

    `$POCKETVLM_CACHE` (a relative value counts from the working directory), else `$XDG_CACHE_HOME/pocketvlm`,
    else `~/.cache/pocketvlm`.
    """
    named = os.environ.get("POCKETVLM_CACHE")
    if named:
        root = Path(named).expanduser().absolute()
    else:
        # The XDG specification says that a relative XDG_CACHE_HOME is to be ignored.
        base = os.environ.get("XDG_CACHE_HOME", "")
        root = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pocketvlm"
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
    return root


def register(output: Path, cache_dir: Path | None = None) -> None:
    """Record the finished bytes of an output, so that its entry in the cache is trusted; a job's last act.

    Args:
        output: a file or a folder that the calling job has just completed.
        cache_dir: Snakemake's between-workflow cache; default: the one in use. Without one, nothing is done.
    """
    if cache_dir is None:
        if not os.environ.get(LOCATION):
            return
        cache_dir = Path(os.environ[LOCATION])
    _private(cache_dir)
    _remember(cache_dir, digest(output), _seen(output))


def prepare(cache_dir: Path, results: Path = Path("results")) -> None:
    """Make the cache ready for a workflow: private, and without an entry that no job registered.

    Entries whose inode, size and time are those of verified bytes are not read again. Other workflows may use
    the cache at the same time: what one of them is moving in is left alone until it is old.

    Args:
        cache_dir: Snakemake's between-workflow cache.
        results: the workflow's outputs; links in it to entries that are gone are removed, for Snakemake
            takes a folder of such links for a complete output.
    """
    _private(cache_dir)
    with _alone(cache_dir):
        records = (cache_dir / KNOWN).glob("*.json")
        trusted = {canonical_json(seen) for record in records for seen in _looks(record)}
        for entry in sorted(cache_dir.iterdir()):
            if entry.name == KNOWN:
                continue
            # Another workflow may replace or remove it at any moment.
            with contextlib.suppress(FileNotFoundError):
                if entry.name.startswith(PASSING):
                    if time.time() - _newest(entry) > PASSING_HOURS * 3600:
                        _discard(entry, cache_dir)
                    continue
                _discard_second(entry)
                seen = _seen(entry)
                if canonical_json(seen) in trusted:
                    continue
                found = digest(entry)
                # Looked up now: an entry may have been registered and moved in since this began.
                if (cache_dir / KNOWN / f"{found}.json").exists():
                    _remember(cache_dir, found, seen)
                    continue
                if _seen(entry) != seen:
                    continue
                log.warning(
                    "the cached %s is not what was stored (sha256 %s): it is thrown away and made again",
                    entry.name,
                    found,
                )
                _discard(entry, cache_dir)
    _drop_dangling(results, cache_dir)


def digest(path: Path) -> str:
    """Return the hex sha256 of a file's bytes, or of the names and hashes of all files of a folder."""
    if path.is_dir():
        return sha256_json({name: sha256_file(file) for name, file in _files(path)})
    return sha256_file(path)


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [
        (path.relative_to(folder).as_posix(), path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != IGNORED
    ]


def _seen(path: Path) -> Seen:
    files = _files(path) if path.is_dir() else [("", path)]
    looks: Seen = []
    for name, file in files:
        state = file.stat()
        looks.append([name, state.st_ino, state.st_size, state.st_mtime_ns])
    return looks


def _looks(record: Path) -> list[Seen]:
    """Return what the files of a registered hash looked like when they were verified."""
    # A record that cannot be read only costs reading the entry again.
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return list(read_json(record)["seen"])
    return []


def _remember(cache_dir: Path, found: str, seen: Seen) -> None:
    record = cache_dir / KNOWN / f"{found}.json"
    looks = _looks(record)
    if seen not in looks or not record.exists():
        # Several working directories may have made the same bytes: the latest looks are enough.
        write_json(record, {"seen": [*looks[-7:], seen]})


def _private(cache_dir: Path) -> None:
    (cache_dir / KNOWN).mkdir(parents=True, exist_ok=True)
    # Snakemake opens its entries to everyone; the folder keeps everyone out.
    if cache_dir.stat().st_mode & 0o077:
        cache_dir.chmod(0o700)


@contextlib.contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Let one process at a time judge the entries; the kernel releases the lock of one that dies."""
    with (cache_dir / KNOWN / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _newest(path: Path) -> float:
    return max(item.lstat().st_mtime for item in (path, *path.rglob("*")))


def _discard(path: Path, cache_dir: Path) -> None:
    """Remove something of the cache: gone from its name at once, however long its removal takes."""
    aside = Path(tempfile.mkdtemp(dir=cache_dir, prefix=PASSING))
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside / "discarded")
    shutil.rmtree(aside, ignore_errors=True)


def _discard_second(entry: Path) -> None:
    """Remove from an entry the folder that another workflow made at the same time under the same hash.

    Snakemake moves a folder in with `shutil.move`, which puts it inside of one that is there already. Nobody
    reads it there: a bundle is what its manifest lists.
    """
    second = entry / entry.name
    if second.is_dir() and not second.is_symlink():
        log.info("the cached %s was made twice at once: the second is thrown away", entry.name)
        _discard(second, entry.parent)


def _drop_dangling(results: Path, cache_dir: Path) -> None:
    """Remove outputs that are links to what the cache no longer has, or folders with such links."""
    cache = cache_dir.absolute()
    for stage in ("sources", "weights", "bundles"):
        for link in sorted((results / stage).rglob("*")):
            if not link.is_symlink() or link.exists() or not link.readlink().is_relative_to(cache):
                continue
            bundle = results / stage / link.relative_to(results / stage).parts[0]
            if stage == "bundles" and bundle != link:
                shutil.rmtree(bundle)
            else:
                link.unlink()

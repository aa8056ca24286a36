"""Snakemake's between-workflow cache, kept honest: an entry that is not as its job left it is made again.

Snakemake moves the outputs of rules with `cache:` into one folder and links them into each working directory,
but never looks at an entry again. Here each job registers the bytes that it finished, and every start of a
workflow throws away the entries whose bytes nobody registered.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketvlm.provenance import read_json, sha256_file, sha256_json, write_json

log = logging.getLogger(__name__)

LOCATION = "SNAKEMAKE_OUTPUT_CACHE"
"""Environment variable in which Snakemake looks for the folder of the cache."""

_KNOWN = "known"
_MEMO = "seen.json"
# A folder that a killed Snakemake was moving an entry through is not touched before this age.
_ABANDONED_S = 24 * 3600


def register(path: Path, cache: Path | None = None) -> None:
    """Record the bytes of a finished output as good; a job's last act.

    Args:
        path: the file or folder.
        cache: the cache that Snakemake will move it to; None for the one in use.
    """
    known = (cache or Path(os.environ[LOCATION])) / _KNOWN
    known.mkdir(parents=True, exist_ok=True)
    (known / _digest(path)).touch()


def prepare(cache: Path, results: Path | None = None) -> list[str]:
    """Make the cache ready for a workflow: closed to others, and free of entries that are not known good.

    What was looked at before and has not changed since (size, time, inode) is not read again.

    Args:
        cache: the folder.
        results: the results of this working directory; a folder in it whose links into the cache lead nowhere
            any more is removed, because Snakemake would take it for a complete output.

    Returns:
        The names of the entries that were thrown away.
    """
    cache.mkdir(parents=True, exist_ok=True)
    cache.chmod(0o700)
    (cache / _KNOWN).mkdir(exist_ok=True)
    memo = _memo(cache)
    seen: dict[str, Any] = {}
    discarded = []
    for entry in sorted(cache.iterdir()):
        if entry.name == _KNOWN:
            continue
        if entry.name.startswith("tmp"):
            _sweep(entry)
            continue
        try:
            signature = _signature(entry)
            if memo.get(entry.name) == signature or (cache / _KNOWN / _digest(entry)).exists():
                seen[entry.name] = signature
                continue
        except FileNotFoundError:  # another workflow is replacing it
            continue
        log.warning("the cached file %s is not as it was made: it is thrown away and made again", entry)
        _remove(entry)
        discarded.append(entry.name)
    if seen != memo:
        write_json(cache / _KNOWN / _MEMO, seen)
    if results is not None:
        _drop_dangling(results)
    return discarded


def _memo(cache: Path) -> dict[str, Any]:
    try:
        memo = read_json(cache / _KNOWN / _MEMO)
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    return memo if isinstance(memo, dict) else {}


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """The files of an entry by relative name; Snakemake's own time stamp is none of the job's bytes."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file() and file.name != ".snakemake_timestamp":
                yield file.relative_to(path).as_posix(), file
    else:
        yield "", path


def _digest(path: Path) -> str:
    return sha256_json({name: sha256_file(file) for name, file in _files(path)})


def _signature(path: Path) -> list[list[Any]]:
    return [
        [name, status.st_size, status.st_mtime_ns, status.st_ino]
        for name, status in ((name, file.stat()) for name, file in _files(path))
    ]


def _drop_dangling(results: Path) -> None:
    for folder in (results / "sources", results / "weights", results / "bundles"):
        for link in sorted(folder.rglob("*")):
            if link.is_symlink() and not link.exists():
                log.warning("%s leads to nothing any more: it is made again", link)
                top = link.relative_to(folder).parts[0]
                if folder.name == "bundles":
                    _remove(folder / top)
                else:
                    link.unlink(missing_ok=True)


def _sweep(folder: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if time.time() - folder.stat().st_mtime > _ABANDONED_S:
            _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

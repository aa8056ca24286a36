"""Hashes, canonical JSON and atomic writes: how every file of the workflow says what it is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from pocketvlm.errors import IntegrityError


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Return the hex sha256 of a file's bytes."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:
    """Return the hex sha256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def check_sha256(path: str | os.PathLike[str], expected: str, *, do: str) -> None:
    """Raise IntegrityError with the expected and the actual hash when a file is not what it should be."""
    actual = sha256_file(path)
    if actual != expected:
        raise IntegrityError(
            f"{Path(path).name} has sha256 {actual}, expected {expected}", where=str(path), do=do
        )


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Write a file aside in its own folder and rename it into place only when the block succeeds."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    partial = Path(name)
    try:
        with os.fdopen(descriptor, mode) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as readable JSON, atomically."""
    with atomic_file(path) as stream:
        json.dump(value, stream, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        stream.write("\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


def code_hash(*parts: str) -> str:
    """Return the sha256 of the library's own source files below the named parts.

    Snakemake does not see what a script imports. A rule whose output depends on library code takes this as a
    parameter, so that a change of the code reruns it (and misses the between-workflow cache).

    Args:
        parts: modules or packages of `pocketvlm`, e.g. `"weights"` or `"analyse/phases.py"`.
    """
    root = Path(__file__).parent
    files: dict[str, str] = {}
    for part in parts:
        path = root / part
        found = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        files.update({file.relative_to(root).as_posix(): sha256_file(file) for file in found})
    return sha256_json(files)

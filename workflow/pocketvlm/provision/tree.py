"""A folder's files as one value: what a source tree, a folder of binaries or a folder of weights is.

The hash of a tree covers the names, contents, permission to execute and links of all that is in it, so that
whatever is changed changes it. Times, owners and what git keeps for itself (`.git`) are no part of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import sha256_file, sha256_json

LEFT_OUT = frozenset({".git"})
MAX_FILES = 200_000


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give each file and link below a folder, by its path there, in order.

    Raises:
        ProvisionError: the folder is not there or is none, it holds a pipe, device or socket, or far too
            many files.
    """
    if not folder.is_dir():
        raise ProvisionError(
            "there is no such folder" if not folder.exists() else "this is no folder",
            where=str(folder),
            do="Put it there, or correct the path",
        )
    found: list[tuple[str, Path]] = []
    for root, names, files in os.walk(folder, onerror=_unreadable):
        names[:] = [name for name in names if name not in LEFT_OUT]
        links = [name for name in names if (Path(root) / name).is_symlink()]
        for name in (*files, *links):
            path = Path(root) / name
            if name in LEFT_OUT:  # of a worktree `.git` is a file
                continue
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
                raise ProvisionError(
                    f"{name} is neither a file nor a folder nor a link",
                    where=str(path),
                    do="Remove it from the folder",
                )
            found.append((path.relative_to(folder).as_posix(), path))
        if len(found) > MAX_FILES:
            raise ProvisionError(
                f"the folder holds more than {MAX_FILES} files",
                where=str(folder),
                do="Name the folder of the sources or binaries themselves",
            )
    yield from sorted(found)


def _unreadable(error: OSError) -> None:
    raise ProvisionError(
        f"a folder cannot be read: {error.strerror}",
        where=str(error.filename),
        do="Make it readable, or remove it",
    )


def tree_sha256(folder: Path) -> str:
    """Return the hash of a folder's files; ProvisionError as `walk`."""
    return sha256_json({name: list(_entry(path)) for name, path in walk(folder)})


def _entry(path: Path) -> tuple[str, str]:
    if path.is_symlink():
        return "link", str(path.readlink())
    kind = "program" if path.stat().st_mode & 0o100 else "file"
    try:
        return kind, sha256_file(path)
    except PermissionError:
        raise ProvisionError(
            "the file cannot be read", where=str(path), do="Make it readable, or remove it"
        ) from None


def copy_tree(folder: Path, destination: Path, *, link: bool = False) -> str:
    """Copy a folder's files to a new one and return the hash of what was copied.

    Args:
        folder: what to copy.
        destination: the folder to make.
        link: make hard links where the file system allows it: for gigabytes that are not written to.

    Raises:
        ProvisionError: as `walk`.
        IntegrityError: a link leads out of the folder.
    """
    for name, path in walk(folder):
        place = destination / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target = str(path.readlink())
            _check_link(folder, name, target)
            place.symlink_to(target)
        else:
            place_file(path, place, link=link)
    destination.mkdir(parents=True, exist_ok=True)
    return tree_sha256(destination)


def _check_link(folder: Path, name: str, target: str) -> None:
    inside = os.path.normpath(PurePosixPath(name).parent / target)
    if PurePosixPath(target).is_absolute() or inside == ".." or inside.startswith("../"):
        raise IntegrityError(
            f"the link {name} leads out of the folder, to {target!r}",
            where=str(folder),
            do="Put a copy of what it leads to in its place",
        )


def place_file(source: Path, place: Path, *, link: bool = False) -> None:
    """Copy a file with its permission to execute, or make a hard link of it where that is asked."""
    if link:
        try:
            os.link(source.resolve(), place)
            return
        except OSError:  # another file system, or one without links
            place.unlink(missing_ok=True)
    shutil.copyfile(source, place)
    place.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)

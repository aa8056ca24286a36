"""A folder's files as one value: what a source tree, a folder of binaries or a folder of weights is.

The hash of a tree covers the names, contents, permission to execute and links of all that is in it, so that
whatever is changed changes it. Times, owners and what git keeps for itself (`.git`) are no part of it.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import sha256_file, sha256_json

# Of git, and of Snakemake in the folders that it declares.
LEFT_OUT = frozenset({".git", ".snakemake_timestamp"})
MAX_FILES = 200_000


def walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Give each file and link below a folder, by its path there, in order.

    Raises:
        ProvisionError: the folder is not there or is none, it holds a pipe, device or socket, a name that is
            no UTF-8, or far too many files, or it changes while it is read.
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
            _check_name(path.relative_to(folder).as_posix(), folder)
            with reading(path):
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


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Raise ProvisionError when what a user gave may not be read, or goes away while it is read."""
    try:
        yield
    except PermissionError:
        raise ProvisionError(
            "the file cannot be read", where=str(path), do="Make it readable, or remove it"
        ) from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise ProvisionError(
            "the file went away while it was read", where=str(path), do="Start again when nothing changes it"
        ) from None


def _check_name(name: str, folder: Path) -> None:
    """Refuse what no hash and no manifest can tell: both are JSON, which is UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ProvisionError(
            f"the name {os.fsencode(name).decode(errors='replace')!r} is no UTF-8",
            where=str(folder),
            do="Rename the file, or remove it from the folder",
        ) from None


def tree_sha256(folder: Path) -> str:
    """Return the hash of a folder's files; ProvisionError as `walk`."""
    return sha256_json({name: list(_entry(path)) for name, path in walk(folder)})


def _entry(path: Path) -> tuple[str, str]:
    with reading(path):
        if path.is_symlink():
            target = str(path.readlink())
            _check_name(target, path)
            return "link", target
        kind = "program" if path.stat().st_mode & 0o100 else "file"
        return kind, sha256_file(path)


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
    links: list[tuple[str, str]] = []
    for name, path in walk(folder):
        place = destination / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with reading(path):
            if path.is_symlink():
                target = str(path.readlink())
                _check_link(folder, name, target)
                place.symlink_to(target)
                links.append((name, target))
            else:
                place_file(path, place, link=link)
    destination.mkdir(parents=True, exist_ok=True)
    inside = Path(os.path.realpath(destination))
    for name, target in links:
        # Where it really leads: `a/..` is another place when `a` is a link itself.
        if not Path(os.path.realpath(destination / name)).is_relative_to(inside):
            raise _leads_out(folder, name, target)
    return tree_sha256(destination)


def _check_link(folder: Path, name: str, target: str) -> None:
    inside = os.path.normpath(PurePosixPath(name).parent / target)
    if PurePosixPath(target).is_absolute() or inside == ".." or inside.startswith("../"):
        raise _leads_out(folder, name, target)


def _leads_out(folder: Path, name: str, target: str) -> IntegrityError:
    return IntegrityError(
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

"""Unpacking Debian packages into one folder that none of them may leave.

`dpkg-deb -x` follows a link that an earlier package left there: one package that holds a link out of the
folder and a second one with a file below it would write outside. So each package's list is read first. Where
links point to is not asked: an absolute one is usual, and only who uses it follows it.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

from pocketvlm.errors import IntegrityError, ProvisionError

MAX_MEMBERS = 200_000
MAX_BYTES = 4 << 30
_SECONDS = 600


def unpack(package: Path, root: Path) -> None:
    """Unpack a package into a folder, which may hold other packages' files already.

    Args:
        package: the .deb file.
        root: the folder.

    Raises:
        IntegrityError: a member would be written outside the folder, is a device or a pipe, or the package is
            too large. Nothing of it was unpacked.
        ProvisionError: it is no package, or a damaged one, or the disk is full.
    """
    _check(package, root)
    done = subprocess.run(
        ["dpkg-deb", "-x", str(package.absolute()), str(root.absolute())],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_SECONDS,
        env={**os.environ, "LC_ALL": "C"},
    )
    if done.returncode != 0:
        raise _broken(package, done.stderr)


def _check(package: Path, root: Path) -> None:
    listing = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
    )
    assert listing.stdout is not None and listing.stderr is not None
    try:
        with tarfile.open(fileobj=listing.stdout, mode="r|") as tar:
            _check_members(tar, package, root)
        listing.stdout.read()  # what pads the end
    except tarfile.TarError as error:
        listing.kill()
        said = listing.stderr.read().decode(errors="replace")
        raise _broken(package, said or str(error)) from error
    finally:
        listing.stdout.close()
        listing.kill()
        listing.wait()
        listing.stderr.close()


def _check_members(tar: tarfile.TarFile, package: Path, root: Path) -> None:
    real, size = root.resolve(), 0
    for count, member in enumerate(tar, 1):
        size += member.size if member.isreg() else 0
        if count > MAX_MEMBERS or size > MAX_BYTES:
            raise _refused(package, f"holds more than {MAX_MEMBERS} files or {MAX_BYTES >> 30} GiB")
        if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
            raise _refused(package, f"holds {member.name!r}, which is a device or a pipe")
        for name in (member.name, *([member.linkname] if member.islnk() else [])):
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts or not _within(real, path, folder=member.isdir()):
                raise _refused(package, f"holds {name!r}, which leads out of the folder")


def _within(root: Path, path: PurePosixPath, *, folder: bool) -> bool:
    """Whether a member is written below the folder, with the links that other packages left there followed.

    tar replaces what stands at a member's own place, except that it keeps a link to a folder for a folder.
    """
    place = root.joinpath(path) if folder else root.joinpath(path).parent
    real = place.resolve()
    return real == root or root in real.parents


def _refused(package: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{package.name} {why}",
        where=str(package),
        do="Do not use it; ask whoever runs the mirror of Debian that apt is configured with",
    )


def _broken(package: Path, said: str) -> ProvisionError:
    lines = said.strip().splitlines() or ["it said nothing"]
    return ProvisionError(
        f"{package.name} cannot be unpacked: {lines[0][:300]}",
        where=str(package),
        do="Free space if the disk is full, then start again",
    )

"""Unpacking zip archives of binaries that nobody vouches for: no member may reach outside the folder."""

from __future__ import annotations

import errno
import lzma
import os
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from pocketvlm.errors import IntegrityError
from pocketvlm.provision.archive import MAX_MEMBERS, MAX_UNPACKED, PIECE

_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(NotImplementedError, RuntimeError, ValueError),
)
# Of the system's own errors those that are the archive's: what bz2 says, which has no number, a place before
# its beginning that it points to, and a name that is longer than a disk takes.
_ITS_OWN = (None, errno.EINVAL, errno.ENAMETOOLONG)


def unpack_zip(archive: Path, destination: Path, *, max_bytes: int = MAX_UNPACKED) -> None:
    """Unpack a zip archive into a new folder, as `archive.unpack` does a tar archive with `strip=False`.

    Args:
        archive: a zip file.
        destination: the folder to make; what is left of a failed attempt is the caller's to remove.
        max_bytes: bytes of all files together, as they are unpacked and whatever their headers say.

    Raises:
        IntegrityError: the archive is damaged, encrypted or too large, or has a member that leaves the
            folder, is a link or comes twice.
    """
    destination.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive) as packed:
            members = packed.infolist()
            if len(members) > MAX_MEMBERS:
                raise _refused(archive, f"has more than {MAX_MEMBERS} members")
            left = max_bytes
            for member in members:
                left -= _extract(packed, member, destination, archive, left)
    except (*_DAMAGED, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _ITS_OWN:
            raise
        raise IntegrityError(
            f"{archive.name} is damaged or encrypted: {getattr(error, 'strerror', None) or error}",
            where=str(archive),
            do="Get it again",
        ) from error


def _extract(packed: zipfile.ZipFile, member: zipfile.ZipInfo, root: Path, archive: Path, left: int) -> int:
    path = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
        raise _refused(archive, f"has a member {member.filename!r} that leaves the folder")
    if stat.S_ISLNK(mode):
        raise _refused(archive, f"has a member {member.filename!r} that is a link")
    if not path.parts:
        return 0
    place = root.joinpath(*path.parts)
    try:
        if member.is_dir():
            place.mkdir(parents=True, exist_ok=True)
            return 0
        place.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(place, flags, 0o755 if mode & 0o100 else 0o644)
    except (FileExistsError, NotADirectoryError):
        raise _refused(archive, f"has a member {member.filename!r} twice, or below a file") from None
    with os.fdopen(descriptor, "wb") as sink, packed.open(member) as source:
        for data in iter(lambda: source.read(PIECE), b""):
            left -= len(data)
            if left < 0:  # counted, for headers can lie about sizes
                raise _refused(archive, "unpacks to more than it may")
            sink.write(data)
        return sink.tell()


def _refused(archive: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{archive.name} {why}",
        where=str(archive),
        do="Do not use this archive; check where it came from and its pinned sha256",
    )

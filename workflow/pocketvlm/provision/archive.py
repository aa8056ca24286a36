"""Unpacking source archives that nobody vouches for: no member may reach outside the folder."""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
import tempfile
import zlib
from pathlib import Path, PurePosixPath

from pocketvlm.errors import IntegrityError

MAX_UNPACKED = 4 << 30
MAX_MEMBERS = 200_000
PIECE = 1 << 20


def unpack(archive: Path, destination: Path, *, max_bytes: int = MAX_UNPACKED, strip: bool = True) -> None:
    """Unpack a tar archive without its top folder; `destination` appears complete or not at all.

    Files and folders are made, and symbolic links that stay inside; owners, special bits and times are left
    out.

    Args:
        archive: .tar, .tar.gz, .tar.bz2 or .tar.xz with one top folder.
        destination: the folder to make; it must not exist or be empty.
        max_bytes: bytes of all files together.
        strip: whether it has one top folder, which is left out.

    Raises:
        IntegrityError: the archive is damaged, too large, or has a member that leaves the folder, is a hard
            link or
            a device, or comes twice.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        root = aside / "unpacked"
        root.mkdir()
        try:
            with tarfile.open(archive, "r:*") as tar:
                _extract(tar, root, archive, max_bytes, strip=strip)
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            # Of the system's own errors one is the archive's: a name that is longer than a disk takes.
            if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG):
                raise
            raise IntegrityError(
                f"{archive.name} is damaged: {error}",
                where=str(archive),
                do="Delete it and start again, so that it is fetched anew",
            ) from error
        root.rename(destination)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(tar: tarfile.TarFile, root: Path, archive: Path, max_bytes: int, *, strip: bool) -> None:
    def refuse(member: tarfile.TarInfo | None, why: str) -> IntegrityError:
        what = f"member {member.name!r} of {archive.name} {why}" if member else f"{archive.name} {why}"
        return IntegrityError(
            what,
            where=str(archive),
            do="Do not use this archive; check where it came from and its pinned sha256",
        )

    total, top = 0, None
    links: list[tuple[tarfile.TarInfo, Path]] = []
    for count, member in enumerate(tar):
        if count >= MAX_MEMBERS:
            raise refuse(None, f"has more than {MAX_MEMBERS} members")
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or "\0" in member.name:
            raise refuse(member, "leaves the folder")
        if not path.parts:
            continue
        top = top or path.parts[0]
        if strip and path.parts[0] != top:
            raise refuse(member, f"lies outside the archive's top folder {top!r}")
        place = root.joinpath(*path.parts[1 if strip else 0 :])
        if member.isdir():
            if place.exists() and not place.is_dir():
                raise refuse(member, "comes twice, as a file and as a folder")
            place.mkdir(parents=True, exist_ok=True)
        elif place == root:
            raise refuse(member, "is no folder, where the top folder should be")
        elif member.isreg():
            total += member.size
            if total > max_bytes:
                raise refuse(None, f"unpacks to more than {max_bytes} bytes")
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                descriptor = os.open(place, flags, 0o755 if member.mode & 0o100 else 0o644)
            except (FileExistsError, NotADirectoryError):
                raise refuse(member, "comes twice, or lies below a file") from None
            with os.fdopen(descriptor, "wb") as stream:
                source = tar.extractfile(member)
                assert source is not None
                shutil.copyfileobj(source, stream, PIECE)
                if stream.tell() != member.size:
                    raise refuse(member, "is cut short")
        elif member.issym():
            links.append((member, place))
        else:
            raise refuse(member, "is a hard link, a device or of another kind that source code does not need")
    if top is None:
        raise refuse(None, "is empty")
    # Links come last, so that nothing is ever written through one.
    inside = os.path.realpath(root)
    for member, place in links:
        if PurePosixPath(member.linkname).is_absolute() or place.exists() or place.is_symlink():
            raise refuse(member, "links to an absolute path, or comes twice")
        if os.path.realpath(place.parent) != str(Path(inside, place.parent.relative_to(root))):
            raise refuse(member, "lies below a link")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(member.linkname)
    for member, place in links:
        if not os.path.realpath(place).startswith(inside + os.sep):
            raise refuse(member, f"links out of the folder, to {member.linkname!r}")

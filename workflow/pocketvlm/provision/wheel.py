"""Wheels: pinned by file name and sha256, fetched as sdists are, and unpacked without installing them."""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from pocketvlm.errors import ConfigError, IntegrityError
from pocketvlm.provision import sdist
from pocketvlm.provision.archive import MAX_MEMBERS, MAX_UNPACKED, PIECE

# project-version(-build)-python-abi-platform.whl
_NAME = re.compile(r"(?P<project>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(-\d[^-]*)?(-[^-]+){3}\.whl")


def fetch(pin: Mapping[str, str], destination: Path) -> None:
    """Download a wheel and unpack it.

    Args:
        pin: `file`, its name, and `sha256`.
        destination: the folder to unpack into; others may have been unpacked there before.

    Raises:
        ConfigError: the name is none of a wheel.
        ProvisionError: no index has it.
        IntegrityError: it has another hash, is damaged, or has a member that leaves the folder.
    """
    name = _NAME.fullmatch(pin["file"])
    if not name:
        raise ConfigError(
            f"{pin['file']!r} is no name of a wheel", where="config/frameworks.yaml: wheels", do="Correct it"
        )
    destination.mkdir(parents=True, exist_ok=True)
    archive = destination / f".{pin['file']}"
    try:
        sdist.download(name["project"], name["version"], pin["sha256"], archive, wheel=pin["file"])
        unpack(archive, destination)
    finally:
        archive.unlink(missing_ok=True)


def unpack(archive: Path, destination: Path) -> None:
    """Unpack a wheel into an existing folder: plain files, none of which may be there already.

    Raises:
        IntegrityError: it is damaged, too large, or has a member that leaves the folder or is no plain file.
    """
    try:
        with zipfile.ZipFile(archive) as wheel:
            _extract(wheel, archive, destination)
    except (zipfile.BadZipFile, EOFError, zlib.error, NotImplementedError) as error:
        raise _refuse(archive, f"is damaged: {error}") from error


def _extract(wheel: zipfile.ZipFile, archive: Path, destination: Path) -> None:
    members = [member for member in wheel.infolist() if not member.is_dir()]
    if len(members) > MAX_MEMBERS or sum(member.file_size for member in members) > MAX_UNPACKED:
        raise _refuse(archive, f"unpacks to more than {MAX_MEMBERS} files or {MAX_UNPACKED} bytes")
    for member in members:
        path = PurePosixPath(member.filename)
        mode = member.external_attr >> 16
        if path.is_absolute() or ".." in path.parts or "\\" in member.filename or stat.S_ISLNK(mode):
            raise _refuse(
                archive, f"has the member {member.filename!r}, which leaves the folder or is a link"
            )
        place = destination / path
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with wheel.open(member) as source, place.open("xb") as stream:
                shutil.copyfileobj(source, stream, PIECE)
        except (FileExistsError, NotADirectoryError):
            raise _refuse(archive, f"has the member {member.filename!r} twice, or below a file") from None


def _refuse(archive: Path, why: str) -> IntegrityError:
    return IntegrityError(
        f"{archive.name.removeprefix('.')} {why}",
        where=str(archive),
        do="Do not use it; check where it came from and its pinned sha256",
    )

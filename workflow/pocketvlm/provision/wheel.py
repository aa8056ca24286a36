"""Wheels: pinned by file name and sha256, fetched as sdists are, and unpacked without installing them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pocketvlm.errors import ConfigError
from pocketvlm.provision import sdist
from pocketvlm.provision.zipped import unpack_zip

# project-version(-build)-python-abi-platform.whl
_NAME = re.compile(r"(?P<project>[A-Za-z0-9_.]+)-(?P<version>[^-]+)(-\d[^-]*)?(-[^-]+){3}\.whl")


def fetch(pin: Mapping[str, str], destination: Path) -> None:
    """Download a wheel and unpack it.

    Args:
        pin: `file`, its name, and `sha256`.
        destination: the folder to make; what is left of a failed attempt is the caller's to remove.

    Raises:
        ConfigError: the name is none of a wheel.
        ProvisionError: no index has it.
        IntegrityError: it has another hash, is damaged, or has a member that leaves the folder.
    """
    name = _NAME.fullmatch(pin["file"])
    if not name:
        raise ConfigError(
            f"{pin['file']!r} is no name of a wheel", where="config/frameworks.yaml: targets", do="Correct it"
        )
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".wheel-") as folder:
        archive = Path(folder) / pin["file"]
        sdist.download(name["project"], name["version"], pin["sha256"], archive, wheel=pin["file"])
        unpack_zip(archive, destination)

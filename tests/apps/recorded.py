"""The recorded app as a file that the emulated phone installs, and its entry in a table of frameworks."""

from __future__ import annotations

import copy
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
PACKAGE = "org.example.pocketchat"
FRAMEWORK, VERSION = "pocketchat-stand-in", "1.2.0"
PROMPT = "What is in the picture, and is it 100%sure?"


def archive(*, moves: str = "", without: str = "") -> bytes:
    """Return the app as the archive that stands for an apk, always the same bytes.

    Args:
        moves: further lines of `moves`, before those of the app, so that they come first.
        without: a piece of text; lines of `moves` that have it are left out.
    """
    folder, made = HERE / "pocketchat", io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            data = path.read_bytes()
            if path.name == "moves":
                kept = [line for line in data.decode().splitlines() if not without or without not in line]
                data = (moves + "\n".join(kept) + "\n").encode()
            member = tarfile.TarInfo(path.relative_to(folder).as_posix())
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


def table(apk: bytes) -> dict[str, Any]:
    """Return the table of frameworks with the app, for an apk that lies beside it."""
    read: dict[str, Any] = yaml.safe_load((HERE / "pocketchat.yaml").read_text())
    app(read)["apk"]["sha256"] = hashlib.sha256(apk).hexdigest()
    return copy.deepcopy(read)


def app(table_: dict[str, Any]) -> dict[str, Any]:
    """Return the app's entry of such a table."""
    found: dict[str, Any] = table_[FRAMEWORK]["versions"][VERSION]["app"]
    return found

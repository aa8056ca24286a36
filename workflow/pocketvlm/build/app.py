"""The bundle of a framework that is an app: the app's file, if there is one, and a manifest as others."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.build.bundle import complete
from pocketvlm.errors import IntegrityError
from pocketvlm.provenance import sha256_file, write_json

NAME = "app.apk"


def bundle_app(app: Mapping[str, Any], *, name: str, version: str, target: str, destination: Path) -> None:
    """Write the bundle of an app.

    Args:
        app: the version's `app`; its apk's path as it is here.
        name: the bundle's name.
        version: the framework's version.
        target: of the device; an app brings the code for each of its own.
        destination: the bundle's folder, complete with its manifest, or absent.

    Raises:
        IntegrityError: the apk is not there, or not what its sha256 says.
    """
    apk = app.get("apk")
    with complete(destination) as made:
        files = {}
        if apk is not None:
            path = Path(apk["path"])
            actual = sha256_file(path) if path.is_file() else "no file at all"
            if actual != apk["sha256"]:
                raise IntegrityError(
                    f"{path.name} has sha256 {actual}, expected {apk['sha256']}",
                    where=str(path),
                    do="Get the app again; if it is the right one, correct apk.sha256 of its entry",
                )
            shutil.copyfile(path, made / NAME)
            (made / NAME).chmod(0o644)
            files[NAME] = {"sha256": actual, "bytes": path.stat().st_size, "mode": "0644"}
        write_json(
            made / "manifest.json",
            {
                "format": 1,
                "name": name,
                "target": target,
                "toolchain": {"name": "none, an app as it was given", "version": ""},
                "cpu_features": None,
                "flags": {},
                "source": {
                    "project": app["package"],
                    "version": app.get("version_name", version),
                    "sha256": None if apk is None else apk["sha256"],
                    "commit": None,
                },
                "files": files,
            },
        )

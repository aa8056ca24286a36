"""What is driven in a run, and the command that the probe records meanwhile."""

from __future__ import annotations

from dataclasses import dataclass

from pocketvlm.apps.script import Script

# What the probe runs: it says that it is there and waits to be ended, which is no failure of it.
HOLDER = ("sh", "-c", 'trap "exit 0" TERM; : >"$1"; sleep 86400 & wait', "sh", "@ready")


@dataclass(frozen=True)
class App:
    """What is driven.

    Attributes:
        package, activity: of the app.
        permissions: given to it before it is started.
        image: where the image is to be; `{root}` and the like stand for the device's own places.
        script: what is done.
        apk_sha256, version_name: what must be installed, None for any.
    """

    package: str
    activity: str
    permissions: tuple[str, ...]
    image: str
    script: Script
    apk_sha256: str | None = None
    version_name: str | None = None

"""The user's cache: the one place outside the clone where the workflow writes."""

from __future__ import annotations

import os
from pathlib import Path


def cache_root() -> Path:
    """Return the cache's folder, made if it is not there and closed to other users.

    `$POCKETVLM_CACHE` (a relative value counts from the working directory), else `$XDG_CACHE_HOME/pocketvlm`,
    else `~/.cache/pocketvlm`.
    """
    named = os.environ.get("POCKETVLM_CACHE")
    if named:
        root = Path(named).expanduser().absolute()
    else:
        # The XDG specification says that a relative XDG_CACHE_HOME is to be ignored.
        base = os.environ.get("XDG_CACHE_HOME", "")
        root = (Path(base) if base.startswith("/") else Path.home() / ".cache") / "pocketvlm"
    if not root.is_dir():
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)
    return root

"""The lock of hub models: revision, size and sha256 of every file that the table of models names.

The table says which repository and file are wanted; the lock beside it says which bytes those were when the
hub was asked (`snakemake lock_models`). Nothing is downloaded that the lock does not pin.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvlm.config.schema import load_yaml

SCHEMA = "models.lock"
FORMAT = 1

Lock = Mapping[str, Mapping[str, Any]]
"""Locked entries by model: `repository`, `revision`, and `files`: `{file, bytes, sha256}` by role and type."""


def lock_path(models: Path) -> Path:
    """Return where the lock of a table of models is: beside it, `models.lock.yaml` for `models.yaml`."""
    return models.with_suffix(f".lock{models.suffix}")


def load_lock(path: Path) -> Lock:
    """Return the locked entries by model; none when the hub was never asked.

    Raises:
        ConfigError: the file is not what `lock_models` writes.
    """
    if not path.exists():
        return {}
    models = load_yaml(path, SCHEMA)["models"]
    assert isinstance(models, dict)
    return models

"""The lock of hub models: revision, size and sha256 of every file that the table of models names.

The table says which repository and file are wanted; the lock beside it says which bytes those were when the
hub was asked (`snakemake lock_models`). Nothing is downloaded that the lock does not pin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pocketvlm.config.schema import load_yaml, suggest, validate
from pocketvlm.errors import ConfigError, PocketvlmError, ProvisionError
from pocketvlm.provenance import atomic_file

SCHEMA = "models.lock"
FORMAT = 1

LOCK_COMMAND = "snakemake --cores 1 lock_models"
"""What to run where the hub can be reached; it writes the lock."""

Lock = Mapping[str, Mapping[str, Any]]
"""Locked entries by model: `repository`, `revision`, `files` by role and type: `{file, bytes, sha256}`."""

_HEADER = f"""\
# What the hub's models are, byte by byte. Written by `{LOCK_COMMAND}`; downloads are checked against it.
"""

log = logging.getLogger(__name__)


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


def save_lock(path: Path, lock: Lock) -> None:
    """Write the lock, whole or not at all.

    Raises:
        ConfigError: an entry is not of the lock's schema.
    """
    value = {"format": FORMAT, "models": {name: dict(lock[name]) for name in sorted(lock)}}
    validate(value, SCHEMA, where=str(path))
    with atomic_file(path) as stream:
        stream.write(_HEADER)
        yaml.safe_dump(value, stream, sort_keys=False, allow_unicode=True, width=110)


def update_lock(
    path: Path,
    models: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    ask: Callable[[str, Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """Ask the hub for models and write what it says into the lock; every other entry stays as it is.

    Args:
        path: the lock.
        models: the hub entries of the table of models.
        names: the models to ask for; none: all that have files.
        ask: returns the locked entry of a model and its entry of the table.

    Raises:
        ConfigError: a name is none of a hub model.
        ProvisionError: some could not be locked. They keep what the lock had of them; the others are written.
    """
    for name in names:
        if name not in models:
            raise ConfigError(
                f"{name!r} is no model of the hub", where="--config models", do=suggest(name, list(models))
            )
    lock = dict(load_lock(path))
    failed: dict[str, PocketvlmError] = {}
    for name in names or models:
        entry = models[name]
        if "unpublished" in entry["hub"]:
            log.warning("%s has no file to lock: %s", name, entry["hub"]["unpublished"])
            continue
        try:
            lock[name] = ask(name, entry)
        except PocketvlmError as error:
            log.warning("%s is not locked: %s", name, error)
            failed[name] = error
            continue
        total = sum(file["bytes"] for file in lock[name]["files"].values())
        log.info("%s: revision %s, %.1f GB", name, lock[name]["revision"], total / 1e9)
    save_lock(path, lock)
    if failed:
        first = next(iter(failed.values()))
        others = f" (also {', '.join(list(failed)[1:])})" if len(failed) > 1 else ""
        raise ProvisionError(
            f"{next(iter(failed))} could not be locked{others}: {first.what}", where=first.where, do=first.do
        )

"""Taking everything of pocketvlm off the devices again; what was measured stays in the results here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pocketvlm.devices import folder
from pocketvlm.errors import DeviceError, PocketvlmError
from pocketvlm.measure.block import hold

log = logging.getLogger(__name__)


def clean(devices: Sequence[Mapping[str, Any]], results: Path) -> None:
    """Remove the folder of pocketvlm from each device, and say what was in it.

    Each device is held as for a block, so that nothing is taken from under one that runs. One that cannot be
    cleaned keeps no other from it.

    Args:
        devices: their files of `config/devices`.
        results: folder of results.

    Raises:
        PocketvlmError: at least one was not cleaned; with several the message has each of them.
    """
    failed: dict[str, PocketvlmError] = {}
    for config in devices:
        name = config["id"]
        try:
            with hold(config, results) as device:
                where = device.remote_dir
                removed = folder.remove(device)
        except PocketvlmError as error:
            log.debug("%s was not cleaned", name, exc_info=True)
            failed[name] = error
            continue
        if removed.files:
            log.info("%s: removed %s: %s", name, where, told(removed))
        else:
            log.info("%s: nothing of pocketvlm was in %s", name, where)
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        raise DeviceError(
            "; ".join(f"{name}: {error.what}" for name, error in failed.items()),
            do=f"{next(iter(failed.values())).do}; then give the same command again",
        )


def told(removed: folder.Removed) -> str:
    """Return what was removed in words: `12 files, 34.5 MB`."""
    size = removed.size
    amount = f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size} bytes"
    return f"{removed.files} file{'' if removed.files == 1 else 's'}, {amount}"

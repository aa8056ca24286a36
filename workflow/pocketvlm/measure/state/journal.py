"""The journal: what a device was like before a block changed it, on the host and on the device.

Both are written, and on the disk, before the first change, and removed after everything was given back. The
host's is `<cache>/state/<device>.json`, the device's `<remote_dir>/state-journal.json`. They are read and
written only by who holds the device's lock. What is in them is checked against the table of items: a journal
that was cut off or tampered with runs nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.devices import lock_name
from pocketvlm.devices.base import Device, run
from pocketvlm.errors import PocketvlmError
from pocketvlm.measure.state import items
from pocketvlm.provenance import canonical_json, write_json
from pocketvlm.provision.cache import cache_root

NAME = "state-journal.json"
_LIMIT_BYTES = 256 << 10
_MOST_ITEMS = 500
_TIMEOUT_S = 30.0
# Written aside, brought to the disk, renamed: as complete or absent after a loss of power as on the host. A
# phone's `fsync` is toybox', `sync FILE` coreutils'.
_PLACE = r"""
{ fsync "$1" || sync "$1" || sync; } 2>/dev/null </dev/null
mv -f "$1" "$2" || exit 1
{ fsync "${2%/*}" || sync "${2%/*}" || sync; } 2>/dev/null </dev/null
exit 0
"""


class DamagedJournalError(Exception):
    """A journal that cannot be used; the text says why."""


@dataclass(frozen=True)
class Journal:
    """What a device was like.

    Attributes:
        id: tells two journals apart.
        saved_ns: when it was written, in nanoseconds since 1970; the older of two is the original.
        saved: the same for a person.
        device: the device's file of `config/devices`, with the serial of the very phone.
        results: folder of results of the workflow, below which this machine keeps what others get pushed.
        values: what each item was.
        strange: entries that are nothing of the table, as text; they are never given back.
    """

    id: str
    saved_ns: int
    saved: str
    device: Mapping[str, Any]
    results: str
    values: Mapping[str, str]
    strange: tuple[str, ...] = ()


def new(device: Device, config: Mapping[str, Any], results: Path, values: Mapping[str, str]) -> Journal:
    """Return the journal of a device that is about to be changed."""
    return Journal(
        id=secrets.token_hex(8),
        saved_ns=time.time_ns(),
        saved=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device=of_this_phone(device, config),
        results=str(results.absolute()),
        values=dict(values),
    )


def of_this_phone(device: Device, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a phone's config with the serial of the one that answered: no other is ever taken for it."""
    if config["kind"] != "phone":
        return dict(config)
    return {**config, "transport": {**config["transport"], "serial": device.serial}}


def folder() -> Path:
    """Return the folder of the host's journals."""
    return cache_root() / "state"


def host_path(config: Mapping[str, Any]) -> Path:
    """Return where the host's journal of a device is, named as its lock: one for one thing to be held.

    Args:
        config: the device's, with its serial (`of_this_phone`).
    """
    name = lock_name(config)
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:80]
    return folder() / f"{clean}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def device_path(device: Device) -> str:
    """Return where the device's own journal is on it."""
    return f"{device.remote_dir}/{NAME}"


def write_host(path: Path, journal: Journal) -> None:
    """Write the host's journal; it is on the disk when this returns."""
    write_json(path, _content(journal))
    _sync_folder(path.parent)


def write_device(device: Device, journal: Journal) -> None:
    """Write the device's journal; it is on its storage when this returns.

    Raises:
        DeviceError, TransientDeviceError: it cannot be written; nothing may be changed then.
    """
    run(device, ["mkdir", "-p", device.remote_dir], _TIMEOUT_S)
    target = device_path(device)
    with tempfile.TemporaryDirectory() as name:
        local = Path(name, NAME)
        write_json(local, _content(journal))
        device.push(local, f"{target}.part", 0o644)
    run(device, ["sh", "-c", _PLACE, "sh", f"{target}.part", target], _TIMEOUT_S)


def read_host(path: Path) -> Journal | None:
    """Return the host's journal, or None when there is none.

    Raises:
        DamagedJournalError: it is no journal.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedJournalError(f"it cannot be read: {error.strerror}") from None
    return parse(data)


def read_device(device: Device) -> Journal | None:
    """Return the device's own journal, or None when there is none.

    Raises:
        DamagedJournalError: it is no journal.
        DeviceError, TransientDeviceError: the device does not answer.
    """
    script = 'if [ -e "$1" ]; then head -c "$2" "$1"; else exit 3; fi'
    result = device.shell(["sh", "-c", script, "sh", device_path(device), str(_LIMIT_BYTES + 1)], _TIMEOUT_S)
    if result.status == 3:
        return None
    return parse(result.stdout.encode())


def remove(path: Path, device: Device) -> None:
    """Remove both journals, the device's first: where the host's is left, it is only given back once more.

    Raises:
        DeviceError, TransientDeviceError: the device's cannot be removed.
    """
    target = device_path(device)
    run(device, ["rm", "-f", target, f"{target}.part"], _TIMEOUT_S)
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def put_aside(path: Path) -> Path:
    """Keep a damaged journal of the host under another name, which nothing reads; return it."""
    aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(3)}")
    path.replace(aside)
    return aside


def put_aside_on(device: Device) -> str:
    """Keep a damaged journal of a device under another name there, which nothing reads; return it."""
    target = device_path(device)
    run(device, ["mv", "-f", target, f"{target}.damaged"], _TIMEOUT_S)
    return f"{target}.damaged"


def parse(data: bytes) -> Journal:
    """Return the journal that some bytes are.

    Raises:
        DamagedJournalError: they are none. Entries that are nothing of the table are kept apart (`strange`).
    """
    if len(data) > _LIMIT_BYTES:
        raise DamagedJournalError(f"it is longer than {_LIMIT_BYTES} bytes")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamagedJournalError(f"it is no JSON: {items.plain(str(error))}") from None
    if not isinstance(content, dict) or content.get("format") != 1:
        raise DamagedJournalError("it is no object of format 1")
    values, device, saved_ns = content.get("values"), content.get("device"), content.get("saved_ns")
    if not isinstance(values, dict) or len(values) > _MOST_ITEMS:
        raise DamagedJournalError("it has no values")
    if not isinstance(device, dict) or type(saved_ns) is not int:
        raise DamagedJournalError("it does not say of which device it is, or when it was saved")
    good = {item: value for item, value in values.items() if items.valid(item, value)}
    strange = [f"{item}={value!r}" for item, value in values.items() if item not in good]
    return Journal(
        id=str(content.get("id"))[:40],
        saved_ns=saved_ns,
        saved=items.plain(str(content.get("saved")))[:40],
        device=device,
        results=str(content.get("results")),
        values=good,
        strange=tuple(items.plain(text) for text in strange),
    )


def merged(host: Journal | None, on_device: Journal | None) -> Journal | None:
    """Return what is to be given back: of two journals that differ, the older says what it knows."""
    if host is None or on_device is None:
        return host or on_device
    older, newer = sorted((host, on_device), key=lambda journal: journal.saved_ns)
    values = {**newer.values, **older.values}
    strange = tuple(dict.fromkeys((*older.strange, *newer.strange)))
    return Journal(older.id, older.saved_ns, older.saved, older.device, older.results, values, strange)


def _content(journal: Journal) -> dict[str, Any]:
    content = {name: getattr(journal, name) for name in ("id", "saved_ns", "saved", "results")}
    whole = {"format": 1, **content, "device": dict(journal.device), "values": dict(journal.values)}
    if len(canonical_json(whole)) > _LIMIT_BYTES // 2:
        raise PocketvlmError(
            f"what is to be saved of {journal.device['id']} is longer than a journal may be",
            do="Shorten the device's file",
        )
    return whole


def _sync_folder(path: Path) -> None:
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

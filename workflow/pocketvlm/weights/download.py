"""Downloading a pinned file of the hub: resumed, verified, whole or not there.

`huggingface_hub` finds the file, says who asks (HF_TOKEN) and by which way (HF_ENDPOINT, proxies). The bytes
are received here: its own download begins anew in every process, does not look at the sha256, and waits for
as long as a server says. Files in the hub's newer storage (xet) come by the same plain HTTP, which the hub
offers for all of them: so they can be taken up again, and all that is said about a file is checked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import httpx2
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.utils import (  # type: ignore[attr-defined]
    build_hf_headers,
    get_session,
    hf_raise_for_status,
)

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.provision.cache import LOCATION
from pocketvlm.weights import quantise
from pocketvlm.weights.description import describe, record_of
from pocketvlm.weights.hub_access import Patience, Place, Tries, patiently
from pocketvlm.weights.lock import LOCK_COMMAND

# general.file_type of a GGUF file (llama_ftype in llama.cpp's include/llama.h), also what is not made here.
FILE_TYPES = {
    **quantise.FILE_TYPES,
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
}
# Kept free besides the file: its record, the log, and what else writes at the same time.
SPARE_BYTES = 64 << 20
# An attempt that brought at least this much is no failure, however it ended.
WORTHWHILE_BYTES = 1 << 20
# Less than this in `stall_s` seconds is a connection that only looks alive.
STALL_BYTES = 1 << 14
CHUNK_BYTES = 1 << 20

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")

log = logging.getLogger(__name__)


def fetch(pin: Mapping[str, Any], destination: Path, patience: Patience | None = None) -> None:
    """Download a file of the hub, verify it, and put it and its record in place.

    What the user's hub cache (HF_HOME) has is copied from there. A download that was cut short is taken up
    again by the next one: what came lies hidden beside `destination` until it is whole.

    Args:
        pin: `repository, revision, file, bytes, sha256` of the lock and `type`, the quantisation that the
            file is to have (null: it is not looked at); or `unavailable, do`: why there is none.
        destination: the weights file to write; its record is written beside it.
        patience: with a hub that is busy or breaks off.

    Raises:
        ProvisionError: it is not locked, the hub refuses or is gone, there is no space, or no network.
        IntegrityError: the bytes are not the pinned ones; nothing of them is kept.
    """
    if "unavailable" in pin:
        do = str(pin["do"])
        raise ProvisionError(pin["unavailable"], where="config/models.yaml", do=do[:1].upper() + do[1:])
    place = Place(pin["repository"], pin["revision"], pin["file"])
    destination.parent.mkdir(parents=True, exist_ok=True)
    with _partial(destination, str(pin["sha256"])) as partial:
        _check_space(destination, int(pin["bytes"]) - _size(partial))
        try:
            if not _from_cache(pin, partial):
                _download(pin, place, partial, patience or Patience())
            _verify(pin, partial, place)
            record = _describe(pin, Path(partial.name), place)
        except IntegrityError:
            Path(partial.name).unlink()
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise _no_space(destination.parent, int(pin["bytes"])) from error
        Path(partial.name).chmod(0o644)
        Path(partial.name).replace(destination)
        write_json(record_of(destination), record)
    log.info("%s: %.0f MB, sha256 verified", pin["file"], pin["bytes"] / 1e6)


@contextlib.contextmanager
def _partial(destination: Path, sha256: str) -> Iterator[IO[bytes]]:
    """Open what came of a file so far, for this process alone; the remains of other versions are removed."""
    path = destination.parent / f".{destination.name}.{sha256[:16]}.partial"
    for other in destination.parent.glob(f".{destination.name}.*.partial"):
        if other != path:
            other.unlink()
    stream = path.open("a+b")
    try:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held the lock until now may have put the file in place.
            mine = path.exists() and os.path.samestat(os.fstat(stream.fileno()), path.stat())
        except BlockingIOError:
            mine = False
        if not mine:
            raise ProvisionError(
                "another process is downloading the file", where=str(destination), do="Wait for it to end"
            )
        yield stream
    finally:
        # What could not be written was noticed before: success flushes by itself.
        with contextlib.suppress(OSError):
            stream.close()


def _size(stream: IO[bytes]) -> int:
    return os.fstat(stream.fileno()).st_size


def _empty(partial: IO[bytes]) -> None:
    partial.seek(0)
    partial.truncate()


def _check_space(destination: Path, needed: int) -> None:
    """Raise ProvisionError when a disk that the file comes to lie on has no room for it."""
    places = [destination.parent]
    if os.environ.get(LOCATION):
        # Snakemake moves the finished file into the cache.
        places.append(Path(os.environ[LOCATION]))
    for named in places:
        place = next(folder for folder in (named, *named.absolute().parents) if folder.exists())
        if shutil.disk_usage(place).free < needed + SPARE_BYTES:
            raise _no_space(place, needed)


def _no_space(place: Path, needed: int) -> ProvisionError:
    free = shutil.disk_usage(place).free
    return ProvisionError(
        f"{needed / 1e9:.2f} GB are to come and {free / 1e9:.2f} GB are free",
        where=str(place),
        do="Make room; what came so far is kept",
    )


def _from_cache(pin: Mapping[str, Any], partial: IO[bytes]) -> bool:
    """Copy the file from the user's hub cache if it is there and right."""
    found = try_to_load_from_cache(pin["repository"], pin["file"], revision=pin["revision"])
    if not isinstance(found, str):
        return False
    actual = sha256_file(found)
    if actual != pin["sha256"]:
        log.warning("%s has sha256 %s, expected %s: it is not used", found, actual, pin["sha256"])
        return False
    log.info("%s: copied from the hub's cache", pin["file"])
    _empty(partial)
    with Path(found).open("rb") as source:
        shutil.copyfileobj(source, partial, CHUNK_BYTES)
    return True


def _verify(pin: Mapping[str, Any], partial: IO[bytes], place: Place) -> None:
    """Bring the bytes to the disk and raise IntegrityError when what is there is not what is pinned."""
    partial.flush()
    os.fsync(partial.fileno())
    actual = sha256_file(partial.name)
    if actual != pin["sha256"]:
        raise IntegrityError(
            f"{pin['file']} has sha256 {actual}, expected {pin['sha256']}; it was thrown away",
            where=str(place),
            do="Start again; if it happens again, the server or the way to it changes the file",
        )


def _describe(pin: Mapping[str, Any], path: Path, place: Place) -> dict[str, Any]:
    """Return the record of a file that is as locked; raise IntegrityError if the table means another."""
    do = f"Name another file in config/models.yaml, then run {LOCK_COMMAND}"
    try:
        record = describe(path)
    except IntegrityError as error:
        what = f"{pin['file']} is the file that the lock pins, and it is no GGUF file"
        raise IntegrityError(what, where=str(place), do=do) from error
    expected = FILE_TYPES.get(pin.get("type", ""))
    found = record["metadata"].get("general.file_type")
    if expected is not None and found is None:
        log.warning("%s does not say its type: that it is %s is the table's word", pin["file"], pin["type"])
    elif expected is not None and found != expected:
        what = f"{pin['file']} has file type {found}, {pin['type']} is {expected}"
        raise IntegrityError(what, where=str(place), do=do)
    return record


def _download(pin: Mapping[str, Any], place: Place, partial: IO[bytes], patience: Patience) -> None:
    if constants.is_offline_mode():
        raise ProvisionError(
            f"HF_HUB_OFFLINE is set and the hub's cache does not have {pin['file']}",
            where=str(constants.HF_HUB_CACHE),
            do="Unset it, or bring the file there where there is a network: "
            f"hf download {pin['repository']} {pin['file']} --revision {pin['revision']}",
        )
    url = hf_hub_url(pin["repository"], pin["file"], revision=pin["revision"], endpoint=constants.ENDPOINT)
    headers = build_hf_headers()
    metadata = patiently(
        lambda: get_hf_file_metadata(url, headers=dict(headers), timeout=patience.timeout_s), place, patience
    )
    _check_size(pin, metadata.size, place)
    if metadata.etag is not None and re.fullmatch("[0-9a-f]{64}", metadata.etag):
        _check_announced(pin, metadata.etag, place)
    resumed = _size(partial)
    if resumed:
        log.info("%s: taken up again at %.0f of %.0f MB", pin["file"], resumed / 1e6, pin["bytes"] / 1e6)
    _receive_all(url, headers, pin, place, partial, patience)
    if resumed and sha256_file(partial.name) != pin["sha256"]:
        # What an earlier start left may have been damaged since: that is no reason to distrust the hub.
        log.warning("%s with what an earlier start left is not right: all of it is downloaded", pin["file"])
        _empty(partial)
        _receive_all(url, headers, pin, place, partial, patience)


def _receive_all(
    url: str,
    headers: Mapping[str, str],
    pin: Mapping[str, Any],
    place: Place,
    partial: IO[bytes],
    patience: Patience,
) -> None:
    """Receive until the file has its size, however often the connection ends before."""
    tries = Tries(place, patience)
    progress = _Progress(pin["file"], int(pin["bytes"]), _size(partial), patience)
    while _size(partial) < pin["bytes"]:
        before = _size(partial)
        try:
            _receive(url, headers, pin, place, partial, progress)
        except httpx2.HTTPError as error:
            partial.flush()
            if _size(partial) - before >= WORTHWHILE_BYTES:
                tries.progress()
            tries.again(error)
    if _size(partial) > pin["bytes"]:
        _check_size(pin, _size(partial), place)


def _receive(
    url: str,
    headers: Mapping[str, str],
    pin: Mapping[str, Any],
    place: Place,
    partial: IO[bytes],
    progress: _Progress,
) -> None:
    """Append what the server sends from where the file ends now."""
    have = _size(partial)
    # The file's own bytes: no decoding on the way.
    asked = {**headers, "Accept-Encoding": "identity", **({"Range": f"bytes={have}-"} if have else {})}
    timeout = progress.patience.timeout_s
    with get_session().stream("GET", url, headers=asked, timeout=timeout, follow_redirects=True) as response:
        if response.status_code == 416:
            _empty(partial)
            raise httpx2.RemoteProtocolError(f"the server has nothing from byte {have} on")
        hf_raise_for_status(response)
        part = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if response.status_code == 206 and part is not None:
            _check_size(pin, int(part[2]) if part[2] != "*" else None, place)
            begins = int(part[1])
        else:
            # The whole file, whatever was asked.
            length = response.headers.get("Content-Length", "")
            _check_size(pin, int(length) if length.isdigit() else None, place)
            begins = 0
        if begins != have:
            _empty(partial)
            progress.done = 0
            if begins:
                raise httpx2.RemoteProtocolError(f"the server sent bytes from {begins} on instead of {have}")
        for chunk in response.iter_raw():
            partial.write(chunk)
            progress.add(len(chunk))
        partial.flush()
        if _size(partial) < pin["bytes"]:
            raise httpx2.RemoteProtocolError(f"the connection ended at byte {_size(partial)}")


def _check_size(pin: Mapping[str, Any], size: int | None, place: Place) -> None:
    if size is not None and size != pin["bytes"]:
        raise IntegrityError(
            f"{pin['file']} has {size} bytes on the hub, the lock says {pin['bytes']}",
            where=str(place),
            do="A revision never changes: check HF_ENDPOINT and the proxy, they may serve something else",
        )


def _check_announced(pin: Mapping[str, Any], sha256: str, place: Place) -> None:
    if sha256 != pin["sha256"]:
        raise IntegrityError(
            f"the hub says that {pin['file']} has sha256 {sha256}, the lock says {pin['sha256']}",
            where=str(place),
            do="A revision never changes: check HF_ENDPOINT and the proxy, they may serve something else",
        )


class _Progress:
    """Lines about a download, and an end to a connection by which next to nothing comes."""

    def __init__(self, name: str, total: int, done: int, patience: Patience) -> None:
        self.name, self.total, self.done, self.patience = name, total, done, patience
        self.told = self.window = time.monotonic()
        self.told_done = self.window_done = done

    def add(self, count: int) -> None:
        """Count bytes that came.

        Raises:
            ReadTimeout: fewer than STALL_BYTES in `stall_s`.
            IntegrityError: more than the file has.
        """
        self.done += count
        now = time.monotonic()
        if self.done > self.total:
            raise IntegrityError(
                f"{self.name} does not end: the lock says {self.total} bytes",
                do="Check HF_ENDPOINT and the proxy, they may serve something else",
            )
        if now - self.window >= self.patience.stall_s:
            came, self.window, self.window_done = self.done - self.window_done, now, self.done
            if came < STALL_BYTES:
                raise httpx2.ReadTimeout(f"{came} bytes came in {self.patience.stall_s:g} s")
        if now - self.told >= self.patience.report_s:
            rate = (self.done - self.told_done) / (now - self.told)
            self.told, self.told_done = now, self.done
            log.info(
                "%s: %d %% of %.0f MB, %.1f MB/s",
                self.name,
                100 * self.done // self.total,
                self.total / 1e6,
                rate / 1e6,
            )

"""Asking the Hugging Face hub: patience with one that is busy, and plain words for one that refuses.

Everything goes through `huggingface_hub`: its client honours HF_ENDPOINT, HF_TOKEN, HF_HOME, HF_HUB_OFFLINE
and the proxy variables. Its own retries are not used: not every request has them, and those that do wait for
as long as a server tells them to.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx2
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    FileMetadataError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

from pocketvlm.config.schema import suggest
from pocketvlm.errors import ConfigError, PocketvlmError, ProvisionError
from pocketvlm.provision.sdist import redact
from pocketvlm.weights.lock import LOCK_COMMAND

BUSY = (408, 429, 500, 502, 503, 504)
"""HTTP status codes that are worth another try."""

# The hub's statistics of its users would cost a request more at each start, and a file in the user's HF_HOME.
constants.HF_HUB_DISABLE_TELEMETRY = True

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Patience:
    """How long a busy or broken hub is borne.

    Attributes:
        tries: attempts in a row that bring nothing, before it is given up.
        pause_s: seconds before the second attempt, doubled for each further one.
        longest_s: a server that asks for a longer pause than this is not waited for.
        timeout_s: seconds without a byte after which a connection counts as dead (HF_HUB_DOWNLOAD_TIMEOUT).
        stall_s: seconds over which a connection is judged by how much came.
        report_s: seconds between two lines about the progress of a download.
    """

    tries: int = 6
    pause_s: float = 2.0
    longest_s: float = 300.0
    timeout_s: float = float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
    stall_s: float = 60.0
    report_s: float = 5.0


@dataclass(frozen=True)
class Place:
    """Where on the hub something is, for requests and for messages."""

    repository: str
    revision: str
    file: str | None = None

    def __str__(self) -> str:
        path = f"{constants.ENDPOINT}/{self.repository}@{self.revision}"
        return redact(f"{path}/{self.file}" if self.file else path)


class Tries:
    """Counts the attempts at one thing, and waits between them."""

    def __init__(self, place: Place, patience: Patience) -> None:
        self.place, self.patience = place, patience
        self.failed = 0

    def progress(self) -> None:
        """Something came: what follows is a first attempt again."""
        self.failed = 0

    def again(self, error: Exception) -> None:
        """Wait before the next attempt.

        Raises:
            ProvisionError: there is none: the hub refused, or asks for too long a pause, or failed too often.
        """
        if not _transient(error):
            raise refusal(error, self.place) from error
        self.failed += 1
        said = asked_pause(error)
        problem = _brief(error)
        if self.failed >= self.patience.tries:
            raise _given_up(f"{problem}, {self.failed} times in a row", self.place) from error
        if said is not None and said > self.patience.longest_s:
            raise _given_up(f"{problem} and asks to wait {said:.0f} s", self.place) from error
        pause = self.patience.pause_s * 2 ** (self.failed - 1) if said is None else said
        log.info(
            "%s: %s; attempt %d of %d in %.3g s",
            self.place.file or self.place.repository,
            problem,
            self.failed + 1,
            self.patience.tries,
            pause,
        )
        time.sleep(pause)


def patiently(call: Callable[[], T], place: Place, patience: Patience) -> T:
    """Return what a request returns, tried again while the hub is busy.

    Raises:
        ProvisionError: the hub refuses, is gone, or stays busy.
    """
    tries = Tries(place, patience)
    while True:
        try:
            return call()
        except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            tries.again(error)


def ask(name: str, entry: Mapping[str, Any], patience: Patience) -> dict[str, Any]:
    """Return a model's entry of the lock: what its repository's branch is now.

    Args:
        name: the model's name.
        entry: its entry in the table of models.
        patience: with a busy hub.

    Raises:
        ConfigError: the repository has no such file.
        ProvisionError: the hub refuses, is gone, or gives no hash.
    """
    hub = entry["hub"]
    place = Place(hub["repository"], hub.get("branch", "main"))
    info = patiently(
        lambda: HfApi().model_info(
            place.repository, revision=place.revision, files_metadata=True, timeout=patience.timeout_s
        ),
        place,
        patience,
    )
    found = {sibling.rfilename: sibling for sibling in info.siblings or []}
    files: dict[str, Any] = {}
    for part, file in hub["files"].items():
        if file not in found:
            raise ConfigError(
                f"{place.repository} has no file {file!r}",
                where=f"config/models.yaml: {name}.hub.files.{part}",
                do=suggest(file, [other for other in found if other.endswith(".gguf")]),
            )
        lfs = found[file].lfs
        if lfs is None:
            raise ProvisionError(
                f"the hub gives no sha256 of {file}",
                where=str(place),
                do="Name a file that the repository stores in LFS, as it does weights",
            )
        files[part] = {"file": file, "bytes": int(lfs.size), "sha256": str(lfs.sha256)}
    _compare_licence(name, hub["licence"], info.tags or [], place)
    if info.gated:
        log.warning("%s is gated: a download needs its licence accepted and HF_TOKEN set", place.repository)
    return {"repository": place.repository, "revision": str(info.sha), "files": files}


def refusal(error: Exception, place: Place) -> PocketvlmError:
    """Return an error of the hub in the words of the person who meets it."""
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled):
        return ProvisionError(
            "the hub may not be asked: HF_HUB_OFFLINE is set",
            where=str(place),
            do="Unset it, then start again",
        )
    if isinstance(error, RevisionNotFoundError):
        return ProvisionError(
            f"{place.repository} has no revision {place.revision} any more",
            where=str(place),
            do=f"Run {LOCK_COMMAND} to pin what is there now, and measure again: it may be other weights",
        )
    if isinstance(error, EntryNotFoundError):
        return ProvisionError(
            f"{place.repository} has no file {place.file} at {place.revision}",
            where=str(place),
            do=f"Correct the file in config/models.yaml, then run {LOCK_COMMAND}",
        )
    if isinstance(error, DisabledRepoError):
        return ProvisionError(
            f"the hub has disabled {place.repository}", where=str(place), do="Name another repository"
        )
    if status in (401, 403):
        return ProvisionError(
            f"the hub refuses {place.repository} ({status}): it is gated, private or not there",
            where=str(place),
            do="Accept its licence on its page while logged in, then set HF_TOKEN to a token of that account",
        )
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return ProvisionError(
            f"the hub has no {place.repository}",
            where=str(place),
            do="Correct the repository in config/models.yaml; for a private one set HF_TOKEN",
        )
    if isinstance(error, FileMetadataError | ValueError | KeyError | TypeError):
        return ProvisionError(
            f"the answer is not a hub's: {_brief(error)}",
            where=str(place),
            do="Check HF_ENDPOINT",
        )
    return _given_up(_brief(error), place)


def asked_pause(error: Exception) -> float | None:
    """Return for how many seconds a busy server asks to be left alone; None when it does not say."""
    if not isinstance(error, HfHubHTTPError):
        return None
    headers = error.response.headers
    value = headers.get("Retry-After", "").strip()
    if value.isdigit():
        return float(value)
    if value:
        # RFC 9110, 10.2.3: seconds or an HTTP date.
        try:
            until = parsedate_to_datetime(value)
        except ValueError:
            return None
        return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until.tzinfo else None
    limit = parse_ratelimit_headers(headers)
    return float(limit.reset_in_seconds) if limit is not None and limit.remaining == 0 else None


def _transient(error: Exception) -> bool:
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in BUSY
    return isinstance(error, httpx2.TransportError)


def _brief(error: Exception) -> str:
    if isinstance(error, HfHubHTTPError):
        return f"the hub answered {error.response.status_code}"
    text = redact(str(error)).strip().split("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _given_up(problem: str, place: Place) -> ProvisionError:
    return ProvisionError(
        f"{place.file or place.repository} cannot be had: {problem}",
        where=str(place),
        do="Check the network and start again: what came is kept, and with HF_TOKEN the limits are higher",
    )


def _compare_licence(name: str, licence: str, tags: list[str], place: Place) -> None:
    said = [tag.removeprefix("license:") for tag in tags if tag.startswith("license:")]
    if said and licence not in said:
        log.warning(
            "%s: the table says licence %s, %s says %s", name, licence, place.repository, ", ".join(said)
        )

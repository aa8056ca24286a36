"""Source archives from the package index that pip is configured with: found, downloaded, verified, unpacked.

`pip download` would first build an sdist's metadata, which takes minutes and needs build dependencies; so
pip is only asked for its settings, and the archive is found with `unearth`, the finder that PDM uses.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx2
from unearth import Link, PackageFinder
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher
from unearth.fetchers.sync import PyPIClient

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import atomic_file
from pocketvlm.provision import pip_config
from pocketvlm.provision.archive import unpack
from pocketvlm.provision.pip_config import PipConfig

# An archive larger than this is no source archive.
MAX_BYTES = 4 << 30
# Progress is told for what takes a while.
LARGE = 8 << 20
# Less than this in `timeout` seconds counts as a stalled connection.
STALL_BYTES = 1 << 14

__all__ = ["download", "redact", "unpack"]

_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+@")


def redact(text: str) -> str:
    """Return a text with the user names and passwords of its URLs taken out."""
    return _CREDENTIALS.sub("", text)


def download(
    project: str,
    version: str,
    sha256: str,
    destination: Path,
    *,
    wheel: str = "",
    settings: PipConfig | None = None,
    pause: float = 2.0,
) -> None:
    """Download a project's sdist, or a wheel of it, and verify it; `destination` appears right or not at all.

    Args:
        project, version: as the index names them.
        sha256: hex digest that the archive must have.
        destination: the file to write.
        wheel: name of the wheel's file; empty for the sdist.
        settings: where to look; default: what pip is configured with.
        pause: seconds before the second attempt, doubled for each further one.

    Raises:
        ProvisionError: no index answers, or none has that version's sdist or wheel.
        IntegrityError: the archive has another hash.
    """
    chosen = settings or pip_config.read()
    attempts = max(1, chosen.retries + 1)
    problem = ""
    for attempt in range(attempts):
        if attempt:
            _say(f"{project} {version}: {problem}; attempt {attempt + 1} of {attempts}")
            time.sleep(pause * 2 ** (attempt - 1))
        with _session(chosen) as session:
            try:
                link = _find(session, chosen, project, version, sha256, wheel)
                _fetch(session, link, sha256, destination, chosen.timeout_s)
                return
            except _TransientError as error:
                problem = str(error)
            except httpx2.HTTPError as error:
                problem = redact(f"{type(error).__name__}: {error}")
    raise ProvisionError(
        f"{project} {version} cannot be downloaded: {problem}",
        where=_places(chosen),
        do="Check the network and pip's configuration (pip config list), then start again",
    )


def _places(config: PipConfig) -> str:
    """Return the searched places without credentials, for messages."""
    index = [] if config.no_index else [config.index_url or "the default index", *config.extra_index_urls]
    return ", ".join(redact(place) for place in (*index, *config.find_links)) or "nowhere"


class _TransientError(Exception):
    """Worth another attempt."""


@contextlib.contextmanager
def _session(settings: PipConfig) -> Iterator[PyPIClient]:
    proxy: dict[str, Any] = {"proxy": settings.proxy} if settings.proxy else {}
    indexes = [url for url in (settings.index_url, *settings.extra_index_urls) if url]
    try:
        client = PyPIClient(
            trusted_hosts=settings.trusted_hosts,
            verify=settings.cert or True,
            cert=settings.client_cert,
            timeout=settings.timeout_s,
            follow_redirects=True,
            **proxy,
        )
    except (OSError, ValueError, httpx2.InvalidURL) as error:
        raise ProvisionError(
            f"pip's certificate or proxy cannot be used: {redact(str(error))}",
            do="Correct cert, client-cert or proxy in pip's configuration (pip config list)",
        ) from None
    # Nobody is there to answer a question.
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    with client:
        yield client


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """Collect what unearth says about an index that does not answer properly, instead of printing it."""
    said: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(redact(record.getMessage()))

    logger = logging.getLogger("unearth.collector")
    handler, propagate = Collector(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _find(
    session: PyPIClient, settings: PipConfig, project: str, version: str, sha256: str, wheel: str
) -> Link:
    finder = PackageFinder(
        session=cast(Fetcher, session),
        index_urls=[settings.index_url] if settings.index_url else [],
        trusted_hosts=settings.trusted_hosts,
        no_binary=() if wheel else [project],
        only_binary=[project] if wheel else (),
        ignore_compatibility=True,
    )
    if settings.no_index:
        finder.sources.clear()
    else:
        for url in settings.extra_index_urls:
            finder.add_index_url(url)
    for place in settings.find_links:
        # As pip does, a folder that is not there is passed over.
        if "://" in place or Path(place).exists():
            finder.add_find_links(place)
    with _complaints() as said:
        try:
            matches = list(finder.find_matches(f"{project}=={version}", allow_prereleases=True))
        except ValueError as error:
            raise ProvisionError(
                f"the index gave an answer that cannot be read: {redact(str(error))}",
                where=_places(settings),
                do="Check pip's configuration (pip config list)",
            ) from None
    links = [
        match.link
        for match in matches
        if (match.link.filename == wheel if wheel else not match.link.is_wheel)
    ]
    if links:
        # Of several mirrors, the one that announces the expected hash.
        return next((link for link in links if sha256 in str(link.hashes) + link.url), links[0])
    detail = f" ({'; '.join(said)})" if said else ""
    if any("Server Error" in line for line in said):
        raise _TransientError(f"the index failed{detail}")
    raise ProvisionError(
        f"no {wheel or 'source archive'} of {project} {version} was found{detail}",
        where=_places(settings),
        do="Check the pin in config/frameworks.yaml, and pip's index (pip config list)",
    )


def _fetch(session: PyPIClient, link: Link, sha256: str, destination: Path, timeout: float) -> None:
    name = destination.name
    digest = hashlib.sha256()
    # The archive's own bytes: no decoding on the way.
    headers = {"Accept-Encoding": "identity"}
    with session.stream("GET", link.url_without_fragment, headers=headers) as response:
        if response.status_code >= 500 or response.status_code in (408, 429):
            raise _TransientError(f"the server answered {response.status_code}")
        if response.status_code != 200:
            raise ProvisionError(
                f"the server answered {response.status_code} for {link.filename}",
                where=link.redacted,
                do="Check the index and its credentials in pip's configuration (pip config list)",
            )
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        progress = _Progress(name, total, timeout)
        with atomic_file(destination, "wb") as stream:
            for piece in response.iter_raw():
                digest.update(piece)
                stream.write(piece)
                progress.add(len(piece))
            if total is not None and progress.done != total:
                raise _TransientError(f"the connection ended after {progress.done} of {total} bytes")
            actual = digest.hexdigest()
            if actual != sha256:
                raise IntegrityError(
                    f"{link.filename} has sha256 {actual}, expected {sha256}",
                    where=link.redacted,
                    do="Do not use it: ask whoever runs the index; if the bytes are right, correct the pin",
                )
        progress.finish()


class _Progress:
    """Plain lines on stderr for a large download, and an end to one that stalls or does not end."""

    def __init__(self, name: str, total: int | None, timeout: float) -> None:
        self.name, self.total, self.timeout = name, total, timeout
        self.done = 0
        self.began = self.told = self.window = time.monotonic()
        self.window_done = 0

    def add(self, count: int) -> None:
        """Count bytes that came; raise _TransientError when too few come, IntegrityError when too many do."""
        self.done += count
        now = time.monotonic()
        if self.done > MAX_BYTES:
            raise IntegrityError(
                f"{self.name} is larger than {MAX_BYTES >> 30} GiB", do="Check the pinned project and version"
            )
        if now - self.window > self.timeout:
            if self.done - self.window_done < STALL_BYTES:
                raise _TransientError(f"fewer than {STALL_BYTES} bytes came in {self.timeout:g} s")
            self.window, self.window_done = now, self.done
        if now - self.told >= 2 and (self.total is None or self.total >= LARGE):
            self.told = now
            share = f"{100 * self.done // self.total} % of {self.total / 1e6:.0f} MB" if self.total else ""
            _say(f"{self.name}: {share or f'{self.done / 1e6:.0f} MB'}")

    def finish(self) -> None:
        """Say what came and how fast."""
        if self.done >= LARGE:
            seconds = max(time.monotonic() - self.began, 1e-3)
            _say(f"{self.name}: {self.done / 1e6:.0f} MB in {seconds:.0f} s, sha256 verified")


def _say(line: str) -> None:
    print(redact(line), file=sys.stderr, flush=True)

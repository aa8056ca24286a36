"""Pinned source archives: found by name and version in pip's index, verified by sha256, unpacked safely.

`pip download` would build an archive's metadata first, which takes minutes and needs its build dependencies;
the archive itself is all that is wanted here.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import ssl
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

import httpx2
import unearth
from unearth.auth import MultiDomainBasicAuth
from unearth.fetchers import Fetcher, PyPIClient

from pocketvlm.errors import IntegrityError, ProvisionError
from pocketvlm.provenance import atomic_file
from pocketvlm.provision import pip_config

log = logging.getLogger(__name__)

Value = TypeVar("Value")

_ATTEMPTS = 3
_CHUNK = 1 << 20
_PROGRESS = 32 << 20
# An archive that unpacks to more than this is not one of the sources this project pins.
_MOST_BYTES = 4 << 30
_MOST_FILES = 200_000


def download(project: str, version: str, sha256: str, destination: Path) -> None:
    """Download the source archive of a project's version and verify it.

    Args:
        project, version: as the index names them.
        sha256: hex hash that the archive must have.
        destination: the file to write; it is complete and verified, or absent.

    Raises:
        ProvisionError: no index answers, or none has that version's source archive.
        IntegrityError: the archive is not the pinned one.
    """
    config = pip_config.read()
    with _client(config) as client:
        finder = _finder(config, client, project)
        link = _find(finder, project, version)
        log.info("downloading %s", link.filename)
        _retried(lambda: _fetch(client, link, sha256, destination), link.filename)


def unpack(archive: Path, destination: Path, *, strip: int = 1) -> None:
    """Unpack a source archive into a new folder; no entry leaves it.

    Args:
        archive: a tar file, compressed or not.
        destination: the folder to make; it is complete or absent.
        strip: leading folders of every entry to leave out.

    Raises:
        IntegrityError: an entry would leave the folder, is a device, or the archive is cut or far too large.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(aside, members=_members(tar, archive, strip), filter="data")
        aside.rename(destination)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise IntegrityError(
            f"the archive cannot be unpacked: {error}",
            where=str(archive),
            do="Check its pin; if the archive is right, the disk may be full",
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _members(tar: tarfile.TarFile, archive: Path, strip: int) -> Iterator[tarfile.TarInfo]:
    total = 0
    for number, member in enumerate(tar, start=1):
        total += member.size
        if number > _MOST_FILES or total > _MOST_BYTES:
            raise IntegrityError(
                f"the archive holds more than {_MOST_FILES} files or {_MOST_BYTES >> 30} GiB",
                where=str(archive),
                do="Check what the pin points to",
            )
        parts = PurePosixPath(member.name).parts
        if member.name.startswith("/") or ".." in parts:
            raise IntegrityError(
                f"the entry {member.name!r} would leave its folder",
                where=str(archive),
                do="Do not use this archive; check what the pin points to",
            )
        if len(parts) <= strip:
            continue
        changes: dict[str, str] = {"name": "/".join(parts[strip:])}
        if member.islnk():  # a hard link names another entry by its full path
            changes["linkname"] = "/".join(PurePosixPath(member.linkname).parts[strip:])
        yield member.replace(**changes, deep=False)  # type: ignore[arg-type]


@contextmanager
def _client(config: pip_config.PipConfig) -> Iterator[PyPIClient]:
    verify: ssl.SSLContext | bool = True
    if config.cert:
        verify = ssl.create_default_context(cafile=config.cert)
    options: dict[str, Any] = {"proxy": config.proxy} if config.proxy else {}
    client = PyPIClient(
        trusted_hosts=config.trusted_hosts,
        verify=verify,
        cert=config.client_cert,
        timeout=config.timeout_s,
        follow_redirects=True,
        **options,
    )
    try:
        yield client
    finally:
        client.close()


def _finder(config: pip_config.PipConfig, client: PyPIClient, project: str) -> unearth.PackageFinder:
    indexes: list[str] = []
    if not config.no_index:
        # With no source given, the finder asks the default index of Python packages: that one is meant here.
        default = unearth.PackageFinder().sources[0]["url"]
        indexes = [config.index_url or default, *config.extra_index_urls]
    client.auth = MultiDomainBasicAuth(prompting=False, index_urls=indexes)
    finder = unearth.PackageFinder(
        cast(Fetcher, client),
        index_urls=indexes,
        find_links=config.find_links,
        trusted_hosts=config.trusted_hosts,
        no_binary=[project],
        ignore_compatibility=True,
    )
    if config.no_index:
        finder.sources = [source for source in finder.sources if source["type"] != "index"]
    return finder


def _find(finder: unearth.PackageFinder, project: str, version: str) -> unearth.Link:
    requirement = f"{project}=={version}"
    matches = _retried(lambda: list(finder.find_matches(requirement, allow_yanked=True)), requirement)
    for match in matches:
        if not match.link.is_wheel:
            return match.link
    places = ", ".join(_host(source["url"]) for source in finder.sources)
    raise ProvisionError(
        f"no source archive of {project} {version} was found",
        where=f"asked: {places or 'nothing, pip has no-index set'}",
        do="Check the pin in config/frameworks.yaml, and the index with `pip config list`",
    )


def _host(url: str) -> str:
    """The host of an address, without a user's name or password."""
    parsed = httpx2.URL(url)
    return parsed.host or url


def _fetch(client: PyPIClient, link: unearth.Link, sha256: str, destination: Path) -> None:
    with client.get_stream(link.url_without_fragment) as response:
        response.raise_for_status()
        size = int(response.headers.get("Content-Length", 0))
        with atomic_file(destination, "wb") as stream:
            digest = hashlib.sha256()
            done = shown = 0
            for chunk in response.iter_bytes(_CHUNK):
                stream.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if done - shown >= _PROGRESS:
                    shown = done
                    log.info("%d of %d MB", done >> 20, size >> 20)
            actual = digest.hexdigest()
            if actual != sha256:
                raise IntegrityError(
                    f"{link.filename} has sha256 {actual}, expected {sha256}",
                    where=_host(link.url_without_fragment),
                    do="Ask why the index has other bytes; if they are right, correct the pin",
                )


def _retried(action: Callable[[], Value], what: str) -> Value:
    """Do what a passing fault may interrupt, again after a pause when it did."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return action()
        except httpx2.HTTPStatusError as error:
            status = error.response.status_code
            if status < 500 and status != 429:
                raise ProvisionError(
                    f"the index refuses {what}: HTTP {status}",
                    where=_host(str(error.request.url)),
                    do="Check pip's configuration and your access to the index",
                ) from None
            problem = f"HTTP {status}"
        except httpx2.HTTPError as error:
            problem = f"{type(error).__name__}: {error}"
        if attempt < _ATTEMPTS:
            log.warning("%s: %s; trying again", what, problem)
            time.sleep(attempt)
    raise ProvisionError(
        f"{what} could not be had after {_ATTEMPTS} attempts: {problem}",
        do="Check your connection and pip's configuration (pip config list), then start again",
    )

"""Debian packages in a private folder: downloaded and verified by apt, unpacked, never installed.

The system's apt is only asked where its mirror is and how to reach it (proxies, certificates). State, cache,
source list and package database are this module's own, in the user's cache, so it works as an ordinary user
and leaves the system as it was. Options: apt.conf(5), sources.list(5).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pocketvlm.errors import ProvisionError
from pocketvlm.provenance import sha256_file, sha256_json, write_json
from pocketvlm.provision import deb
from pocketvlm.provision.cache import cache_root

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
WITHOUT = (
    "To run without it, use the experiment that needs no package of Debian's: "
    "`snakemake --cores 4 all --config experiment=local`"
)
_SUITE = re.compile(r"[a-z][a-z0-9-]*\Z")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+\Z")
_UPDATE_SECONDS = 300
_DOWNLOAD_SECONDS = 1800


@dataclass(frozen=True)
class Source:
    """One archive: its address and the suite taken from it."""

    uri: str
    suite: str


def tree(packages: Sequence[str], *, suite: str | None = None, architecture: str | None = None) -> Path:
    """Return a folder that holds Debian packages and all that they depend on, unpacked.

    Args:
        packages: names of binary packages, e.g. `["qemu-user-static"]`.
        suite: a release, e.g. `trixie`, from the mirror the system uses; None is the system's own release
            with its updates and security updates.
        architecture: Debian's name, e.g. `arm64`; None is the system's own.

    Returns:
        The root folder (`usr/bin/…` below it). It is complete or absent; beside it, `packages.json` lists
        each package file with its sha256. Callers that ask at the same time wait for one another.

    Raises:
        ProvisionError: no apt here, no mirror, no such package, or a signature that is not Debian's.
    """
    if not packages or any(not _PACKAGE.match(name) for name in packages):
        raise ProvisionError(
            f"no list of package names: {list(packages)!r}", do="name Debian binary packages, e.g. adbd"
        )
    if suite is not None and not _SUITE.match(suite):
        raise ProvisionError(f"{suite!r} is no name of a Debian suite", do="give a name such as trixie")
    names = sorted(set(packages))
    wanted = ", ".join(names)
    _require_apt(wanted)
    release = suite or _system_release(wanted)
    architecture = architecture or _run(["dpkg", "--print-architecture"], wanted, 30).strip()
    digest = sha256_json([names, release, suite is None, architecture])[:12]
    home = cache_root() / "apt"
    target = home / f"{names[0]}-{release}-{architecture}-{digest}"
    if (target / "packages.json").is_file():
        return target / "root"
    with _lock(home / "locks" / f"{release}-{architecture}", wanted):
        if not (target / "packages.json").is_file():
            _make(target, names, suite, release, architecture, wanted)
    return target / "root"


def _make(
    target: Path, names: list[str], suite: str | None, release: str, architecture: str, wanted: str
) -> None:
    """Download, unpack aside and rename into place."""
    home = target.parent
    for stale in home.glob(f".{target.name}.*"):
        # Left by a caller that was killed; the lock says that no other caller is at work on it.
        shutil.rmtree(stale)
    shutil.rmtree(target, ignore_errors=True)
    state = home / "state" / f"{release}-{architecture}{'' if suite else '-system'}"
    print(f"apt: fetching {wanted} ({release}, {architecture}) into {home}", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{target.name}.") as name:
        aside = Path(name)
        archives = aside / "archives"
        config = _write_configuration(state, archives, _sources(state, suite, release, wanted), architecture)
        # By default apt-get update only warns of an index that it could not get, and goes on with an old one.
        _run(
            ["apt-get", "-c", str(config), "-q", "update", "-o", "APT::Update::Error-Mode=any"],
            wanted,
            _UPDATE_SECONDS,
        )
        _run(
            ["apt-get", "-c", str(config), "-q", "-y", "--download-only", "install", *names],
            wanted,
            _DOWNLOAD_SECONDS,
        )
        files = sorted(archives.glob("*.deb"))
        if not files:
            raise ProvisionError(f"apt downloaded nothing for {wanted}", do=WITHOUT, where=str(archives))
        made = aside / "tree"
        root = made / "root"
        root.mkdir(parents=True)
        for file in files:
            deb.unpack(file, root)
        _close(root)
        write_json(
            made / "packages.json",
            {
                "packages": names,
                "release": release,
                "architecture": architecture,
                "files": {file.name: sha256_file(file) for file in files},
            },
        )
        made.chmod(0o755)
        made.replace(target)


def _close(root: Path) -> None:
    """Take set-user-id and set-group-id off all files: a program in a cache must not carry privileges."""
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink() and path.stat().st_mode & 0o6000:
                path.chmod(path.stat().st_mode & 0o1777)


def _require_apt(wanted: str) -> None:
    """Stop where apt cannot work, naming what lacks."""
    if sys.platform != "linux":
        reason = f"this is {platform.system()}, which has no apt"
    elif missing := [tool for tool in ("apt-get", "dpkg", "dpkg-deb") if shutil.which(tool) is None]:
        reason = f"{', '.join(missing)} not found: this is no Debian system"
    elif not KEYRING.is_file():
        reason = f"{KEYRING} is not there, so that Debian's signatures cannot be checked"
    else:
        return
    raise ProvisionError(f"Debian's {wanted} cannot be had here: {reason}", do=WITHOUT)


def _system_release(wanted: str) -> str:
    """Return the code name of the system's release, from os-release(5)."""
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME" and _SUITE.match(value.strip('"')):
            return value.strip('"')
    raise ProvisionError(
        f"Debian's {wanted} cannot be had here: /etc/os-release names no release of Debian", do=WITHOUT
    )


def _sources(state: Path, suite: str | None, release: str, wanted: str) -> list[Source]:
    """Return the archives to use, at the addresses that the system's own sources name.

    `apt-get indextargets` lists downloaded indexes only, and a fresh container has none; `update
    --print-uris` lists what would be downloaded, from the same sources.
    """
    lists = state / "system-lists"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    options = ["-o", f"Dir::State::lists={lists}", "-o", "Debug::NoLocking=true"]
    printed = _run(["apt-get", *options, "update", "--print-uris"], wanted, 60)
    return choose_sources(parse_uris(printed), suite, release, wanted)


def parse_uris(printed: str) -> list[Source]:
    """Return the archives among the lines of `apt-get update --print-uris`, in their order."""
    found = re.findall(r"^'([^'\s]+)/dists/([^'\s]+)/(?:InRelease|Release)'", printed, re.MULTILINE)
    return list(dict.fromkeys(Source(uri, suite) for uri, suite in found))


def choose_sources(found: Sequence[Source], suite: str | None, release: str, wanted: str) -> list[Source]:
    """Return the archives for a suite: the system's own, or another of its mirror.

    Raises:
        ProvisionError: the system's sources name no mirror of Debian.
    """
    system = _system_release(wanted) if suite else release
    own = [source for source in found if source.suite == system]
    if not own:
        raise ProvisionError(
            f"Debian's {wanted} cannot be had here: the system's apt sources name no mirror of {system}",
            do=WITHOUT,
        )
    if suite and suite != system:
        return [Source(source.uri, suite) for source in own]
    extra = [source for source in found if source.suite in (f"{system}-updates", f"{system}-security")]
    return own + extra


def _write_configuration(state: Path, archives: Path, sources: Sequence[Source], architecture: str) -> Path:
    """Write an apt configuration that keeps everything below `state` and `archives`; return its path."""
    for folder in (state / "lists" / "partial", state / "cache", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    status, listed = state / "status", state / "sources.list"
    status.write_text("")
    listed.write_text(
        "".join(f"deb [signed-by={KEYRING}] {source.uri} {source.suite} main\n" for source in sources)
    )
    # Hooks of the system (docker-clean, packagekit) would touch the system's own cache. The package database
    # is empty, so that every dependency comes along whatever the system has installed.
    lines = [
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        "#clear DPkg::Pre-Invoke;",
        "#clear DPkg::Post-Invoke;",
        "#clear DPkg::Pre-Install-Pkgs;",
        "#clear APT::Architectures;",
        f'Dir::State "{state}";',
        f'Dir::State::lists "{state / "lists"}";',
        f'Dir::State::status "{status}";',
        f'Dir::State::extended_states "{state / "extended_states"}";',
        f'Dir::Cache "{state / "cache"}";',
        f'Dir::Cache::archives "{archives}";',
        f'Dir::Cache::pkgcache "{state / "cache" / "pkgcache.bin"}";',
        f'Dir::Cache::srcpkgcache "{state / "cache" / "srcpkgcache.bin"}";',
        f'Dir::Etc::sourcelist "{listed}";',
        'Dir::Etc::sourceparts "-";',
        'Dir::Etc::preferences "/dev/null";',
        'Dir::Etc::preferencesparts "-";',
        f'Dir::Log "{state}";',
        f'APT::Architecture "{architecture}";',
        f'APT::Architectures {{ "{architecture}"; }};',
        'APT::Default-Release "";',
        'APT::Install-Recommends "false";',
        'APT::Install-Suggests "false";',
        'APT::Get::AllowUnauthenticated "false";',
        'Acquire::AllowInsecureRepositories "false";',
        'Acquire::AllowWeakRepositories "false";',
        'Acquire::Languages "none";',
        'Acquire::GzipIndexes "false";',
        'Acquire::Retries "3";',
        'Acquire::http::Timeout "30";',
        'Acquire::https::Timeout "30";',
        # The user _apt cannot enter a cache below another user's home.
        f'APT::Sandbox::User "{"root" if os.geteuid() == 0 else ""}";',
        # The caller holds a lock of its own; dpkg's is root's.
        'Debug::NoLocking "true";',
        "",
    ]
    config = archives.parent / "apt.conf"
    config.write_text("\n".join(lines))
    return config


def _run(argv: Sequence[str], wanted: str, seconds: float) -> str:
    """Run one of apt's programs and return what it prints.

    Raises:
        ProvisionError: with the program's own errors as the reason.
    """
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    # A root without sbin in its path (a bare `su`) lacks what dpkg looks for.
    environment["PATH"] = f"{environment.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin"
    try:
        done = subprocess.run(
            list(argv),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ProvisionError(
            f"Debian's {wanted} cannot be had now: {argv[0]} did not finish in {seconds:g} s",
            do=f"Try again when the mirror answers. {WITHOUT}",
        ) from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith(("E:", "Err:", "dpkg"))]
        reason = "; ".join(dict.fromkeys(said[:4])) or f"{argv[0]} ended with status {done.returncode}"
        # Addresses of a mirror may carry a user and a password.
        reason = re.sub(r"//[^/@\s]+@", "//", reason)
        raise ProvisionError(f"Debian's {wanted} cannot be had now: {reason.rstrip('.')}", do=WITHOUT)
    return done.stdout


@contextlib.contextmanager
def _lock(path: Path, wanted: str) -> Iterator[None]:
    """Hold a lock that the kernel releases when its holder ends; wait for another holder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(
                f"apt: waiting for another process that fetches packages ({wanted})",
                file=sys.stderr,
                flush=True,
            )
            fcntl.flock(stream, fcntl.LOCK_EX)
        yield

"""Build the library that confines adbd to one loopback address (`confine.c`), with zig from PyPI."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from pocketvlm.errors import ProvisionError
from pocketvlm.provenance import atomic_file, sha256_file, sha256_json
from pocketvlm.provision.apt import WITHOUT
from pocketvlm.provision.cache import cache_root

SOURCE = Path(__file__).with_name("confine.c")
# The oldest glibc to run with, far older than adbd's own, so that the library asks for nothing newer.
_GLIBC = "2.28"
CONFINING = "./.confine.so"
"""The library as adbd's dynamic linker is told of it, from the phone's folder, in which adbd starts."""


def place(root: Path) -> None:
    """Put the library where adbd finds it as CONFINING.

    Args:
        root: the phone's folder; no adbd runs there.

    Raises:
        ProvisionError: as `library`.
    """
    with atomic_file(root / CONFINING, "wb") as stream:
        stream.write(library().read_bytes())


def confines(process: int) -> bool:
    """Whether a process has the library loaded; false when it is gone."""
    try:
        return f"/{Path(CONFINING).name}\n" in Path(f"/proc/{process}/maps").read_text(errors="replace")
    except OSError:
        return False


def library() -> Path:
    """Return the built library for this machine, from the cache when source and compiler are the same.

    Raises:
        ProvisionError: zig is not installed or does not compile it.
    """
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError:
        raise ProvisionError(
            "the emulated phone needs the Python package ziglang, which is not installed",
            do="Install envs/workflow.txt again as the README says",
        ) from None
    target = f"{platform.machine()}-linux-gnu.{_GLIBC}"
    folder = cache_root() / "emulated-phone-tools"
    built = folder / f"confine-{sha256_json([sha256_file(SOURCE), version, target])[:16]}.so"
    if built.is_file():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.is_file():
            _compile(target, built)
    return built


def _compile(target: str, built: Path) -> None:
    zig_cache = cache_root() / "zig"
    environment = {
        **os.environ,
        "ZIG_GLOBAL_CACHE_DIR": str(zig_cache),
        "ZIG_LOCAL_CACHE_DIR": str(zig_cache),
    }
    with tempfile.TemporaryDirectory(dir=built.parent) as name:
        aside = Path(name) / built.name
        command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-shared", "-fPIC", "-O2"]
        command += ["-Wall", "-Wextra", "-Werror", "-s", "-o", str(aside), str(SOURCE)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode != 0:
            raise ProvisionError(
                f"the library that confines adbd does not compile: {done.stderr.strip()[-500:]}",
                where=str(SOURCE),
                do=WITHOUT,
            )
        aside.replace(built)

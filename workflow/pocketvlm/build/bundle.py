"""Bundles: a folder of files to push, and the manifest that says what they are and how they were made."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketvlm.build.toolchains import Toolchain
from pocketvlm.errors import ProvisionError
from pocketvlm.provenance import sha256_file, write_json

# Paths that CMake, ninja and compilers take as they are.
_PLAIN = re.compile(r"[\w/ '.,+@%()~-]*")


@contextmanager
def complete(destination: Path) -> Iterator[Path]:
    """A folder beside the destination that takes its place when the block succeeds, else is gone."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=destination.parent, prefix=f".{destination.name}."))
    try:
        aside.chmod(0o755)
        yield aside
        if destination.is_dir():  # Snakemake makes the folder of a declared output, empty
            destination.rmdir()
        aside.rename(destination)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def workplace(destination: Path) -> Iterator[Path]:
    """A temporary folder to compile in: beside the destination, or where its path can be written in any tool.

    CMake and ninja fail in a folder whose path has quotation marks, `;`, `|`, `${` or a backslash, and
    `-ffile-prefix-map` cuts at an `=`, so that other bytes come out.

    Args:
        destination: the bundle's folder.

    Raises:
        ProvisionError: neither its path nor that of the system's temporary folder is plain.
    """
    beside = destination.absolute().parent
    places = [place for place in (beside, Path(tempfile.gettempdir())) if _PLAIN.fullmatch(str(place))]
    if not places:
        raise ProvisionError(
            f"compilers cannot work in {beside} nor in {tempfile.gettempdir()}: both have unusual characters",
            do="Set TMPDIR to a folder whose path has letters, digits and ._- only",
        )
    places[0].mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=places[0], prefix=".build-") as folder:
        yield Path(folder)


def write_manifest(
    folder: Path,
    *,
    name: str,
    toolchain: Toolchain,
    flags: Mapping[str, Any],
    source: Mapping[str, Any],
) -> None:
    """Write `manifest.json` over all files of a bundle.

    It holds nothing that differs between two builds of the same bytes: no time, no path, no commit of
        pocketvlm.

    Args:
        folder: the bundle.
        name: the bundle's name.
        toolchain: what compiled it.
        flags: `c`, `cxx`, `link` and `cmake` as they were given.
        source: what it was compiled from.
    """
    files = {
        path.relative_to(folder).as_posix(): {
            "sha256": sha256_file(path),
            "bytes": path.stat().st_size,
            "mode": f"{path.stat().st_mode & 0o777:04o}",
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(
        folder / "manifest.json",
        {
            "format": 1,
            "name": name,
            "target": toolchain.target,
            "toolchain": {"name": toolchain.name, "version": toolchain.version},
            "cpu_features": toolchain.cpu,
            "flags": dict(flags),
            "source": dict(source),
            "files": files,
        },
    )


def environment(toolchain: Toolchain, root: Path, *tools: Path) -> dict[str, str]:
    """The environment of a build: what the tools need and nothing that a person may have set.

    SOURCE_DATE_EPOCH, CFLAGS and the like change what a build makes, so that only its own are let in. Sources
    that ask git for a commit would find the clone around the build's folder: git may not look above that.

    Args:
        toolchain: its own variables are added.
        root: folder of the build, also for temporary files.
        tools: folders of programs.
    """
    kept = {name: os.environ[name] for name in ("HOME",) if name in os.environ}
    path = os.pathsep.join([*map(str, tools), "/usr/local/bin", "/usr/bin", "/bin"])
    own = {"TMPDIR": str(root), "GIT_CEILING_DIRECTORIES": str(root.parent), "LC_ALL": "C"}
    return {**kept, **own, "PATH": path, **toolchain.environment}


def run(command: Sequence[str], *, log: Path, env: Mapping[str, str], cwd: Path, what: str) -> None:
    """Run a build step, its output appended to the log.

    Raises:
        ProvisionError: it failed; the message has its last words and the log all of them.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        stream.write(f"\n$ {' '.join(command)}\n".encode())
        stream.flush()
        done = subprocess.run(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        raise ProvisionError(
            f"{what} failed with status {done.returncode}: {_last_error(log)}",
            where=str(log),
            do="Read the log. Where it names no error in the recipe or the source, look for a full disk or "
            "too little memory",
        )


def _last_error(log: Path) -> str:
    lines = log.read_bytes()[-20_000:].decode(errors="replace").splitlines()
    # The first complaint is the cause of the others; CMake writes its own as "CMake Error at".
    telling = [line for line in lines if "error:" in line or line.startswith("CMake Error")]
    return (telling[:1] or lines[-1:] or ["it said nothing"])[0].strip()

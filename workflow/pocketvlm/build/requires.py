"""What a backend needs besides a compiler: Debian packages, or a vendor's SDK that the user has.

The table of frameworks says it (`requires` of a backend); paths stand in its CMake options as `{word}`:

| word | stands for |
| --- | --- |
| `{debian}` | the folder in which the Debian packages are unpacked |
| `{multiarch}` | Debian's name of the target's libraries, such as x86_64-linux-gnu |
| `{<program>}` | a program of these packages, started with their own libraries |
| `{host}` | a CMake toolchain file of the machine that builds, for programs that a build makes and runs |
| `{<VARIABLE>}` | the folder of an SDK, named by that environment variable |
| `{python}` | the interpreter that runs the workflow |
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm.build.toolchains import Toolchain, resolve
from pocketvlm.errors import ConfigError, ProvisionError
from pocketvlm.provenance import read_json, sha256_file
from pocketvlm.provision import apt, elf

# Debian's architecture and library folder by the processor of a target.
_DEBIAN = {"x86_64": ("amd64", "x86_64-linux-gnu"), "aarch64": ("arm64", "aarch64-linux-gnu")}


@dataclass(frozen=True)
class Provided:
    """What was found or fetched for a build.

    Attributes:
        words: what each `{word}` stands for.
        libraries: files that the bundle takes along in `lib/`, by name.
        texts: small files that the bundle gets, by their path in it.
        record: what the bundle's manifest says of them: hashes, no paths.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    libraries: Mapping[str, Path] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    def fill(self, value: str) -> str:
        """Return a CMake option with paths in the place of its words."""
        for word, path in self.words.items():
            value = value.replace(f"{{{word}}}", path)
        return value

    def take_along(self, bundle: Path) -> None:
        """Put the libraries and small files into a bundle."""
        for name, source in self.libraries.items():
            _write(bundle / "lib" / name, source.read_bytes(), 0o755)
        for name, text in self.texts.items():
            _write(bundle / name, text.encode(), 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def lacking(
    requires: Mapping[str, Any],
    *,
    backend: str,
    version: str,
    target: str,
    toolchains: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, str] | None = None,
) -> str | None:
    """Return why a backend cannot be built as things are, and what to do; None when nothing is known to lack.

    Packages are not looked for: they are fetched when they are needed.

    Args:
        requires: of the backend.
        backend, version: for the message.
        target: what it is compiled for.
        toolchains: the table of toolchains.
        environment: variables that name SDKs; default: this process's.
    """
    if not requires:
        return None
    if version not in requires.get("versions", [version]):
        known = ", ".join(requires["versions"])
        return f"version {version} has no backend {backend}, which came later: use {known}"
    try:
        for sdk in requires.get("sdks", ()):
            _sdk(sdk, backend, os.environ if environment is None else environment)
        if any(entry["kind"] == "ndk" and target in entry["targets"] for entry in toolchains.values()):
            resolve(toolchains, target)
    except (ProvisionError, ConfigError) as error:
        return f"{error.what}{f' ({error.where})' if error.where else ''}: {error.do}"
    return None


def provide(
    requires: Mapping[str, Any],
    *,
    backend: str,
    toolchain: Toolchain,
    root: Path,
    host: Callable[[], Toolchain] | None = None,
    environment: Mapping[str, str] | None = None,
    tree: Callable[..., Path] = apt.tree,
) -> Provided:
    """Find and fetch what a backend needs.

    Args:
        requires: of the backend; empty for one that needs nothing.
        backend: for messages.
        toolchain: what compiles for the target.
        root: folder of the build, for what has to be written.
        host: gives the toolchain of this machine, for `requires.host`.
        environment: variables that name SDKs; default: this process's.
        tree: fetches Debian packages.

    Raises:
        ProvisionError: packages cannot be had, or an SDK is missing or incomplete.
    """
    words = {"python": sys.executable}
    libraries: dict[str, Path] = {}
    record: dict[str, Any] = {}
    for sdk in requires.get("sdks", ()):
        folder, hashes = _sdk(sdk, backend, os.environ if environment is None else environment)
        words[sdk["variable"]] = str(folder)
        record[sdk["variable"]] = hashes
    if debian := requires.get("debian"):
        architecture, multiarch = _DEBIAN[toolchain.processor]
        unpacked = tree(debian["packages"], architecture=architecture)
        words |= {"debian": str(unpacked), "multiarch": multiarch}
        folders = [unpacked / "usr/lib" / multiarch, unpacked / "lib" / multiarch]
        for program in debian.get("programs", ()):
            words[program] = str(_started(program, unpacked, folders, root / "programs"))
        libraries = _taken(debian.get("libraries", ()), folders)
        about = read_json(unpacked.parent / "packages.json")
        record["debian"] = {"release": about["release"], "files": about["files"]}
    if requires.get("host"):
        if host is None:
            raise ProvisionError(
                f"the backend {backend} makes programs for this machine while it is built, and no toolchain "
                "was given for them",
                do="Report it: the rule that builds it must give one",
            )
        words["host"] = str(_host_file(host(), root / "host"))
    return Provided(words, libraries, dict(requires.get("files", {})), record)


def _sdk(
    sdk: Mapping[str, Any], backend: str, environment: Mapping[str, str]
) -> tuple[Path, dict[str, str | None]]:
    """Return an SDK's folder and the sha256 of each file that it must have, None for folders."""
    variable = sdk["variable"]
    value = environment.get(variable)
    if not value:
        raise ProvisionError(
            f"building for {backend} needs {sdk['what']}, and {variable} is not set",
            do=f"Set {variable} to its folder, which must have {', '.join(sdk['files'])}. {sdk['how']}",
        )
    folder = Path(value).expanduser()
    if missing := [name for name in sdk["files"] if not (folder / name).exists()]:
        raise ProvisionError(
            f"{sdk['what']} lacks {', '.join(missing)}",
            where=f"{variable}={folder}",
            do=f"Set {variable} to the folder that has {', '.join(sdk['files'])}. {sdk['how']}",
        )
    return folder, {
        name: sha256_file(folder / name) if (folder / name).is_file() else None for name in sdk["files"]
    }


def _started(program: str, tree: Path, folders: Sequence[Path], place: Path) -> Path:
    """Write a script that starts a program of the packages with their libraries, and return its path.

    With their own dynamic linker, too: the system's C library may be another one.
    """
    found = tree / "usr/bin" / program
    linkers = [path for folder in folders for path in sorted(folder.glob("ld-linux-*.so.*"))]
    if not found.is_file() or not linkers:
        lacks = program if linkers else "a dynamic linker"
        raise ProvisionError(
            f"Debian's packages lack {lacks}", where=str(tree), do="Remove that folder, and start again"
        )
    command = [str(linkers[0]), "--library-path", ":".join(map(str, folders)), str(found)]
    script = place / program
    _write(script, f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n'.encode(), 0o755)
    return script


def _taken(names: Sequence[str], folders: Sequence[Path]) -> dict[str, Path]:
    """Return libraries with all that they ask for, apart from the C library: that is the system's own."""
    system = {path.name for folder in folders for path in folder.glob("ld-linux-*.so.*")}
    system |= {f"lib{name}.so.6" for name in ("c", "m")} | {
        f"lib{name}" for name in ("dl.so.2", "pthread.so.0", "rt.so.1", "resolv.so.2", "mvec.so.1")
    }
    found: dict[str, Path] = {}
    for name in names:
        with_it, missing = elf.closure(name, folders, without=system)
        if missing:
            raise ProvisionError(
                f"Debian's packages lack {', '.join(missing)}, which {name} asks for",
                where=str(folders[0]),
                do="Add the package that has it to `requires.debian.packages` in config/frameworks.yaml",
            )
        found |= with_it
    return dict(sorted(found.items()))


def _host_file(host: Toolchain, place: Path) -> Path:
    """Write a CMake toolchain file of this machine's compilers and return its path."""
    lines = []
    for name, command, flags in (
        ("C_COMPILER", host.cc, host.c_flags),
        ("CXX_COMPILER", host.cxx, host.cxx_flags),
        ("AR", host.ar, ()),
        ("RANLIB", host.ranlib, ()),
    ):
        script = place / name.lower()
        _write(script, f'#!/bin/sh\nexec {shlex.join([*command, *flags])} "$@"\n'.encode(), 0o755)
        lines.append(f'set(CMAKE_{name} "{script}")\n')
    lines.append(f'set(CMAKE_EXE_LINKER_FLAGS_INIT "{shlex.join(host.link_flags)}")\n')
    path = place / "host.cmake"
    _write(path, "".join(lines).encode(), 0o644)
    return path

"""Toolchains: compilers and flags for a target, from data.

Two kinds: `zig`, a package of the Python environment that compiles for any Linux without a sysroot, and
    `ndk`, Android's own, which is found by the environment variable ANDROID_NDK_HOME. What each may compile
    for, and with which flags, is in config/toolchains.yaml.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketvlm.errors import ConfigError, ProvisionError
from pocketvlm.provision.cache import cache_root

NDK_VARIABLE = "ANDROID_NDK_HOME"
WHERE = "config/toolchains.yaml"


@dataclass(frozen=True)
class Toolchain:
    """Compilers, flags and CMake options for one target.

    Attributes:
        name, version: the kind of toolchain and its release.
        target: what it compiles for, such as `aarch64-linux-musl`.
        processor: the target's processor, as CMake names it.
        cpu: the instructions that may be used, as the compiler names them.
        cc, cxx, ar, ranlib: commands without flags.
        c_flags, cxx_flags, link_flags: flags of each step.
        cmake: options that CMake needs to compile for the target.
        environment: variables that the commands need.
    """

    name: str
    version: str
    target: str
    processor: str
    cpu: str
    cc: tuple[str, ...]
    cxx: tuple[str, ...]
    ar: tuple[str, ...]
    ranlib: tuple[str, ...]
    c_flags: tuple[str, ...]
    cxx_flags: tuple[str, ...]
    link_flags: tuple[str, ...]
    cmake: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def host_target(machine: str | None = None) -> str:
    """Return the target of programs that run on this machine.

    Args:
        machine: name of the processor as the system gives it; default: this machine's.

    Raises:
        ProvisionError: it is neither x86-64 nor 64-bit ARM.
    """
    machine = (machine or platform.machine()).lower()
    targets = {
        "x86_64": "x86_64-linux-musl",
        "amd64": "x86_64-linux-musl",
        "aarch64": "aarch64-linux-musl",
        "arm64": "aarch64-linux-musl",
    }
    if machine not in targets:
        raise ProvisionError(
            f"this machine's processor is {machine}, for which no target is known",
            do="Use a machine with an x86-64 or a 64-bit ARM processor",
        )
    return targets[machine]


def host_driver_target() -> str:
    """Return the target of programs that load this machine's own drivers, which need its C library.

    Raises:
        ProvisionError: as `host_target`.
    """
    return host_target().replace("-musl", "-gnu")


def resolve(catalogue: Mapping[str, Mapping[str, Any]], target: str) -> Toolchain:
    """Return the toolchain that compiles for a target.

    Args:
        catalogue: the contents of config/toolchains.yaml.
        target: one of the catalogue's targets.

    Raises:
        ConfigError: no toolchain, or more than one, has that target, or its entry is incomplete.
        ProvisionError: the toolchain is not on this machine; the message says what is expected where.
    """
    owners = [name for name, entry in catalogue.items() if target in entry["targets"]]
    if len(owners) != 1:
        known = sorted(name for entry in catalogue.values() for name in entry["targets"])
        what = (
            f"no toolchain compiles for {target}" if not owners else f"{target} is in {' and '.join(owners)}"
        )
        raise ConfigError(what, where=WHERE, do=f"Known targets: {', '.join(known)}; name each once")
    name = owners[0]
    kind, entry = catalogue[name]["kind"], catalogue[name]["targets"][target]
    makers = {"zig": _zig, "ndk": _ndk}
    if kind not in makers:
        raise ConfigError(
            f"toolchain {name} is of the unknown kind {kind!r}",
            where=f"{WHERE}: {name}.kind",
            do=f"Use one of: {', '.join(makers)}",
        )
    try:
        return makers[kind](name, target, entry)
    except KeyError as error:
        raise ConfigError(
            f"the entry lacks {error.args[0]!r}", where=f"{WHERE}: {name}.targets.{target}", do="Add it"
        ) from error


def _zig(name: str, target: str, entry: Mapping[str, Any]) -> Toolchain:
    found = importlib.util.find_spec("ziglang")
    program = Path(found.origin).parent / "zig" if found and found.origin else None
    if program is None or not program.is_file():
        raise ProvisionError(
            "the compiler zig is not in this Python environment",
            do="Run the first command of the README again, which installs the package ziglang",
        )
    zig = str(program)
    triple = entry.get("triple", target)
    caches = cache_root() / "zig"
    return Toolchain(
        name=name,
        version=importlib.metadata.version("ziglang"),
        target=target,
        processor=entry["processor"],
        cpu=entry["cpu"],
        cc=(zig, "cc", "-target", triple),
        cxx=(zig, "c++", "-target", triple),
        ar=(zig, "ar"),
        ranlib=(zig, "ranlib"),
        c_flags=tuple(entry["c"]),
        cxx_flags=tuple(entry["cxx"]),
        link_flags=tuple(entry["link"]),
        cmake={"CMAKE_SYSTEM_NAME": "Linux", "CMAKE_SYSTEM_PROCESSOR": entry["processor"]},
        # By default zig would write to ~/.cache/zig and to the working directory.
        environment={
            "ZIG_GLOBAL_CACHE_DIR": str(caches / "global"),
            "ZIG_LOCAL_CACHE_DIR": str(caches / "local"),
        },
    )


def _ndk(name: str, target: str, entry: Mapping[str, Any]) -> Toolchain:
    api, abi = entry["api"], entry["abi"]
    root = _ndk_root(target)
    host = "darwin" if platform.system() == "Darwin" else "linux"
    # The NDK's macOS tools are in a folder named x86_64, though they run on ARM, too.
    tools = root / "toolchains" / "llvm" / "prebuilt" / f"{host}-x86_64" / "bin"
    toolchain_file = root / "build" / "cmake" / "android.toolchain.cmake"
    triple = f"{target}{api}"
    programs = {
        "cc": tools / f"{triple}-clang",
        "cxx": tools / f"{triple}-clang++",
        "ar": tools / "llvm-ar",
        "ranlib": tools / "llvm-ranlib",
    }
    missing = [path for path in (toolchain_file, *programs.values()) if not path.is_file()]
    if missing:
        raise ProvisionError(
            f"the NDK lacks {', '.join(str(path.relative_to(root)) for path in missing)}",
            where=f"{NDK_VARIABLE}={root}",
            do=f"Install an NDK for {host} on x86-64 that knows API level {api}, release 23 or later",
        )
    return Toolchain(
        name=name,
        version=_ndk_version(root),
        target=target,
        processor=entry["processor"],
        cpu=entry["cpu"],
        cc=(str(programs["cc"]),),
        cxx=(str(programs["cxx"]),),
        ar=(str(programs["ar"]),),
        ranlib=(str(programs["ranlib"]),),
        c_flags=tuple(entry["c"]),
        cxx_flags=tuple(entry["cxx"]),
        link_flags=tuple(entry["link"]),
        cmake={
            "CMAKE_TOOLCHAIN_FILE": str(toolchain_file),
            "ANDROID_ABI": abi,
            "ANDROID_PLATFORM": f"android-{api}",
            # One program, no libc++_shared.so to push beside it.
            "ANDROID_STL": "c++_static",
        },
    )


def _ndk_root(target: str) -> Path:
    value = os.environ.get(NDK_VARIABLE)
    if not value:
        raise ProvisionError(
            f"building for {target} needs Android's NDK, and {NDK_VARIABLE} is not set",
            do=f"Unpack an NDK and set {NDK_VARIABLE} to its folder, the one that holds source.properties, "
            "build/cmake and toolchains/llvm",
        )
    root = Path(value).expanduser()
    if not (root / "source.properties").is_file():
        raise ProvisionError(
            f"{NDK_VARIABLE} names a folder that is no NDK: it has no source.properties",
            where=str(root),
            do="Set it to the NDK's own folder, such as …/ndk/27.2.12479018",
        )
    return root


def _ndk_version(root: Path) -> str:
    match = re.search(r"^Pkg\.Revision\s*=\s*(\S+)", (root / "source.properties").read_text(), re.MULTILINE)
    if not match:
        raise ProvisionError(
            "the NDK does not say its release (Pkg.Revision)",
            where=str(root / "source.properties"),
            do="Unpack the NDK again",
        )
    return match.group(1)

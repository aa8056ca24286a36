"""The probe's code built by clang with sanitizers, from a private folder: no compiler need be installed."""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pocketvlm.provision import apt
from pocketvlm.provision.cache import cache_root
from tests.probe.recording import SOURCES

FUZZ = Path(__file__).parent / "fuzz"
PACKAGES = ["clang-14", "libclang-rt-14-dev", "libc6-dev", "libgcc-12-dev", "libstdc++-12-dev", "binutils"]
CHECKED = "-fno-sanitize-recover=all"

# A sanitizer's own exit status must not look like one of the probe's.
ENVIRONMENT = {
    "ASAN_OPTIONS": "exitcode=99:detect_leaks=0:handle_abort=1",
    "UBSAN_OPTIONS": "exitcode=99:print_stacktrace=1",
    "TSAN_OPTIONS": "exitcode=99",
}


def compile_sanitized(name: str, sources: Sequence[Path], sanitizers: str) -> Path:
    """Return a program of these sources, built once for each state of the probe's sources and of theirs."""
    root = apt.tree(PACKAGES, suite="bookworm")
    digest = hashlib.sha256(f"{root.parent.name} {sanitizers}".encode())
    for path in [*sorted(SOURCES.glob("*.[ch]")), *sources, Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    folder = cache_root() / "tests" / f"{name}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    libraries = [f"usr/lib/{platform.machine()}-linux-gnu", f"lib/{platform.machine()}-linux-gnu"]
    paths = ":".join(str(root / path) for path in [*libraries, "usr/lib/llvm-14/lib"])
    command = [str(root / "usr/bin/clang-14"), f"--sysroot={root}", f"-B{root}/usr/bin", "-g", "-O1"]
    command += [f"-fsanitize={sanitizers}", CHECKED, "-Wall", "-Wextra", "-Werror", f"-I{SOURCES}"]
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / name).exists():
            partial = folder / f"{name}.partial"
            command += [*map(str, sources), "-o", str(partial), "-lpthread", "-lm"]
            done = subprocess.run(
                command,
                env=os.environ | {"LD_LIBRARY_PATH": paths},
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert done.returncode == 0, done.stderr
            partial.rename(folder / name)
    return folder / name


def compile_fuzzer(name: str) -> Path:
    """Return the libFuzzer program of tests/probe/fuzz/<name>.c."""
    sources = [FUZZ / f"{name}.c", *(SOURCES / f"{part}.c" for part in ("base", "extract", "sensors"))]
    return compile_sanitized(f"fuzz-{name}", sources, "fuzzer,address,undefined")


def compile_probe_with(sanitizers: str) -> Path:
    """Return the whole probe with sanitizers."""
    return compile_sanitized(f"probe-{sanitizers.replace(',', '-')}", sorted(SOURCES.glob("*.c")), sanitizers)

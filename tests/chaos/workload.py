"""Faults of the workload: killed, out of memory, silent, endless, or saying too much."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pocketvlm.provision.cache import cache_root
from tests.chaos.fault import fault
from tests.chaos.scene import Scene

_CGROUP = Path("/sys/fs/cgroup/memory")
_LIMIT = 64 << 20


@functools.cache
def standin(kind: str) -> bytes:
    """A program for the phone that goes wrong in one way (`standin.c`)."""
    zig = str(cache_root() / "zig")
    with tempfile.TemporaryDirectory() as name:
        built = Path(name) / "standin"
        command = [
            sys.executable,
            "-m",
            "ziglang",
            "cc",
            "-target",
            "aarch64-linux-musl",
            "-static",
            "-O1",
            "-s",
        ]
        subprocess.run(
            [*command, f"-D{kind}", "-o", str(built), str(Path(__file__).with_name("standin.c"))],
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig},
            check=True,
            capture_output=True,
            timeout=300,
        )
        return built.read_bytes()


@fault("workload killed", "run", says=r"was killed by signal 9")
def _killed(scene: Scene, point: str) -> None:
    scene.reach(point)
    scene.hit()
    process = scene.phone.workload()
    assert process is not None
    os.kill(process, signal.SIGKILL)


def _no_cgroup() -> str:
    return (
        "" if os.access(_CGROUP / "cgroup.procs", os.W_OK) else "only root may limit a process's memory here"
    )


@fault("workload out of memory", "run", says=r"killed by signal 9 because memory ran out", needs=_no_cgroup)
def _out_of_memory(scene: Scene, point: str) -> None:
    scene.replace_program(standin("GREEDY"))
    own = next(
        line.split(":", 2)[2]
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if line.split(":")[1] == "memory"
    )
    group = _CGROUP / own.lstrip("/") / f"chaos-{os.getpid()}"
    group.mkdir()
    scene.at_end(group.rmdir)
    (group / "memory.limit_in_bytes").write_text(str(_LIMIT))
    scene.reach(point)
    scene.hit()
    process = scene.phone.workload()
    assert process is not None
    (group / "cgroup.procs").write_text(str(process))


@fault("workload silent", "run", says=r"printed nothing")
def _silent(scene: Scene, _point: str) -> None:
    _instead(scene, "SILENT")


@fault("workload endless", "run", says=r"did not end before its deadline")
def _endless(scene: Scene, _point: str) -> None:
    scene.edit_experiment("deadline_s: 60", "deadline_s: 3")
    _instead(scene, "ENDLESS")


@fault("workload prints 1 GB", "run", says=r"printed more than the limit")
def _gigabyte(scene: Scene, _point: str) -> None:
    _instead(scene, "GIGABYTE")


@fault("workload prints binary", "run", says=r"the workload ended without its timing block")
def _binary(scene: Scene, _point: str) -> None:
    _instead(scene, "BINARY")


def _instead(scene: Scene, kind: str) -> None:
    scene.replace_program(standin(kind))
    scene.start()
    scene.hit()
    scene.end()
    assert scene.started is not None
    assert scene.started.output.isprintable() or not set(scene.started.output) & {"\x1b", "\0", "\x07"}

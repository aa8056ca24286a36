"""Builds the probe and records runs with it."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvlm.provision.cache import cache_root

SOURCES = Path(__file__).parents[2] / "workflow" / "probe"
HEADER = "pocketvlm-sensors\t1\n"


def compile_probe(sources: Path, output: Path, target: str) -> None:
    """Build the probe with zig, as workflow/probe/README.md says."""
    cache = cache_root() / "zig"
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)}
    files = sorted(str(path) for path in sources.glob("*.c"))
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-O2", "-static", "-s"]
    command += [f"-ffile-prefix-map={sources}=.", "-Wall", "-Wextra", "-Werror"]
    command += [*files, "-o", str(output), "-lpthread"]
    subprocess.run(command, check=True, env=environment, timeout=600)


def built(target: str) -> Path:
    """Return the probe for a target, built once for each state of its sources."""
    digest = hashlib.sha256()
    for path in [*sorted(SOURCES.glob("*.[ch]")), Path(__file__)]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    folder = cache_root() / "tests" / f"probe-{target}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "probe").exists():
            compile_probe(SOURCES, folder / "probe.partial", target)
            (folder / "probe.partial").rename(folder / "probe")
    return folder / "probe"


@dataclass(frozen=True)
class Recording:
    """What a run of the probe left behind."""

    code: int
    message: str
    folder: Path

    @property
    def record(self) -> dict[str, Any]:
        return json.loads((self.folder / "probe.json").read_text())

    @property
    def complete(self) -> bool:
        return (self.folder / "probe.json").exists()

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "events.jsonl").read_text().splitlines()]

    def events_of(self, kind: str, sensor: str | None = None) -> list[dict[str, Any]]:
        return [e for e in self.events if e["event"] == kind and sensor in (None, e.get("sensor"))]

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / f"{name}.csv").open(newline="") as stream:
            return list(csv.DictReader(stream))

    def column(self, name: str, sensor: str) -> list[str]:
        return [row[sensor] for row in self.rows(name)]

    @property
    def stdout(self) -> bytes:
        return (self.folder / "stdout").read_bytes()

    @property
    def stderr(self) -> bytes:
        return (self.folder / "stderr").read_bytes()

    def chunks(self, stream: str = "stdout") -> list[tuple[int, bytes]]:
        """Return each chunk's time in microseconds and its bytes."""
        data = (self.folder / stream).read_bytes()
        return [
            (e["t_us"], data[e["offset"] : e["offset"] + e["length"]])
            for e in self.events_of("chunk")
            if e["stream"] == stream
        ]


class Prober:
    """Starts the probe, with a prefix (qemu) for one of another machine."""

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self.command = list(command)
        self.folder = folder
        self.count = 0

    def arguments(
        self, sensors: str, workload: Sequence[str], *options: str, out: Path | None = None
    ) -> list[str]:
        self.count += 1
        listed = self.folder / f"sensors-{self.count}.tsv"
        listed.write_bytes((HEADER + sensors).encode())
        self.out = out or self.folder / f"run-{self.count}"
        where = ["--sensors", str(listed), "--out", str(self.out)]
        return [*self.command, "run", *where, *options, "--", *workload]

    def run(self, sensors: str, workload: Sequence[str], *options: str, out: Path | None = None) -> Recording:
        command = self.arguments(sensors, workload, *options, out=out)
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        return Recording(done.returncode, done.stderr, self.out)

    def start(self, sensors: str, workload: Sequence[str], *options: str) -> subprocess.Popen[str]:
        command = self.arguments(sensors, workload, *options)
        return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)

    def finish(self, process: subprocess.Popen[str]) -> Recording:
        _, message = process.communicate(timeout=60)
        return Recording(process.returncode, message, self.out)


def python(code: str) -> list[str]:
    """Return a workload that runs Python code."""
    return [sys.executable, "-c", code]

"""Where the workload's threads may run, as the probe sees it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.probe.recording import Prober, Recording, python
from tests.probe.sanitized import ENVIRONMENT, compile_probe_with

CPU = "group\tcpu\t50\nsensor\tuser\t/proc/stat\tline:cpu:1\n"
WATCHED = ("--threads-ms", "50")
MINE = sorted(os.sched_getaffinity(0))

# A thread that may run on one CPU only, under a name that would end the line, the string and the record.
NAMED = """
import ctypes, os, threading, time
def named():
    ctypes.CDLL(None).prctl(15, b'a"}\\n{\\xff\\\\', 0, 0, 0)
    os.sched_setaffinity(0, {CPU})
    time.sleep(0.6)
thread = threading.Thread(target=named)
thread.start()
thread.join()
""".replace("{CPU}", f"{{{MINE[0]}}}")


def lists(recording: Recording) -> dict[int, list[str]]:
    """Return the lists that were told of each thread, in order."""
    found: dict[int, list[str]] = {}
    for event in recording.events_of("thread"):
        found.setdefault(event["tid"], []).append(event["allowed"])
    return found


def allowed_here() -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line for line in lines if line.startswith("Cpus_allowed_list:")).split()[1]


def main_thread(recording: Recording) -> int:
    return int(recording.events_of("start")[0]["pid"])


def test_nothing_is_looked_at_unless_asked(prober: Prober) -> None:
    recording = prober.run(CPU, python(NAMED))
    assert recording.events_of("thread") == []
    assert "threads" not in recording.record


def test_threads_with_different_masks_are_told_once_each(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, python(NAMED), *WATCHED)
    assert recording.code == 0
    found = lists(recording)
    named = [e for e in recording.events_of("thread") if e["name"].startswith("a")]
    assert len(found) == 2
    assert found[main_thread(recording)] == [allowed_here()]
    # The kernel writes a line end in a name as two characters; what is no UTF-8 is replaced.
    assert named[-1]["name"] == 'a"}\\n{\ufffd\\\\'
    assert named[-1]["allowed"] == str(MINE[0])
    assert recording.record["threads"]["told"] == len(recording.events_of("thread"))
    assert recording.record["threads"]["omitted"] == 0
    assert recording.record["threads"]["looks"] >= 5


@pytest.mark.skipif(len(MINE) < 2, reason="one CPU: a list cannot change")
def test_a_list_that_changes_is_told_again(prober: Prober) -> None:
    code = f"""
import os, time
time.sleep(0.3)
os.sched_setaffinity(0, {{{MINE[1]}}})
time.sleep(0.3)
"""
    recording = prober.run(CPU, python(code), *WATCHED)
    assert lists(recording) == {main_thread(recording): [allowed_here(), str(MINE[1])]}


def test_descendants_are_seen_and_forgotten(prober: Prober) -> None:
    code = """
import subprocess, time
for _ in range(3):
    subprocess.run(["sh", "-c", "sleep 0.3; true"])
"""
    recording = prober.run(CPU, python(code), *WATCHED)
    names = [event["name"] for event in recording.events_of("thread")]
    if not recording.record["threads"]["descendants"]:
        pytest.skip("this kernel does not list a thread's children")
    assert names.count("sleep") == 3
    assert len(set(lists(recording))) == len(names), "each process is another one, and told once"


def test_a_run_shorter_than_a_period_has_its_main_thread(prober: Prober) -> None:
    recording = prober.run(CPU, ["true"], "--threads-ms", "3600000")
    assert lists(recording) == {main_thread(recording): [allowed_here()]}


def test_what_is_beyond_the_limits_is_counted(prober: Prober) -> None:
    code = """
import threading, time
threading.stack_size(65536)
enough = threading.Event()
for _ in range(1100):
    threading.Thread(target=enough.wait).start()
time.sleep(0.5)
enough.set()
"""
    recording = prober.run(CPU, python(code), *WATCHED)
    assert recording.code == 0
    assert len(lists(recording)) >= 1024
    assert recording.record["threads"]["omitted"] >= 77


@pytest.mark.parametrize("value", ["9", "-1", "x", "3600001"])
def test_a_period_that_makes_no_sense_is_refused(prober: Prober, value: str) -> None:
    recording = prober.run(CPU, ["true"], "--threads-ms", value)
    assert recording.code == 2
    assert "--threads-ms must be" in recording.message


def test_the_monotonic_clock_can_be_told_from_the_record(any_prober: Prober) -> None:
    recording = any_prober.run(CPU, ["true"])
    here = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - time.monotonic_ns()) // 1000
    assert abs(recording.record["monotonic_offset_us"] - here) < 5000


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_looking_at_threads_under_sanitizers(
    sanitizers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    prober = Prober([str(compile_probe_with(sanitizers))], tmp_path)
    busy: dict[str, Any] = {}
    for command in (python(NAMED), ["sh", "-c", "for i in 1 2 3 4 5 6; do sleep 0.05 & done; wait"]):
        recording = prober.run(CPU, command, "--threads-ms", "10")
        assert (recording.code, recording.message) == (0, "")
        busy |= lists(recording)
    assert len(busy) >= 4

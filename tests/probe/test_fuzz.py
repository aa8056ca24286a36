"""Sanitizers and fuzzing. POCKETVLM_FUZZ_SECONDS sets how long each fuzzer runs (60)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.probe.recording import SOURCES, Prober, python
from tests.probe.sanitized import (
    ENVIRONMENT,
    FUZZ,
    compile_fuzzer,
    compile_probe_with,
    compile_sanitized,
)

SECONDS = int(os.environ.get("POCKETVLM_FUZZ_SECONDS", "60"))
TARGETS = ("extract", "list")


def start_fuzzer(program: Path, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        return subprocess.Popen(
            [str(program), f"-artifact_prefix={folder}/", "-max_len=4096", *arguments],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=os.environ | ENVIRONMENT,
        )


@pytest.mark.parametrize("name", TARGETS)
def test_committed_corpus_passes(name: str, tmp_path: Path) -> None:
    inputs = sorted(str(path) for path in (FUZZ / "corpus" / name).iterdir())
    assert len(inputs) >= 15
    process = start_fuzzer(compile_fuzzer(name), tmp_path, *inputs)
    assert process.wait(timeout=120) == 0, (tmp_path / "log").read_text(errors="replace")[-3000:]


@pytest.mark.slow
def test_fuzzing_finds_nothing(tmp_path: Path) -> None:
    """Both fuzzers side by side, each on a copy of its corpus."""
    programs = {name: compile_fuzzer(name) for name in TARGETS}
    running = {}
    for name, program in programs.items():
        shutil.copytree(FUZZ / "corpus" / name, tmp_path / name / "corpus")
        options = (f"-max_total_time={SECONDS}", "-print_final_stats=1", str(tmp_path / name / "corpus"))
        running[name] = start_fuzzer(program, tmp_path / name, *options)
    for name, process in running.items():
        code = process.wait(timeout=SECONDS + 300)
        log = (tmp_path / name / "log").read_text(errors="replace")
        assert code == 0, log[-5000:]
        runs = re.search(r"number_of_executed_units: (\d+)", log)
        assert runs is not None, log[-5000:]
        print(f"{name}: {runs[1]} inputs in {SECONDS} s")
        assert int(runs[1]) > 100 * SECONDS


def test_the_fuzzer_sees_a_mistake(tmp_path: Path) -> None:
    """The harness itself: a read past the end, put into a copy of the source, must be found in the corpus."""
    text = (SOURCES / "extract.c").read_text()
    sound = "while (stop < end && !is_space(*stop)) stop++;"
    assert text.count(sound) == 1
    (tmp_path / "extract_broken.c").write_text(text.replace(sound, sound.replace("stop < end &&", "")))
    sources = [FUZZ / "extract.c", SOURCES / "base.c", SOURCES / "sensors.c", tmp_path / "extract_broken.c"]
    program = compile_sanitized("fuzz-broken", sources, "fuzzer,address,undefined")
    inputs = sorted(str(path) for path in (FUZZ / "corpus" / "extract").iterdir())
    process = start_fuzzer(program, tmp_path, *inputs)
    assert process.wait(timeout=120) == 99
    assert "heap-buffer-overflow" in (tmp_path / "log").read_text(errors="replace")


SENSORS = (
    "group\tcpu\t10\nsensor\tuser\t/proc/stat\tline:cpu:1\nsensor\tfree\t/proc/meminfo\tline:MemFree:1\n"
    "sensor\tfar\t/proc/kallsyms\tline:no-such-symbol:1\n"
    "group\twork\t5\nsensor\tutime\t/proc/{pid}/stat\tstat:14\nsensor\trss\t/proc/{pid}/status\tline:VmRSS:1\n"
    "group\todd\t20\nsensor\tnone\t/none\tfirst\nsensor\tuuid\t/proc/sys/kernel/random/uuid\ttext\n"
    "sensor\trandom\t/dev/urandom\tfirst\nsensor\tcall\t/dev/null\tioctl:80047101\n"
)
NOISY = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"], start_new_session=True)
for i in range(300):
    os.write(1, f"word {i} ".encode() * (i % 50))
    os.write(2, bytes([i % 256]))
    time.sleep(0.002)
os.kill(os.getpid(), 15 if len(sys.argv) > 1 else 0)
"""


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_whole_runs_under_sanitizers(
    sanitizers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    prober = Prober([str(compile_probe_with(sanitizers))], tmp_path)
    for command, options in (
        (python(NOISY), ()),
        ([*python(NOISY), "die"], ()),
        (["yes"], ("--max-output", "200000")),
        (["sleep", "60"], ("--deadline", "0.5")),
        (["/no/such/command"], ()),
    ):
        recording = prober.run(SENSORS, command, *options)
        assert (recording.code, recording.message) == (0, "")
        assert recording.record["groups"]["cpu"]["samples"] >= 2
    recording = prober.run(SENSORS, ["true"], out=tmp_path / "run-1")
    assert recording.code == 3
    assert "Sanitizer" not in recording.message
    recording = prober.run("group\ta\t0\n", ["true"])
    assert recording.code == 2
    done = subprocess.run([*prober.command, "sensors"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")

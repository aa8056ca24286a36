"""Bad input of every kind: a clear message, a status that is not 0, nothing that a later run would trust."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from pocketvlm.build.toolchains import host_target
from pocketvlm.provenance import sha256_file, write_json
from tests.adb_server import FakeServer
from tests.experiments import cell_text, experiment_text

from .conftest import Project

EXPERIMENT = "config/experiments/micro.yaml"

# One cell, one run, and a workload that may not take longer than 3 s.
STUB = experiment_text("a stand-in for the framework", cell_text(), deadline_s=3)

PHONE = """\
id: pixel
kind: phone
target: aarch64-linux-musl
host_cores: false
transport: {serial: SERIAL, server_port: PORT}
remote_dir: /data/local/tmp/pocketvlm
sysfs_root: ""
exec_prefix: []
periods_ms:
  {cpu: 100, memory: 100, workload: 100, gpu: 100, npu: 100, thermal: 200, battery: 1000, rapl: 1000}
"""


# The other rules would make the stand-ins anew.
BLOCK = [
    "results/stub/blocks/local.json",
    "--allowed-rules",
    "measure_block",
    "identify_device",
    "build_probe",
]


def last_line(output: str) -> str:
    return output.rstrip().splitlines()[-1]


def mistake(old: str, new: str) -> Callable[[Project], None]:
    return lambda project: project.edit(EXPERIMENT, old, new)


def first(old: str, new: str) -> Callable[[Project], None]:
    """A mistake in the first of two cells that both have this line."""

    def make(project: Project) -> None:
        text = (project.path / EXPERIMENT).read_text()
        assert text.count(old) == 2
        (project.path / EXPERIMENT).write_text(text.replace(old, new, 1))

    return make


FIRST = "    quantisation: Q4_0\n    workload: coffee\n    settings: {threads: 1}"

MISTAKES: dict[str, tuple[Callable[[Project], None], list[str]]] = {
    "unknown key": (
        mistake("repeats: 2", "repeets: 2"),
        ["'repeets'", "micro.yaml", "Did you mean repeats"],
    ),
    "unknown key of a cell": (
        mistake(FIRST, f"{FIRST}\n    colour: red"),
        ["'colour'", "micro.yaml: cells.0"],
    ),
    "unknown setting": (
        mistake(FIRST, FIRST.replace("threads", "treads")),
        ["'treads'", "cells.0", "threads"],
    ),
    "wrong type of a setting": (
        mistake(FIRST, FIRST.replace("threads: 1", "threads: many")),
        ["threads", "'many'", "an integer from 1"],
    ),
    "missing key": (mistake("deadline_s: 60\n", ""), ["'deadline_s' is missing", "micro.yaml"]),
    "wrong type": (mistake("repeats: 2", "repeats: two"), ["'two'", "repeats", "measured runs a cell"]),
    "out of range": (mistake("repeats: 2", "repeats: 0"), ["repeats", "micro.yaml"]),
    "unknown device": (
        first("device: local", "device: lokal"),
        ["device 'lokal' is not known", "cells.0", "Did you mean local"],
    ),
    "unknown model": (
        first("llava-nano", "llava-nono"),
        ["model 'synthetic-llava-nono' is not known", "cells.0", "Did you mean synthetic-llava-nano"],
    ),
    "unknown quantisation": (
        mistake(FIRST, FIRST.replace("Q4_0", "Q4_1")),
        ["'Q4_1'", "cells.0", "Q4_0"],
    ),
    "unknown version": (
        first('"0.3.16"', '"0.3.61"'),
        ["version of llama.cpp '0.3.61' is not known", "0.3.16"],
    ),
    "unknown workload": (
        mistake(FIRST, FIRST.replace("coffee", "coffe")),
        ["workload 'coffe' is not known", "Did you mean coffee"],
    ),
    "missing image": (
        lambda project: (project.path / "config/workloads/coffee.png").unlink(),
        ["coffee.png does not exist", "coffee.yaml: image"],
    ),
    "no YAML": (
        mistake("repeats: 2", "repeats: [2"),
        ["no valid YAML", "micro.yaml:"],
    ),
    "a key twice": (
        mistake("repeats: 2", "repeats: 2\nrepeats: 3"),
        ["'repeats' is written twice", "micro.yaml:"],
    ),
    "a cell twice": (
        mistake(FIRST, FIRST.replace("threads: 1", "threads: [1, 1]")),
        ["is listed twice", "cells"],
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_configuration_names_the_key_and_the_fix(project: Project, mistake: str) -> None:
    make, words = MISTAKES[mistake]
    make(project)
    done = project.snakemake("all")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    line = last_line(done.stdout)
    assert line.startswith("Configuration error: ")
    for word in words:
        assert word in line
    assert not (project.path / "results").exists()


def test_an_unknown_experiment_is_named(project: Project) -> None:
    done = project.snakemake("all", experiment="mikro")
    assert done.returncode != 0
    assert "experiment 'mikro' is not known" in last_line(done.stdout)
    assert "Did you mean micro" in last_line(done.stdout)


@pytest.mark.parametrize(
    ("devices", "serial", "words"),
    [
        ("a1\toffline\n", '"a1"', ["not ready", "offline", "Plug it in again"]),
        ("a1\tunauthorized\n", '"a1"', ["not authorised", "Allow USB debugging"]),
        ("a1\tdevice\nb2\tdevice\n", "null", ["several devices", "a1 (device), b2 (device)", "serial"]),
        ("", "null", ["no device is connected for pixel", "USB debugging"]),
        ("b2\tdevice\n", '"a1"', ["a1 is not connected", "b2 (device)"]),
    ],
    ids=["offline", "unauthorised", "ambiguous", "none", "another"],
)
def test_a_phone_that_cannot_be_used_says_why(
    project: Project,
    adb_server: Callable[[str], FakeServer],
    devices: str,
    serial: str,
    words: list[str],
) -> None:
    port = str(adb_server(devices).port)
    phone = PHONE.replace("SERIAL", serial).replace("PORT", port)
    (project.path / "config/devices/pixel.yaml").write_text(phone)
    text = (project.path / EXPERIMENT).read_text()
    (project.path / EXPERIMENT).write_text(text.replace("device: local", "device: pixel"))
    done = project.snakemake("results/devices/pixel/identity.json")
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    line = last_line(done.stdout)
    assert line.startswith("identify_device on pixel failed: ")
    for word in [*words, "Log: results/logs/identify_device.pixel.log"]:
        assert word in line
    assert not (project.path / "results/devices/pixel/identity.json").exists()


# What the framework's stand-in says of a run that came to its end: an answer, and the lines with its times.
ANSWER = """echo an answer
echo 'llama_perf_context_print: prompt eval time =      10.00 ms /    20 tokens' >&2
echo 'llama_perf_context_print:        eval time =      10.00 ms /     9 runs' >&2"""


@pytest.fixture
def stub(project: Project) -> Project:
    """A project whose framework and weights are stand-ins; probe, device, locks and store are real."""
    (project.path / "config/experiments/stub.yaml").write_text(STUB)
    weights = project.path / "results/weights/synthetic-llava-nano"
    weights.mkdir(parents=True)
    for name in ("mmproj-f16", "model-Q4_0"):
        (weights / f"{name}.gguf").write_bytes(name.encode())
        record = {"format": 1, "sha256": sha256_file(weights / f"{name}.gguf")}
        write_json(weights / f"{name}.json", record)
    return project


def framework(project: Project, script: str) -> Path:
    """Put a shell script in the place of the framework's program; return the bundle."""
    bundle = project.path / f"results/bundles/llama.cpp-0.3.16-cpu-{host_target()}"
    program = bundle / "bin/llama-mtmd-cli"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    file = {"sha256": sha256_file(program), "bytes": program.stat().st_size, "mode": "0755"}
    write_json(
        bundle / "manifest.json",
        {"format": 1, "name": bundle.name, "target": host_target(), "files": {"bin/llama-mtmd-cli": file}},
    )
    return bundle


def measure(project: Project) -> tuple[int, str]:
    done = project.snakemake(*BLOCK, experiment="stub")
    assert "Traceback" not in done.stdout, done.stdout
    return done.returncode, done.stdout


def nothing_is_left(project: Project) -> None:
    """Neither an index nor a run that counts, nor a process of this project."""
    assert not (project.path / "results/stub/blocks/local.json").exists()
    assert project.raw_runs() == {}
    assert not [path for path in project.path.glob("results/raw/*/*") if path.name.endswith(".part")]
    for process in psutil.process_iter(["cmdline"]):
        assert str(project.path) not in " ".join(process.info["cmdline"] or []), process


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo an answer; kill -SEGV $$", ["was killed by signal 11"]),
        ("echo an answer; echo 'error: no such tensor' >&2; exit 3", ["status 3", "error: no such tensor"]),
        ("echo an answer; sleep 1000", ["did not end before its deadline"]),
        ("exit 0", ["printed nothing"]),
        ("printf '\\033[2J\\033]0;owned\\007' >&2; exit 1", ["status 1"]),
    ],
    ids=["crash", "failure", "hang", "silence", "hostile"],
)
def test_a_workload_that_fails_is_kept_aside_and_never_counted(
    stub: Project, script: str, words: list[str]
) -> None:
    framework(stub, script)
    status, output = measure(stub)
    assert status != 0
    line = last_line(output)
    assert line.startswith("measure_block on local failed: the workload ")
    for word in [*words, "local.llama.cpp-0.3.16-cpu", "results/failed/", "Log: results/logs/"]:
        assert word in line
    assert "\x1b" not in output and "\x07" not in output
    (kept,) = stub.path.glob("results/failed/*/*")
    assert str(kept.relative_to(stub.path)) in line
    assert (kept / "stdout").exists() and (kept / "events.jsonl").exists()
    nothing_is_left(stub)


def test_after_a_failure_finished_runs_are_kept_and_the_rest_is_measured(stub: Project) -> None:
    """The second run fails the first time it is tried, as a phone that gets too hot may."""
    marker = stub.path / "second-try"
    count = stub.path / "count"
    framework(
        stub,
        f'echo x >> {count}\n{ANSWER}\n[ "$(wc -l < {count})" != 2 ] || [ -e {marker} ] || exit 9',
    )
    status, output = measure(stub)
    assert status != 0 and "ended with status 9" in last_line(output)
    first = set(stub.raw_runs())
    assert len(first) == 1
    assert not (stub.path / "results/stub/blocks/local.json").exists()
    marker.touch()
    status, output = measure(stub)
    assert status == 0, output
    assert len(stub.raw_runs()) == 2 and first < set(stub.raw_runs())
    assert count.read_text().count("x") == 3
    assert {run["run"] for run in stub.index("stub")} == set(stub.raw_runs())


def test_a_framework_that_is_no_program_is_named(stub: Project) -> None:
    bundle = framework(stub, "")
    (bundle / "bin/llama-mtmd-cli").write_bytes(b"\x7fELF but not really")
    status, output = measure(stub)
    assert status != 0
    assert last_line(output).startswith("measure_block on local failed: ")
    nothing_is_left(stub)


def test_no_free_space_is_said_before_anything_is_pushed(stub: Project) -> None:
    framework(stub, "echo an answer")
    # No disk has this much free besides what is to be pushed.
    stub.edit("workflow/pocketvlm/devices/deploy.py", "_RESERVE_BYTES = 32 << 20", "_RESERVE_BYTES = 1 << 60")
    status, output = measure(stub)
    assert status != 0
    line = last_line(output)
    assert line.startswith("measure_block on local failed: local has ")
    assert "MB free and" in line and "are needed" in line and "Free space there" in line
    nothing_is_left(stub)
    assert not list(stub.path.glob("results/local-device/**/llama-mtmd-cli"))


def test_a_killed_workflow_leaves_no_run_that_counts_and_no_process(stub: Project) -> None:
    framework(stub, f"{ANSWER}\nsleep 2.5")
    with stub.start(*BLOCK, experiment="stub") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.search(r"run 2 of 3", line):
                break
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    deadline = 30.0
    gone, alive = psutil.wait_procs(
        [
            each
            for each in psutil.process_iter(["cmdline"])
            if str(stub.path) in " ".join(each.info["cmdline"] or [])
        ],
        timeout=deadline,
    )
    assert alive == [], gone
    nothing_is_left(stub)
    framework(stub, ANSWER)
    status, output = measure(stub)
    assert status == 0, output
    assert len(stub.raw_runs()) == 2


@pytest.mark.slow
def half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def flipped(whole: bytes) -> bytes:
    return whole[:-1000] + bytes([whole[-1000] ^ 1]) + whole[-999:]


@pytest.mark.parametrize("damage", [half, flipped])
def test_corrupt_weights_are_not_measured(rerun: Project, damage: Callable[[bytes], bytes]) -> None:
    """Half a file, as a full disk or a broken copy leaves it, and a single bit."""
    (weights,) = (rerun.path / "results/weights").glob("*/model-Q4_0.gguf")
    whole = weights.read_bytes()
    made = sha256_file(weights)
    before = set(rerun.raw_runs())
    if weights.is_symlink():  # into the shared cache, which this test must not touch
        weights.unlink()
    weights.write_bytes(damage(whole))
    done = rerun.snakemake("all")
    assert done.returncode != 0
    line = last_line(done.stdout)
    assert line.startswith("measure_block on local failed: model-Q4_0.gguf was changed since it was made")
    assert made in line and sha256_file(weights) in line
    assert set(rerun.raw_runs()) == before
    assert not (rerun.path / "results/micro/blocks/local.json").exists()
    weights.write_bytes(whole)
    done = rerun.snakemake("all")
    assert done.returncode == 0, done.stdout
    assert set(rerun.raw_runs()) == before


@pytest.mark.slow
def test_a_changed_byte_in_the_raw_store_is_found(rerun: Project) -> None:
    run = sorted(rerun.raw_runs())[0]
    stdout = rerun.path / "results/raw" / run / "stdout"
    meta = json.loads((stdout.parent / "meta.json").read_text())
    stdout.chmod(0o644)
    stdout.write_bytes(stdout.read_bytes() + b"!")
    assert sha256_file(stdout) != meta["files"]["stdout"]["sha256"]
    done = rerun.snakemake("verify")
    assert done.returncode != 0
    assert run in done.stdout and "stdout" in done.stdout

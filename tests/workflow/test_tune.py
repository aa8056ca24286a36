"""A search as a user starts it, on a stand-in whose arguments decide its speed: killed, continued, taken."""

from __future__ import annotations

import csv
import json
import os
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.provenance import sha256_file, write_json
from tests.workflow.conftest import Project

pytestmark = pytest.mark.slow

FRAMEWORK = "llama.cpp-stand-in"

# It prints what llama-mtmd-cli 0.3.16 does, and says the times that it really took. 512 tokens at a time are
# what nobody asked for; 64 are the fastest and take more memory than is allowed, 256 crash: 128 are to be
# found.
PROGRAM = """#!@PYTHON@ -SE
import sys, time
words = sys.argv
given = {name: int(words[words.index(name) + 1]) for name in ("--threads", "--ubatch-size")}
batch = given["--ubatch-size"]
scale = {64: 0.5, 128: 0.6}.get(batch, 1.0) * (1.8 if given["--threads"] == 1 else 1.0)
hoard = bytearray((120 if batch == 64 else 1) << 20)
def say(text, where=sys.stdout):
    where.write(text)
    where.flush()
def work(seconds):
    began = time.monotonic()
    time.sleep(seconds * scale)
    return 1e3 * (time.monotonic() - began)
if batch == 256:
    say("no kernel for that many\\n", sys.stderr)
    sys.exit(3)
say("main: loading model: model.gguf\\n", sys.stderr)
begin = time.monotonic()
say("encoding image slice...\\n")
say(f"image slice encoded in {work(0.1):.0f} ms\\n")
say("decoding image batch 1/1, n_tokens_batch = 289\\n")
say(f"image decoded (batch 1/1) in {work(0.1):.0f} ms\\n")
work(0.01)
say("\\n")
prompt = 1e3 * (time.monotonic() - begin)
say(" word")
decode = 0.0
for _ in range(29):
    decode += work(0.005)
    say(" word")
say("\\n\\n\\n")
head = "llama_perf_context_print: "
say(f"{head}       load time = 8.17 ms\\n", sys.stderr)
say(f"{head}prompt eval time = {prompt:.2f} ms /   300 tokens\\n", sys.stderr)
say(f"{head}       eval time = {decode:.2f} ms /    29 runs\\n", sys.stderr)
say(f"{head}      total time = {prompt + decode:.2f} ms /   329 tokens\\n", sys.stderr)
"""

CELL = f"""\
cells:
  - device: local
    framework: {FRAMEWORK}
    version: "0.3.16"
    backend: cpu
    model: synthetic-llava-nano
    quantisation: Q4_0
    workload: short
    settings: {{}}
"""
HEAD = "repeats: 1\nwarmups: 0\nidle_s: 1\ndeadline_s: 30\norder_seed: 1\n"
SEARCH = f"""\
title: a search of seconds, for tests
{HEAD}tune:
  objective: run
  runs: 36
  first_rounds: 1
  confidence: 0.8
  limits: {{memory_mib: 100}}
  axes: {{threads: auto, batch: [64, 128, 256, 512]}}
{CELL}"""
RULES = (
    *("resolve_experiment", "build_probe", "identify_device", "resolve_tuning", "measure_tune"),
    *("tabulate_tune", "draw_tune", "tune", "measure_block"),
)


@pytest.fixture
def study(project: Project) -> Project:
    """A working copy with a stand-in for the framework's program and for its weights, and a search."""
    config, results = project.path / "config", project.path / "results"
    frameworks = yaml.safe_load((config / "frameworks.yaml").read_text())
    frameworks[FRAMEWORK] = frameworks["llama.cpp"]
    (config / "frameworks.yaml").write_text(yaml.safe_dump(frameworks))
    workload = yaml.safe_load((config / "workloads/coffee.yaml").read_text()) | {"max_tokens": 30}
    (config / "workloads/short.yaml").write_text(yaml.safe_dump(workload))
    device = yaml.safe_load((config / "devices/local.yaml").read_text())
    device["periods_ms"] = dict.fromkeys(device["periods_ms"], 20)
    (config / "devices/local.yaml").write_text(yaml.safe_dump(device))
    # How punctual the stand-in is on a busy machine is not what is tested.
    project.edit("config/config.yaml", "agreement_ms: 5", "agreement_ms: 100")
    (config / "experiments/search.yaml").write_text(SEARCH)
    (config / "experiments/plain.yaml").write_text(f"title: one cell\n{HEAD}{CELL}")
    for part in ("mmproj-f16", "model-Q4_0"):
        weights = results / f"weights/synthetic-llava-nano/{part}.gguf"
        weights.parent.mkdir(parents=True, exist_ok=True)
        weights.write_bytes(part.encode())
        record = {"format": 1, "sha256": sha256_file(weights), "bytes": 10, "parameters": 1, "tensors": []}
        write_json(weights.with_suffix(".json"), record)
    bundle = results / f"bundles/{FRAMEWORK}-0.3.16-cpu-{host_target()}"
    program = bundle / "bin/llama-mtmd-cli"
    program.parent.mkdir(parents=True)
    program.write_text(PROGRAM.replace("@PYTHON@", sys.executable))
    program.chmod(0o755)
    manifest = {
        "format": 1,
        "name": bundle.name,
        "target": host_target(),
        "toolchain": {"name": "none", "version": "1"},
        "cpu_features": "x",
        "flags": {"c": [], "cxx": [], "link": [], "cmake": {}},
        "source": {"project": "x", "version": "1", "sha256": "0" * 64, "commit": "0" * 40},
        "files": {"bin/llama-mtmd-cli": {"sha256": sha256_file(program), "bytes": 1, "mode": "0755"}},
    }
    write_json(bundle / "manifest.json", manifest)
    return project


def rows(path: Path) -> dict[str, dict[str, str]]:
    with path.open() as stream:
        return {row["candidate"]: row for row in csv.DictReader(stream)}


def test_a_killed_search_goes_on_and_what_it_chose_is_taken(study: Project) -> None:
    words = ("tune", "--allowed-rules", *RULES)
    process = study.start(*words, experiment="search")
    deadline = time.monotonic() + 600
    while len(study.raw_runs("tune")) < 12:
        assert process.poll() is None, process.communicate()[0][-4000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    early = set(study.raw_runs("tune"))

    done = study.snakemake(*words, experiment="search")
    assert done.returncode == 0, done.stdout[-4000:]
    folder = study.path / "results/search/tune"
    index: dict[str, Any] = json.loads((folder / "local.json").read_text())
    listed = {run["run"] for run in index["runs"]}
    assert len(listed & early) >= 8, "the rounds that were finished before the kill count"
    assert len(early - listed) <= 8, "at most the round in flight is lost"
    rounds: dict[tuple[int, int], set[str]] = defaultdict(set)
    for run in index["runs"]:
        rounds[run["rung"], run["round"]].add(run["block"])
    assert all(len(blocks) == 1 for blocks in rounds.values()), "pairs are of one go"
    assert len(set.union(*rounds.values())) == 2
    assert len(study.raw_runs("tune")) <= 36 + 8
    assert study.raw_runs("measured") == {}

    found = rows(folder / "candidates.csv")
    chosen = yaml.safe_load((folder / "chosen.yaml").read_text())
    assert found[chosen["chosen"]]["status"] == "chosen"
    assert chosen["settings"]["ubatch"] == 128 and chosen["settings"]["threads"] != 1, done.stdout[-3000:]
    assert "it is faster than the defaults" in chosen["reason"]
    assert chosen["for"]["framework"] == FRAMEWORK
    speed = float(found[chosen["chosen"]]["speedup"])
    assert 1.2 < float(found[chosen["chosen"]]["ci_low"]) <= speed < 1.9
    by_batch = defaultdict(set)
    for name, row in found.items():
        by_batch[name.rpartition("batch=")[2]].add(row["status"])
        assert row["speedup"] or row["reason"], "NA always has a reason"
        assert row["energy_j"] == "" and ("energy_j: " in row["reason"] or not row["objective_s"])
    assert by_batch["64"] == {"limit"} and by_batch["256"] == {"failed"}
    told = [row["reason"] for row in found.values() if row["status"] in ("limit", "failed")]
    assert any("memory_mib was 1" in text and "100 is allowed" in text for text in told)
    assert any("ended with status 3: no kernel for that many" in text for text in told)
    assert set(rows(folder / "front.csv")) <= set(found)
    assert FRAMEWORK in (folder / "tune.svg").read_text()

    again = study.snakemake(*words, experiment="search")
    assert again.returncode == 0 and "Nothing to be done" in again.stdout, again.stdout[-2000:]

    taken = study.start(
        "results/plain/blocks/local.json",
        "--allowed-rules",
        *RULES,
        experiment="plain",
        config=("tuned=results/search/tune/chosen.yaml",),
    )
    output, _ = taken.communicate(timeout=600)
    assert taken.returncode == 0, output[-3000:]
    (run,) = study.raw_runs("measured").values()
    argv = run["argv"]
    assert isinstance(argv, list) and argv[argv.index("--ubatch-size") + 1] == "128"
    assert run["key_inputs"]["settings"]["threads"] == chosen["settings"]["threads"]  # type: ignore[index]

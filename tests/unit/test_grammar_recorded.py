"""Recorded runs of three versions of llama.cpp with the preset for this machine: as expected, and true."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketvlm.analyse.gates import disagreement, judge
from pocketvlm.analyse.metrics import Metric, compute
from pocketvlm.analyse.parse import understand
from pocketvlm.analyse.phases import segment
from pocketvlm.analyse.raw import Run, read_run
from pocketvlm.analyse.records import table
from pocketvlm.analyse.sensors import Value

FIXTURES = Path(__file__).parents[1] / "fixtures/llamacpp"
VERSIONS = ("0.3.9", "0.3.16", "0.3.36")
COMPARED = ("image_encode", "image_prefill", "prompt_eval", "decode")
PERCENT, MILLISECONDS = 2.0, 5.0

sys.path.insert(0, str(FIXTURES))
from record import expectation  # noqa: E402


def recorded(version: str) -> Run:
    (folder,) = (FIXTURES / version).glob("*/00")
    return read_run(folder)


def metrics(run: Run, scale_decode: float = 1.0) -> dict[tuple[str, str], Metric]:
    report = understand(run, "llamacpp")
    if scale_decode != 1.0:
        counters = tuple(
            c
            if c.name != "decode"
            else type(c)(**{**c.__dict__, "value_ms": (c.value_ms or 0) * scale_decode})
            for c in report.counters
        )
        report = type(report)(**{**report.__dict__, "counters": counters})
    identity = json.loads((FIXTURES / "identity.json").read_text())
    budget = run.meta["key_inputs"]["workload"]["max_tokens"]
    intervals = segment(report.boundaries, run.wall_us)
    idle = Value(None, None, "no idle run")
    rows = compute(run, intervals, report, identity, idle_power=idle, budget=budget)
    return {(row.phase, row.metric): row for row in rows}


def disagreements(rows: dict[tuple[str, str], Metric]) -> list[str]:
    """Return the counters that differ from what was observed by more than 2 % and 5 ms, for any cause."""
    found = []
    for counter in COMPARED:
        phase = next(phase for phase, metric in rows if metric == f"agreement.{counter}")
        agreement, reported = rows[phase, f"agreement.{counter}"], rows[phase, f"reported.{counter}"]
        assert agreement.value is not None, agreement.reason
        assert reported.value is not None
        percent, milliseconds = disagreement(agreement.value, reported.value, 0.0)
        if percent > PERCENT and milliseconds > MILLISECONDS:
            found.append(counter)
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_a_recorded_run_is_parsed_as_expected(version: str) -> None:
    expected = json.loads((FIXTURES / version / "expected.json").read_text())
    assert json.loads(json.dumps(expectation(recorded(version)))) == expected


@pytest.mark.parametrize("version", VERSIONS)
def test_observed_and_reported_agree(version: str) -> None:
    assert disagreements(metrics(recorded(version))) == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_a_planted_disagreement_is_found(version: str, factor: float) -> None:
    rows = metrics(recorded(version), factor)
    assert disagreements(rows) == ["decode"]


def test_a_planted_disagreement_is_withheld_by_the_gate() -> None:
    rows = metrics(recorded("0.3.16"), 1.05)
    plain: list[dict[str, Any]] = [
        {"run": "r", **row.__dict__, "lower_is_better": row.lower_is_better} for row in rows.values()
    ]
    judged = judge(table("metrics", plain), {"agreement_percent": PERCENT, "agreement_ms": MILLISECONDS})
    gates = {(row["phase"], row["metric"]): row["gate"] for row in judged.to_pylist()}
    assert "observed and reported decode differ" in gates["decode", "tokens_per_second"]
    assert gates["image_encode", "duration"] == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_every_phase_was_seen_and_sampled(version: str) -> None:
    run = recorded(version)
    report = understand(run, "llamacpp")
    assert report.unobservable == {}
    assert report.tokens["decode"] == run.meta["key_inputs"]["workload"]["max_tokens"]
    assert report.tokens["image_prefill"] == 289
    intervals = segment(report.boundaries, run.wall_us)
    assert sum(i.duration_us for i in intervals) == pytest.approx(run.wall_us, abs=1000)
    assert [i.phase for i in intervals] == [
        "load", "text_prefill", "image_encode", "image_prefill", "text_prefill", "decode", "other",
    ]  # fmt: skip
    rows = metrics(run)
    for phase in ("load", "text_prefill", "image_encode", "image_prefill", "decode"):
        used = rows[phase, "workload_cpu"].value
        assert used is not None, rows[phase, "workload_cpu"].reason
        assert 5 < used < 250


def test_all_versions_say_the_same() -> None:
    answers = {understand(recorded(version), "llamacpp").answer for version in VERSIONS}
    assert len(answers) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_no_path_of_the_recording_machine_is_in_a_fixture(version: str) -> None:
    for path in (FIXTURES / version).rglob("*"):
        if path.is_file():
            assert not re.search(rb"/(?:home|root|tmp|work|Users)/", path.read_bytes()), path
            assert path.stat().st_size < 150_000

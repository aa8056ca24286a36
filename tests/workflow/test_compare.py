"""`snakemake compare` on stand-ins that are slowed by known amounts: what it finds, and how it ends."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.compared_study import compared_study, words

from .conftest import Project

pytestmark = pytest.mark.slow

BUILDS: dict[str, dict[str, str | int]] = {
    "base": {},
    # The same program: its bundle has another name, so it is another cell.
    "same": {},
    "slow": {"WORK": 2000, "ANSWER": '"other"'},
    # The last piece of its answer comes with the end: when decoding ended was not seen.
    "blurred": {"ENDING": '"\\n\\n\\n"'},
}
PAIRS = 16
# Less often wrong than by default: a test is run more often than once in a while.
COMPARE = 'compare: {a: "version=base", b: "version=slow", alpha: 0.004}\n'


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str, int]:
    """A project in which the experiment's own comparison has run: what it printed, how it ended."""
    project = compared_study(tmp_path_factory.mktemp("compared"), BUILDS, repeats=PAIRS, head=COMPARE)
    done = project.snakemake(*words("compare"), experiment="compared")
    return project, done.stdout, done.returncode


def compare(project: Project, b: str) -> tuple[int, str, dict[str, Any]]:
    """Compare another build with the base; return the exit status, what was printed, and the findings."""
    config = ("side_a=version=base", f"side_b=version={b}")
    with project.start(*words("compare"), experiment="compared", config=config) as process:
        printed, _ = process.communicate(timeout=600)
    return process.returncode, printed, findings(project.path)


def findings(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((path / "results/compared/compare/findings.json").read_text())
    return found


def test_a_slowdown_ends_with_its_sentence(measured: tuple[Project, str, int]) -> None:
    project, printed, status = measured
    assert status != 0
    last = printed.strip().splitlines()[-1]
    assert last.startswith("compare failed: decode ") and " % slower, [" in last, printed[-3000:]
    # A run whose output came late is withheld, and its pair with it.
    assert re.search(r" 1[2-6] pairs, p ", last) and "results/compared/compare/findings.md" in last
    folder = project.path / "results/compared/compare"
    with (folder / "comparison.csv").open() as stream:
        rows = {(row["phase"], row["metric"]): row for row in csv.DictReader(stream)}
    decode = rows["decode", "tokens_per_second"]
    assert decode["verdict"] == "worse" and decode["decides"] == "yes" and decode["design"] == "interleaved"
    # Twice as much is computed; a shared machine leaves the estimate some room.
    assert 50 < float(decode["worse_percent"]) < 200
    assert float(decode["worse_low"]) < float(decode["worse_percent"]) < float(decode["worse_high"])
    assert float(decode["ratio"]) < 1 < float(rows["decode", "duration"]["ratio"])
    assert rows["run", "duration"]["verdict"] == "worse"
    told = {one["kind"]: one["sentence"] for one in findings(project.path)["findings"]}
    assert told["answers"].startswith(f"answers changed in {PAIRS} of {PAIRS} pairs, first at character 2")
    assert "SYNTHETIC WEIGHTS" in (folder / "comparison.svg").read_text()
    assert (folder / "comparison.png").stat().st_size > 5000
    with (folder / "answers.csv").open() as stream:
        (answers,) = csv.DictReader(stream)
    assert answers["changed"] == str(PAIRS) and "other" in answers["excerpt_b"]


def test_the_same_program_passes_and_says_what_it_would_have_seen(measured: tuple[Project, str, int]) -> None:
    project, _, _ = measured
    before = set(project.raw_runs(None))
    status, printed, found = compare(project, "same")
    assert status == 0, printed[-3000:]
    assert found["verdict"] == "no regression"
    assert set(project.raw_runs(None)) == before, "another comparison measures nothing"
    silent = [one["sentence"] for one in found["findings"] if one["kind"] == "same"]
    assert any("would have been found" in sentence and sentence.startswith("decode:") for sentence in silent)
    assert any(one["sentence"].startswith(f"answers are the same in {PAIRS}") for one in found["findings"])
    assert 0 < found["pairs"][0]["a_first"] < PAIRS


def test_what_cannot_be_judged_does_not_pass(measured: tuple[Project, str, int]) -> None:
    project, _, _ = measured
    status, printed, found = compare(project, "blurred")
    assert status != 0 and found["verdict"] == "not judged"
    last = printed.strip().splitlines()[-1]
    assert "compare failed: decode could not be judged: 0 pairs, 12 are needed" in last, printed[-3000:]
    assert f"{PAIRS} of {PAIRS} runs of b: last_token arrived in one piece with the end" in last
    assert not any("could not be judged" in one["sentence"] for one in found["findings"] if not one["fails"])

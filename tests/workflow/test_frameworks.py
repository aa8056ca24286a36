"""Frameworks that a user gives: a source tree, binaries, and one that is away, through the whole workflow.

What runs is a stand-in, and every framework's name says so.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from pocketvlm.build import toolchains
from pocketvlm.build.framework import build_framework
from pocketvlm.provenance import sha256_file, write_json
from pocketvlm.provision.tree import tree_sha256
from tests import framework_tree

from .conftest import Project, checkout
from .hostile import HostileStudy

pytestmark = pytest.mark.slow

RULES = (*HostileStudy.rules, "build_framework", "check_frameworks")
FOLLOWING = {
    "measure_block", "parse_block", "judge_block", "compute_bounds", "write_traces", "aggregate_tables",
    "draw_summary", "draw_timeline", "estimate_battery_life", "export_tables", "write_ledger", "audit_tables",
    "render_report", "all", "total",
}  # fmt: skip


class Given:
    """A working copy with three frameworks of a user's own."""

    def __init__(self, folder: Path) -> None:
        self.project = checkout(folder / "project")
        self.mine = folder / "mine"
        self.tree = framework_tree.write_tree(self.mine / "tree")
        self._weights()
        source = framework_tree.pack(self._built(folder), self.mine / "binaries.tar.gz")
        self.overlay = framework_tree.overlay(
            self.mine / "frameworks.yaml",
            tree_stand_in=framework_tree.from_tree("tree"),
            binaries_stand_in=framework_tree.entry(source),
            away_stand_in=framework_tree.from_tree("nowhere"),
        )
        config = self.project.path / "config"
        workload = yaml.safe_load((config / "workloads/coffee.yaml").read_text())
        (config / "workloads/stand-in.yaml").write_text(yaml.safe_dump({**workload, "max_tokens": 30}))
        (config / "experiments/given.yaml").write_text(
            framework_tree.experiment("tree-stand-in", "binaries-stand-in", "away-stand-in")
        )

    def _weights(self) -> None:
        """Write weights that nothing reads."""
        for part in ("mmproj-f16", "model-Q4_0"):
            path = self.project.path / f"results/weights/synthetic-llava-nano/{part}.gguf"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(part.encode())
            record = {"format": 1, "sha256": sha256_file(path), "bytes": 10, "parameters": 1, "tensors": []}
            write_json(path.with_suffix(".json"), record)

    def _built(self, folder: Path) -> Path:
        """Build the tree as somebody else would have."""
        table = yaml.safe_load((self.project.path / "config/toolchains.yaml").read_text())
        build_framework(
            origin=self.tree,
            source={"kind": "directory", "name": "tree", "sha256": tree_sha256(self.tree)},
            recipe=framework_tree.from_tree("tree")["build"], backend={},
            toolchain=toolchains.resolve(table, toolchains.host_target()),
            destination=folder / "elsewhere", jobs=1, build_log=folder / "build.log",
        )  # fmt: skip
        return folder / "elsewhere"

    def snakemake(self, *words: str) -> str:
        """Run a command that succeeds; return what it printed."""
        process = self.project.start(
            *words, "--allowed-rules", *RULES, experiment="given", config=(f"frameworks={self.overlay}",)
        )
        out, _ = process.communicate(timeout=600)
        assert process.returncode == 0, out[-4000:]
        return str(out)

    def planned(self) -> Counter[str]:
        """Return how many jobs of each rule `-n` lists."""
        found = re.findall(r"^(\w+) +(\d+)$", self.snakemake("all", "-n"), re.MULTILINE)
        return Counter({rule: int(count) for rule, count in found})


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """The working copy, run to its report."""
    study = Given(tmp_path_factory.mktemp("given"))
    study.snakemake("all")
    return study


def rows(project: Project) -> dict[str, dict[str, str]]:
    """The duration of a whole run by framework."""
    with (project.path / "results/given/tables/cells.csv").open() as stream:
        return {
            row["framework"]: row
            for row in csv.DictReader(stream)
            if (row["phase"], row["metric"]) == ("run", "duration")
        }


def test_a_tree_and_binaries_are_measured_and_what_is_away_is_a_row(given: Given) -> None:
    found = rows(given.project)
    for name in ("tree-stand-in", "binaries-stand-in"):
        assert found[name]["n"] == "1" and float(found[name]["median"]) > 700, found[name]
    assert found["away-stand-in"]["n"] == "0"
    assert "nowhere, does not exist: put it there or correct its path" in found["away-stand-in"]["gate"]
    bundles = sorted((given.project.path / "results/bundles").glob("*-stand-in-*/manifest.json"))
    binaries, tree = (json.loads(path.read_text()) for path in bundles)
    assert binaries["files"] == tree["files"], "the same files, whoever built them"
    assert (binaries["toolchain"]["name"], tree["toolchain"]["name"]) == ("prebuilt", "zig")
    page = (given.project.path / "results/given/report/index.html").read_text()
    assert "tree-stand-in" in page and "binaries-stand-in" in page and str(given.mine) not in page


def test_the_check_says_what_is_there_and_what_lacks(given: Given) -> None:
    said = given.snakemake("check_frameworks")
    assert f"hash {tree_sha256(given.tree)}, built with zig" in said
    assert "binaries binaries.tar.gz, sha256" in said
    assert re.search(
        r"MISSING: \S+ the source tree of version 1, nowhere, does not exist.*/mine/nowhere", said
    )
    assert re.search(r"llama\.cpp: adapter llamacpp.*\n.*needs bin/llama-mtmd-cli", said)


def test_a_change_of_the_tree_builds_and_measures_it_and_nothing_else(given: Given) -> None:
    assert given.planned() == {}
    measured = given.project.raw_runs()
    (given.tree / "words").write_text(" other")
    planned = given.planned()
    assert planned.pop("build_framework") == 1
    assert set(planned) <= FOLLOWING and planned["measure_block"] == planned["parse_block"] == 1
    assert "tree-stand-in-1-cpu" in given.snakemake("all")
    new = set(given.project.raw_runs()) - set(measured)
    assert len(new) == 1, "the binaries' run counts on"
    assert measured.items() <= given.project.raw_runs().items()
    (run,) = new
    assert " other" in (given.project.path / "results/raw" / run / "stdout").read_text()

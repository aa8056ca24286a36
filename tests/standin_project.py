"""Working copies in which the stand-ins of `tests/standins` are frameworks, given as a user gives his own."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import yaml

from pocketvlm.build.toolchains import host_target
from pocketvlm.provision.cache import cache_root
from pocketvlm.provision.tree import tree_sha256
from tests.experiments import cell_text, experiment_text
from tests.project import ROOT, Project

STANDINS = ROOT / "tests/standins"
MODEL = "synthetic-llava-nano"
TOKENS = 16
# The workload that the stand-ins are given; what is asked is nothing to them.
WORKLOAD = "short"


def give(project: Project, frameworks: Mapping[str, Any], formats: Mapping[str, Any]) -> None:
    """Lay a table of frameworks over the project's, give its model weights, and add a short workload."""
    (project.path / "standins.yaml").write_text(yaml.safe_dump(dict(frameworks)))
    project.edit("config/config.yaml", "catalogues:\n", "catalogues:\n  frameworks_overlay: standins.yaml\n")
    models = project.path / "config/models.yaml"
    table = yaml.safe_load(models.read_text())
    table[MODEL]["formats"] = dict(formats)
    models.write_text(yaml.safe_dump(table))
    workload = yaml.safe_load((project.path / "config/workloads/coffee.yaml").read_text())
    workload["max_tokens"] = TOKENS
    (project.path / f"config/workloads/{WORKLOAD}.yaml").write_text(yaml.safe_dump(workload))


def experiment(project: Project, name: str, *cells: tuple[str, str, str], absent: str = "row") -> None:
    """Write an experiment of cells (framework, version, quantisation) on this machine, two runs of each."""
    texts = [
        cell_text(framework=framework, version=f'"{version}"', quantisation=quantisation, workload=WORKLOAD)
        for framework, version, quantisation in cells
    ]
    text = experiment_text("stand-ins, no frameworks", *texts, absent=absent, deadline_s=20)
    (project.path / f"config/experiments/{name}.yaml").write_text(text)


def weights_file(project: Project, name: str, text: str) -> dict[str, str]:
    """Write a file in the place of weights and return what the table of models says of it."""
    path = project.path / "mine" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return {"path": f"../mine/{name}", "sha256": hashlib.sha256(text.encode()).hexdigest()}


def weights_folder(project: Project, name: str, files: Mapping[str, str]) -> dict[str, str]:
    """Write a folder in the place of weights and return what the table of models says of it."""
    folder = project.path / "mine" / name
    folder.mkdir(parents=True)
    for file, text in files.items():
        (folder / file).write_text(text)
    return {"path": f"../mine/{name}", "sha256": tree_sha256(folder)}


def sources(project: Project, program: str) -> str:
    """Copy a stand-in's sources to a tree of the user's own and return its path."""
    folder = project.path / "mine/source"
    folder.mkdir(parents=True)
    for name in (f"{program}.c", "standin.h"):
        shutil.copy2(STANDINS / name, folder / name)
    return "mine/source"


def binaries(project: Project, program: str, place: str) -> dict[str, str]:
    """Compile a stand-in into a folder as a user has binaries, and return what a source says of it."""
    folder = project.path / "mine/binaries"
    built = folder / place
    built.parent.mkdir(parents=True)
    zig = str(cache_root() / "zig")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", host_target(), "-static", "-O1", "-s"]
    subprocess.run(
        [*command, "-o", str(built), str(STANDINS / f"{program}.c")],
        env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig},
        check=True,
        capture_output=True,
        timeout=300,
    )
    return {"kind": "prebuilt", "path": "mine/binaries", "sha256": tree_sha256(folder)}


class Table:
    """`cells.csv` of an experiment."""

    def __init__(self, project: Project, name: str) -> None:
        with (project.path / f"results/{name}/tables/cells.csv").open(newline="") as stream:
            self.rows = list(csv.DictReader(stream))

    def of(self, framework: str, version: str, phase: str, metric: str) -> dict[str, str]:
        """The row of a metric."""
        found = [
            row
            for row in self.rows
            if (row["framework"], row["version"], row["phase"], row["metric"])
            == (framework, version, phase, metric)
        ]
        assert len(found) == 1, (framework, version, phase, metric, len(found))
        return found[0]

    def median(self, framework: str, version: str, phase: str, metric: str) -> float:
        """The median of a metric that must be there."""
        row = self.of(framework, version, phase, metric)
        assert row["median"], row
        return float(row["median"])

    def missing(self, framework: str, version: str, phase: str, metric: str) -> str:
        """Why a metric is NA; it must be."""
        row = self.of(framework, version, phase, metric)
        assert row["median"] == "" and row["n"] == "0", row
        return row["gate"]


def contradictions(project: Project, name: str) -> list[dict[str, str]]:
    """What the audit of the project's own tables found wrong."""
    with (project.path / f"results/{name}/tables/self_audit.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert rows
    return [row for row in rows if row["verdict"] == "contradiction"]


def tables(name: str) -> list[str]:
    """The targets that take an experiment to its tables and their audit, and no further."""
    return [f"results/{name}/tables/cells.csv", f"results/{name}/tables/self_audit.csv"]


def failed(project: Project, name: str) -> str:
    """Run an experiment that must fail while it is measured, and return what was said; nothing is stored."""
    before = project.raw_runs(None)
    done = project.snakemake(f"results/{name}/blocks/local.json", experiment=name)
    assert done.returncode != 0, done.stdout[-4000:]
    new = [run for key, run in project.raw_runs(None).items() if key not in before]
    assert {run["role"] for run in new} <= {"idle"}
    return done.stdout

"""An invented study whose cells stand for stacks of the paper: for tests of its tables and figures."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from pocketvlm.analyse.paper.ours import Results
from pocketvlm.config.paper import Paper, load_paper
from pocketvlm.provenance import read_json, write_json
from tests.synthetic_records import Study, summarise, write_study

PAPER = Path(__file__).parents[1] / "config/paper/arxiv-2507.08505.yaml"
BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 1}
UNPROVISIONED = "mllm is not provisioned: it has no pinned source and no adapter"
STACKS = ("llava-llamacpp", None, "mobilevlm-llamacpp", None)
"""Of the study's four cells: two on the emulated phone, two on this machine."""


@dataclass
class PaperStudy:
    """The files of the study, and the published values."""

    study: Study
    paper: Paper

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The entries of `cells.json`."""
        return list(read_json(self.study.cells_json)["cells"])

    @property
    def results(self) -> Results:
        """The study's tables."""
        return Results(pd.read_csv(self.study.cells_csv), pd.read_parquet(self.study.runs), BOOTSTRAP)

    def change(self, **values: Any) -> None:
        """Change every entry of `cells.json`."""
        self.write([{**cell, **values} for cell in self.cells])

    def write(self, cells: list[dict[str, Any]]) -> None:
        """Write other entries to `cells.json`."""
        write_json(self.study.cells_json, {**read_json(self.study.cells_json), "cells": cells})

    def write_runs(self, runs: pd.DataFrame) -> None:
        """Write other runs, and the summary that follows from them."""
        runs.to_parquet(self.study.runs)
        summarise(runs).to_csv(self.study.cells_csv, index=False)

    def lose_all_runs(self) -> None:
        """Leave only rows with a reason, as of an experiment whose phone is not there."""
        summary = pd.read_csv(self.study.cells_csv)
        empty = dict.fromkeys(("mean", "std", "median", "p05", "p95", "ci_low", "ci_high"), float("nan"))
        kept = summary[summary["metric"] == "duration"].assign(**empty, n=0, gate="no phone is connected")
        kept.to_csv(self.study.cells_csv, index=False)
        pd.read_parquet(self.study.runs).iloc[:0].to_parquet(self.study.runs)
        self.change(unavailable="no phone is connected")


def copy_paper_study(original: PaperStudy, results: Path) -> PaperStudy:
    """Copy a study's folder, for a test that changes it: writing one takes a second."""
    before = original.study.results
    shutil.copytree(before, results)

    def moved(path: Path) -> Path:
        return results / path.relative_to(before)

    study = replace(
        original.study,
        results=results,
        **{name: moved(getattr(original.study, name)) for name in ("cells_json", "cells_csv", "runs", "raw")},
        **{
            name: {device: moved(path) for device, path in getattr(original.study, name).items()}
            for name in ("blocks", "identities", "records")
        },
        manifests=[moved(path) for path in original.study.manifests],
    )
    return PaperStudy(study, original.paper)


def write_paper_study(results: Path, *, repeats: int = 5) -> PaperStudy:
    """Write the study: a stack measured on the emulated phone, one on this machine, one that is not
    provisioned, and one that no cell stands for; and two cells that are no stack.
    """
    study = write_study(results, repeats=repeats)
    found = PaperStudy(study, load_paper(PAPER))
    cells = [
        {**cell, "stack": stack, "unavailable": None} for cell, stack in zip(found.cells, STACKS, strict=True)
    ]
    absent = {**cells[0], "cell": "unprovisioned", "framework": "mllm", "version": "unstated"}
    found.write([*cells, {**absent, "stack": "llava-mllm", "unavailable": UNPROVISIONED}])
    runs = pd.read_parquet(study.runs)
    found.write_runs(pd.concat([runs, _counters(runs)], ignore_index=True))
    return found


def _counters(runs: pd.DataFrame) -> pd.DataFrame:
    """Return what a framework would have printed: decode, and a total that leaves out the load."""
    durations = runs[runs["metric"] == "duration"]
    decode = durations[durations["phase"] == "decode"].assign(metric="reported.decode", source="framework")
    whole = durations[durations["phase"] == "run"]
    load = durations[durations["phase"] == "load"].set_index("run")["value"]
    total = whole.assign(
        metric="reported.total", source="framework", value=whole["value"] - whole["run"].map(load)
    )
    budget = decode.assign(metric="token_budget", unit="1", value=32.0)
    return pd.concat([decode, total, budget], ignore_index=True)

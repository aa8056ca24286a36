"""What `snakemake compare` finds and what it keeps silent about.

    record    a small cell measured against itself by the real workflow: tests/fixtures/compare/noise.csv
    simulate  500 campaigns drawn from that record, identical and with a slowdown planted, by number of pairs
    live      real campaigns of a stand-in: slowed by a known amount, and of identical programs

Each prints one JSON object. `record` and `live` measure: run them in the project's folder on an idle machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.campaigns import NOISE, PHASES, default_rules, recorded, simulate  # noqa: E402
from tests.compared_study import compared_study, words  # noqa: E402
from tests.experiments import cell_text, experiment_text  # noqa: E402
from tests.project import Project, checkout  # noqa: E402

ROUNDS = 2_000_000
"""Of the stand-in in live trials: a unit of work, a token's, of some milliseconds."""


def record(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure two cells that differ in their workload's name alone, in turns, and keep every run in order."""
    with tempfile.TemporaryDirectory(prefix="pocketvlm-") as name:
        project = checkout(Path(name))
        cells = [cell_text(workload=workload) for workload in ("coffee", "other")]
        text = experiment_text("noise", *cells, repeats=arguments.repeats, warmups=2)
        (project.path / "config/experiments/noise.yaml").write_text(text)
        began = time.monotonic()
        done = project.snakemake("results/noise/tables/cells.csv", experiment="noise")
        took = time.monotonic() - began
        if done.returncode:
            raise SystemExit(done.stdout[-3000:])
        rows = noise_rows(project)
    with arguments.out.open("w") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return {"runs": len(rows), "seconds": round(took)}


def noise_rows(project: Project) -> list[dict[str, Any]]:
    """Return the measured runs of the block in the order of time, milliseconds by phase."""
    table = pq.read_table(project.path / "results/noise/tables/runs.parquet")
    values: dict[str, dict[str, Any]] = {}
    for row in table.to_pylist():
        if row["metric"] == "duration" and row["phase"] in (*PHASES, "run"):
            kept = values.setdefault(row["run"], {"position": row["position"], "cell": row["workload"]})
            kept[row["phase"]] = "" if row["value"] is None else f"{row['value']:.3f}"
    rows = sorted(values.values(), key=lambda one: one["position"])
    return [{name: row[name] for name in ("position", "cell", *PHASES, "run")} for row in rows]


def simulated(arguments: argparse.Namespace) -> dict[str, Any]:
    """Judge campaigns of each number of pairs."""
    noise, rules = recorded(arguments.out), default_rules()
    found: dict[str, Any] = {"runs": noise.size, "campaigns": arguments.campaigns}
    for pairs in arguments.pairs:
        began = time.monotonic()
        of = {}
        for slower in (1.0, 1 + arguments.percent / 100):
            rates = simulate(noise, pairs, arguments.campaigns, slower=slower, rules=rules, seed=1)
            of[f"{100 * (slower - 1):g} %"] = rates.__dict__
        found[f"{pairs} pairs"] = {**of, "seconds": round(time.monotonic() - began, 1)}
    return found


def live(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run real campaigns of the stand-in, each in a working copy of its own."""
    work = round(1000 + 10 * arguments.percent)
    trials = []
    for number in range(arguments.trials):
        with tempfile.TemporaryDirectory(prefix="pocketvlm-") as name:
            builds: dict[str, dict[str, str | int]] = {
                "base": {"ROUNDS": ROUNDS},
                "same": {"ROUNDS": ROUNDS},
                "slow": {"ROUNDS": ROUNDS, "WORK": work},
            }
            project = compared_study(Path(name), builds, repeats=arguments.repeats)
            trials.append({"trial": number + 1, **{b: trial(project, b) for b in ("same", "slow")}})
            print(json.dumps(trials[-1]), flush=True)
    return {"pairs": arguments.repeats, "planted_percent": arguments.percent, "trials": trials}


def trial(project: Project, b: str) -> dict[str, Any]:
    """Compare a build with the base; the first comparison measures."""
    config = ("side_a=version=base", f"side_b=version={b}")
    with project.start(*words("compare"), experiment="compared", config=config) as process:
        printed, _ = process.communicate()
    path = project.path / "results/compared/compare/findings.json"
    if not path.is_file():
        raise SystemExit(printed[-3000:])
    findings = json.loads(path.read_text())
    told = [one["sentence"] for one in findings["findings"] if one["kind"] != "note"]
    return {"exit": process.returncode, "verdict": findings["verdict"], "findings": told}


def main() -> None:
    """Read the command line and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function, name in ((record, "record"), (simulated, "simulate"), (live, "live")):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--out", type=Path, default=NOISE, help="the record of noise")
        command.add_argument("--repeats", type=int, default=60, help="runs of each cell")
        command.add_argument("--percent", type=float, default=3.0, help="the slowdown planted")
        command.add_argument("--campaigns", type=int, default=500)
        command.add_argument("--pairs", type=int, nargs="+", default=[20, 40, 60, 80])
        command.add_argument("--trials", type=int, default=3)
    arguments = parser.parse_args()
    print(json.dumps(arguments.function(arguments), indent=1))


if __name__ == "__main__":
    main()

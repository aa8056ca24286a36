"""What the host adds to each run, and what the probe takes from the workload.

Prints one JSON object:
  host_s_per_run        median seconds between the end of one run and the start of the next in a block on the
                        emulated phone: pulling, hashing, storing, starting; on the probe's own clock
  host_s_per_run_local  the same on this machine
  decode_ratio          decode speed with the probe over decode speed without, median of interleaved pairs
  pairs, runs           how many of each

It needs the results of `snakemake --cores 4 all`; run it from the same folder, on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from pocketvlm.measure import sensorlist

RESULTS = Path("results")
_DECODE = re.compile(
    rb"eval time = +[\d.]+ ms / +\d+ runs +\( +[\d.]+ ms per token, +([\d.]+) tokens per second"
)


def gaps(index: Path) -> list[float]:
    """Seconds between the runs of each block of an index."""
    runs = json.loads(index.read_text())["runs"]
    found = []
    for _, block in itertools.groupby(runs, key=lambda run: run["block"]):
        records = [json.loads((RESULTS / "raw" / run["run"] / "probe.json").read_text()) for run in block]
        found += [
            (after["start_us"] - before["end_us"]) / 1e6 for before, after in itertools.pairwise(records)
        ]
    return found


def local_run(experiment: str) -> dict[str, Any]:
    """The record of one measured run on this machine, whose command is run again here."""
    index = json.loads((RESULTS / experiment / "blocks/local.json").read_text())
    run = next(run for run in index["runs"] if run["role"] == "measured")
    meta = json.loads((RESULTS / "raw" / run["run"] / "meta.json").read_text())
    cells = json.loads((RESULTS / experiment / "cells.json").read_text())["cells"]
    return {**meta, **next(cell for cell in cells if cell["cell"] == run["cell"])}


def command(run: dict[str, Any], folder: Path) -> list[str]:
    """The run's command with the files that its placeholders stand for, the program made executable."""
    program = folder / "program"
    words = []
    for word in run["argv"]:
        kind, _, name = word.partition("/")
        if kind == "@bundle":
            program.write_bytes((RESULTS / "bundles" / run["build"] / name).read_bytes())
            program.chmod(0o700)
            words.append(str(program))
        elif kind == "@weights":
            weights = RESULTS / "weights" / run["model"]
            chosen = f"model-{run['quantisation']}.gguf" if name == "model" else "mmproj-f16.gguf"
            words.append(str(weights / chosen))
        elif kind == "@workload":
            words.append(str(Path("config/workloads") / name))
        else:
            words.append(word)
    return words


def decode_ratio(experiment: str, pairs: int) -> float:
    """Median ratio of decode speed with and without the probe, pairs in alternating order."""
    run = local_run(experiment)
    identity = json.loads((RESULTS / "devices/local/identity.json").read_text())
    for sensor in identity["sensors"]:
        sensor["path"] = sensor["path"].replace("{sysfs_root}", "")
    ratios = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = command(run, folder)
        probe = folder / "probe"
        probe.write_bytes((RESULTS / "bundles" / f"probe-{identity['target']}" / "bin/probe").read_bytes())
        probe.chmod(0o700)
        sensorlist.write(identity, folder / "sensors.tsv")
        for number in range(pairs):
            out = folder / f"run-{number}"
            probed = [
                str(probe),
                "run",
                "--sensors",
                str(folder / "sensors.tsv"),
                "--out",
                str(out),
                "--",
                *plain,
            ]
            speeds = {}
            for kind in ("plain", "probed") if number % 2 else ("probed", "plain"):
                # To files: a reader of pipes would be one more that wakes for every token.
                with (folder / "stdout").open("wb") as stdout, (folder / "stderr").open("wb") as stderr:
                    subprocess.run(
                        plain if kind == "plain" else probed,
                        stdin=subprocess.DEVNULL,
                        stdout=stdout,
                        stderr=stderr,
                        check=True,
                    )
                said = ((folder if kind == "plain" else out) / "stderr").read_bytes()
                # The last match is decoding; the one before it is the prompt's.
                speeds[kind] = float(_DECODE.findall(said)[-1])
            ratios.append(speeds["probed"] / speeds["plain"])
    return statistics.median(ratios)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--experiment", default="demo")
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    blocks = RESULTS / arguments.experiment / "blocks"
    phone, local = gaps(blocks / "emulated-phone.json"), gaps(blocks / "local.json")
    result = {
        "host_s_per_run": round(statistics.median(phone), 3),
        "host_s_per_run_local": round(statistics.median(local), 3),
        "decode_ratio": round(decode_ratio(arguments.experiment, arguments.pairs), 4),
        "pairs": arguments.pairs,
        "runs": len(phone) + len(local),
        "load_average": round(os.getloadavg()[0], 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

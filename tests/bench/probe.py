"""What sampling costs: the probe and a shell loop over the same files, every 100 ms.

Prints one JSON object; medians of interleaved repetitions. CPU time is getrusage's of the finished
children, as a share of one core over the wall time.

    python tests/bench/probe.py [--seconds 10] [--repeats 3]

probe_core_percent          the probe at the loop's work: the list every 100 ms, its start and end included
probe_wake_core_percent     the same with its responsiveness thread, as runs are recorded
sleep_core_percent          a loop that does nothing but sleep 16.7 ms: the machine's own price of that thread
shell_core_percent          sh with one `cat` a file, then `sleep 0.1`: each value is known by its file
shell_one_cat_core_percent  sh with one `cat` of all files, then `sleep 0.1`: cheaper, but values run together
interval_error_p99_ms       of |interval - 100 ms| between the samples of a group, over all groups
samples, expected_samples   of all groups of a run of the probe
shell_rounds                rounds of the shell loop; expected_rounds are due
times_cheaper               shell_core_percent / probe_core_percent
times_cheaper_with_wake     the same with the responsiveness thread
times_cheaper_per_round     the same of the CPU time for one reading of all files: the loop misses rounds
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import itertools
import json
import platform
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.probe.recording import built  # noqa: E402

PERIOD_S = 0.1
WAKE_S = 1 / 60
Group = dict[str, list[tuple[str, str, str]]]


def phone_tree(root: Path) -> Group:
    """Write files in the shape of a phone's sysfs; return each group's sensors: name, path, select."""
    values = {f"cpufreq/policy{n}/scaling_cur_freq": "1804800" for n in (0, 4, 7)}
    values |= {f"cpufreq/policy{n}/scaling_max_freq": "2841600" for n in (0, 4, 7)}
    clocks = [f"devfreq/{name}/cur_freq" for name in ("ddr", "llcc", "l3-cpu0", "l3-cpu4", "l3-cpu7", "npu")]
    values |= dict.fromkeys(clocks, "2092800000")
    groups: Group = {"frequency": [], "thermal": [], "gpu": [], "battery": []}
    for path in values:
        groups["frequency"].append((path, "first", path))
    for zone in range(32):
        path = f"thermal/thermal_zone{zone}/temp"
        values[path] = "45250"
        groups["thermal"].append((path, "first", path))
    gpu = {"gpubusy": "123456 1000000", "gpu_busy_percentage": "12 %", "gpuclk": "680000000", "temp": "47000"}
    for name, value in gpu.items():
        values[f"kgsl/{name}"] = value
        groups["gpu"].append((name, "field:1" if name == "gpubusy" else "first", f"kgsl/{name}"))
    battery = {"current_now": "-512000", "voltage_now": "3912000", "temp": "312", "charge_counter": "3012000"}
    for name, value in (battery | {"status": "Discharging"}).items():
        values[f"battery/{name}"] = value
        groups["battery"].append((name, "text" if name == "status" else "first", f"battery/{name}"))
    for path, value in values.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(value + "\n")
    return {
        group: [
            (f"{group}.{name.replace('/', '.')}", str(root / path), select) for name, select, path in sensors
        ]
        for group, sensors in groups.items()
    }


def proc_groups(cores: int) -> Group:
    """Return the groups of /proc: the cores' times, memory, and the workload's own files."""
    kinds = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"]
    cpus = ["cpu", *(f"cpu{core}" for core in range(cores))]
    cpu = [
        (f"{name}.{kind}", "/proc/stat", f"line:{name}:{index}")
        for name in cpus
        for index, kind in enumerate(kinds, 1)
    ]
    memory = [
        (f"memory.{key.lower()}", "/proc/meminfo", f"line:{key}:1") for key in ("MemFree", "MemAvailable")
    ]
    memory += [("load", "/proc/loadavg", "first"), ("faults", "/proc/vmstat", "line:pgfault:1")]
    files = {"stat": [14, 15, 10, 12, 20], "statm": [], "status": [], "schedstat": []}
    work = [(f"work.{number}", "/proc/{pid}/stat", f"stat:{number}") for number in files["stat"]]
    work += [
        ("work.rss", "/proc/{pid}/statm", "field:1"),
        ("work.waited", "/proc/{pid}/schedstat", "field:1"),
    ]
    work += [("work.peak", "/proc/{pid}/status", "line:VmHWM:1")]
    return {"cpu": cpu, "memory": memory, "workload": work}


def sensor_list(groups: Group) -> str:
    lines = ["pocketvlm-sensors\t1\n"]
    for group, sensors in groups.items():
        lines.append(f"group\t{group}\t{round(PERIOD_S * 1000)}\n")
        lines += [f"sensor\t{name}\t{path}\t{select}\n" for name, path, select in sensors]
    return "".join(lines)


@contextlib.contextmanager
def children_cpu() -> Iterator[dict[str, float]]:
    """Fill in the share of a core, in percent, that the children finished within the block have used."""
    spent: dict[str, float] = {}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    yield spent
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - began
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    spent |= {"core_percent": 100 * cpu / wall, "wall_s": wall}


def run_probe(probe: Path, listed: Path, folder: Path, seconds: float, *options: str) -> dict[str, Any]:
    command = [str(probe), "run", "--sensors", str(listed), "--out", str(folder), *options]
    with children_cpu() as spent:
        subprocess.run([*command, "--", "sleep", str(seconds)], check=True, stdin=subprocess.DEVNULL)
    record = json.loads((folder / "probe.json").read_text())
    errors = []
    for group in record["groups"]:
        with (folder / f"{group}.csv").open(newline="") as stream:
            times = [int(row["t_us"]) for row in csv.DictReader(stream)]
        # The last sample is taken at the end of the run, not on a tick.
        errors += [abs(b - a - PERIOD_S * 1e6) / 1000 for a, b in itertools.pairwise(times[:-1])]
    unreadable = {name for name, counts in record["sensors"].items() if counts["unreadable"] > 1}
    assert not unreadable, unreadable
    return spent | {
        "errors": errors,
        "samples": sum(group["samples"] for group in record["groups"].values()),
        "expected": sum(group["expected"] for group in record["groups"].values()),
        "own_percent": 100 * record["probe_cpu_us"] / (record["end_us"] - record["start_us"]),
    }


def run_sleep(seconds: float) -> dict[str, Any]:
    """Sleep in steps of the responsiveness thread's period, in this process, its timer slack as short."""
    ctypes.CDLL(None).prctl(29, 1, 0, 0, 0)  # PR_SET_TIMERSLACK
    before, began = time.process_time(), time.monotonic()
    for _ in range(round(seconds / WAKE_S)):
        time.sleep(WAKE_S)
    return {"core_percent": 100 * (time.process_time() - before) / (time.monotonic() - began)}


def run_shell(paths: list[str], output: Path, seconds: float, *, one_cat: bool) -> dict[str, Any]:
    """Run the loop until the time is up and count its rounds."""
    read = f"cat {shlex.join(paths)}" if one_cat else f"for f in {shlex.join(paths)}; do cat $f; done"
    loop = f"while :; do {read} 2>/dev/null; echo round; sleep {PERIOD_S}; done".replace(
        "/proc/{pid}/", "/proc/$$/"
    )
    with children_cpu() as spent, output.open("wb") as stream:
        process = subprocess.Popen(["sh", "-c", loop], stdout=stream, stdin=subprocess.DEVNULL)
        time.sleep(seconds)
        process.kill()
        process.wait()
    return spent | {"rounds": output.read_bytes().count(b"\nround\n")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    probe = built(f"{platform.machine()}-linux-musl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cores = len([line for line in Path("/proc/stat").read_text().splitlines() if line[:3] == "cpu"]) - 1
        groups = proc_groups(cores) | phone_tree(folder / "sys")
        paths = sorted({path for sensors in groups.values() for _, path, _ in sensors})
        listed = folder / "sensors.tsv"
        listed.write_text(sensor_list(groups))
        ways: dict[str, Callable[[Path], dict[str, Any]]] = {
            "probe": lambda out: run_probe(probe, listed, out, options.seconds, "--wake-us", "0"),
            "wake": lambda out: run_probe(probe, listed, out, options.seconds),
            "sleep": lambda out: run_sleep(options.seconds),
            "shell": lambda out: run_shell(paths, out, options.seconds, one_cat=False),
            "one_cat": lambda out: run_shell(paths, out, options.seconds, one_cat=True),
        }
        done: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for repeat in range(options.repeats):
            for way, measure in ways.items():
                done[way].append(measure(folder / f"{way}-{repeat}"))

    def median(way: str, key: str) -> float:
        return statistics.median(run[key] for run in done[way])

    rounds = options.seconds / PERIOD_S
    cheaper = median("shell", "core_percent") / median("probe", "core_percent")
    errors = sorted(error for run in done["wake"] for error in run["errors"])
    result = {
        "probe_core_percent": median("probe", "core_percent"),
        "probe_wake_core_percent": median("wake", "core_percent"),
        "probe_own_core_percent": median("wake", "own_percent"),
        "sleep_core_percent": median("sleep", "core_percent"),
        "shell_core_percent": median("shell", "core_percent"),
        "shell_one_cat_core_percent": median("one_cat", "core_percent"),
        "times_cheaper": cheaper,
        "times_cheaper_with_wake": median("shell", "core_percent") / median("wake", "core_percent"),
        "times_cheaper_per_round": cheaper * rounds / median("shell", "rounds"),
        "interval_error_p99_ms": errors[-(-99 * len(errors) // 100) - 1],
        "interval_error_max_ms": errors[-1],
        "samples": median("probe", "samples"),
        "expected_samples": median("probe", "expected"),
        "shell_rounds": median("shell", "rounds"),
        "expected_rounds": rounds,
        "sensors": sum(len(sensors) for sensors in groups.values()),
        "files": len(paths),
        "repeats": options.repeats,
        "seconds": options.seconds,
    }
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()

"""How fast a sensor file is read: our checked reading against plain pandas.read_csv.

Prints one JSON object: `mb_s` and `pandas_mb_s`, medians of interleaved repetitions over a file of 1000 s
x 60 sensors at 100 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from pocketvlm.analyse.raw import read_csv

SECONDS, SENSORS, PERIOD_US = 1000, 60, 100_000


def write_samples(path: Path, seconds: int, sensors: int) -> None:
    """Write a group's file: counters, gauges and some values that could not be read."""
    generator = np.random.Generator(np.random.PCG64(1))
    ticks = seconds * 1_000_000 // PERIOD_US
    times = 2_000_000_000 + PERIOD_US * np.arange(ticks) + generator.integers(0, 200, ticks)
    frame = pd.DataFrame({"t_us": times})
    for number in range(sensors):
        if number % 2:
            values = pd.Series(generator.integers(30_000, 60_000, ticks), dtype="Int64")
            values[generator.random(ticks) < 0.01] = pd.NA
        else:
            values = pd.Series(np.cumsum(generator.integers(0, 12, ticks)))
        frame[f"group.sensor{number}"] = values
    frame.to_csv(path, index=False, lineterminator="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "group.csv"
        write_samples(path, SECONDS, SENSORS)
        size = path.stat().st_size / 1e6
        readers: dict[str, Callable[[Path], object]] = {"mb_s": read_csv, "pandas_mb_s": pd.read_csv}
        ours, theirs = read_csv(path)[1], pd.read_csv(path)
        for name, values in ours.items():
            np.testing.assert_array_equal(values, theirs[name].to_numpy(dtype=np.float64))
        speeds: dict[str, list[float]] = {name: [] for name in readers}
        for _ in range(options.repetitions):
            for name, reader in readers.items():
                started = time.perf_counter()
                reader(path)
                speeds[name].append(size / (time.perf_counter() - started))
    print(json.dumps({name: round(statistics.median(values), 1) for name, values in speeds.items()}))


if __name__ == "__main__":
    main()

"""Soaks that never ran: runs with a given speed over time, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pocketvlm.analyse.sensors import Value
from pocketvlm.analyse.soak.runs import GAUGE, SoakRun

BOOTSTRAP = {"resamples": 200, "confidence": 0.95, "seed": 1}
BEGIN_US = 5_000_000_000


def soak_of(
    speeds: Sequence[float | None], *, run_s: float = 4.0, gap_s: float = 0.1, **changes: Any
) -> list[SoakRun]:
    """Return runs of equal length with these speeds; None is a speed that is NA.

    Args:
        speeds: tokens per second, one a run.
        run_s, gap_s: seconds of a run, and between two.
        changes: fields of every run that are to be others.
    """
    runs = []
    for number, speed in enumerate(speeds):
        start = BEGIN_US + round(number * (run_s + gap_s) * 1e6)
        known: dict[str, Any] = {
            "name": f"{'ab' * 32}/{number:02d}",
            "start_us": start,
            "end_us": start + round(run_s * 1e6),
            "speed": Value(speed) if speed is not None else Value(None, None, "the answer came in one piece"),
            "power": Value(5.0, 30),
            "energy": Value(5.0 * run_s, 30),
            "clocks": {"policy0": 1800.0, "gpu": 500.0},
            "clock_source": GAUGE,
            "why_no_clock": "",
            "temperature_start": {"cpu": 30.0 + number, "skin": 28.0},
            "temperature_end": {"cpu": 31.0 + number, "skin": 28.5},
            "temperature_max": {"cpu": 32.0 + number, "skin": 29.0},
            "why_no_temperature": "",
        }
        runs.append(SoakRun(**{**known, **changes}))
    return runs


def blind(runs: Sequence[SoakRun]) -> list[SoakRun]:
    """Return the same runs on a device that shows neither clock nor temperature nor power."""
    nothing = Value(None, 0, "no power supply under /sys/class/power_supply")
    hidden = {
        "power": nothing,
        "energy": nothing,
        "clocks": {},
        "clock_source": "",
        "why_no_clock": "no cpufreq under /sys",
        "temperature_start": {},
        "temperature_end": {},
        "temperature_max": {},
        "why_no_temperature": "no thermal zone under /sys/class/thermal",
    }
    return [SoakRun(**{**run.__dict__, **hidden}) for run in runs]


def heated(
    duration_s: float, *, run_s: float = 4.0, falls_at_s: float = 600.0, seed: int = 1
) -> tuple[list[SoakRun], list[pd.DataFrame]]:
    """Return a soak whose speed and clock fall at a time, and its samples as `series_of` gives them."""
    rng = np.random.default_rng(seed)

    def speed(t: float) -> float:
        return float((14 if t < falls_at_s else 10.5) * rng.normal(1, 0.02))

    def celsius(t: float) -> float:
        return 30 + 45 * (1 - float(np.exp(-t / 400)))

    starts = np.arange(0, duration_s, run_s + 0.3)
    plain = soak_of([speed(t) for t in starts], run_s=run_s, gap_s=0.3)
    runs = [
        SoakRun(
            **{
                **run.__dict__,
                "clocks": {"policy0": 1800.0, "policy4": 2800.0 if t < falls_at_s else 2000.0, "gpu": 257.0},
                "power": Value(6.0 if t < falls_at_s else 4.2, 30),
            }
        )
        for run, t in zip(plain, starts, strict=True)
    ]
    lines: Mapping[tuple[str, str, str], Callable[[float], float]] = {
        ("temperature", "cpu", "degC"): lambda t: celsius(t) + float(rng.normal(0, 0.5)),
        ("temperature", "battery", "degC"): lambda t: 28 + 10 * (1 - float(np.exp(-t / 1200))),
        ("temperature", "skin", "degC"): lambda t: 29 + 14 * (1 - float(np.exp(-t / 700))),
        ("power", "device", "W"): lambda t: (6.0 if t < falls_at_s else 4.2) + float(rng.normal(0, 0.3)),
    }
    seconds = range(int(duration_s))
    parts = [
        pd.DataFrame(
            {
                "quantity": quantity,
                "component": component,
                "unit": unit,
                "t_s": list(seconds),
                "value": [value(t) for t in seconds],
            }
        )
        for (quantity, component, unit), value in lines.items()
    ]
    return runs, parts


CELL = {
    "cell": "phone.llama.cpp-0.3.16-cpu.nano-Q4_0.coffee-00000000",
    "device": "phone",
    "device_kind": "emulated",
    "framework": "llama.cpp",
    "version": "0.3.16",
    "backend": "cpu",
    "model": "nano",
    "weights_kind": "synthetic",
    "quantisation": "Q4_0",
    "workload": "coffee",
    "settings": "threads=1",
    "adapter": "llamacpp",
}


def files(folder: Path) -> list[Path]:
    """Return where the three tables of a soak go."""
    return [folder / f"{name}.csv" for name in ("soak", "soak_summary", "soak_series")]

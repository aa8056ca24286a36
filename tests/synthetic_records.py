"""Records of a study that never ran, in the columns of docs/formats.md: for tests of what draws and reports.

Everything is invented from a seed and says so: the experiment is called `synthetic-records`, and the emulated
identity's notice names this file. Nothing in it is a measurement.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pocketvlm.analyse.records import CELL_COLUMNS as AXES
from pocketvlm.provenance import sha256_file, sha256_json, write_json

INVENTED = "invented by tests/synthetic_records.py, not measured"
PHASES = {  # phase: (share of a run, workload CPU in cores, GPU busy in %)
    "load": (0.07, 0.8, 0),
    "text_prefill": (0.06, 1.9, 5),
    "image_encode": (0.26, 1.95, 62),
    "image_prefill": (0.31, 1.9, 48),
    "decode": (0.27, 1.6, 20),
    "other": (0.03, 0.3, 0),
}
ORDER = ["load", "text_prefill", "image_encode", "image_prefill", "text_prefill", "decode", "other"]
SPLIT = {"text_prefill": 0.5}
CELL_COLUMNS = ["experiment", "cell", *AXES]
TOKENS = {"decode": 32, "text_prefill": 37, "image_prefill": 576}
LOWER = {"tokens_per_second": False, "sensor_coverage": False, "memory_available_min": False}


@dataclass
class Study:
    """Where everything was written, laid out as a real `results/`."""

    results: Path
    experiment: str
    cells_json: Path
    cells_csv: Path
    runs: Path
    raw: Path
    blocks: dict[str, Path] = field(default_factory=dict)
    identities: dict[str, Path] = field(default_factory=dict)
    records: dict[str, Path] = field(default_factory=dict)
    manifests: list[Path] = field(default_factory=list)
    images: list[Path] = field(default_factory=list)


def cell(device: str, quantisation: str, *, kind: str, model: str) -> dict[str, Any]:
    """Return one cell of `cells.json`."""
    target = "aarch64-linux-musl" if kind != "local" else "x86_64-linux-musl"
    name = f"{device}.llama.cpp-0.3.16-cpu.{model}-{quantisation}.coffee"
    return {
        "cell": f"{name}-{hashlib.sha256(name.encode()).hexdigest()[:8]}",
        "device": device,
        "device_kind": kind,
        "framework": "llama.cpp",
        "version": "0.3.16",
        "backend": "cpu",
        "build": f"llama.cpp-0.3.16-cpu-{target}",
        "adapter": "llamacpp",
        "model": model,
        "weights_kind": "synthetic",
        "quantisation": quantisation,
        "workload": "coffee",
        "settings": "threads=2",
    }


def identity(device: str, kind: str, *, sensors: bool) -> dict[str, Any]:
    """Return `identity.json` of a device that exposes temperature, power and GPU, or none of them."""
    listed: list[tuple[str, str, str, str]] = [
        ("cpu.total.user", "cpu_time", "cpu.user", "s"),
        ("proc.utime", "workload_cpu_time", "user", "s"),
        ("mem.available", "memory", "available", "B"),
    ]
    missing: list[dict[str, str]] = [
        {"quantity": "npu_busy", "component": "npu", "reason": "no node of an NPU"}
    ]
    if sensors:
        listed += [
            ("gpu.busy", "gpu_busy", "gpu", "%"),
            ("thermal.cpu", "temperature", "cpu.cpu-0-0", "degC"),
            ("battery.current", "current", "battery", "A"),
        ]
    else:
        missing += [
            {"quantity": "gpu_busy", "component": "gpu", "reason": "no kgsl and no mali node under /sys"},
            {
                "quantity": "temperature",
                "component": "cpu",
                "reason": "no thermal zone under /sys/class/thermal",
            },
            {
                "quantity": "power",
                "component": "battery",
                "reason": "no power supply under /sys/class/power_supply",
            },
        ]
    return {
        "format": 1,
        "id": device,
        "kind": kind,
        "model": "Invented 1",
        "soc": "none",
        "os": "Debian 12",
        "kernel": "6.1.0",
        "cpus": 2,
        "memory_bytes": 24 * 2**30,
        "page_bytes": 4096,
        "ticks_per_second": 100,
        "target": "aarch64-linux-musl" if kind != "local" else "x86_64-linux-musl",
        "exec_prefix": ["qemu-aarch64-static"] if kind == "emulated" else [],
        "notice": f"{kind}: {INVENTED}" if kind == "emulated" else None,
        "groups": {"cpu": {"period_ms": 100}, "battery": {"period_ms": 200}},
        "sensors": [
            {
                "name": name,
                "group": "cpu",
                "path": f"/invented/{name}",
                "select": "first",
                "quantity": quantity,
                "component": component,
                "unit": unit,
                "scale": 1,
                "kind": "gauge",
            }
            for name, quantity, component, unit in listed
        ],
        "missing": missing,
    }


def spans(rng: np.random.Generator, total_ms: float) -> list[tuple[str, int, int, int]]:
    """Return (phase, interval, start_us, end_us): exclusive, without gaps, text prefill in two intervals."""
    at, seen, out = 0, dict.fromkeys(PHASES, 0), []
    for phase in ORDER:
        length = total_ms * PHASES[phase][0] * SPLIT.get(phase, 1.0) * rng.normal(1, 0.02) * 1000
        out.append((phase, seen[phase], at, at + int(length)))
        seen[phase] += 1
        at += int(length)
    return out


def _sample_rows(
    rng: np.random.Generator, laid: list[tuple[str, int, int, int]], sensors: bool
) -> pd.DataFrame:
    rows: list[tuple[int, str, str, str, str, float, str]] = []
    user = idle = work = 0.0
    heat = 31.0 + rng.normal(0, 0.4)
    for t_us in range(0, laid[-1][3], 100_000):
        phase = next(p for p, _, start, end in laid if start <= t_us < end)
        _, cores, gpu = PHASES[phase]
        busy = min(2.0, max(0.02, cores * rng.normal(1, 0.03)))
        user, idle, work = (
            user + 0.1 * min(2.0, busy + 0.06),
            idle + 0.1 * (2 - min(2.0, busy)),
            work + 0.1 * busy,
        )
        heat += 0.1 * (0.9 * busy - 0.06 * (heat - 28))
        for component, value in (("cpu.user", user), ("cpu.system", 0.02 * user), ("cpu.idle", idle)):
            rows.append(
                (t_us, phase, f"cpu.total.{component[4:]}", "cpu_time", component, round(value, 2), "s")
            )
        rows.append((t_us, phase, "proc.utime", "workload_cpu_time", "user", round(work, 2), "s"))
        rows.append((t_us, phase, "proc.stime", "workload_cpu_time", "system", round(0.03 * work, 2), "s"))
        if not sensors:
            continue
        rows.append(
            (t_us, phase, "gpu.busy", "gpu_busy", "gpu", float(np.clip(gpu + rng.normal(0, 3), 0, 100)), "%")
        )
        rows.append((t_us, phase, "thermal.cpu", "temperature", "cpu.cpu-0-0", round(heat, 1), "degC"))
        rows.append((t_us, phase, "thermal.gpu", "temperature", "gpu.gpuss-0", round(heat - 2.5, 1), "degC"))
        rows.append(
            (t_us, phase, "thermal.skin", "temperature", "skin.xo-therm", round(28 + heat / 16, 1), "degC")
        )
        if t_us % 200_000 == 0:
            amperes = 0.25 + 0.55 * busy + 0.004 * gpu + rng.normal(0, 0.02)
            rows.append((t_us, phase, "battery.current", "current", "battery", amperes, "A"))
            rows.append((t_us, phase, "battery.voltage", "voltage", "battery", 3.9 - 0.02 * amperes, "V"))
    names = ["t_us", "phase", "sensor", "quantity", "component", "value", "unit"]
    return pd.DataFrame(rows, columns=names)


def _metric_rows(
    laid: list[tuple[str, int, int, int]], samples: pd.DataFrame, sensors: bool, missing: dict[str, str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []

    def add(phase: str, metric: str, value: float | None, unit: str, source: str, reason: str = "") -> None:
        rows.append(
            {
                "phase": phase,
                "metric": metric,
                "value": np.nan if value is None else value,
                "unit": unit,
                "source": source,
                "lower_is_better": LOWER.get(metric, True),
                "samples": int((samples["phase"] == phase).sum()) if phase != "run" else len(samples),
                "reason": reason,
            }
        )

    length = {phase: sum(e - s for p, _, s, e in laid if p == phase) / 1000 for phase in PHASES}
    length["run"] = sum(length.values())
    volts = samples.loc[samples["quantity"] == "voltage", "value"].to_numpy()
    watts = samples.loc[samples["quantity"] == "current"].assign(
        value=lambda d: d["value"].to_numpy() * volts
    )
    for phase in (*PHASES, "run"):
        add(phase, "duration", length[phase], "ms", "observed")
        add(phase, "workload_cpu", 100 * PHASES.get(phase, (0, 1.7, 0))[1], "%", "sensor")
        add(phase, "system_cpu", 100 * PHASES.get(phase, (0, 1.7, 0))[1] + 5, "%", "sensor")
        add(phase, "rss_peak", 812.0, "MiB", "sensor")
        add(phase, "wake_late_p50", 0.12, "ms", "probe")
        add(phase, "wake_late_p99", 9.5 if phase == "image_encode" else 2.25, "ms", "probe")
        if not sensors:
            add(phase, "gpu_busy", None, "%", "sensor", missing["gpu_busy"])
            for metric, unit in (("power", "W"), ("power_net", "W"), ("energy", "J"), ("energy_net", "J")):
                add(phase, metric, None, unit, "derived", missing["power"])
            add(phase, "temperature_max.cpu", None, "degC", "sensor", missing["temperature"])
            add(phase, "temperature_rise.cpu", None, "K", "sensor", missing["temperature"])
            continue
        mine = watts if phase == "run" else watts[watts["phase"] == phase]
        few = "" if len(mine) >= 5 else f"{len(mine)} samples in the phase, fewer than 5"
        power = None if few else float(mine["value"].mean())
        add(phase, "power", power, "W", "derived", few)
        add(phase, "power_net", None if power is None else power - 1.0, "W", "derived", few)
        add(phase, "energy", None if power is None else power * length[phase] / 1000, "J", "derived", few)
        net = None if power is None else (power - 1.0) * length[phase] / 1000
        add(phase, "energy_net", net, "J", "derived", few)
        heat = samples[samples["component"] == "cpu.cpu-0-0"]
        heat = heat if phase == "run" else heat[heat["phase"] == phase]
        add(phase, "temperature_max.cpu", float(heat["value"].max()), "degC", "sensor")
        add(
            phase,
            "temperature_rise.cpu",
            float(heat["value"].iloc[-1] - heat["value"].iloc[0]),
            "K",
            "sensor",
        )
    for phase, tokens in TOKENS.items():
        add(phase, "tokens", tokens, "1", "framework")
        made = tokens - (phase == "decode")  # the first token of an answer ends the prefill
        add(phase, "tokens_per_second", made / length[phase] * 1000, "1/s", "derived")
    energy = {row["metric"]: row for row in rows if row["phase"] == "decode"}
    for name in ("energy", "energy_net"):
        whole = energy[name]
        value = None if np.isnan(whole["value"]) else whole["value"] / (TOKENS["decode"] - 1)
        add("decode", f"{name}_per_token", value, "J", "derived", whole["reason"])
    first = next(start for p, _, start, _ in laid if p == "decode") / 1000
    add("run", "time_to_first_token", first, "ms", "observed")
    add("run", "probe_cpu", 0.3, "%", "probe")
    return rows


def _write_raw(raw: Path, key: str, number: int, role: str, inputs: dict[str, Any], answer: str) -> str:
    folder = raw / key / f"{number:02d}"
    folder.mkdir(parents=True)
    contents = {
        "stdout": answer,
        "stderr": "llama_perf_context_print: invented\n",
        "cpu.csv": "t_us,cpu.total.user\n0,1\n",
        "wake.csv": "t_us,late_us\n" + "".join(f"{16667 * n},{(7 * n) % 900}\n" for n in range(300)),
        "events.jsonl": '{"t_us":0,"event":"start","pid":2}\n',
        "probe.json": '{"start_us": 0}\n',
    }
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    files = {
        name: {"sha256": sha256_file(folder / name), "bytes": (folder / name).stat().st_size}
        for name in contents
    }
    meta = {
        "format": 1,
        "key": key,
        "number": number,
        "role": role,
        "key_inputs": inputs,
        "argv": ["bin/llama-mtmd-cli", "-m", "model.gguf"],
        "files": files,
        "started": f"2026-01-01T00:{number % 60:02d}:00Z",
    }
    write_json(folder / "meta.json", meta)
    return sha256_file(folder / "meta.json")


def _image(path: Path) -> Path:
    """Write a picture that is larger than a page needs it."""
    shades = np.linspace(0, 255, 1200 * 800, dtype=np.uint8).reshape(800, 1200)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(shades).save(path)
    return path


def _manifest(results: Path, name: str, target: str) -> Path:
    path = results / "bundles" / name / "manifest.json"
    source = {"project": "llama.cpp", "version": "0.3.16", "sha256": "5" * 64, "commit": "4227c9be4268"}
    write_json(
        path,
        {
            "format": 1,
            "name": name,
            "target": target,
            "toolchain": {"name": "zig", "version": "0.17.1"},
            "flags": {"c": ["-O3"], "cxx": ["-O3"], "link": ["-static"], "cmake": {"GGML_NATIVE": "OFF"}},
            "cpu_features": "generic+v8_2a+dotprod+fullfp16",
            "source": source,
            "files": {"bin/llama-mtmd-cli": {"sha256": "a" * 64, "bytes": 12_345_678, "mode": "0755"}},
        },
    )
    return path


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Return `cells.csv`'s rows from runs; the interval is a plain percentile one, enough to draw."""
    rows = []
    for key, group in runs.groupby([*CELL_COLUMNS, "phase", "metric", "unit"], sort=False):
        kept = group.loc[group["gate"] == "", "value"].dropna()
        gates = sorted({text for text in (*group["gate"], *group["reason"]) if text})
        row = dict(zip([*CELL_COLUMNS, "phase", "metric", "unit"], key, strict=True))
        row |= {"n": len(kept), "gate": "; ".join(gates) if kept.empty else ""}
        if len(kept):
            low, p05, median, p95, high = np.percentile(kept, [15, 5, 50, 95, 85])
            row |= {"mean": kept.mean(), "std": kept.std(), "median": median, "p05": p05, "p95": p95}
            row |= {"ci_low": low, "ci_high": high}
        rows.append(row)
    numbers = ["n", "mean", "std", "median", "p05", "p95", "ci_low", "ci_high", "gate"]
    return pd.DataFrame(rows).reindex(columns=[*CELL_COLUMNS, "phase", "metric", "unit", *numbers])


def write_study(
    results: Path,
    *,
    seed: int = 1,
    repeats: int = 5,
    devices: tuple[str, ...] = ("emulated-phone", "local"),
    quantisations: tuple[str, ...] = ("Q4_0", "Q8_0"),
    answer: str = "A cup of coffee on a wooden table.",
    withheld: bool = True,
) -> Study:
    """Write a whole invented study under `results`.

    Args:
        results: an empty folder, the `results/` of the study.
        seed: of everything random in it.
        repeats: measured runs a cell.
        devices: `emulated-phone` has every sensor, any other name none.
        quantisations: one cell each on every device.
        answer: the model's text in every run.
        withheld: whether a gate withholds one metric.
    """
    rng = np.random.default_rng(seed)
    experiment = "synthetic-records"
    base = results / experiment
    study = Study(
        results,
        experiment,
        base / "cells.json",
        base / "tables" / "cells.csv",
        base / "tables" / "runs.parquet",
        results / "raw",
    )
    study.images.append(_image(results.parent / "coffee.png"))
    cells, all_runs = [], []
    for device in devices:
        sensors = device == "emulated-phone"
        kind = "emulated" if sensors else "local"
        model = "synthetic-llava-nano" if sensors else "synthetic-llava-mini"
        who = identity(device, kind, sensors=sensors)
        study.identities[device] = results / "devices" / device / "identity.json"
        write_json(study.identities[device], who)
        missing = {entry["quantity"]: entry["reason"] for entry in who["missing"]}
        target = str(who["target"])
        for bundle in (f"llama.cpp-0.3.16-cpu-{target}", f"probe-{target}"):
            study.manifests.append(_manifest(results, bundle, target))
        parts: dict[str, list[pd.DataFrame]] = {"phases": [], "samples": [], "metrics": [], "answers": []}
        listed: list[dict[str, Any]] = []
        for quantisation in quantisations:
            one = cell(device, quantisation, kind=kind, model=model)
            cells.append(one)
            inputs = {"protocol_version": 1, "bundle": {"name": one["build"]}, "settings": {"threads": 2}}
            inputs["workload"] = {
                "id": "coffee",
                "image": "coffee.png",
                "image_sha256": sha256_file(study.images[0]),
                "prompt": "What is in the picture?",
                "max_tokens": 32,
                "image_position": "first",
            }
            key = sha256_json({**inputs, "cell": one["cell"], "seed": seed})
            for number in range(repeats):
                run = f"{key}/{number:02d}"
                meta = _write_raw(study.raw, key, number, "measured", inputs, answer)
                total = (
                    (9000 if sensors else 6500) * (0.8 if quantisation == "Q4_0" else 1) * rng.normal(1, 0.02)
                )
                laid = spans(rng, total)
                samples = _sample_rows(rng, laid, sensors)
                rows = _metric_rows(laid, samples, sensors, missing)
                metrics = pd.DataFrame(rows).assign(run=run)
                phases = pd.DataFrame(laid, columns=["phase", "interval", "start_us", "end_us"]).assign(
                    run=run,
                    start_boundary="start",
                    end_boundary="end",
                    start_observed=True,
                    end_observed=True,
                )
                told = {"run": run, "text": answer, "tokens": 32, "sha256": hashlib.sha256(b"").hexdigest()}
                for name, frame in (
                    ("phases", phases),
                    ("samples", samples.assign(run=run)),
                    ("metrics", metrics),
                    ("answers", pd.DataFrame([told])),
                ):
                    parts[name].append(frame)
                gate = np.where(
                    (metrics["metric"] == "rss_peak") & (metrics["phase"] == "load") & withheld,
                    "sensor coverage 71 % is below 90 %",
                    "",
                )
                place = {
                    "round": number + 1,
                    "position": len(listed) + 1,
                    "key": key,
                    "experiment": experiment,
                }
                joined = metrics.assign(gate=gate, **place)
                all_runs.append(joined.assign(**{k: v for k, v in one.items() if k != "adapter"}))
                listed.append(
                    {
                        "run": run,
                        "cell": one["cell"],
                        "role": "measured",
                        "round": number + 1,
                        "position": len(listed) + 1,
                        "meta_sha256": meta,
                    }
                )
        study.records[device] = base / "records" / device
        study.records[device].mkdir(parents=True)
        for name, frames in parts.items():
            pd.concat(frames, ignore_index=True).to_parquet(study.records[device] / f"{name}.parquet")
        study.blocks[device] = base / "blocks" / f"{device}.json"
        write_json(
            study.blocks[device], {"format": 1, "experiment": experiment, "device": device, "runs": listed}
        )
    title = f"Records {INVENTED}"
    plan = {
        "format": 1,
        "experiment": experiment,
        "title": title,
        "repeats": repeats,
        "warmups": 1,
        "cells": cells,
    }
    study.cells_json.write_text(json.dumps(plan, indent=1))
    runs = pd.concat(all_runs, ignore_index=True)
    study.runs.parent.mkdir(parents=True)
    runs.to_parquet(study.runs)
    summarise(runs).to_csv(study.cells_csv, index=False)
    return study

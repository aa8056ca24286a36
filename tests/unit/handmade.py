"""Streams and raw runs made by hand, for tests of what reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketvlm.frameworks import Output, Stream

Piece = tuple[int, bytes]
BUDGET = 4

TIMING = (
    b"llama_perf_context_print:        load time =     900.00 ms\n"
    b"llama_perf_context_print: prompt eval time =    2600.00 ms /   600 tokens (    4.33 ms per token)\n"
    b"llama_perf_context_print:        eval time =     300.00 ms /     3 runs   (  100.00 ms per token)\n"
    b"llama_perf_context_print:       total time =    3500.00 ms /   603 tokens\n"
)


def stream(pieces: Sequence[Piece]) -> Stream:
    """Return a stream of (t_us, bytes) chunks."""
    return Stream(
        b"".join(data for _, data in pieces),
        np.cumsum([len(data) for _, data in pieces]).astype(np.int64),
        np.array([t for t, _ in pieces], dtype=np.int64),
    )


def output(stdout: Sequence[Piece], stderr: Sequence[Piece], wall_us: int = 5_000_000, **end: Any) -> Output:
    """Return an output of hand-made streams."""
    return Output(stream(stdout), stream(stderr), wall_us, **end)


def stdout_0_3_16() -> list[Piece]:
    """0.3.16: image lines on stdout; load 1 s, text 100 ms, encode 500, image 1900, text 100, decode 300."""
    return [
        (1_000_000, b"main: loading model: model.gguf\n"),
        (1_100_000, b"encoding image slice...\n"),
        (1_600_000, b"image slice encoded in 500 ms\n"),
        (1_600_050, b"decoding image batch 1/1, n_tokens_batch = 576\n"),
        (3_500_000, b"image decoded (batch 1/1) in 1900 ms\n"),
        (3_599_000, b"\n"),
        (3_600_000, b" a"),
        (3_700_000, b" b"),
        (3_800_000, b" c"),
        (3_900_000, b" d"),
        (4_000_000, b"\n\n"),
    ]


def stderr_0_3_16() -> list[Piece]:
    """The loader's lines and the timing block."""
    return [(500_000, b"llama_model_loader: loaded meta data\n"), (4_000_100, TIMING)]


def as_0_3_9() -> tuple[list[Piece], list[Piece]]:
    """The same run as 0.3.9 prints it: image lines on stderr, in its words."""
    images = []
    for t, line in stdout_0_3_16():
        if b"imag" in line:
            line = line.replace(b"image slice encoded", b"image/slice encoded")
            images.append((t, line.replace(b"encoding image slice", b"encoding image or slice")))
    stdout = [(t, d) for t, d in stdout_0_3_16() if b"imag" not in d]
    return stdout, [stderr_0_3_16()[0], *images, stderr_0_3_16()[1]]


def as_0_3_36() -> tuple[list[Piece], list[Piece]]:
    """The same run as 0.3.36 prints it with --verbosity 4: on stderr with time and level, but the answer."""
    names = {
        b"encoding image slice...": b"encoding mtmd batch, n_chunks = 1 (done = 1, total = 3)",
        b"image slice encoded in": b"mtmd batch encoding done in",
    }
    lines = []
    for t, line in stdout_0_3_16()[:5]:
        for old, new in names.items():
            line = line.replace(old, new)
        lines.append((t, b"0.%02d.%03d.000 I " % (t // 10**6, t // 1000 % 1000) + line))
    timing = b"".join(b"0.04.000.100 I " + line for line in TIMING.splitlines(keepends=True))
    return stdout_0_3_16()[5:], [*lines, (4_000_100, timing)]


SENSOR_FIELDS = ("name", "group", "path", "quantity", "component", "unit", "scale", "kind")
IDENTITY: dict[str, Any] = {
    "format": 1,
    "id": "bench",
    "kind": "local",
    "groups": {"cpu": {"period_ms": 100}, "battery": {"period_ms": 200}},
    "sensors": [
        dict(zip(SENSOR_FIELDS, sensor, strict=True))
        for sensor in (
            ("cpu.total.user", "cpu", "/proc/stat", "cpu_time", "cpu.user", "s", 0.01, "counter"),
            ("proc.utime", "cpu", "/proc/{pid}/stat", "workload_cpu_time", "user", "s", 0.01, "counter"),
            ("proc.rss", "cpu", "/proc/{pid}/statm", "workload_rss", "workload", "B", 4096, "gauge"),
            ("thermal.cpu", "cpu", "/sys/zone0/temp", "temperature", "cpu.zone0", "degC", 0.001, "gauge"),
            ("battery.current", "battery", "/sys/bat/current", "current", "battery", "A", 1e-6, "gauge"),
            ("battery.voltage", "battery", "/sys/bat/voltage", "voltage", "battery", "V", 1e-6, "gauge"),
            ("battery.status", "battery", "/sys/bat/status", "battery_status", "battery", "text", 1, "text"),
        )
    ],
    "missing": [{"quantity": "gpu_busy", "component": "gpu", "reason": "no GPU node can be read"}],
}  # fmt: skip


def sensor_files(
    wall_us: int, start_us: int, *, current_ua: int, every_us: int = 100_000
) -> dict[str, bytes]:
    """Sensor CSVs: two cores of user time, the workload at 150 %, 4 V, temperature rising 1 K/s from 40."""
    cpu = ["t_us,cpu.total.user,proc.utime,proc.rss,thermal.cpu"]
    battery = ["t_us,battery.current,battery.voltage"]
    cpu.extend(
        f"{start_us + t},{t * 200 / 1e6},{t * 150 / 1e6},{25600 + t // 1000},{40000 + t // 1000}"
        for t in range(0, wall_us, every_us)
    )
    battery.extend(f"{start_us + t},{current_ua},4000000" for t in range(0, wall_us, 2 * every_us))
    wake = ["t_us,late_us", *(f"{start_us + t},{100 + t // 16_667 % 7}" for t in range(0, wall_us, 16_667))]
    return {
        name: ("\n".join(lines) + "\n").encode()
        for name, lines in (("cpu.csv", cpu), ("battery.csv", battery), ("wake.csv", wake))
    }


def write_run(
    folder: Path,
    seen: Output,
    *,
    role: str = "measured",
    budget: int = BUDGET,
    current_ua: int = 500_000,
    start_us: int = 7_000_000_000,
    files: Mapping[str, bytes] | None = None,
    expected: int | None = None,
    idle: str | None = None,
    texts: Sequence[tuple[int, str, str]] = ((-500, "battery.status", "Discharging"),),
    noted: Mapping[str, Any] | None = None,
) -> str:
    """Write a complete raw run and return the sha256 of its meta.json.

    `idle` is what `meta.json` names as the run's baseline, `noted` what else it says; `texts` are (t_us from
    the start, sensor, value).
    """
    folder.mkdir(parents=True)
    content = dict(
        files if files is not None else sensor_files(seen.wall_us, start_us, current_ua=current_ua)
    )
    events: list[dict[str, Any]] = [{"t_us": start_us, "event": "start", "pid": 2}]
    for name, each in (("stdout", seen.stdout), ("stderr", seen.stderr)):
        offset = 0
        for end, t in zip(each.ends.tolist(), each.times.tolist(), strict=True):
            events.append(
                {
                    "t_us": start_us + t,
                    "event": "chunk",
                    "stream": name,
                    "offset": offset,
                    "length": end - offset,
                }
            )
            offset = end
    events += [{"t_us": start_us + t, "event": "text", "sensor": s, "value": v} for t, s, v in texts]
    events.append({"t_us": start_us + seen.wall_us, "event": "end", "exited": True, "status": 0})
    events.sort(key=lambda event: event["t_us"])
    groups = {
        name[:-4]: {"expected": expected or data.count(b"\n") - 1, "samples": data.count(b"\n") - 1}
        for name, data in content.items()
        if name != "wake.csv"
    }
    cells = {
        name: column
        for file, data in content.items()
        if file != "wake.csv"
        for name, *column in zip(*(line.split(",") for line in data.decode().splitlines()), strict=True)
        if name != "t_us"
    }
    readings = {name: {"reads": len(c), "unreadable": c.count(""), "changes": 0} for name, c in cells.items()}
    probe = {
        "format": 1, "start_us": start_us, "end_us": start_us + seen.wall_us, "exited": seen.exited,
        "status": seen.status, "signal": seen.signal, "deadline_hit": seen.deadline_hit, "probe_cpu_us": 5000,
        "groups": groups, "sensors": readings,
    }  # fmt: skip
    content |= {
        "stdout": seen.stdout.data,
        "stderr": seen.stderr.data,
        "events.jsonl": "".join(json.dumps(event) + "\n" for event in events).encode(),
        "probe.json": json.dumps(probe).encode(),
    }
    for name, data in content.items():
        (folder / name).write_bytes(data)
    meta = {
        "format": 1,
        "key": folder.parent.name,
        "number": int(folder.name),
        "role": role,
        "idle": idle,
        **(noted or {}),
        "key_inputs": {
            "workload": {"id": "idle"}
            if role == "idle"
            else {"id": "w", "max_tokens": budget, "ignore_eos": True}
        },
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            for name, data in content.items()
        },
    }
    data = json.dumps(meta).encode()
    (folder / "meta.json").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def idle_output(wall_us: int = 3_000_000) -> Output:
    """A run that prints nothing."""
    return output([], [], wall_us)


CELL = {
    "cell": "bench.llama-aaaaaaaa", "device": "bench", "device_kind": "local", "framework": "llama.cpp",
    "version": "0.3.16", "backend": "cpu", "build": "llama.cpp-0.3.16-cpu-x", "adapter": "llamacpp",
    "model": "nano", "weights_kind": "synthetic", "quantisation": "Q4_0", "workload": "w",
    "settings": "threads=2",
}  # fmt: skip


def write_block(results: Path, repeats: int = 3, seen: Output | None = None, **options: Any) -> None:
    """Write an experiment `x` of one device and cell: an idle run, a warm-up and `repeats` measured runs."""
    seen = seen or output(stdout_0_3_16(), stderr_0_3_16())
    runs = []
    plan = [("idle", None), ("warmup", CELL["cell"]), *[("measured", CELL["cell"])] * repeats]
    for position, (role, cell) in enumerate(plan):
        key = ("1" if role == "idle" else "2") * 64
        number = position if role == "idle" else position - 1
        is_idle = role == "idle"
        sha = write_run(
            results / "raw" / key / f"{number:02d}",
            idle_output() if is_idle else seen,
            role=role,
            idle=None if is_idle else "1" * 64 + "/00",
            current_ua=100_000 if is_idle else 500_000,
            **({} if is_idle else options),
        )
        rounds = max(0, position - 1)
        runs.append(
            {
                "run": f"{key}/{number:02d}",
                "cell": cell,
                "role": role,
                "round": rounds,
                "position": position,
                "meta_sha256": sha,
            }
        )
    for path, value in (
        ("x/blocks/bench.json", {"format": 1, "experiment": "x", "device": "bench", "runs": runs}),
        ("x/cells.json", {"format": 1, "experiment": "x", "cells": [CELL]}),
        ("devices/bench/identity.json", IDENTITY),
    ):
        (results / path).parent.mkdir(parents=True, exist_ok=True)
        (results / path).write_text(json.dumps(value))
